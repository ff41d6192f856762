"""Kraken, WebSocket v2 (docs.kraken.com/api/docs/websocket-v2).

The checksum is the gap detector: there are no sequence numbers. Instruments come over the
WebSocket too, so the first connection of a collector carries the `instrument` channel alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import msgspec

from alphapulse.clock import NO_TIME
from alphapulse.collectors.events import (
    Acknowledged,
    Alive,
    BookSnapshotEvent,
    BookUpdateEvent,
    LevelPart,
    StatusEvent,
    TradeEvent,
    VenueComplaint,
    VenueEvent,
    VenueStatus,
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
from alphapulse.config import KrakenSettings
from alphapulse.delta import Field, FrameLayout, LevelLayout, Levels
from alphapulse.errors import RateLimited
from alphapulse.fixed import decimal_places, parse_decimal
from alphapulse.model import BookSide, Instrument, Side
from alphapulse.symbols import UNIFIED_ASSETS, unified_symbol, unify_asset

REQUESTS_REMEMBERED = 1000
"""Request ids whose answer may still come."""

REST_PAGE = 1000
"""Most trades of a REST answer."""

LEFT_ALONE_SECONDS = 15.0
"""Pause after a REST answer that complains of too many requests; it doesn't say for how long."""

HTTP_OK = 200
"""Status of all of REST's answers, errors included."""

SYMBOLS_PER_REQUEST = 50
"""Symbols subscribed to in one message: one message each runs into `Exceeded msg rate`."""

LEVELS = LevelLayout.objects(price="price", size="qty")
_NO_LEVELS = msgspec.Raw(b"[]")
_NO_STEP = msgspec.Raw(b"0")
_REST_ASSETS = {common: own for own, common in UNIFIED_ASSETS.items()}
_SIDES = {"buy": Side.BUY, "sell": Side.SELL, "b": Side.BUY, "s": Side.SELL}
_STATUS = {"online": VenueStatus.ONLINE, "maintenance": VenueStatus.MAINTENANCE}
_TOO_FAST = "Exceeded msg rate"
_TOO_MUCH = re.compile(r"Rate limit exceeded|Too many requests|Temporary lockout")
_CHANNELS = frozenset({"book", "trade", "heartbeat", "status", "instrument"})
_SYMBOL = re.compile(rb'"symbol"\s*:\s*"([^"]{1,32})"')


class _Book(msgspec.Struct):
    symbol: str
    # Always sent, and the only proof that nothing was missed.
    checksum: int
    bids: msgspec.Raw = _NO_LEVELS
    asks: msgspec.Raw = _NO_LEVELS
    timestamp: str | None = None


class _BookFrame(msgspec.Struct, tag_field="channel", tag="book"):
    type: Literal["snapshot", "update"]
    data: list[_Book]


class _Trade(msgspec.Struct):
    symbol: str
    side: Literal["buy", "sell"]
    price: msgspec.Raw
    qty: msgspec.Raw
    trade_id: int
    timestamp: str


class _TradeFrame(msgspec.Struct, tag_field="channel", tag="trade"):
    type: Literal["snapshot", "update"]
    data: list[_Trade]


class _Entries(msgspec.Struct):
    type: Literal["snapshot", "update"]
    data: list[msgspec.Raw]


class _HeartbeatFrame(msgspec.Struct, tag_field="channel", tag="heartbeat"):
    pass


class _Status(msgspec.Struct):
    system: str


class _StatusFrame(msgspec.Struct, tag_field="channel", tag="status"):
    data: list[_Status]


class _Pair(msgspec.Struct):
    symbol: str
    base: str
    quote: str
    price_precision: int
    qty_precision: int
    price_increment: msgspec.Raw = _NO_STEP
    qty_increment: msgspec.Raw = _NO_STEP


class _Pairs(msgspec.Struct):
    pairs: list[msgspec.Raw]


class _InstrumentFrame(msgspec.Struct, tag_field="channel", tag="instrument"):
    data: _Pairs


class _Result(msgspec.Struct):
    channel: str = ""
    symbol: str | None = None


class _Reply(msgspec.Struct):
    """A frame without events: an answer to a request of ours, or a channel we don't follow."""

    channel: str | None = None
    method: str | None = None
    success: bool = False
    error: str | None = None
    symbol: str | None = None
    req_id: int | None = None
    result: _Result | None = None


class _RestTrades(msgspec.Struct):
    error: list[str]
    result: dict[str, msgspec.Raw] = {}


