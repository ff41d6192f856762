"""How each venue, and the template, writes what the venues' contract sends them."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from alphapulse.collectors.binance_us import BinanceUs
from alphapulse.collectors.coinbase import Coinbase
from alphapulse.collectors.events import VenueEvent
from alphapulse.collectors.kraken import Kraken
from alphapulse.collectors.venue import Channel, Venue
from alphapulse.config import BinanceUsSettings, CoinbaseSettings, KrakenSettings
from alphapulse.model import Instrument
from EXCHANGE_TEMPLATE import Example, ExampleSettings
from tests.feeding import FeedOnRing
from tests.support import make_instrument

Side = dict[str, str]
"""Price to size, as texts with 2 and 4 decimal places."""

TIME = "2023-07-30T15:30:13.371864Z"


def frame(**fields: Any) -> bytes:
    """JSON without spaces, as venues write it."""
    return json.dumps(fields, separators=(",", ":")).encode()


def pairs(side: Side) -> list[list[str]]:
    return [[price, size] for price, size in side.items()]


class Dialect(ABC):
    """One dialect's frames about BTC-USD, numbered on as they are made.

    Attributes
    ----------
    bids, asks : the book after all frames made so far
    """

    name: ClassVar[str]
    venue_symbol: ClassVar[str]
    notices_losses: ClassVar[bool] = True
    """Whether the first update after a lost one shows that one is lost."""
    step: ClassVar[int] = 1
    """How many numbers an update takes."""
    unknown: ClassVar[bytes]
    """A frame of a kind that isn't followed."""
    metadata_fields: ClassVar[dict[str, Any]]
    """The metadata's entry about BTC-USD."""

    def __init__(self) -> None:
        self.bids: Side = {}
        self.asks: Side = {}
        self.number = 100
        """The last number given, of whatever the venue numbers."""

    @property
    def instrument(self) -> Instrument:
        return make_instrument(self.venue().name, "BTC-USD", self.venue_symbol)

    def make_live(self, at: FeedOnRing, bids: Side, asks: Side) -> None:
        """Have the whole book sent."""
        self.bids, self.asks = dict(bids), dict(asks)
        at.feed.receive(at.channel, self.snapshot(), at.now_ns)

    def update(self, bids: Side | None = None, asks: Side | None = None) -> bytes:
        """A frame with changed levels."""
        for side, changed in ((self.bids, bids or {}), (self.asks, asks or {})):
            for price, size in changed.items():
                if float(size):
                    side[price] = size
                else:
                    side.pop(price, None)
        self.number += self.step
        return self.changes(bids or {}, asks or {})

    @abstractmethod
    def venue(self) -> Venue: ...

    def snapshot(self) -> bytes:
        raise NotImplementedError

    @abstractmethod
    def changes(self, bids: Side, asks: Side) -> bytes: ...

    @abstractmethod
    def trade(self, number: int, price: str, size: str, taker: str) -> bytes: ...

    @abstractmethod
    def instruments(self, entries: Iterable[dict[str, Any]]) -> list[VenueEvent]: ...

    @abstractmethod
    def refusal(self, channel: Channel) -> bytes | None: ...

    @abstractmethod
    def rest_trades(self, numbers: list[int]) -> bytes:
        """A REST answer with these trades, in which the taker bought."""


class KrakenDialect(Dialect):
    name = "kraken"
    venue_symbol = "BTC/USD"
    unknown = b'{"channel":"ohlc","type":"update","data":[]}'
    metadata_fields: ClassVar[dict[str, Any]] = {
        "symbol": "BTC/USD",
        "base": "BTC",
        "quote": "USD",
        "price_precision": 2,
        "qty_precision": 4,
    }

    def venue(self) -> Venue:
        venue = Kraken(KrakenSettings(depth=10))
        venue.channel([]).receive(self._pairs([self.metadata_fields]))
        return venue

    def _pairs(self, entries: Iterable[dict[str, Any]]) -> bytes:
        return frame(channel="instrument", type="snapshot", data={"pairs": list(entries)})

    def _book(self, kind: str, bids: Side, asks: Side) -> bytes:
        ranked = [
            *sorted(self.asks.items(), key=lambda level: float(level[0]))[:10],
            *sorted(self.bids.items(), key=lambda level: -float(level[0]))[:10],
        ]
        digits = "".join(part.replace(".", "").lstrip("0") for level in ranked for part in level)
        sides = ",".join(
            f'"{name}":[{",".join(f"""{{"price":{p},"qty":{s}}}""" for p, s in side.items())}]'
            for name, side in (("bids", bids), ("asks", asks))
        )
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD",{sides},'
            f'"checksum":{zlib.crc32(digits.encode())},"timestamp":"{TIME}"}}]}}'
        ).encode()

    def snapshot(self) -> bytes:
        return self._book("snapshot", self.bids, self.asks)

    def changes(self, bids: Side, asks: Side) -> bytes:
        return self._book("update", bids, asks)

    def trade(self, number: int, price: str, size: str, taker: str) -> bytes:
        return (
            f'{{"channel":"trade","type":"update","data":[{{"symbol":"BTC/USD","side":"{taker}",'
            f'"price":{price},"qty":{size},"ord_type":"limit","trade_id":{number},'
            f'"timestamp":"{TIME}"}}]}}'
        ).encode()

    def instruments(self, entries: Iterable[dict[str, Any]]) -> list[VenueEvent]:
        return self.venue().channel([]).receive(self._pairs(entries))

    def refusal(self, channel: Channel) -> bytes | None:
        asked = json.loads(channel.open(0)[0])
        problem = {"error": "No", "success": False, "symbol": self.venue_symbol}
        return frame(method="subscribe", req_id=asked["req_id"], **problem)

    def rest_trades(self, numbers: list[int]) -> bytes:
        rows = [["1.01", "0.5000", 1690731013.371864, "b", "l", "", number] for number in numbers]
        return frame(error=[], result={"XXBTZUSD": rows, "last": "1"})


