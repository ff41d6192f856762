"""A feed on recorded traffic of many symbols, played against a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from alphapulse.clock import wall_ns
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.venue import Channel
from alphapulse.shm import RingWriter
from alphapulse.simulators.specs import pair_specs
from benchmarks import traffic
from benchmarks.harness import ring_prefix

_RING_BYTES = 64 << 20


class Clock:
    """Time that passes as it is told to."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


class Played(NamedTuple):
    """A feed whose books are live, and the frames that follow.

    Attributes
    ----------
    steps : updates and whatever else comes between them
    """

    feed: Feed
    channel: Channel
    steps: list[traffic.Step]


def play(recorded: traffic.Traffic, symbols: int, writer: RingWriter, now_ns: int) -> Played:
    """A feed on which the traffic was played up to the last of the first snapshots.

    Raises
    ------
    RuntimeError
        a frame of the beginning could not be used
    """
    problems: list[str] = []
    venue = recorded.venue()
    feed = Feed(
        venue,
        writer,
        symbols={spec.symbol for spec in pair_specs(symbols)},
        complain=lambda symbol, problem: problems.append(f"{symbol}: {problem}"),
    )
    for step in recorded.of("metadata"):
        if venue.metadata_request() is not None:
            feed.rest_metadata(step.raw, now_ns)
        else:
            feed.receive(venue.channel([]), step.raw, now_ns)
    channel = venue.channel([book.instrument for book in feed.books.values()])
    steps = [step for step in recorded.steps if step.kind != "metadata"]
    first = 1 + max(at for at, step in enumerate(steps) if step.kind == "snapshot")
    played = Played(feed, channel, steps[first:])
    begin(played, steps[:first], now_ns)
    if problems or len(feed.books) != symbols:
        raise RuntimeError(f"{len(feed.books)} books of {symbols}, {problems[:3]}")
    return played


def begin(played: Played, steps: list[traffic.Step], now_ns: int) -> None:
    """Connect anew and take the snapshots."""
    feed = played.feed
    feed.opened(played.channel, now_ns)
    for step in steps:
        if step.symbol is None:
            feed.receive(played.channel, step.raw, now_ns)
        else:
            feed.resyncing(step.symbol, now_ns)
            feed.rest_snapshot(feed.books[step.symbol].instrument, step.raw, now_ns)


@contextmanager
def ring_writer(venue: str, clock: Clock | None = None) -> Iterator[RingWriter]:
    """A ring of the default size under a prefix of its own."""
    with (
        ring_prefix() as prefix,
        RingWriter(venue, prefix=prefix, size_bytes=_RING_BYTES, clock=clock or wall_ns) as writer,
    ):
        yield writer