_PLAIN_BOOK = {
    "symbol": Field.SYMBOL,
    "bids": Levels(LEVELS, BookSide.BID),
    "asks": Levels(LEVELS, BookSide.ASK),
    "checksum": Field.CHECKSUM,
    "timestamp": Field.ISO_TIME,
}
_PLAIN_TRADE = {
    "symbol": Field.SYMBOL,
    "side": Field.SIDE,
    "price": Field.PRICE,
    "qty": Field.SIZE,
    "trade_id": Field.TRADE_ID,
    "timestamp": Field.ISO_TIME,
}
_PLAIN_FRAMES = (
    FrameLayout({"channel": "book", "type": "update", "data": [_PLAIN_BOOK]}),
    FrameLayout(
        {"channel": "trade", "type": "update", "data": [_PLAIN_TRADE, ...]},
        buy="buy",
        sell="sell",
        bare_numbers=True,
        contiguous=False,
    ),
    FrameLayout({"channel": "heartbeat"}),
)
_FRAME = msgspec.json.Decoder(
    _BookFrame | _TradeFrame | _HeartbeatFrame | _StatusFrame | _InstrumentFrame
)
_ENTRIES = msgspec.json.Decoder(_Entries)
_BOOK = msgspec.json.Decoder(_Book)
_TRADE = msgspec.json.Decoder(_Trade)
_PAIR = msgspec.json.Decoder(_Pair)
_REPLY = msgspec.json.Decoder(_Reply)
_REST_TRADES = msgspec.json.Decoder(_RestTrades)
_REST_ROWS = msgspec.json.Decoder(list[list[msgspec.Raw]])
_ENCODE = msgspec.json.Encoder().encode


class KrakenChannel(Channel):
    """One connection to Kraken; without symbols it carries the instruments."""

    def __init__(self, venue: Kraken, symbols: Sequence[Instrument]) -> None:
        super().__init__(symbols)
        self._venue = venue
        self._requests: dict[int, tuple[str, tuple[str, ...]]] = {}
        self._next_request = 1

    @property
    def url(self) -> str:
        return self._venue.settings.ws_url

    def open(self, now_ns: int) -> list[bytes]:
        if not self.symbols:
            return [_ENCODE({"method": "subscribe", "params": {"channel": "instrument"}})]
        channels = ["book"] if self._venue.books else []
        if self._venue.trades:
            channels.append("trade")
        return [
            self._subscribe(channel, batch)
            for batch in _batches(list(self.symbols))
            for channel in channels
        ]

    def subscribe(self, keys: Collection[tuple[str, str]], now_ns: int) -> list[bytes]:
        return [
            self._subscribe(channel, batch)
            for channel, names in by_channel(keys).items()
            for batch in _batches(names)
        ]

    def resubscribe(self, venue_symbol: str, now_ns: int) -> list[bytes]:
        unsubscribe = self._request(
            "unsubscribe", channel="book", symbol=[venue_symbol], depth=self._venue.depth
        )
        return [unsubscribe, self._subscribe("book", [venue_symbol])]

    def _subscribe(self, channel: str, symbols: Sequence[str]) -> bytes:
        self._requests[self._next_request] = (channel, tuple(symbols))
        self.awaited.update((channel, symbol) for symbol in symbols)
        params: dict[str, object] = {"depth": self._venue.depth} if channel == "book" else {}
        return self._request(
            "subscribe", channel=channel, symbol=list(symbols), snapshot=True, **params
        )

    def _request(self, method: str, **params: object) -> bytes:
        request = {"method": method, "params": params, "req_id": self._next_request}
        self._requests.pop(self._next_request - REQUESTS_REMEMBERED, None)
        self._next_request += 1
        return _ENCODE(request)

    def decode(self, data: bytes | memoryview) -> list[VenueEvent]:
        try:
            return self._events(data)
        except (msgspec.ValidationError, ValueError) as error:
            return self._other(data, error)

    def _events(self, data: bytes | memoryview) -> list[VenueEvent]:
        frame = _FRAME.decode(data)
        if isinstance(frame, _BookFrame):
            kind = BookSnapshotEvent if frame.type == "snapshot" else BookUpdateEvent
            return [_book(kind, book) for book in frame.data]
        if isinstance(frame, _TradeFrame):
            recent = frame.type == "snapshot"
            # The venue promises no order for those sent on subscribing.
            trades = sorted(frame.data, key=_trade_id) if recent else frame.data
            return [_trade(trade, recent) for trade in trades]
        if isinstance(frame, _InstrumentFrame):
            return read_instruments(frame.data.pairs, self._venue.instrument)
        if isinstance(frame, _StatusFrame):
            return [_status(status.system) for status in frame.data]
        return [Alive()]

    def _other(self, data: bytes | memoryview, error: Exception) -> list[VenueEvent]:
        """An answer, a channel that we don't follow, or a frame with something wrong in it."""
        reply = _REPLY.decode(data)
        if reply.error is not None and _TOO_FAST in reply.error:
            # No refusal: what was asked for stays awaited, and is asked for again.
            return [VenueComplaint(reply.error)]
        if reply.method == "subscribe":
            return self._acknowledged(reply)
        if reply.channel in ("book", "trade"):
            return self._entry_by_entry(data, reply.channel)
        if reply.channel in _CHANNELS or reply.channel is reply.method is None:
            # A channel that we know, yet not as we know it.
            raise error
        return [Alive()]

    def _entry_by_entry(self, data: bytes | memoryview, name: str) -> list[VenueEvent]:
        """Events of a frame that has several symbols' entries, one of which can't be used."""
        frame = _ENTRIES.decode(data)
        kind = BookSnapshotEvent if frame.type == "snapshot" else BookUpdateEvent
        found: list[VenueEvent] = []
        for entry in frame.data:
            try:
                if name == "book":
                    found.append(_book(kind, _BOOK.decode(entry)))
                else:
                    found.append(_trade(_TRADE.decode(entry), frame.type == "snapshot"))
            except (msgspec.MsgspecError, ValueError) as error:
                malformed = self.malformed(bytes(entry), error)
                found.append(msgspec.structs.replace(malformed, book=name == "book"))
        return found

    def _acknowledged(self, reply: _Reply) -> list[VenueEvent]:
        """One acknowledgement per symbol; a refusal names its symbol, if at all, on the outside."""
        channel, asked = self._requests.get(reply.req_id or 0, ("", ()))
        symbol = reply.symbol or (reply.result.symbol if reply.result else None)
        if reply.result:
            channel = reply.result.channel
        error = None if reply.success else reply.error or "no reason given"
        if error == "Already subscribed":
            # The answer to an earlier request was lost.
            error = None
        symbols = asked if symbol is None and error else (symbol,) if symbol else ()
        if error is not None and not symbols:
            return [VenueComplaint(error)]
        self.awaited.difference_update((channel, name) for name in symbols)
        return [Acknowledged(channel, name, error) for name in symbols]

    def symbol_of(self, head: bytes) -> str | None:
        return search_text(_SYMBOL, head)

    def is_book(self, head: bytes) -> bool:
        return b'"book"' in head