class CoinbaseDialect(Dialect):
    name = "coinbase"
    venue_symbol = "BTC-USD"
    notices_losses = False
    unknown = b'{"type":"rfq_matches","product_id":"BTC-USD"}'
    metadata_fields: ClassVar[dict[str, Any]] = {
        "id": "BTC-USD",
        "base_currency": "BTC",
        "quote_currency": "USD",
        "quote_increment": "0.01",
        "base_increment": "0.0001",
    }

    def venue(self) -> Venue:
        return Coinbase(CoinbaseSettings())

    def snapshot(self) -> bytes:
        sides = {"bids": pairs(self.bids), "asks": pairs(self.asks)}
        return frame(type="snapshot", product_id="BTC-USD", **sides)

    def changes(self, bids: Side, asks: Side) -> bytes:
        levels = [
            *(["buy", *level] for level in pairs(bids)),
            *(["sell", *level] for level in pairs(asks)),
        ]
        return frame(type="l2update", product_id="BTC-USD", changes=levels, time=TIME)

    def trade(self, number: int, price: str, size: str, taker: str) -> bytes:
        maker = {"buy": "sell", "sell": "buy"}[taker]
        ids = {"maker_order_id": "a", "taker_order_id": "b", "sequence": number}
        what = {"side": maker, "size": size, "price": price, "product_id": "BTC-USD"}
        return frame(type="match", trade_id=number, **ids, **what, time=TIME)

    def instruments(self, entries: Iterable[dict[str, Any]]) -> list[VenueEvent]:
        return self.venue().parse_metadata(json.dumps(list(entries)).encode())

    def refusal(self, channel: Channel) -> bytes | None:
        channel.open(0)
        return frame(
            type="error", message="Failed to subscribe", reason="BTC-USD is not a valid product"
        )

    def rest_trades(self, numbers: list[int]) -> bytes:
        rows = [
            {"trade_id": number, "side": "sell", "size": "0.5000", "price": "1.01", "time": TIME}
            for number in reversed(numbers)
        ]
        return json.dumps(rows).encode()


class AdvancedDialect(CoinbaseDialect):
    name = "advanced"
    notices_losses = True

    def venue(self) -> Venue:
        return Coinbase(CoinbaseSettings(feed="advanced"))

    @property
    def unknown(self) -> bytes:  # type: ignore[override]
        self.number += 1
        return frame(channel="ticker", sequence_num=self.number, events=[])

    def _levels(self, kind: str, bids: Side, asks: Side) -> bytes:
        updates = [
            {"side": side, "event_time": TIME, "price_level": price, "new_quantity": size}
            for side, levels in (("bid", bids), ("offer", asks))
            for price, size in levels.items()
        ]
        event = {"type": kind, "product_id": "BTC-USD", "updates": updates}
        head = {"client_id": "", "timestamp": TIME, "sequence_num": self.number}
        return frame(channel="l2_data", **head, events=[event])

    def snapshot(self) -> bytes:
        return self._levels("snapshot", self.bids, self.asks)

    def changes(self, bids: Side, asks: Side) -> bytes:
        return self._levels("update", bids, asks)

    def trade(self, number: int, price: str, size: str, taker: str) -> bytes:
        self.number += 1
        maker = {"buy": "SELL", "sell": "BUY"}[taker]
        what = {"price": price, "size": size, "side": maker, "time": TIME}
        made = {"trade_id": str(number), "product_id": "BTC-USD", **what}
        event = {"type": "update", "trades": [made]}
        head = {"client_id": "", "timestamp": TIME, "sequence_num": self.number}
        return frame(channel="market_trades", **head, events=[event])


