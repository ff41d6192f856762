"""How to add an exchange: a whole venue that works, of an exchange that doesn't exist.

Copy this file to ``alphapulse/collectors/<name>.py`` and put the exchange's protocol in the place
of this one. The whole way, from the evidence to the last test, is in docs/adding-a-venue.md;
tests/test_venue_contract.py asks of this file what it asks of the real venues. A venue does no
I/O: frames in, events and messages out.

The invented exchange, "Example", as its documentation would have it:

REST, 10 requests a second::

    GET /v1/products
        {"products":[{"id":"BTC_USD","base":"BTC","quote":"USD","price_step":"0.01",
                      "size_step":"0.0001"}]}
    GET /v1/book?product=BTC_USD&depth=1000
        {"last":100,"bids":[["29430.20","0.5"]],"asks":[["29430.30","1"]]}
    GET /v1/trades?product=BTC_USD&after=41&limit=500        later than id 41, oldest first
        {"trades":[{"id":42,"price":"29430.20","size":"0.1","taker":"sell",
                    "time":"2023-07-30T15:30:13.371864Z"}]}

WebSocket, a connection a second, 5 messages a second, ended after 24 h::

    -> {"op":"subscribe","id":1,"channel":"book","products":["BTC_USD","NO_PE"]}
    <- {"op":"subscribed","id":1,"channel":"book","product":"BTC_USD"}
    <- {"op":"refused","id":1,"channel":"book","product":"NO_PE","reason":"no such product"}
    <- {"channel":"book","product":"BTC_USD","time":"2023-07-30T15:30:13.371864Z",
        "first":101,"last":103,"bids":[["29430.20","0"]],"asks":[]}
    <- {"channel":"trade","product":"BTC_USD","time":"2023-07-30T15:30:13.371864Z",
        "id":42,"price":"29430.20","size":"0.1","taker":"sell"}
    <- {"channel":"heartbeat"}                               each second
    <- {"channel":"status","system":"maintenance"}
    <- {"channel":"error","text":"too many requests"}

Sizes of levels are absolute, 0 deletes. Changes of a book are numbered by product; a frame has
those from ``first`` to ``last`` and continues the one before. Ids of trades grow by one by product.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import msgspec

from alphapulse.collectors.events import (
    PAIRS,
    Acknowledged,
    Alive,
    BookSnapshotEvent,
    BookUpdateEvent,
    StatusEvent,
    TradeEvent,
    VenueComplaint,
    VenueEvent,
    VenueStatus,
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
    search_text,
    timestamp_ns,
)
from alphapulse.config import VenueSettings
from alphapulse.delta import Field, FrameLayout, Levels
from alphapulse.fixed import INT64_MAX, decimal_places, parse_decimal
from alphapulse.model import BookSide, Instrument, Side
from alphapulse.symbols import unified_symbol, unify_asset

# Settings: in a real venue, these lines are in alphapulse/config/sections.py, and the class is
# exported by alphapulse/config/__init__.py.


class ExampleSettings(VenueSettings, frozen=True):
    """``[venues.example]``; what all venues have in common is inherited."""

    ws_url: str = "wss://ws.example.com/v1"
    rest_url: str = "https://api.example.com"
    snapshot_depth: Literal[100, 1000] = 1000
    """Levels a side of a REST snapshot."""
    rotate_seconds: float = 23.0 * 3600
    """A connection of this age is replaced by an overlapping one; the venue ends it at 24 h."""


# Frames: one class for each kind, with the venue's names.
# A field without a default has to be there. Give one a default only where the documentation says
# what its absence means: nothing defaults to 0. Lists of levels stay raw, native code parses them.

MOST_CHANGES = 10_000_000
"""Changes in one frame; beyond that, here as on the native path, an id itself is wrong."""

REST_PAGE = 500
SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_PRODUCT = re.compile(rb'"product"\s*:\s*"([^"]{1,32})"')


class _Book(msgspec.Struct, tag_field="channel", tag="book"):
    product: str
    time: str
    first: int
    last: int
    bids: msgspec.Raw
    asks: msgspec.Raw


class _Trade(msgspec.Struct, tag_field="channel", tag="trade"):
    product: str
    time: str
    id: int
    price: str
    size: str
    taker: Literal["buy", "sell"]


class _Heartbeat(msgspec.Struct, tag_field="channel", tag="heartbeat"):
    pass


class _Status(msgspec.Struct, tag_field="channel", tag="status"):
    system: str


class _Error(msgspec.Struct, tag_field="channel", tag="error"):
    text: str


class _Reply(msgspec.Struct):
    """An answer to a request of ours, or a kind of frame that isn't followed."""

    channel: str | None = None
    op: str | None = None
    product: str = ""
    reason: str = "no reason given"


