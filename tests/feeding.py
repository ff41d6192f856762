"""A venue's feed on a real ring, for tests: frames in, the ring's events out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from alphapulse.collectors.feed import Feed
from alphapulse.collectors.registry import make_venue
from alphapulse.collectors.venue import Venue
from alphapulse.config import VenuesSettings
from alphapulse.model import (
    Action,
    BookDelta,
    BookSnapshot,
    BookState,
    Event,
    Gap,
    Instrument,
    Reason,
    StateChange,
    Trade,
)
from alphapulse.shm import RingReader, RingWriter

NOW_NS = 1_700_000_000_000_000_000
RING_BYTES = 1 << 20


class FeedOnRing:
    """A feed that follows some instruments, its ring, and a reader of all that is written.

    Parameters
    ----------
    prefix : of the ring's name
    venue : the venue, or its name
    instruments : as the venue's metadata would list them; all are followed
    """

    def __init__(
        self,
        prefix: str,
        venue: str | Venue,
        instruments: Iterable[Instrument],
        settings: VenuesSettings | None = None,
    ) -> None:
        self.now_ns = NOW_NS
        self.complaints: list[tuple[str | None, str]] = []
        if isinstance(venue, str):
            venue = make_venue(venue, settings or VenuesSettings())
        self.venue = venue
        self.writer = RingWriter(venue.name, prefix=prefix, size_bytes=RING_BYTES)
        self.reader = RingReader(venue.name, prefix=prefix, start="oldest")
        listed = list(instruments)
        self.feed = Feed(
            self.venue,
            self.writer,
            symbols={instrument.symbol for instrument in listed},
            complain=lambda symbol, problem: self.complaints.append((symbol, problem)),
        )
        self.feed.define(listed, self.now_ns)
        self.channel = self.venue.channel(listed)
        self.feed.opened(self.channel, self.now_ns)
        self.started = self.events()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()

    def __enter__(self) -> FeedOnRing:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def send(self, *frames: dict[str, Any] | bytes) -> list[Event]:
        """What the ring says after these frames, heartbeats and repeats apart."""
        for frame in frames:
            data = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
            self.now_ns += 1_000_000
            self.feed.receive(self.channel, data, self.now_ns)
        return self.events()

    def events(self) -> list[Event]:
        """What the ring says since the last look."""
        found: list[Event] = []
        while batch := self.reader.read():
            found += batch.events()
        return found


def states(events: Iterable[Event]) -> list[tuple[str, BookState, Reason]]:
    """(symbol, state, reason) of each change of state."""
    return [
        (event.instrument.symbol, event.state, event.reason)
        for event in events
        if isinstance(event, StateChange)
    ]


def deltas(events: Iterable[Event]) -> list[BookDelta]:
    return [event for event in events if isinstance(event, BookDelta)]


def snapshots(events: Iterable[Event]) -> list[BookSnapshot]:
    return [event for event in events if isinstance(event, BookSnapshot)]


def gaps(events: Iterable[Event]) -> list[Gap]:
    return [event for event in events if isinstance(event, Gap)]


def trade_ids(events: Iterable[Event]) -> list[int]:
    return [int(event.trade_id) for event in events if isinstance(event, Trade)]


class Rebuilt:
    """Books rebuilt from snapshots and deltas alone, strictly: any contradiction fails."""

    def __init__(self) -> None:
        self.books: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
        self.versions: dict[str, int] = {}
        self.states: dict[str, BookState] = {}

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, StateChange):
                self.states[event.instrument.symbol] = event.state
            elif isinstance(event, BookSnapshot):
                self._snapshot(event)
            elif isinstance(event, BookDelta):
                self._delta(event)

    def _snapshot(self, event: BookSnapshot) -> None:
        symbol = event.instrument.symbol
        if event.repeat and self.versions.get(symbol) == event.version:
            assert self.books[symbol] == (dict(event.bids), dict(event.asks))
            return
        self.books[symbol] = (dict(event.bids), dict(event.asks))
        self.versions[symbol] = event.version

    def _delta(self, event: BookDelta) -> None:
        symbol = event.instrument.symbol
        assert self.states[symbol] is BookState.LIVE, f"{symbol}: a delta of a book not live"
        assert event.prev_version == self.versions[symbol], f"{symbol}: the chain is broken"
        self.versions[symbol] = event.version
        assert event.changes, f"{symbol}: a delta without changes"
        for change in event.changes:
            side = self.books[symbol][change.side - 1]
            before = side.get(change.price)
            if change.action is Action.REMOVE:
                assert before is not None
                assert change.size == 0
                del side[change.price]
            else:
                assert (before is None) == (change.action is Action.ADD)
                assert change.size not in (0, before)
                side[change.price] = change.size