class BinanceUsDialect(Dialect):
    name = "binance_us"
    step = 3
    venue_symbol = "BTCUSD"
    unknown = b'{"stream":"btcusd@kline_1m","data":{"e":"kline","s":"BTCUSD"}}'
    metadata_fields: ClassVar[dict[str, Any]] = {
        "symbol": "BTCUSD",
        "baseAsset": "BTC",
        "quoteAsset": "USD",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "stepSize": "0.00010000"},
        ],
    }

    def venue(self) -> Venue:
        return BinanceUs(BinanceUsSettings())

    def make_live(self, at: FeedOnRing, bids: Side, asks: Side) -> None:
        self.bids, self.asks = dict(bids), dict(asks)
        book = at.feed.books[self.venue_symbol]
        at.feed.resyncing(self.venue_symbol, at.now_ns)
        assert at.feed.rest_snapshot(book.instrument, self.rest_book(), at.now_ns)

    def rest_book(self) -> bytes:
        return frame(lastUpdateId=self.number, bids=pairs(self.bids), asks=pairs(self.asks))

    def changes(self, bids: Side, asks: Side) -> bytes:
        ids = {
            "U": self.number - self.step + 1,
            "u": self.number,
            "b": pairs(bids),
            "a": pairs(asks),
        }
        data = {"e": "depthUpdate", "E": 1690731013371, "s": "BTCUSD", **ids}
        return frame(stream="btcusd@depth@100ms", data=data)

    def trade(self, number: int, price: str, size: str, taker: str) -> bytes:
        what = {"t": number, "p": price, "q": size, "T": 1690731013371, "m": taker == "sell"}
        data = {"e": "trade", "E": 1690731013372, "s": "BTCUSD", **what}
        return frame(stream="btcusd@trade", data=data)

    def instruments(self, entries: Iterable[dict[str, Any]]) -> list[VenueEvent]:
        return self.venue().parse_metadata(frame(rateLimits=[], symbols=list(entries)))

    def refusal(self, channel: Channel) -> bytes | None:
        return None  # its streams are named in the URL, and unknown ones are just silent

    def rest_trades(self, numbers: list[int]) -> bytes:
        rows = [
            {
                "id": number,
                "price": "1.01",
                "qty": "0.5000",
                "time": 1690731013371,
                "isBuyerMaker": False,
            }
            for number in numbers
        ]
        return json.dumps(rows).encode()


class ExampleDialect(BinanceUsDialect):
    name = "example"
    venue_symbol = "BTC_USD"
    unknown = b'{"channel":"candles","product":"BTC_USD"}'
    metadata_fields: ClassVar[dict[str, Any]] = {
        "id": "BTC_USD",
        "base": "BTC",
        "quote": "USD",
        "price_step": "0.01",
        "size_step": "0.0001",
    }

    def venue(self) -> Venue:
        return Example(ExampleSettings())

    def rest_book(self) -> bytes:
        return frame(last=self.number, bids=pairs(self.bids), asks=pairs(self.asks))

    def changes(self, bids: Side, asks: Side) -> bytes:
        ids = {"first": self.number - self.step + 1, "last": self.number}
        head = {"product": "BTC_USD", "time": TIME, **ids}
        return frame(channel="book", **head, bids=pairs(bids), asks=pairs(asks))

    def trade(self, number: int, price: str, size: str, taker: str) -> bytes:
        what = {"id": number, "price": price, "size": size, "taker": taker}
        return frame(channel="trade", product="BTC_USD", time=TIME, **what)

    def instruments(self, entries: Iterable[dict[str, Any]]) -> list[VenueEvent]:
        return self.venue().parse_metadata(frame(products=list(entries)))

    def refusal(self, channel: Channel) -> bytes | None:
        asked = json.loads(channel.open(0)[0])
        what = {"channel": "book", "product": "BTC_USD", "reason": "no such product"}
        return frame(op="refused", id=asked["id"], **what)

    def rest_trades(self, numbers: list[int]) -> bytes:
        rows = [
            {"id": number, "price": "1.01", "size": "0.5000", "taker": "buy", "time": TIME}
            for number in numbers
        ]
        return frame(trades=rows)


DIALECTS: tuple[type[Dialect], ...] = (
    KrakenDialect,
    CoinbaseDialect,
    AdvancedDialect,
    BinanceUsDialect,
    ExampleDialect,
)
