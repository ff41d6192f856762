"""A collector against a simulated venue, and a reader of its ring that checks every step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import msgspec

from alphapulse.collectors.daemon import run_venue
from alphapulse.config import MetricsSettings, RingSettings, Settings, VenuesSettings
from alphapulse.errors import RingNotFound
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Event,
    Gap,
    Heartbeat,
    Overrun,
    Reason,
    StateChange,
    Trade,
)
from alphapulse.shm import Position, RingReader
from alphapulse.simulators import FinalBook, VenueSimulator

TIMEOUT_SECONDS = 30.0

SMALL_TIMERS: dict[str, Any] = {
    "silence_seconds": 3.0,
    "pong_timeout_seconds": 2.0,
    "acknowledge_timeout_seconds": 3.0,
    "backoff_first_seconds": 0.05,
    "backoff_max_seconds": 0.5,
}


def settings_for(simulator: VenueSimulator, prefix: str, **venue: Any) -> Settings:
    """Settings that collect one simulated venue, with short timers."""
    return settings_at(simulator.exchange, simulator.ws_url, simulator.rest_url, prefix, **venue)


def settings_at(exchange: str, ws_url: str, rest_url: str, prefix: str, **venue: Any) -> Settings:
    """Settings that collect one venue at these addresses, and nothing else."""
    every = VenuesSettings()
    names = every.__struct_fields__
    sections = {
        name: msgspec.structs.replace(getattr(every, name), enabled=False) for name in names
    }
    chosen = {**SMALL_TIMERS, "enabled": True, "ws_url": ws_url, "rest_url": rest_url, **venue}
    sections[exchange] = msgspec.structs.replace(sections[exchange], **chosen)
    return Settings(
        ring=RingSettings(prefix=prefix, size_bytes=8 << 20),
        venues=VenuesSettings(**sections),
        metrics=MetricsSettings(sample_seconds=1.0),
    )


class Follower:
    """Reads a ring and rebuilds its books; a broken promise fails the test.

    Attributes
    ----------
    events : everything read, but for heartbeats
    heartbeats : how many were read, one a second
    """

    def __init__(
        self, venue: str, prefix: str, start: Any = "oldest", *, keep_events: bool = True
    ) -> None:
        self.reader = RingReader(venue, prefix=prefix, start=start)
        self.events: list[Event] = []
        self.heartbeats = 0
        self.states: dict[str, tuple[BookState, Reason]] = {}
        self.trades: dict[str, list[Trade]] = {}
        self.overruns: list[Overrun] = []
        self._keep = keep_events
        self._books: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
        self._versions: dict[str, int] = {}
        self._exponents: dict[str, Any] = {}

    def close(self) -> None:
        self.reader.close()

    @property
    def position(self) -> Position:
        return self.reader.position

    async def until(self, condition: Callable[[], Any]) -> None:
        """Read on until the condition holds; asked after each batch."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                self.read()
                if condition():
                    return
                await self.reader.ready()

    def read(self) -> None:
        """Take all that is there."""
        while batch := self.reader.read():
            for event in batch.events():
                self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Overrun):
            self.overruns.append(event)
            self._books.clear()
            self._versions.clear()
            self.states.clear()
        elif isinstance(event, BookSnapshot):
            self._snapshot(event)
        elif isinstance(event, BookDelta):
            self._delta(event)
        elif isinstance(event, StateChange):
            symbol = event.instrument.symbol
            self.states[symbol] = (event.state, event.reason)
        elif isinstance(event, Trade):
            self.trades.setdefault(event.instrument.symbol, []).append(event)
        elif isinstance(event, Heartbeat):
            self.heartbeats += 1
            return
        if self._keep:
            self.events.append(event)

    def _snapshot(self, event: BookSnapshot) -> None:
        symbol = event.instrument.symbol
        if event.repeat and self._versions.get(symbol) == event.version:
            bids, asks = self._books[symbol]
            assert (bids, asks) == (dict(event.bids), dict(event.asks)), f"{symbol}: repeat differs"
            return
        self._books[symbol] = dict(event.bids), dict(event.asks)
        self._versions[symbol] = event.version
        self._exponents[symbol] = event.instrument

    def _delta(self, event: BookDelta) -> None:
        symbol = event.instrument.symbol
        state = self.states.get(symbol)
        assert state is None or state[0] is BookState.LIVE, f"{symbol}: a delta while {state}"
        assert event.prev_version == self._versions[symbol], f"{symbol}: the chain is broken"
        self._versions[symbol] = event.version
        for change in event.changes:
            side = self._books[symbol][0 if change.side is BookSide.BID else 1]
            if change.action is Action.REMOVE:
                del side[change.price]
            else:
                assert (change.action is Action.UPDATE) == (change.price in side)
                side[change.price] = change.size

    def book(self, symbol: str, depth: int | None = None) -> FinalBook:
        """A book in decimals, best first."""
        if symbol not in self._books:
            return FinalBook([], [])
        instrument = self._exponents[symbol]
        bids, asks = self._books[symbol]

        def levels(side: dict[int, int], reverse: bool) -> list[tuple[Decimal, Decimal]]:
            found = sorted(side.items(), reverse=reverse)[:depth]
            return [(instrument.price(price), instrument.size(size)) for price, size in found]

        return FinalBook(levels(bids, True), levels(asks, False))

    def is_live(self, *symbols: str) -> bool:
        """Whether these books are live."""
        return all(self.states.get(symbol, (None,))[0] is BookState.LIVE for symbol in symbols)

    def history(self, symbol: str) -> list[tuple[BookState, Reason]]:
        """States of a symbol, in order."""
        return [
            (event.state, event.reason)
            for event in self.events
            if isinstance(event, StateChange) and event.instrument.symbol == symbol
        ]

    def gaps(self, symbol: str | None = None) -> list[Gap]:
        """Gaps of a symbol, or those of none."""
        return [
            event
            for event in self.events
            if isinstance(event, Gap)
            and (event.instrument.symbol if event.instrument else None) == symbol
        ]


