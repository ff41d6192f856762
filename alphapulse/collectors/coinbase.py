"""Coinbase: instruments, REST, and the Exchange feed (docs.cdp.coinbase.com/exchange).

The other dialect, `feed = "advanced"`, is in `coinbase_advanced.py`. Updates of the Exchange feed
bear no sequence, so its books are watched by the crossed-book check, the product's heartbeat and
a comparison with the REST book.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import msgspec

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.collectors.coinbase_advanced import AdvancedChannel, advanced_frames
from alphapulse.collectors.events import (
    Alive,
    BookSnapshotEvent,
    BookUpdateEvent,
    LevelPart,
    TradeEvent,
    TradeMark,
    VenueEvent,
    book_parts,
)
from alphapulse.collectors.venue import (
    Budget,
    Channel,
    Limits,
    Liveness,
    RestAnswer,
    RestRequest,
    TradesPage,
    TradeSpan,
    Venue,
    by_channel,
    read_instruments,
    scalar_text,
    search_text,
    timestamp_ns,
)
from alphapulse.config import CoinbaseSettings
from alphapulse.delta import Field, FrameLayout, LevelLayout, Levels
from alphapulse.errors import ConfigError
from alphapulse.fixed import decimal_places, parse_decimal
from alphapulse.model import Instrument, Side
from alphapulse.symbols import unified_symbol, unify_asset

# The side of a match is the maker's: the taker did the opposite.
TAKER_SIDES = {"buy": Side.SELL, "sell": Side.BUY}

ADVANCED_SYMBOLS_PER_CONNECTION = 16
"""Level-2 products that one Advanced Trade connection takes."""

REST_PAGE = 1000
CHANGES = LevelLayout.sided()
_PRODUCT = re.compile(rb'"product_id"\s*:\s*"([^"]{1,32})"')


class _Snapshot(msgspec.Struct, tag_field="type", tag="snapshot"):
    product_id: str
    bids: msgspec.Raw
    asks: msgspec.Raw
    time: str | None = None


class _Update(msgspec.Struct, tag_field="type", tag="l2update"):
    product_id: str
    changes: msgspec.Raw
    time: str | None = None


class _Match(msgspec.Struct, tag_field="type", tag="match"):
    product_id: str
    trade_id: int
    side: Literal["buy", "sell"]
    price: str
    size: str
    time: str


class _LastMatch(msgspec.Struct, tag_field="type", tag="last_match"):
    product_id: str
    trade_id: int


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat"):
    product_id: str
    last_trade_id: int


class _SubscribedChannel(msgspec.Struct):
    name: str
    product_ids: list[str] = []


class _Subscriptions(msgspec.Struct, tag_field="type", tag="subscriptions"):
    channels: list[_SubscribedChannel]


class _Error(msgspec.Struct, tag_field="type", tag="error"):
    message: str = ""
    reason: str = ""


_Frame = _Snapshot | _Update | _Match | _LastMatch | _Heartbeat | _Subscriptions | _Error
_FRAME = msgspec.json.Decoder(_Frame)
_PLAIN_UPDATE = {
    "type": "l2update",
    "product_id": Field.SYMBOL,
    "changes": Levels(CHANGES),
    "time": Field.ISO_TIME,
}
_PLAIN_MATCH = {
    "type": "match",
    "trade_id": Field.TRADE_ID,
    "side": Field.SIDE,
    "size": Field.SIZE,
    "price": Field.PRICE,
    "product_id": Field.SYMBOL,
    "time": Field.ISO_TIME,
}
_PLAIN_HEARTBEAT = {
    "type": "heartbeat",
    "last_trade_id": Field.LAST_TRADE_ID,
    "product_id": Field.SYMBOL,
}
# The maker's side tells the taker's.
_PLAIN_FRAMES = (
    FrameLayout(_PLAIN_UPDATE),
    FrameLayout(_PLAIN_MATCH, buy="sell", sell="buy"),
    FrameLayout(_PLAIN_HEARTBEAT),
)
_FRAME_TYPES = frozenset(
    {"snapshot", "l2update", "match", "last_match", "heartbeat", "subscriptions", "error"}
)


class _Other(msgspec.Struct):
    type: str


_OTHER = msgspec.json.Decoder(_Other)


class _Product(msgspec.Struct):
    id: str
    base_currency: str
    quote_currency: str
    quote_increment: str
    base_increment: str


class _RestBook(msgspec.Struct):
    bids: msgspec.Raw
    asks: msgspec.Raw
    sequence: int | None = None
    time: str | None = None


class _RestTrade(msgspec.Struct):
    trade_id: int
    side: Literal["buy", "sell"]
    price: msgspec.Raw
    size: msgspec.Raw
    time: str


_PRODUCTS = msgspec.json.Decoder(list[msgspec.Raw])
_PRODUCT_ENTRY = msgspec.json.Decoder(_Product)
_REST_BOOK = msgspec.json.Decoder(_RestBook)
_REST_TRADES = msgspec.json.Decoder(list[_RestTrade])
_ENCODE = msgspec.json.Encoder().encode


class ExchangeChannel(Channel):
    """One connection to the Exchange feed."""

    all_or_nothing = True

    def __init__(self, venue: Coinbase, symbols: Sequence[Instrument]) -> None:
        super().__init__(symbols)
        self._venue = venue

    @property
    def url(self) -> str:
        return self._venue.settings.ws_url

    def open(self, now_ns: int) -> list[bytes]:
        channels = ["heartbeat"]
        if self._venue.books:
            channels.append(self._venue.book_channel)
        if self._venue.trades:
            channels.append("matches")
        self.awaited.update((channel, name) for channel in channels for name in self.symbols)
        return [self._request("subscribe", list(self.symbols), channels, now_ns)]

    def subscribe(self, keys: Collection[tuple[str, str]], now_ns: int) -> list[bytes]:
        self.awaited.update(keys)
        return [
            self._request("subscribe", products, [channel], now_ns)
            for channel, products in by_channel(keys).items()
        ]

    def resubscribe(self, venue_symbol: str, now_ns: int) -> list[bytes]:
        channels = [self._venue.book_channel]
        self.awaited.add((channels[0], venue_symbol))
        return [
            self._request(method, [venue_symbol], channels, now_ns)
            for method in ("unsubscribe", "subscribe")
        ]

    def _request(self, method: str, products: list[str], channels: list[str], now_ns: int) -> bytes:
        request: dict[str, object] = {
            "type": method,
            "product_ids": products,
            "channels": channels,
        }
        if method == "subscribe" and self._venue.authenticated:
            request |= self._venue.signature(now_ns)
        return _ENCODE(request)

    def decode(self, data: bytes | memoryview) -> list[VenueEvent]:
        try:
            frame = _FRAME.decode(data)
        except msgspec.ValidationError:
            if _OTHER.decode(data).type in _FRAME_TYPES:
                raise
            return [Alive()]
        if isinstance(frame, _Update):
            part = LevelPart(CHANGES, None, frame.changes)
            return [BookUpdateEvent(frame.product_id, (part,), _time(frame.time))]
        if isinstance(frame, _Match):
            return [_trade(frame)]
        if isinstance(frame, _Heartbeat):
            mark = TradeMark(frame.product_id, frame.last_trade_id, settled=False)
            return [Alive(frame.product_id), mark]
        if isinstance(frame, _LastMatch):
            return [TradeMark(frame.product_id, frame.trade_id, settled=True)]
        if isinstance(frame, _Snapshot):
            parts = book_parts(frame.bids, frame.asks)
            return [BookSnapshotEvent(frame.product_id, parts, _time(frame.time))]
        if isinstance(frame, _Subscriptions):
            return self._acknowledged(frame)
        return self.refused(": ".join(part for part in (frame.message, frame.reason) if part))

    def _acknowledged(self, frame: _Subscriptions) -> list[VenueEvent]:
        """What the venue says it sends now; what the answer leaves out stays awaited."""
        granted = {
            (self._asked_name(channel.name), product)
            for channel in frame.channels
            for product in channel.product_ids
        }
        return self.granted(granted)

    def _asked_name(self, name: str) -> str:
        # Inferred: the batched channel is acknowledged under other names, such as `level2_50`.
        return self._venue.book_channel if name.startswith("level2") else name

    def symbol_of(self, head: bytes) -> str | None:
        return search_text(_PRODUCT, head)

    def is_book(self, head: bytes) -> bool:
        return b'"l2update"' in head or b'"snapshot"' in head


def _time(text: str | None) -> int:
    return timestamp_ns(text) if text else NO_TIME


def _trade(match: _Match) -> TradeEvent:
    return TradeEvent(
        match.product_id,
        match.price,
        match.size,
        TAKER_SIDES[match.side],
        match.trade_id,
        timestamp_ns(match.time),
    )


class Coinbase(Venue):
    """Coinbase spot markets, over the Exchange feed or Advanced Trade."""

    name = "coinbase"
    # Advanced Trade takes 8 messages a second of an address, the Exchange feed more: stay below.
    limits: ClassVar[Limits] = Limits(
        connects=Budget(8, 1, 8),
        messages=Budget(7, 1, 7),
        rest_weight=Budget(8, 1, 10),
        messages_per_address=True,
    )

    def __init__(self, settings: CoinbaseSettings) -> None:
        super().__init__(settings)
        self.settings: CoinbaseSettings = settings
        keys = (settings.api_key, settings.api_secret, settings.api_passphrase)
        if any(keys) and not all(keys):
            raise ConfigError(
                "venues.coinbase.api_key", "api_key, api_secret and api_passphrase go together"
            )
        try:
            self._secret = base64.b64decode(settings.api_secret, validate=True)
        except ValueError:
            raise ConfigError(
                "venues.coinbase.api_secret", "isn't base64, in which Coinbase tells it"
            ) from None
        self.authenticated = all(keys) and settings.feed == "exchange"

    @property
    def book_channel(self) -> str:
        """`level2` needs keys; `level2_batch` has the same schema, batched at 50 ms."""
        if self.settings.feed == "advanced":
            return "level2"
        return "level2" if self.authenticated else "level2_batch"

    @property
    def liveness(self) -> Liveness:
        silence = self.settings.silence_seconds
        if self.settings.feed == "advanced":
            return Liveness(silence, None, None)
        return Liveness(silence, self.settings.symbol_silence_seconds, None)

    @property
    def sequenced(self) -> bool:
        return False

    @property
    def plain_frames(self) -> tuple[FrameLayout, ...]:
        if self.settings.feed == "advanced":
            return advanced_frames(self.settings.advanced_side)
        return _PLAIN_FRAMES

    def metadata_request(self) -> RestRequest | None:
        return RestRequest("/products")

    def parse_metadata(self, body: bytes) -> list[VenueEvent]:
        return read_instruments(_PRODUCTS.decode(body), self._instrument)

    def _instrument(self, entry: msgspec.Raw) -> Instrument:
        product = _PRODUCT_ENTRY.decode(entry)
        price_exponent = decimal_places(product.quote_increment)
        size_exponent = decimal_places(product.base_increment)
        return Instrument(
            id=0,
            exchange=self.name,
            symbol=unified_symbol(product.base_currency, product.quote_currency),
            venue_symbol=product.id,
            base=unify_asset(product.base_currency),
            quote=unify_asset(product.quote_currency),
            price_exponent=price_exponent,
            size_exponent=size_exponent,
            price_increment=parse_decimal(product.quote_increment, price_exponent),
            size_increment=parse_decimal(product.base_increment, size_exponent),
        )

    def plan(self, symbols: Sequence[Instrument]) -> list[list[Instrument]]:
        if self.settings.feed != "advanced":
            return super().plan(symbols)
        size = min(self.settings.symbols_per_connection, ADVANCED_SYMBOLS_PER_CONNECTION)
        names = {instrument.venue_symbol for instrument in symbols}
        # A -USDC product may be answered as its -USD twin: on one connection, which of the two is
        # meant could not be told.
        twins = [
            instrument
            for instrument in symbols
            if instrument.quote == "USDC" and instrument.venue_symbol[:-1] in names
        ]
        others = [instrument for instrument in symbols if instrument not in twins]
        return [
            list(group[i : i + size])
            for group in (others, twins)
            for i in range(0, len(group), size)
        ]

    def channel(self, symbols: Sequence[Instrument]) -> Channel:
        if self.settings.feed == "advanced":
            return AdvancedChannel(self.settings, symbols)
        return ExchangeChannel(self, symbols)

    def signature(self, now_ns: int) -> dict[str, object]:
        """Fields that authenticate a subscription (Exchange feed, "Authentication")."""
        stamp = str(now_ns // NS_PER_SECOND)
        digest = hmac.digest(self._secret, f"{stamp}GET/users/self/verify".encode(), hashlib.sha256)
        return {
            "key": self.settings.api_key,
            "passphrase": self.settings.api_passphrase,
            "timestamp": stamp,
            "signature": base64.b64encode(digest).decode(),
        }

    def snapshot_request(self, instrument: Instrument) -> RestRequest | None:
        return RestRequest(f"/products/{instrument.venue_symbol}/book?level=2")

    def parse_snapshot(self, instrument: Instrument, body: bytes) -> BookSnapshotEvent:
        book = _REST_BOOK.decode(body)
        return BookSnapshotEvent(
            instrument.venue_symbol,
            book_parts(book.bids, book.asks),
            _time(book.time),
            last_id=book.sequence,
        )

    def trades_request(self, instrument: Instrument, span: TradeSpan) -> RestRequest | None:
        # Pages run from the newest back; `after` is the cursor towards the older, a trade's id.
        path = f"/products/{instrument.venue_symbol}/trades?limit={REST_PAGE}"
        return RestRequest(path if span.before_id is None else f"{path}&after={span.before_id}")

    def parse_trades(
        self, instrument: Instrument, span: TradeSpan, request: RestRequest, answer: RestAnswer
    ) -> TradesPage:
        rows = _REST_TRADES.decode(answer.body)
        trades = [_rest_trade(instrument.venue_symbol, row) for row in reversed(rows)]
        after = {name.lower(): value for name, value in answer.headers.items()}.get("cb-after")
        if not after or len(rows) < REST_PAGE or span.reaches_back(trades[0]):
            return TradesPage(trades, None)
        path = request.path.partition("&after=")[0]
        return TradesPage(trades, RestRequest(f"{path}&after={after}"))


def _rest_trade(venue_symbol: str, row: _RestTrade) -> TradeEvent:
    return TradeEvent(
        venue_symbol,
        scalar_text(row.price),
        scalar_text(row.size),
        TAKER_SIDES[row.side],
        row.trade_id,
        timestamp_ns(row.time),
    )
