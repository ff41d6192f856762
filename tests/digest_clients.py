"""Clients of the stream whose books are compared: restless ones, fickle ones, of each format."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from alphapulse.delta import decode, decode_header
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Instrument,
    InstrumentDefined,
    StateChange,
    Trade,
)
from alphapulse.shm import ring_id
from tests.digests import DEPTH, Book, Checker, Seen

_SIDES = {"bid": BookSide.BID, "ask": BookSide.ASK}
_ACTIONS = {action.text: action for action in Action}


class Wish(NamedTuple):
    """What a client is like.

    Parameters
    ----------
    name : for messages
    fields : of its subscription, beside channels
    restless : it breaks its connection off now and then, and resumes
    fickle : it changes its subscriptions now and then
    """

    name: str
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed
    restless: bool = False
    fickle: bool = False


class Copy(Book):
    """A book as one client has it."""

    def __init__(self) -> None:
        super().__init__()
        self.told = False
        """Whether the client has had a snapshot, or was told that there is none, since it
        subscribed: only then can what it has be continued on another connection."""
        self.parts: list[dict[str, Any]] = []

    def expect(self) -> None:
        """A snapshot is to come."""
        self.ready = self.told = False
        self.version = 0
        self.parts.clear()

    def resume(self) -> None:
        """What there is goes on; if the stream itself took it for stale, it takes that back."""
        self.ready = self.version > 0

    def lose(self) -> None:
        """The book isn't live."""
        self.ready = False
        self.told = True


