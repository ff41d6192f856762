"""For tests of the stream: a venue that writes a ring, and a client that trusts nothing.

Both keep books as plain dictionaries. What a client rebuilds from the events it is sent must equal,
version by version, what the venue wrote.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import count
from typing import Any

from alphapulse.delta import (
    Book,
    ChangeSet,
    Encoder,
    LevelStage,
    encode_instrument,
)
from alphapulse.model import (
    Action,
    BookSide,
    BookState,
    Channel,
    Instrument,
    Reason,
    RecordFlag,
    Side,
)
from alphapulse.shm import RingReader, RingWriter
from alphapulse.stream.hub import Hub
from alphapulse.stream.requests import parse_request

Levels = dict[int, int]
Books = tuple[Levels, Levels]
"""Bids and asks, size by price, scaled."""

PRICE_PLACES = 2
SIZE_PLACES = 4


class Exchange:
    """A venue's collector, as far as the ring shows one."""

    def __init__(
        self,
        prefix: str,
        exchange: str = "kraken",
        symbols: Iterable[str] = ("BTC-USD",),
        size_bytes: int = 1 << 20,
        places: tuple[int, int] = (PRICE_PLACES, SIZE_PLACES),
    ) -> None:
        self.exchange = exchange
        self.writer = RingWriter(exchange, prefix=prefix, size_bytes=size_bytes)
        self.instruments: dict[str, Instrument] = {}
        self.books: dict[str, Books] = {}
        self.versions: dict[str, int] = {}
        self.history: dict[tuple[int, str, int], Books] = {}
        """Books by epoch, symbol and version."""
        self._encoder = Encoder()
        self._places = places
        self._ids = count(1)
        self._size_bytes = size_bytes
        self._time_ns = 1_700_000_000_000_000_000
        self._trades = 0
        for symbol in symbols:
            self.list(symbol)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    @property
    def epoch(self) -> int:
        return self.writer.epoch

    def list(self, symbol: str) -> None:
        """Announce an instrument and a live, empty book."""
        base, _, quote = symbol.partition("-")
        self._announce(symbol, base, quote)
        self.versions.setdefault(symbol, 0)
        self.books.setdefault(symbol, ({}, {}))
        self.reset(symbol, *self.books[symbol])
        self.state(symbol, BookState.LIVE, Reason.SUBSCRIBED)

    def _announce(self, symbol: str, base: str, quote: str) -> None:
        instrument = Instrument(
            id=next(self._ids),
            exchange=self.exchange,
            symbol=symbol,
            venue_symbol=f"{base}/{quote}",
            base=base,
            quote=quote,
            price_exponent=self._places[0],
            size_exponent=self._places[1],
        )
        self.instruments[symbol] = instrument
        self._write(encode_instrument(self._encoder, instrument))

    def rescale(self, symbol: str, price_places: int) -> None:
        """Another scale for prices: a new instrument of the same symbol, without its book."""
        base, _, quote = symbol.partition("-")
        self._places = price_places, self._places[1]
        self._announce(symbol, base, quote)

    def succeed(self) -> None:
        """End the ring, and begin another with the same instruments and empty books."""
        self._size_bytes *= 2
        self.writer.enlarge(self._size_bytes)
        symbols = list(self.instruments)
        self.instruments.clear()
        self._ids = count(1)
        for symbol in symbols:
            self.versions[symbol] = 0
            self.books[symbol] = {}, {}
            self.list(symbol)

    def reset(
        self, symbol: str, bids: Levels, asks: Levels, reason: Reason = Reason.SUBSCRIBED
    ) -> None:
        """A resetting snapshot."""
        self.books[symbol] = dict(bids), dict(asks)
        self.versions[symbol] += 1
        self._snapshot(symbol, reason, 0)

    def repeat(self, symbol: str) -> None:
        """The book once more."""
        self._snapshot(symbol, Reason.REPEATED, RecordFlag.REPEAT)

    def change(self, symbol: str, *levels: tuple[BookSide, int, int]) -> None:
        """A delta of (side, price, size), size 0 to remove; nothing if nothing changes."""
        sides = self.books[symbol]
        changes = []
        for side, price, size in levels:
            held = sides[side - 1]
            if held.get(price, 0) != size:
                action = (Action.UPDATE if price in held else Action.ADD) if size else Action.REMOVE
                changes.append((int(side), price, size, int(action)))
                held.pop(price, None)
                if size:
                    held[price] = size
        if not changes:
            return
        changes.sort(key=lambda change: (change[0], change[1] * (-1 if change[0] == 1 else 1)))
        change_set = ChangeSet()
        change_set.assign(changes)
        self.versions[symbol] += 1
        version = self.versions[symbol]
        self._write(
            self._encoder.delta(
                change_set, self.instruments[symbol].id, version, version - 1, **self._times()
            )
        )
        self._remember(symbol)

    def trade(self, symbol: str, price: int = 100, size: int = 5) -> str:
        """A trade; its id."""
        self._trades += 1
        self._write(
            self._encoder.trade(
                self.instruments[symbol].id, price, size, Side.BUY, self._trades, **self._times()
            )
        )
        return str(self._trades)

    def state(self, symbol: str, state: BookState, reason: Reason) -> None:
        """The book's state."""
        self._write(
            self._encoder.state(self.instruments[symbol].id, state, reason, **self._times())
        )

    def gap(self, symbol: str | None, channel: Channel, count: int | None = None) -> None:
        """A loss."""
        instrument = self.instruments[symbol].id if symbol else 0
        self._write(
            self._encoder.gap(instrument, channel, Reason.GAP, count=count, **self._times())
        )

    def _snapshot(self, symbol: str, reason: Reason, flags: int) -> None:
        book = book_of(*self.books[symbol])
        self._write(
            self._encoder.snapshot(
                book,
                self.instruments[symbol].id,
                self.versions[symbol],
                reason,
                flags=flags,
                **self._times(),
            )
        )
        self._remember(symbol)

    def _remember(self, symbol: str) -> None:
        bids, asks = self.books[symbol]
        self.history[self.epoch, symbol, self.versions[symbol]] = dict(bids), dict(asks)

    def _times(self) -> dict[str, int]:
        self._time_ns += 1_000_001
        return {"exchange_ns": self._time_ns, "received_ns": self._time_ns + 1}

    def _write(self, record: Encoder) -> None:
        self.writer.write(record)
        self.writer.wake()


