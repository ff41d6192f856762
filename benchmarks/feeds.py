"""The collector's own path, from a frame's bytes to a committed record, without sockets."""

from __future__ import annotations

from collections.abc import Callable

from alphapulse.collectors.feed import Feed
from alphapulse.delta import BookView
from alphapulse.model import BookState, Instrument, RecordType
from alphapulse.shm import RingReader, RingWriter
from benchmarks.harness import ring_prefix
from benchmarks.timing import Call
from benchmarks.traffic import Traffic

RING_BYTES = 64 << 20
WARM_RING_BYTES = 8 << 20
"""Ring that is written over and over, as a ring is that has been in use for long."""

BOOK_RECORDS = (RecordType.SNAPSHOT, RecordType.DELTA)


class FeedRuns:
    """Makes feeds for passes over the same traffic, all on one ring.

    Parameters
    ----------
    traffic : what the venue sent
    writer : the ring

    Attributes
    ----------
    books : each symbol's final book, by its instrument

    Raises
    ------
    RuntimeError
        the traffic doesn't come to its right end
    """

    def __init__(self, traffic: Traffic, writer: RingWriter) -> None:
        self._traffic = traffic
        self._writer = writer
        self._problems: list[str] = []
        self._symbols: frozenset[str] | None = None
        self.books: dict[Instrument, BookView] = {}
        self._explore()

    def warm(self) -> None:
        """Write the ring over once, so that none of its memory is new."""
        while self._writer.position < WARM_RING_BYTES:
            for call in self.calls():
                call.run(*call.arguments)

    def calls(self) -> list[Call]:
        """The calls of one pass with a feed of its own, which has its metadata already."""
        return self._start(self._writer)[1]

    def _explore(self) -> None:
        """Find the symbols, and whether all goes well."""
        venue_name = self._traffic.venue_name
        with (
            ring_prefix() as prefix,
            RingWriter(venue_name, prefix=prefix, size_bytes=RING_BYTES) as writer,
            RingReader(venue_name, prefix=prefix, start="oldest") as reader,
        ):
            feed, calls = self._start(writer)
            for call in calls:
                call.run(*call.arguments)
            views: dict[int, BookView] = {}
            while batch := reader.read():
                for record in batch:
                    if record.type in BOOK_RECORDS:
                        views.setdefault(record.instrument, BookView()).apply(record)
            live = {id_ for id_, state in reader.states.items() if state is BookState.LIVE}
            self.books = {
                reader.instruments[id_]: view for id_, view in views.items() if id_ in live
            }
        self._symbols = frozenset(instrument.symbol for instrument in self.books)
        dead = [one.symbol for one in feed.instruments if one.symbol not in self._symbols]
        if dead or self._problems or feed.counts.checksums_bad:
            raise RuntimeError(f"{self._traffic.name}: {dead} not live, {self._problems[:3]}")

    def _start(self, writer: RingWriter) -> tuple[Feed, list[Call]]:
        traffic = self._traffic
        venue = traffic.venue()
        feed = Feed(venue, writer, symbols=self._symbols, complain=self._complain)
        over_rest = venue.metadata_request() is not None
        for step in traffic.of("metadata"):
            if over_rest:
                feed.rest_metadata(step.raw, step.t_ns)
            else:
                feed.receive(venue.channel([]), step.raw, step.t_ns)
        begun_ns = traffic.steps[0].t_ns
        channel = venue.channel(list(feed.instruments))
        if self._symbols is not None:
            channel = venue.channel([book.instrument for book in feed.books.values()])
            feed.opened(channel, begun_ns)
        rest_snapshot = self._rest_snapshot(feed)
        return feed, [
            Call("snapshot", rest_snapshot, (step.symbol, step.raw, step.t_ns))
            if step.symbol is not None
            else Call(step.kind, feed.receive, (channel, step.raw, step.t_ns))
            for step in traffic.steps
            if step.kind != "metadata"
        ]

    def _rest_snapshot(self, feed: Feed) -> Callable[[str, bytes, int], None]:
        def take(symbol: str, body: bytes, t_ns: int) -> None:
            feed.follow(symbol, t_ns)
            feed.wanted.pop(symbol, None)
            feed.rest_snapshot(feed.books[symbol].instrument, body, t_ns)

        return take

    def _complain(self, symbol: str | None, problem: str) -> None:
        self._problems.append(f"{symbol}: {problem}")