class DigestClient:
    """Follows all books, and has each version compared.

    Parameters
    ----------
    url : of the server
    wish : what it is like
    checker : what compares
    symbols : that the fickle change their minds about
    seed : of its whims
    """

    def __init__(
        self, url: str, wish: Wish, checker: Checker, symbols: list[str], seed: int
    ) -> None:
        self.wish = wish
        self.books: dict[tuple[str, str], Copy] = {}
        self.connections = 0
        self.resumed = 0
        """Exchanges whose missed records came."""
        self.changes = 0
        """Of subscriptions."""
        self._url = url
        self._checker = checker
        self._symbols = symbols
        self._random = random.Random(seed)
        self._whole: dict[tuple[str, str], bool] = {}
        self._positions: dict[str, tuple[int, int]] = {}
        self._epochs: dict[str, int] = {}
        self._rings = {ring_id(exchange): exchange for exchange in checker.truths}
        self._instruments: dict[str, dict[int, Instrument]] = {}

    async def run(self) -> None:
        """Connect again and again, until cancelled."""
        while True:
            async with connect(self._url, max_size=None, max_queue=None) as socket:
                self.connections += 1
                await self._subscribe(socket)
                try:
                    await self._follow(socket)
                except ConnectionClosed as closed:
                    raise AssertionError(f"{self.wish.name}: put out: {closed}") from None

    def whole(self, exchange: str, symbol: str) -> bool:
        """Whether the client has, or is to get, the whole book, and not its best levels."""
        return self._whole[exchange, symbol]

    async def _follow(self, socket: ClientConnection) -> None:
        rng = self._random
        left = rng.randint(30, 300) if self.wish.restless else 0
        fancy = rng.randint(20, 60) if self.wish.fickle else 0
        while True:
            self._take(await socket.recv())
            left -= 1
            fancy -= 1
            if left == 0:
                return
            if fancy == 0:
                fancy = rng.randint(20, 60)
                await self._change(socket)

    async def _subscribe(self, socket: ClientConnection) -> None:
        fields = {"channels": ["trades", "orderbook", "state"], **self.wish.fields}
        # Even where nothing is resumed: who may do so later is told of new epochs.
        fields["resume"] = {
            exchange: {"epoch": epoch, "sequence": sequence}
            for exchange, (epoch, sequence) in self._positions.items()
            if self._is_complete(exchange)
        }
        await socket.send(json.dumps({"type": "subscribe", **fields}))

    def _is_complete(self, exchange: str) -> bool:
        """Whether all that the client wants of an exchange can be continued."""
        return not self.wish.fickle and all(
            self._book(exchange, symbol).told for symbol in self._symbols
        )

    async def _change(self, socket: ClientConnection) -> None:
        """Want something else of one book."""
        self.changes += 1
        where = {
            "exchanges": [self._random.choice(list(self._checker.truths))],
            "symbols": [self._random.choice(self._symbols)],
        }
        kind = self._random.choice(("subscribe", "unsubscribe"))
        fields: dict[str, Any] = {"type": kind, "channels": ["orderbook"], **where}
        if kind == "subscribe":
            fields = {**self.wish.fields, **fields}
            fields["depth"] = self._random.choice((DEPTH, "full"))
        await socket.send(json.dumps(fields))

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._take_record(message)
            return
        event = json.loads(message, parse_float=Decimal, parse_int=Decimal)
        kind = event["type"]
        if kind in ("subscribed", "unsubscribed", "epoch"):
            getattr(self, f"_take_{kind}")(event)
            return
        assert kind in ("trade", "orderbook_snapshot", "orderbook_delta", "state", "gap"), event
        data = event["data"]
        if kind == "gap":
            return
        if kind == "state":
            if data["state"] != "live":
                self._lose(data["exchange"], data["symbol"])
        elif kind == "orderbook_snapshot":
            self._take_snapshot(data)
        elif kind == "orderbook_delta":
            self._take_delta(data)
        self._seen_until(data["exchange"], int(data["sequence"]))

    def _take_subscribed(self, event: dict[str, Any]) -> None:
        whole = event.get("depth", "full") == "full"
        resumed = event.get("resumed", {})
        self._epochs.update({name: int(epoch) for name, epoch in event["epochs"].items()})
        for exchange, symbol in self._named(event):
            self._whole[exchange, symbol] = whole
            book = self._book(exchange, symbol)
            if resumed.get(exchange) != "records" or not whole:
                book.expect()
            else:
                book.resume()
        self.resumed += sum(how == "records" for how in resumed.values())

    def _take_unsubscribed(self, event: dict[str, Any]) -> None:
        for where in self._named(event):
            self.books.pop(where, None)

    def _named(self, event: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Exchange and symbol of all that an answer is about."""
        exchanges, symbols = event["exchanges"], event["symbols"]
        return product(
            self._checker.truths if exchanges == ["*"] else exchanges,
            self._symbols if symbols == ["*"] else symbols,
        )

    def _take_epoch(self, event: dict[str, Any]) -> None:
        exchange = event["exchange"]
        self._epochs[exchange] = int(event["epoch"])
        self._positions.pop(exchange, None)
        self._instruments.pop(exchange, None)
        for (where, _), book in self.books.items():
            if where == exchange:
                book.expect()

    def _take_snapshot(self, data: dict[str, Any]) -> None:
        exchange, symbol = data["exchange"], data["symbol"]
        book = self._book(exchange, symbol)
        book.parts.append(data)
        assert data.get("part", 1) == len(book.parts)
        if data.get("parts", 1) > len(book.parts):
            return
        parts, book.parts = book.parts, []
        self._epochs[exchange] = int(data["epoch"])
        book.load(
            [(price, size) for part in parts for price, size in part["bids"]],
            [(price, size) for part in parts for price, size in part["asks"]],
            int(data["version"]),
        )
        self._compare(exchange, symbol, book)

    def _take_delta(self, data: dict[str, Any]) -> None:
        book = self._continued(data["exchange"], data["symbol"], int(data["prev_version"]))
        for change in data["changes"]:
            side, action = _SIDES[change["side"]], _ACTIONS[change["action"]]
            book.change(side, change["price"], change["volume"], action)
        book.version = int(data["version"])
        self._compare(data["exchange"], data["symbol"], book)

    def _take_record(self, record: bytes) -> None:
        exchange = self._rings[decode_header(record).ring_id]
        instruments = self._instruments.setdefault(exchange, {})
        event = decode(record, instruments, exchange)
        if isinstance(event, InstrumentDefined):
            instruments[event.instrument.id] = event.instrument
        elif isinstance(event, BookSnapshot):
            self._take_whole_book(event)
        elif isinstance(event, BookDelta):
            instrument = event.instrument
            book = self._continued(exchange, instrument.symbol, event.prev_version)
            for change in event.changes:
                price, size = instrument.price(change.price), instrument.size(change.size)
                book.change(change.side, price, size, change.action)
            book.version = event.version
            self._compare(exchange, instrument.symbol, book)
        elif isinstance(event, StateChange) and event.state is not BookState.LIVE:
            self._lose(exchange, event.instrument.symbol)
        if isinstance(event, BookSnapshot | BookDelta | StateChange | Trade):
            self._seen_until(exchange, event.sequence)

    def _take_whole_book(self, event: BookSnapshot) -> None:
        instrument = event.instrument
        book = self._book(event.exchange, instrument.symbol)
        book.load(
            [(instrument.price(price), instrument.size(size)) for price, size in event.bids],
            [(instrument.price(price), instrument.size(size)) for price, size in event.asks],
            event.version,
        )
        self._compare(event.exchange, instrument.symbol, book)

    def _book(self, exchange: str, symbol: str) -> Copy:
        return self.books.setdefault((exchange, symbol), Copy())

    def _lose(self, exchange: str, symbol: str) -> None:
        book = self.books.get((exchange, symbol))
        if book is not None:  # else only its state is subscribed to
            book.lose()

    def _continued(self, exchange: str, symbol: str, prev_version: int) -> Copy:
        book = self._book(exchange, symbol)
        where = f"{self.wish.name}: {exchange} {symbol}"
        assert book.ready, f"{where}: a delta of a book that isn't live"
        assert not book.parts, f"{where}: a delta amid a snapshot's parts"
        assert prev_version == book.version, f"{where}: {prev_version} after {book.version}"
        return book

    def _compare(self, exchange: str, symbol: str, book: Copy) -> None:
        book.told = True
        key = exchange, self._epochs[exchange], symbol
        whole = self.whole(exchange, symbol)
        self._checker.see(Seen(self.wish.name, key, book.version, whole, book.digest))

    def _seen_until(self, exchange: str, sequence: int) -> None:
        epoch = self._epochs.get(exchange)
        if epoch:
            before = self._positions.get(exchange, (0, 0))
            newest = max(sequence, before[1]) if before[0] == epoch else sequence
            self._positions[exchange] = epoch, newest