class Consumer:
    """A client's memory: rebuilds each book from its events and compares it at every one.

    Parameters
    ----------
    exchanges : whose rings the stream reads
    depth : levels a side that were subscribed to; None for all
    """

    def __init__(self, exchanges: Iterable[Exchange] = (), depth: int | None = None) -> None:
        self.exchanges = {each.exchange: each for each in exchanges}
        self.depth = depth
        self.events: list[dict[str, Any]] = []
        self.books: dict[tuple[str, str], dict[str, dict[Decimal, Decimal]]] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.states: dict[tuple[str, str], str] = {}
        self.passed_over: set[tuple[str, str]] = set()
        """Books of which nothing counts before their next snapshot."""
        self._epochs: dict[tuple[str, str], int] = {}
        self._parts: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def take(self, text: str) -> dict[str, Any]:
        """Take a message."""
        event: dict[str, Any] = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        self.events.append(event)
        handler = getattr(self, f"_{event['type']}", None)
        if handler is not None:
            handler(event["data"], (event["data"]["exchange"], event["data"]["symbol"]))
        return event

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All messages of a type so far."""
        return [event for event in self.events if event["type"] == kind]

    def current(self, exchange: str, symbol: str, version: int) -> bool:
        """Whether the book holds all that this version changed."""
        key = exchange, symbol
        history = self.exchanges[exchange].history
        if key not in self.books or (self._epochs[key], symbol, version) not in history:
            return False
        return self._cut(key, version) == self.books[key]

    def _state(self, data: dict[str, Any], key: tuple[str, str]) -> None:
        self.states[key] = data["state"]

    def _orderbook_snapshot(self, data: dict[str, Any], key: tuple[str, str]) -> None:
        parts = self._parts.setdefault(key, [])
        parts.append(data)
        assert data.get("part", 1) == len(parts)
        if data.get("parts", 1) > len(parts):
            return
        assert len({part["version"] for part in parts}) == 1
        self.books[key] = {
            name: {price: volume for part in parts for price, volume in part[name]}
            for name in ("bids", "asks")
        }
        for name, side in self.books[key].items():
            assert len(side) == sum(len(part[name]) for part in parts), "a level comes twice"
            assert list(side) == sorted(side, reverse=name == "bids"), "not best first"
        parts.clear()
        if key in self.passed_over:
            self.passed_over.remove(key)
            self.states[key] = "live"
        self.versions[key] = int(data["version"])
        self._epochs[key] = int(data["epoch"])
        self._compare(key)

    def _orderbook_delta(self, data: dict[str, Any], key: tuple[str, str]) -> None:
        if key in self.passed_over:
            return
        assert not self._parts.get(key), "a delta amid a snapshot's parts"
        assert data["prev_version"] == self.versions[key], "a hole or a repeat"
        assert data["changes"]
        assert self.states.get(key, "live") == "live", "a delta of a book that isn't live"
        for change in data["changes"]:
            side = self.books[key][f"{change['side']}s"]
            price, volume = change["price"], change["volume"]
            if change["action"] == "remove":
                assert volume == 0
                del side[price]
                continue
            assert change["action"] == ("update" if price in side else "add")
            assert side.get(price) != volume
            side[price] = volume
        self.versions[key] = int(data["version"])
        self._compare(key)

    def _compare(self, key: tuple[str, str]) -> None:
        assert self.books[key] == self._cut(key, self.versions[key])

    def _cut(self, key: tuple[str, str], version: int) -> dict[str, dict[Decimal, Decimal]]:
        """The venue's book of a version, as far as the subscription goes."""
        exchange = self.exchanges[key[0]]
        epoch = self._epochs[key]
        bids, asks = exchange.history[epoch, key[1], version]
        return {
            "bids": _scaled(sorted(bids.items(), reverse=True)[: self.depth]),
            "asks": _scaled(sorted(asks.items())[: self.depth]),
        }


