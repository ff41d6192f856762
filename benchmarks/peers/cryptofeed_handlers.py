"""cryptofeed's own message handlers, fed the same traffic in the dialect that they read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from cryptofeed.defines import L2_BOOK, TRADES
from cryptofeed.exchanges import BinanceUS, Coinbase, Kraken
from cryptofeed.symbols import Symbols

from benchmarks.timing import Call
from benchmarks.traffic import Traffic


class _Message(NamedTuple):
    kind: str
    text: str
    t_seconds: float


class CryptofeedRuns:
    """Makes handlers for passes over the same traffic.

    Parameters
    ----------
    traffic : of Kraken, Binance.US, or Coinbase in the dialect of Advanced Trade
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._bodies: dict[str, str] = {}
        metadata = b"".join(step.raw for step in traffic.of("metadata"))
        if traffic.venue_name == "kraken":
            self._kind = Kraken
            depth = traffic.settings.kraken.depth
            self._options = {"checksum_validation": True, "max_depth": depth}
            pairs = [pair["symbol"] for pair in json.loads(metadata)["data"]["pairs"]]
            found: Any = {"result": {pair: {"wsname": _v1_pair(pair)} for pair in pairs}}
            self._messages = [
                message for message in _kraken_v1(traffic, depth) if message is not None
            ]
        elif traffic.venue_name == "binance_us":
            self._kind = BinanceUS
            self._options = {}
            found = json.loads(metadata)
            self._bodies = {
                step.symbol: step.raw.decode() for step in traffic.steps if step.symbol is not None
            }
            self._messages = list(_binance_us(traffic))
        else:
            self._kind = Coinbase
            self._options = {}
            found = {
                "products": [
                    {
                        "base_currency_id": product["base_currency"],
                        "quote_currency_id": product["quote_currency"],
                        "quote_increment": product["quote_increment"],
                        "product_id": product["id"],
                    }
                    for product in json.loads(metadata)
                ]
            }
            self._messages = [
                _Message(step.kind, step.raw.decode(), step.t_ns / 1e9)
                for step in traffic.steps
                if step.kind != "metadata"
            ]
        Symbols.set(self._kind.id, *self._kind._parse_symbol_data(found))
        self._symbols = list(Symbols.get(self._kind.id)[0])

    def calls(self) -> list[Call]:
        """The calls of one pass with a handler of its own."""
        return self._start()[1]

    async def final_books(self) -> dict[str, tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]]:
        """Bids and asks after one pass, by cryptofeed's symbol."""
        feed, calls = self._start()
        for call in calls:
            await call.run(*call.arguments)
        return {
            symbol: (book.book.bids.to_dict(), book.book.asks.to_dict())
            for symbol, book in feed._l2_book.items()
        }

    def _start(self) -> tuple[Any, list[Call]]:
        feed = self._kind(
            symbols=self._symbols,
            channels=[L2_BOOK, TRADES],
            callbacks={L2_BOOK: _ignore, TRADES: _ignore},
            **self._options,
        )
        feed.http_conn = _Answers(self._bodies)
        handler = feed.message_handler
        return feed, [
            Call(message.kind, handler, (message.text, None, message.t_seconds))
            for message in self._messages
        ]


class _Answers:
    """Stands in for cryptofeed's HTTP connection, without the network."""

    def __init__(self, bodies: dict[str, str]) -> None:
        self._bodies = bodies

    async def read(self, url: str) -> str:
        symbol = url.partition("symbol=")[2].partition("&")[0]
        return self._bodies[symbol]


async def _ignore(_found: object, _receipt: float) -> None:
    """As the callback of a user who only wants to know the book."""


def _binance_us(traffic: Traffic) -> Iterator[_Message]:
    """The first change of a book makes the handler ask for the snapshot, so it counts as one."""
    seen = set()
    for step in traffic.steps:
        if step.kind == "metadata" or step.symbol is not None:
            continue
        text = step.raw.decode()
        stream = json.loads(text)["stream"]
        kind = "update"
        if "@depth" in stream and stream not in seen:
            seen.add(stream)
            kind = "snapshot"
        yield _Message(kind, text, step.t_ns / 1e9)


def _kraken_v1(traffic: Traffic, depth: int) -> Iterator[_Message | None]:
    """Frames of Kraken's WebSocket v2 in the framing of v1, digits and checksums untouched."""
    for step in traffic.steps:
        if step.kind == "metadata":
            continue
        frame = json.loads(step.raw, parse_float=str, parse_int=str)
        for message in _v1_messages(frame, depth):
            yield _Message(step.kind, json.dumps(message, separators=(",", ":")), step.t_ns / 1e9)


def _v1_messages(frame: dict[str, Any], depth: int) -> Iterator[object]:
    if frame["channel"] == "heartbeat":
        yield {"event": "heartbeat"}
    elif frame["channel"] == "trade":
        rows = [
            [trade["price"], trade["qty"], _seconds(trade["timestamp"]), trade["side"][0], "l", ""]
            for trade in frame["data"]
        ]
        yield [337, rows, "trade", _v1_pair(frame["data"][0]["symbol"])]
    else:
        for book in frame["data"]:
            yield _v1_book(book, frame["type"] == "snapshot", depth)


def _v1_book(book: dict[str, Any], snapshot: bool, depth: int) -> object:
    time = _seconds(book.get("timestamp") or "2021-04-17T16:48:52.825818Z")
    sides = {
        side: [[level["price"], level["qty"], time] for level in book[key]]
        for side, key in (("a", "asks"), ("b", "bids"))
    }
    tail = [f"book-{depth}", _v1_pair(book["symbol"])]
    if snapshot:
        return [336, {"as": sides["a"], "bs": sides["b"]}, *tail]
    parts: list[dict[str, Any]] = [{side: rows} for side, rows in sides.items() if rows]
    parts[-1]["c"] = book["checksum"]
    return [336, *parts, *tail]


def _v1_pair(pair: str) -> str:
    base, quote = ({"BTC": "XBT", "DOGE": "XDG"}.get(name, name) for name in pair.split("/"))
    return f"{base}/{quote}"


def _seconds(timestamp: str) -> str:
    return f"{datetime.fromisoformat(timestamp).timestamp():.6f}"
