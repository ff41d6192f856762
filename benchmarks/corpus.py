"""A venue's traffic as book updates: the venue's frame, our record and what it says, the book."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from alphapulse.delta import BookView, decode
from alphapulse.fixed import format_decimal
from alphapulse.model import BookDelta, Instrument, RecordType
from alphapulse.shm import Batch, RingReader, RingWriter
from benchmarks.feeds import BOOK_RECORDS, RING_BYTES, FeedRuns
from benchmarks.harness import ring_prefix
from benchmarks.traffic import Traffic

BOOKS = 4
"""At how many moments the whole book is kept."""

JsonBook = dict[str, list[list[str]]]
"""A book as venues write it: [price, size] in decimal text, by side."""


class Corpus(NamedTuple):
    """Updates that changed a book."""

    exchange: str
    instruments: Mapping[int, Instrument]
    frames: list[bytes]
    """The venue's frame of each update."""
    deltas: list[BookDelta]
    """The same updates."""
    records: list[tuple[int, bool, bytes]]
    """All snapshots and deltas in order: instrument's id, whether a delta, record."""
    books: list[JsonBook]
    """The whole book of an updated symbol, at some moments that lie evenly."""


def collect(traffic: Traffic) -> Corpus:
    """Put traffic through a feed and a ring."""
    venue_name = traffic.venue_name
    with (
        ring_prefix() as prefix,
        RingWriter(venue_name, prefix=prefix, size_bytes=RING_BYTES) as writer,
        RingReader(venue_name, prefix=prefix, start="oldest") as reader,
    ):
        corpus = Corpus(venue_name, reader.instruments, [], [], [], [])
        views: dict[int, BookView] = {}
        calls = FeedRuns(traffic, writer).calls()
        every = max(len(calls) // BOOKS, 1)
        for number, call in enumerate(calls, start=1):
            call.run(*call.arguments)
            while batch := reader.read():
                _take(batch, call.arguments[1], corpus, views)
            if number % every == 0 and corpus.deltas:
                instrument = corpus.deltas[-1].instrument
                corpus.books.append(_json_book(views[instrument.id], instrument))
        return corpus._replace(instruments=dict(reader.instruments))


def _take(batch: Batch, frame: bytes, corpus: Corpus, views: dict[int, BookView]) -> None:
    for record in batch:
        if record.type not in BOOK_RECORDS:
            continue
        is_delta = record.type == RecordType.DELTA
        corpus.records.append((record.instrument, is_delta, bytes(record)))
        views.setdefault(record.instrument, BookView()).apply(record)
        if is_delta:
            corpus.frames.append(frame)
            delta = decode(record, batch.instruments, batch.exchange)
            assert isinstance(delta, BookDelta)
            corpus.deltas.append(delta)


def _json_book(view: BookView, instrument: Instrument) -> JsonBook:
    return {
        side: [
            [
                format_decimal(price, instrument.price_exponent),
                format_decimal(size, instrument.size_exponent),
            ]
            for price, size in levels
        ]
        for side, levels in (("bids", view.bids()), ("asks", view.asks()))
    }