class _Product(msgspec.Struct):
    id: str
    base: str
    quote: str
    price_step: str
    size_step: str


class _Products(msgspec.Struct):
    products: list[msgspec.Raw]


class _RestBook(msgspec.Struct):
    last: int
    bids: msgspec.Raw
    asks: msgspec.Raw


class _RestTrade(msgspec.Struct):
    id: int
    price: str
    size: str
    taker: Literal["buy", "sell"]
    time: str


class _RestTrades(msgspec.Struct):
    trades: list[_RestTrade]


_FRAME = msgspec.json.Decoder(_Book | _Trade | _Heartbeat | _Status | _Error)
_REPLY = msgspec.json.Decoder(_Reply)
_PRODUCT_ENTRY = msgspec.json.Decoder(_Product)
_PRODUCTS = msgspec.json.Decoder(_Products)
_REST_BOOK = msgspec.json.Decoder(_RestBook)
_REST_TRADES = msgspec.json.Decoder(_RestTrades)
_ENCODE = msgspec.json.Encoder().encode
_FOLLOWED = frozenset({"book", "trade", "heartbeat", "status", "error"})

# The native path: the same everyday frames once more, shown as they are written.
# Leave it out at first (`Venue.plain_frames` is empty if not overridden): it makes a venue fast,
# and nothing else. A frame that fits is taken without `decode`; tests compare both ways.

_PLAIN_FRAMES = (
    FrameLayout(
        {
            "channel": "book",
            "product": Field.SYMBOL,
            "time": Field.ISO_TIME,
            "first": Field.FIRST_ID,
            "last": Field.LAST_ID,
            "bids": Levels(PAIRS, BookSide.BID),
            "asks": Levels(PAIRS, BookSide.ASK),
        }
    ),
    FrameLayout(
        {
            "channel": "trade",
            "product": Field.SYMBOL,
            "time": Field.ISO_TIME,
            "id": Field.TRADE_ID,
            "price": Field.PRICE,
            "size": Field.SIZE,
            "taker": Field.SIDE,
        },
        buy="buy",
        sell="sell",
    ),
    FrameLayout({"channel": "heartbeat"}),
)


class ExampleChannel(Channel):
    """One connection; what belongs to it alone (ids of requests, counts of messages) is here."""

    def __init__(self, venue: Example, symbols: Sequence[Instrument]) -> None:
        super().__init__(symbols)
        self._venue = venue
        self._next_request = 1

    @property
    def url(self) -> str:
        return self._venue.settings.ws_url

    def open(self, now_ns: int) -> list[bytes]:
        channels = ["book"] if self._venue.books else []
        if self._venue.trades:
            channels.append("trade")
        return [self._subscribe(channel, list(self.symbols)) for channel in channels]

    def subscribe(self, keys: Collection[tuple[str, str]], now_ns: int) -> list[bytes]:
        # What wasn't answered in time, asked for again.
        return [self._subscribe(channel, names) for channel, names in by_channel(keys).items()]

    def resubscribe(self, venue_symbol: str, now_ns: int) -> list[bytes]:
        # New snapshots come from REST. Where they come on subscribing: unsubscribe and subscribe.
        return []

    def _subscribe(self, channel: str, products: list[str]) -> bytes:
        # A refusal may be all that tells of a book that won't come: every answer is awaited.
        self.awaited.update((channel, product) for product in products)
        request = {
            "op": "subscribe",
            "id": self._next_request,
            "channel": channel,
            "products": products,
        }
        self._next_request += 1
        return _ENCODE(request)

    def decode(self, data: bytes | memoryview) -> list[VenueEvent]:
        try:
            frame = _FRAME.decode(data)
        except msgspec.ValidationError as error:
            return self._other(data, error)
        match frame:
            case _Book():
                return [_update(frame)]
            case _Trade():
                return [_trade(frame.product, frame)]
            case _Status():
                online = frame.system == "online"
                status = VenueStatus.ONLINE if online else VenueStatus.MAINTENANCE
                return [StatusEvent(status, frame.system)]
            case _Error():
                # Words that name a product refuse what it awaits; others are passed on.
                return self.refused(frame.text)
        return [Alive()]

    def _other(self, data: bytes | memoryview, error: Exception) -> list[VenueEvent]:
        reply = _REPLY.decode(data)
        if reply.op in ("subscribed", "refused") and reply.channel:
            self.awaited.discard((reply.channel, reply.product))
            refusal = reply.reason if reply.op == "refused" else None
            return [Acknowledged(reply.channel, reply.product, refusal)]
        if reply.channel in _FOLLOWED or reply.channel is reply.op is None:
            # A kind of frame that we know, yet not as we know it: the caller tells of it.
            raise error
        if reply.op is not None:
            return [VenueComplaint(reply.reason)]
        # Venues add kinds of frames without notice.
        return [Alive()]

    def symbol_of(self, head: bytes) -> str | None:
        return search_text(_PRODUCT, head)

    def is_book(self, head: bytes) -> bool:
        return b'"book"' in head