class Collecting:
    """A collector at work on a simulated venue.

    Parameters
    ----------
    simulator : the venue
    settings : what the collector runs with
    """

    def __init__(self, simulator: VenueSimulator, settings: Settings) -> None:
        self.simulator = simulator
        self.settings = settings
        self.exchange = simulator.exchange
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(run_venue(self.exchange, settings, stop=self.stop))
        self._follower: Follower | None = None

    @property
    def follower(self) -> Follower:
        """The reader of its ring."""
        assert self._follower is not None, "attach first"
        return self._follower

    async def attach(self) -> None:
        """Follow the ring, as soon as there is one."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while self._follower is None:
                await asyncio.sleep(0)
                if self.task.done():
                    self.task.result()
                with suppress(RingNotFound):
                    self._follower = Follower(self.exchange, self.settings.ring.prefix)

    def detach(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.close()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Read on until the condition holds; the collector must not end before."""
        waiting = asyncio.create_task(self.follower.until(condition))
        done, _ = await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            self.task.result()
            raise AssertionError("the collector has ended")
        await waiting

    async def venue_until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds at the venue; asked whenever the collector did something."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self.simulator.wait_until(condition)

    async def until_heartbeats(self, count: int) -> None:
        """Read on until so many more of the ring's heartbeats have come."""
        wanted = self.follower.heartbeats + count
        await self.until(lambda: self.follower.heartbeats >= wanted)

    async def until_live(self, *symbols: str) -> None:
        """Wait until these books are live."""
        await self.until(lambda: self.follower.is_live(*symbols))

    async def until_equal(self, *symbols: str, depth: int | None = None) -> None:
        """Let the market rest and wait until the books are live and the venue's."""
        self.simulator.pause()

        def equal() -> bool:
            return self.follower.is_live(*symbols) and all(
                self.follower.book(symbol) == self.simulator.book(symbol, depth)
                for symbol in symbols
            )

        try:
            await self.until(equal)
        finally:
            self.simulator.resume()


@asynccontextmanager
async def collecting(
    simulator: VenueSimulator, prefix: str, **venue: Any
) -> AsyncIterator[Collecting]:
    """Run a simulator and a collector on it, which must stop cleanly, and is read to its end."""
    async with simulator:
        at_work = Collecting(simulator, settings_for(simulator, prefix, **venue))
        try:
            await at_work.attach()
            yield at_work
            at_work.stop.set()
            async with asyncio.timeout(5):
                await at_work.task
            at_work.follower.read()
        finally:
            at_work.task.cancel()
            await asyncio.gather(at_work.task, return_exceptions=True)
            at_work.detach()
