"""What clients of other kinds remember: of records, and of the books of all exchanges together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from alphapulse.delta import BookView, decode, decode_header
from alphapulse.model import (
    BookDelta,
    BookSnapshot,
    Event,
    Instrument,
    InstrumentDefined,
    StateChange,
)
from alphapulse.shm import ring_id
from tests.streaming import Books, Exchange, book_of


class RecordConsumer:
    """A binary client's memory: the same, from records; text messages are kept as they are."""

    def __init__(self, exchanges: Iterable[Exchange] = (), depth: int | None = None) -> None:
        self.exchanges = {each.exchange: each for each in exchanges}
        self.depth = depth
        self.texts: list[dict[str, Any]] = []
        self.records: list[bytes] = []
        self.events: list[Event] = []
        self.books: dict[tuple[str, str], BookView] = {}
        self.states: dict[tuple[str, str], str] = {}
        self.passed_over: set[tuple[str, str]] = set()
        """Books of which nothing counts before their next snapshot."""
        self.epochs: dict[str, int] = {}
        self._instruments: dict[str, dict[int, Instrument]] = {}
        self._rings = {ring_id(name): name for name in self.exchanges}

    def take(self, message: str | bytes) -> None:
        """Take a message."""
        if isinstance(message, bytes):
            self._record(message)
            return
        text = json.loads(message)
        self.texts.append(text)
        if text["type"] == "subscribed":
            self.epochs.update(text["epochs"])
        elif text["type"] == "epoch":
            self.epochs[text["exchange"]] = text["epoch"]
            self._instruments.pop(text["exchange"], None)

    def current(self, exchange: str, symbol: str, version: int) -> bool:
        """Whether the book holds all that this version changed."""
        book = self.books.get((exchange, symbol))
        history = self.exchanges[exchange].history
        if book is None or (self.epochs[exchange], symbol, version) not in history:
            return False
        return self._equals(exchange, symbol, book, version)

    def _record(self, data: bytes) -> None:
        self.records.append(data)
        header = decode_header(data)
        assert header.length == len(data), "one record a message, without padding"
        exchange = self._rings[header.ring_id]
        known = self._instruments.setdefault(exchange, {})
        event = decode(data, known, exchange)
        assert event is not None
        self.events.append(event)
        if isinstance(event, InstrumentDefined):
            known[event.instrument.id] = event.instrument
        elif isinstance(event, StateChange):
            self.states[exchange, event.instrument.symbol] = event.state.text
        elif isinstance(event, BookSnapshot | BookDelta):
            symbol = event.instrument.symbol
            if (exchange, symbol) in self.passed_over:
                if isinstance(event, BookDelta):
                    return
                self.passed_over.remove((exchange, symbol))
                self.states[exchange, symbol] = "live"
            book = self.books.setdefault((exchange, symbol), BookView())
            assert isinstance(event, BookSnapshot) or (
                self.states.get((exchange, symbol), "live") == "live"
            ), "a delta of a book that isn't live"
            book.apply(data)
            assert self._equals(exchange, symbol, book, book.version)

    def _equals(self, exchange: str, symbol: str, book: BookView, version: int) -> bool:
        epoch = self.epochs[exchange]
        bids, asks = self.exchanges[exchange].history[epoch, symbol, version]
        expected = book_of(
            dict(sorted(bids.items(), reverse=True)[: self.depth]),
            dict(sorted(asks.items())[: self.depth]),
        )
        return book.book.digest() == expected.digest()


Quotes = dict[Decimal, dict[str, Decimal]]
"""Who quotes how much, by price."""


class ConsolidatedConsumer:
    """A client's memory of books of all exchanges together.

    Parameters
    ----------
    depth : levels a side that were subscribed to; None for all
    """

    def __init__(self, depth: int | None = None) -> None:
        self.depth = depth
        self.events: list[dict[str, Any]] = []
        self.books: dict[str, dict[str, Quotes]] = {}
        self.versions: dict[str, int] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.states: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []

    def take(self, message: str | bytes) -> None:
        """Take a message."""
        event = json.loads(message, parse_float=Decimal, parse_int=Decimal)
        self.events.append(event)
        data = event.get("data", {})
        if data.get("exchange") != "all":
            return
        symbol = data["symbol"]
        if event["type"] == "orderbook_snapshot":
            self._snapshot(symbol, data)
        elif event["type"] == "orderbook_delta":
            self._delta(symbol, data)
        elif event["type"] == "state":
            self.states[symbol] = data["state"]

    def _snapshot(self, symbol: str, data: dict[str, Any]) -> None:
        self._parts.append(data)
        if data.get("parts", 1) > len(self._parts):
            return
        self.sources[symbol] = data["sources"]
        self.versions[symbol] = int(data["version"])
        book: dict[str, Quotes] = {}
        for name in ("bids", "asks"):
            levels = [level for part in self._parts for level in part[name]]
            book[name] = {price: who for price, _, who in levels}
            assert list(book[name]) == sorted(book[name], reverse=name == "bids")
            for _, total, who in levels:
                assert who
                assert total == sum(who.values())
        self.books[symbol] = book
        self._parts = []

    def _delta(self, symbol: str, data: dict[str, Any]) -> None:
        assert data["prev_version"] == self.versions[symbol], "a hole or a repeat"
        assert data["changes"]
        self.versions[symbol] = int(data["version"])
        for change in data["changes"]:
            side = self.books[symbol][f"{change['side']}s"]
            price, who = change["price"], change["exchanges"]
            assert change["volume"] == sum(who.values())
            assert side.get(price) != who, "a change that changes nothing"
            assert change["action"] == (
                "remove" if not who else "update" if price in side else "add"
            )
            if who:
                side[price] = who
            else:
                del side[price]
        if self.depth is not None:
            assert all(len(side) <= self.depth for side in self.books[symbol].values())


def consolidated(
    books: dict[str, tuple[Instrument, Books]], depth: int | None
) -> dict[str, Quotes]:
    """The sum of exchanges' books, best first."""
    sides: list[Quotes] = [{}, {}]
    for exchange, (instrument, levels) in books.items():
        for side, own in zip(sides, levels, strict=True):
            for price, size in own.items():
                side.setdefault(instrument.price(price), {})[exchange] = instrument.size(size)
    bids, asks = sides
    return {
        "bids": {price: bids[price] for price in sorted(bids, reverse=True)[:depth]},
        "asks": {price: asks[price] for price in sorted(asks)[:depth]},
    }
