"""Recorded books through the tracker, against a naive book in decimals and the venue's checksums.

Only the lists of levels are taken from the frames here; what else a venue says is tested with the
collectors.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alphapulse.delta import BookTracker, BookView, ChecksumRule, Encoder, LevelLayout, Part
from alphapulse.errors import PrecisionError
from alphapulse.fixed import decimal_places
from alphapulse.model import BookSide, Instrument, Reason

Levels = list[tuple[str, Decimal, Decimal]]
"""(side, price, size) in the order of the message."""


class Frame(msgspec.Struct):
    """One book's part of a frame: as the tracker and as the naive book take it."""

    symbol: str
    snapshot: bool
    parts: list[Part]
    levels: Levels
    checksum: int | None = None


class NaiveBook:
    """Dictionaries of decimals, sorted and cut after each message."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.sides: dict[str, dict[Decimal, Decimal]] = {"bids": {}, "asks": {}}

    def apply(self, levels: Levels, *, replace: bool) -> None:
        if replace:
            self.sides = {"bids": {}, "asks": {}}
        for side, price, size in levels:
            if size:
                self.sides[side][price] = size
            else:
                self.sides[side].pop(price, None)
        if self.depth:
            self.sides = {side: dict(self.ordered(side)[: self.depth]) for side in self.sides}

    def ordered(self, side: str) -> list[tuple[Decimal, Decimal]]:
        return sorted(self.sides[side].items(), reverse=side == "bids")

    def best(self, side: str, limit: int) -> list[tuple[Decimal, Decimal]]:
        choose = heapq.nlargest if side == "bids" else heapq.nsmallest
        return choose(limit, self.sides[side].items())


class KrakenBook(msgspec.Struct):
    symbol: str
    bids: msgspec.Raw
    asks: msgspec.Raw
    checksum: int


class KrakenFrame(msgspec.Struct):
    type: str
    data: list[KrakenBook]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def instrument(number: int, symbol: str, price_exponent: int, size_exponent: int) -> Instrument:
    return Instrument(
        id=number,
        exchange="venue",
        symbol=symbol,
        venue_symbol=symbol,
        base="BASE",
        quote="QUOTE",
        price_exponent=price_exponent,
        size_exponent=size_exponent,
    )


def kraken_frames(path: Path, trackers: dict[str, BookTracker], depth: int) -> Iterator[Frame]:
    layout = LevelLayout.objects()
    for line in lines(path):
        frame = json.loads(line["raw"], parse_float=Decimal)
        if frame.get("channel") == "instrument":
            for number, pair in enumerate(frame["data"]["pairs"], start=1):
                digits = pair["price_precision"], pair["qty_precision"]
                trackers[pair["symbol"]] = BookTracker(
                    instrument(number, pair["symbol"].replace("/", "-"), *digits),
                    depth=depth,
                    checksum=ChecksumRule(*digits),
                )
        if frame.get("channel") != "book":
            continue
        books = msgspec.json.decode(line["raw"], type=KrakenFrame).data
        for parsed, book in zip(frame["data"], books, strict=True):
            yield Frame(
                book.symbol,
                frame["type"] == "snapshot",
                [(layout, BookSide.BID, book.bids), (layout, BookSide.ASK, book.asks)],
                [
                    (side, level["price"], level["qty"])
                    for side in ("bids", "asks")
                    for level in parsed[side]
                ],
                book.checksum,
            )


def coinbase_frames(path: Path, trackers: dict[str, BookTracker]) -> Iterator[Frame]:
    pairs, sided = LevelLayout.pairs(), LevelLayout.sided()
    for line in lines(path):
        frame = json.loads(line["raw"])
        if line["src"] == "rest":
            for number, product in enumerate(frame, start=1):
                trackers[product["id"]] = BookTracker(
                    instrument(
                        number,
                        product["id"],
                        decimal_places(product["quote_increment"]),
                        decimal_places(product["base_increment"]),
                    )
                )
        elif frame["type"] == "snapshot":
            parts: list[Part] = [
                (pairs, BookSide.BID, json.dumps(frame["bids"]).encode()),
                (pairs, BookSide.ASK, json.dumps(frame["asks"]).encode()),
            ]
            levels = [
                (side, Decimal(price), Decimal(size))
                for side in ("bids", "asks")
                for price, size in frame[side]
            ]
            yield Frame(frame["product_id"], True, parts, levels)
        elif frame["type"] == "l2update":
            levels = [
                ("bids" if side == "buy" else "asks", Decimal(price), Decimal(size))
                for side, price, size in frame["changes"]
            ]
            parts = [(sided, None, json.dumps(frame["changes"]).encode())]
            yield Frame(frame["product_id"], False, parts, levels)


def publish(tracker: BookTracker, frame: Frame) -> Iterator[Encoder]:
    """The records of a frame; where digits are lacking the instrument is rescaled first."""
    while True:
        try:
            if frame.snapshot:
                yield tracker.load(frame.parts, reason=Reason.SUBSCRIBED, checksum=frame.checksum)
            else:
                record = tracker.update(frame.parts, checksum=frame.checksum)
                if record is not None:
                    yield record
        except PrecisionError as error:
            wider = msgspec.structs.replace(
                tracker.instrument, **{f"{error.field}_exponent": error.needed}
            )
            if tracker.ready:
                yield tracker.rescaled(wider)
            else:
                tracker.instrument = wider
        else:
            return


def decimals(tracker: BookTracker, side: str, limit: int = 0) -> list[tuple[Decimal, Decimal]]:
    held = tracker.book.bids(limit) if side == "bids" else tracker.book.asks(limit)
    scale = tracker.instrument
    return [(scale.price(price), scale.size(size)) for price, size in held]


def play(frames: Iterator[Frame], trackers: dict[str, BookTracker], depth: int) -> list[int]:
    """Check every book after every frame; gives the lengths of the delta records."""
    naive: dict[str, NaiveBook] = {}
    views: dict[str, BookView] = {}
    lengths = []
    for frame in frames:
        tracker = trackers[frame.symbol]
        view = views.setdefault(frame.symbol, BookView())
        for record in publish(tracker, frame):
            if not frame.snapshot:
                lengths.append(len(record))
            assert view.apply(record)
        oracle = naive.setdefault(frame.symbol, NaiveBook(depth))
        oracle.apply(frame.levels, replace=frame.snapshot)
        assert view.version == tracker.version
        assert view.book.digest() == tracker.book.digest()
        for side in ("bids", "asks"):
            assert decimals(tracker, side, 20) == oracle.best(side, 20)
    for symbol, oracle in naive.items():
        for side in ("bids", "asks"):
            assert decimals(trackers[symbol], side) == oracle.ordered(side)
    return lengths


def assert_expected(trackers: dict[str, BookTracker], path: Path) -> None:
    expected = json.loads(path.read_text())["books"]
    books = {tracker.instrument.symbol: tracker for tracker in trackers.values()}
    for symbol, sides in expected.items():
        for side in ("bids", "asks"):
            wanted = [(Decimal(price), Decimal(size)) for price, size in sides[side]]
            assert decimals(books[symbol], side) == wanted


@pytest.mark.parametrize(
    ("name", "depth", "checksums"), [("kraken", 1000, 2600), ("kraken-btcusd-depth10", 10, 201)]
)
def test_kraken_books_and_all_checksums(
    captures: Path, name: str, depth: int, checksums: int
) -> None:
    trackers: dict[str, BookTracker] = {}
    frames = list(kraken_frames(captures / f"{name}.jsonl", trackers, depth))
    assert sum(frame.checksum is not None for frame in frames) == checksums
    lengths = play(iter(frames), trackers, depth)
    assert_expected(trackers, captures / f"{name}.expected.json")
    # A delta is small: a header of 40 bytes and some 13 for the usual change or two.
    assert sum(lengths) / len(lengths) < 60


def test_kraken_checksums_fail_without_truncation(captures: Path) -> None:
    trackers: dict[str, BookTracker] = {}
    frames = kraken_frames(captures / "kraken-btcusd-depth10.jsonl", trackers, 0)
    with pytest.raises(Exception, match="the venue's checksum is"):
        play(frames, trackers, 0)


def test_coinbase_books(captures: Path) -> None:
    trackers: dict[str, BookTracker] = {}
    lengths = play(coinbase_frames(captures / "coinbase.jsonl", trackers), trackers, 0)
    assert_expected(trackers, captures / "coinbase.expected.json")
    assert sum(lengths) / len(lengths) < 60