def book_of(bids: Levels, asks: Levels) -> Book:
    """A native book of plain levels."""
    stage = LevelStage()
    for side, levels in zip(BookSide, (bids, asks), strict=True):
        for price, size in levels.items():
            stage.append(side, price, size)
    book = Book()
    book.load(stage)
    return book


def _scaled(levels: Iterable[tuple[int, int]]) -> dict[Decimal, Decimal]:
    return {
        Decimal(price).scaleb(-PRICE_PLACES): Decimal(size).scaleb(-SIZE_PLACES)
        for price, size in levels
    }


def unframed(data: bytes) -> Iterator[str | bytes]:
    """Payloads of a server's frames, which are whole text or binary messages."""
    while data:
        assert data[0] in (0x81, 0x82)
        size, start = data[1], 2
        if size == 126:
            size, start = struct.unpack_from(">H", data, 2)[0], 4
        elif size == 127:
            size, start = struct.unpack_from(">Q", data, 2)[0], 10
        payload = data[start : start + size]
        yield payload.decode() if data[0] == 0x81 else payload
        data = data[start + size :]


class Inbox:
    """A client's connection without a socket: takes what it is given unless it is paused."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.paused = False
        self.writes = 0
        self.bytes = 0
        self.full_at: int | None = None
        """Bytes after which it is paused."""
        self.left: int | None = None
        """Messages after which it is broken, and takes nothing more."""
        self.closed: tuple[int, str] | None = None

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.bytes += len(data)
        for message in unframed(data):
            if self.left == 0:
                break
            self.left = None if self.left is None else self.left - 1
            self.consumer.take(message)
        if self.full_at is not None and self.bytes >= self.full_at:
            self.paused = True

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason


def request(**fields: Any) -> Any:
    """A request as the server would read it."""
    return parse_request(json.dumps(fields).encode(), 100)


def feed(hub: Hub, reader: RingReader, limit: int = 1024) -> None:
    """Hand over to the hub all that the ring holds."""
    venue = hub.venue(reader.venue)
    if not venue.epoch:
        venue.attach(reader.epoch, reader.instruments, reader.states)
    while batch := reader.read(limit):
        venue.take(batch, lambda: reader.states)
        hub.flush()