def _update(book: _Book) -> BookUpdateEvent:
    if not 0 <= book.first <= book.last <= min(book.first + MOST_CHANGES, INT64_MAX):
        raise ValueError(f"changes {book.first} to {book.last} can't be those of one frame")
    return BookUpdateEvent(
        book.product,
        book_parts(book.bids, book.asks),
        timestamp_ns(book.time),
        first_id=book.first,
        last_id=book.last,
    )


def _trade(product: str, trade: _Trade | _RestTrade) -> TradeEvent:
    # The taker's side, as everywhere here: where a venue tells the maker's, turn it round.
    return TradeEvent(
        product, trade.price, trade.size, SIDES[trade.taker], trade.id, timestamp_ns(trade.time)
    )


class Example(Venue):
    """The exchange that doesn't exist."""

    name = "example"
    limits: ClassVar[Limits] = Limits(
        connects=Budget(1, 1, 1), messages=Budget(5, 1, 5), rest_weight=Budget(10, 1, 10)
    )

    def __init__(self, settings: ExampleSettings) -> None:
        super().__init__(settings)
        self.settings: ExampleSettings = settings

    @property
    def book_channel(self) -> str:
        return "book"

    @property
    def liveness(self) -> Liveness:
        # The heartbeat is the connection's sign of life, no product's: a quiet market is healthy.
        return Liveness(self.settings.silence_seconds, None, self.settings.rotate_seconds)

    @property
    def sequenced(self) -> bool:
        # Numbered changes to a REST snapshot: they are kept while it is fetched, then joined to it.
        # Where snapshots come as frames this is False; numbers are checked all the same.
        return True

    @property
    def plain_frames(self) -> tuple[FrameLayout, ...]:
        return _PLAIN_FRAMES

    def metadata_request(self) -> RestRequest | None:
        return RestRequest("/v1/products")

    def parse_metadata(self, body: bytes) -> list[VenueEvent]:
        return read_instruments(_PRODUCTS.decode(body).products, self._instrument)

    def _instrument(self, entry: msgspec.Raw) -> Instrument:
        product = _PRODUCT_ENTRY.decode(entry)
        price_exponent = decimal_places(product.price_step)
        size_exponent = decimal_places(product.size_step)
        return Instrument(
            id=0,  # the feed numbers them
            exchange=self.name,
            symbol=unified_symbol(product.base, product.quote),
            venue_symbol=product.id,
            base=unify_asset(product.base),
            quote=unify_asset(product.quote),
            price_exponent=price_exponent,
            size_exponent=size_exponent,
            price_increment=parse_decimal(product.price_step, price_exponent),
            size_increment=parse_decimal(product.size_step, size_exponent),
        )

    def channel(self, symbols: Sequence[Instrument]) -> ExampleChannel:
        return ExampleChannel(self, symbols)

    def snapshot_request(self, instrument: Instrument) -> RestRequest | None:
        depth = self.settings.snapshot_depth
        return RestRequest(f"/v1/book?product={instrument.venue_symbol}&depth={depth}")

    def parse_snapshot(self, instrument: Instrument, body: bytes) -> BookSnapshotEvent:
        book = _REST_BOOK.decode(body)
        return BookSnapshotEvent(
            instrument.venue_symbol,
            book_parts(book.bids, book.asks),
            last_id=book.last,
            limit=self.settings.snapshot_depth,
        )

    def trades_request(self, instrument: Instrument, span: TradeSpan) -> RestRequest | None:
        if span.after_id is None:
            return None  # it lists trades by their ids only
        return self._trades_after(instrument, span.after_id)

    def _trades_after(self, instrument: Instrument, trade_id: int) -> RestRequest:
        product = instrument.venue_symbol
        return RestRequest(f"/v1/trades?product={product}&after={trade_id}&limit={REST_PAGE}")

    def parse_trades(
        self, instrument: Instrument, span: TradeSpan, request: RestRequest, answer: RestAnswer
    ) -> TradesPage:
        rows = _REST_TRADES.decode(answer.body).trades
        trades = [_trade(instrument.venue_symbol, row) for row in rows]
        if len(rows) < REST_PAGE or span.ends_by(trades[-1]):
            return TradesPage(trades, None)
        return TradesPage(trades, self._trades_after(instrument, rows[-1].id))