def _batches(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[i : i + SYMBOLS_PER_REQUEST] for i in range(0, len(names), SYMBOLS_PER_REQUEST)]


def _book(
    kind: type[BookSnapshotEvent | BookUpdateEvent], book: _Book
) -> BookSnapshotEvent | BookUpdateEvent:
    return kind(
        book.symbol,
        (LevelPart(LEVELS, BookSide.BID, book.bids), LevelPart(LEVELS, BookSide.ASK, book.asks)),
        timestamp_ns(book.timestamp) if book.timestamp else NO_TIME,
        book.checksum,
    )


def _trade_id(trade: _Trade) -> int:
    return trade.trade_id


def _trade(trade: _Trade, recent: bool) -> TradeEvent:
    return TradeEvent(
        trade.symbol,
        scalar_text(trade.price),
        scalar_text(trade.qty),
        _SIDES[trade.side],
        trade.trade_id,
        timestamp_ns(trade.timestamp),
        recent=recent,
        # Documented as a sequence per book, but not as one without holes: recorded ones have some.
        contiguous=False,
    )


def _status(system: str) -> StatusEvent:
    return StatusEvent(_STATUS.get(system, VenueStatus.RESTRICTED), system)


class Kraken(Venue):
    """Kraken spot markets."""

    name = "kraken"
    # 150 connection attempts per rolling 10 minutes, then a ban of 10; stay well below.
    limits: ClassVar[Limits] = Limits(
        connects=Budget(100, 600, 10), messages=Budget(5, 1, 10), rest_weight=Budget(1, 1, 5)
    )

    def __init__(self, settings: KrakenSettings) -> None:
        super().__init__(settings)
        self.settings: KrakenSettings = settings
        self._digits: dict[str, tuple[int, int]] = {}

    @property
    def book_channel(self) -> str:
        return "book"

    @property
    def liveness(self) -> Liveness:
        # A heartbeat a second when nothing else is sent: the connection's sign of life, no book's.
        return Liveness(self.settings.silence_seconds, None, None)

    @property
    def sequenced(self) -> bool:
        return False

    @property
    def plain_frames(self) -> tuple[FrameLayout, ...]:
        return _PLAIN_FRAMES

    @property
    def depth(self) -> int:
        return self.settings.depth

    def metadata_request(self) -> RestRequest | None:
        return None

    def parse_metadata(self, body: bytes) -> list[VenueEvent]:
        raise ValueError("Kraken's instruments come over the WebSocket")

    def instrument(self, entry: msgspec.Raw) -> Instrument:
        """Instrument of an entry of the `instrument` channel (numbers may be like ``1e-08``)."""
        pair = _PAIR.decode(entry)
        price_step, size_step = scalar_text(pair.price_increment), scalar_text(pair.qty_increment)
        price_exponent = max(pair.price_precision, decimal_places(price_step))
        size_exponent = max(pair.qty_precision, decimal_places(size_step))
        self._digits[pair.symbol] = (pair.price_precision, pair.qty_precision)
        return Instrument(
            id=0,
            exchange=self.name,
            symbol=unified_symbol(pair.base, pair.quote),
            venue_symbol=pair.symbol,
            base=unify_asset(pair.base),
            quote=unify_asset(pair.quote),
            price_exponent=price_exponent,
            size_exponent=size_exponent,
            price_increment=parse_decimal(price_step, price_exponent),
            size_increment=parse_decimal(size_step, size_exponent),
        )

    def channel(self, symbols: Sequence[Instrument]) -> KrakenChannel:
        return KrakenChannel(self, symbols)

    def checksum_digits(self, instrument: Instrument) -> tuple[int, int] | None:
        return self._digits.get(instrument.venue_symbol)

    def snapshot_request(self, instrument: Instrument) -> RestRequest | None:
        # Every update carries a checksum: there is nothing that a REST book could add.
        return None

    def parse_snapshot(self, instrument: Instrument, body: bytes) -> BookSnapshotEvent:
        raise ValueError("Kraken's books come over the WebSocket")

    def trades_request(self, instrument: Instrument, span: TradeSpan) -> RestRequest | None:
        # REST's names are older than v2's: XBT and XDG.
        pair = f"{rest_asset(instrument.base)}/{rest_asset(instrument.quote)}"
        # What is listed is later than `since`: with the last known trade it begins where it should.
        since_ns = max(span.since_ns - 1, 0)
        return RestRequest(f"/0/public/Trades?pair={pair}&since={since_ns}&count={REST_PAGE}")

    def parse_trades(
        self, instrument: Instrument, span: TradeSpan, request: RestRequest, answer: RestAnswer
    ) -> TradesPage:
        content = _REST_TRADES.decode(answer.body)
        if any(_TOO_MUCH.search(error) for error in content.error):
            raise RateLimited(self.name, HTTP_OK, LEFT_ALONE_SECONDS)
        if content.error:
            raise ValueError(f"Kraken answered {content.error}")
        last = scalar_text(content.result.get("last", msgspec.Raw(b'""')))
        rows = [
            row
            for key, raw in content.result.items()
            if key != "last"
            for row in _REST_ROWS.decode(raw)
        ]
        trades = [_rest_trade(instrument.venue_symbol, row) for row in rows]
        path, _, tail = request.path.partition("since=")
        since, _, rest = tail.partition("&")
        more = len(rows) >= REST_PAGE and last not in ("", since) and not span.ends_by(trades[-1])
        return TradesPage(trades, RestRequest(f"{path}since={last}&{rest}") if more else None)


def rest_asset(asset: str) -> str:
    """The name that Kraken's REST service uses for an asset."""
    return _REST_ASSETS.get(asset, asset)


def _rest_trade(venue_symbol: str, row: Sequence[msgspec.Raw]) -> TradeEvent:
    """A row is [price, volume, seconds, "b"|"s", order type, misc, trade id]."""
    price, size, seconds, side, _, _, trade_id = (scalar_text(cell) for cell in row[:7])
    return TradeEvent(
        venue_symbol,
        price,
        size,
        _SIDES[side],
        int(trade_id),
        parse_decimal(seconds, 9),
        contiguous=False,
    )
