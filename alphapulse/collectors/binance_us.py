"""Binance.US (docs.binance.us): combined streams, and the books' snapshots over REST."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import ClassVar

import msgspec

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.collectors.events import (
    PAIRS,
    Alive,
    BookSnapshotEvent,
    BookUpdateEvent,
    TradeEvent,
    VenueComplaint,
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
    read_instruments,
    search_text,
)
from alphapulse.config import BinanceUsSettings
from alphapulse.delta import MOST_MATCHES, Field, FrameLayout, Levels
from alphapulse.fixed import INT64_MAX, decimal_places, parse_decimal
from alphapulse.model import BookSide, IdKind, Instrument, Side
from alphapulse.symbols import unified_symbol, unify_asset

DEPTH_WEIGHTS = ((100, 1), (500, 5), (1000, 10), (5000, 50))
"""(limit, weight) of a `/api/v3/depth` request: the smallest limit that suffices counts."""

MAX_STREAMS = 1024
"""Streams that one connection takes."""

REST_PAGE = 1000
MOST_UPDATES = 10_000_000
"""Update ids in one message of 100 ms; beyond that an id itself is wrong."""

MOST_WEIGHT = 1_000_000_000
MOST_INTERVALS = 1000
"""REST's weight limit and its multiple of an interval; beyond that the statement is wrong."""

_EVENTS = frozenset({"depthUpdate", "trade", "aggTrade"})
_SYMBOL = re.compile(rb'"s"\s*:\s*"([^"]{1,32})"')
_FIRST = re.compile(r"&(fromId|startTime)=.*")
_STREAM = re.compile(rb'"stream"\s*:\s*"([^"@]{1,32})@')


class _Depth(msgspec.Struct, tag_field="e", tag="depthUpdate"):
    s: str
    U: int
    u: int
    b: msgspec.Raw
    a: msgspec.Raw
    E: int | None = None


class _Trade(msgspec.Struct, tag_field="e", tag="trade"):
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _AggTrade(msgspec.Struct, tag_field="e", tag="aggTrade"):
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 (the venue's name)
    T: int
    m: bool


class _Frame(msgspec.Struct):
    data: _Depth | _Trade | _AggTrade


class _Data(msgspec.Struct):
    e: str | None = None


class _Fault(msgspec.Struct):
    msg: str = ""


class _Other(msgspec.Struct):
    """A frame of another stream, an unwrapped event, or the answer to a request."""

    e: str | None = None
    data: _Data | None = None
    error: _Fault | None = None
    msg: str = ""
    id: int | str | None = None


class _Filter(msgspec.Struct, rename="camel"):
    filter_type: str
    tick_size: str | None = None
    step_size: str | None = None


class _Symbol(msgspec.Struct, rename="camel"):
    symbol: str
    base_asset: str
    quote_asset: str
    filters: list[_Filter]


class _RateLimit(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str
    limit: int
    interval_num: int = 1


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[msgspec.Raw] = []
    rate_limits: list[_RateLimit] = []


class _RestBook(msgspec.Struct, rename="camel"):
    last_update_id: int
    bids: msgspec.Raw
    asks: msgspec.Raw


class _RestTrade(msgspec.Struct, rename="camel"):
    id: int
    price: str
    qty: str
    time: int
    is_buyer_maker: bool


class _RestAggTrade(msgspec.Struct):
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 (the venue's name)
    T: int
    m: bool


_PLAIN_DEPTH = {
    "e": "depthUpdate",
    "E": Field.EPOCH_TIME,
    "s": Field.SYMBOL,
    "U": Field.FIRST_ID,
    "u": Field.LAST_ID,
    "b": Levels(PAIRS, BookSide.BID),
    "a": Levels(PAIRS, BookSide.ASK),
}
_PLAIN_TRADE = {
    "e": "trade",
    "s": Field.SYMBOL,
    "t": Field.TRADE_ID,
    "p": Field.PRICE,
    "q": Field.SIZE,
    "T": Field.EPOCH_TIME,
    "m": Field.SIDE,
}
_PLAIN_AGGREGATE = {
    "e": "aggTrade",
    "s": Field.SYMBOL,
    "a": Field.TRADE_ID,
    "p": Field.PRICE,
    "q": Field.SIZE,
    "f": Field.FIRST_MATCH,
    "l": Field.LAST_MATCH,
    "T": Field.EPOCH_TIME,
    "m": Field.SIDE,
}
# m: the buyer is the maker, so the taker sold.
_PLAIN_FRAMES = (
    FrameLayout({"data": _PLAIN_DEPTH}),
    FrameLayout({"data": _PLAIN_TRADE}, buy=False, sell=True),
    FrameLayout({"data": _PLAIN_AGGREGATE}, buy=False, sell=True, id_kind=IdKind.AGGREGATE),
)
_FRAME = msgspec.json.Decoder(_Frame)
_BARE = msgspec.json.Decoder(_Depth | _Trade | _AggTrade)
_OTHER = msgspec.json.Decoder(_Other)
_SYMBOL_ENTRY = msgspec.json.Decoder(_Symbol)
_EXCHANGE_INFO = msgspec.json.Decoder(_ExchangeInfo)
_REST_BOOK = msgspec.json.Decoder(_RestBook)
_REST_TRADES = msgspec.json.Decoder(list[_RestTrade])
_REST_AGG_TRADES = msgspec.json.Decoder(list[_RestAggTrade])
_INTERVAL_SECONDS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}


def epoch_ns(value: int) -> int:
    """Nanoseconds of a time in milliseconds, or in microseconds, told by its size.

    Only milliseconds are documented; the venue's global twin can be asked for microseconds.
    """
    time_ns = value * 1_000_000 if value < 10**14 else value * 1_000
    return time_ns if 0 < time_ns <= INT64_MAX else NO_TIME


class BinanceUsChannel(Channel):
    """One combined connection; its streams are named in the URL, so nothing is sent."""

    def __init__(self, venue: BinanceUs, symbols: Sequence[Instrument]) -> None:
        super().__init__(symbols)
        self._venue = venue

    @property
    def url(self) -> str:
        settings = self._venue.settings
        kinds = ["depth@100ms"] if self._venue.books else []
        if self._venue.trades:
            kinds.append("aggTrade" if settings.trades == "agg" else "trade")
        names = [f"{name.lower()}@{kind}" for name in self.symbols for kind in kinds]
        return f"{settings.ws_url.rstrip('/')}/stream?streams={'/'.join(names)}"

    def open(self, now_ns: int) -> list[bytes]:
        return []

    def subscribe(self, keys: Collection[tuple[str, str]], now_ns: int) -> list[bytes]:
        return []

    def resubscribe(self, venue_symbol: str, now_ns: int) -> list[bytes]:
        return []

    def decode(self, data: bytes | memoryview) -> list[VenueEvent]:
        try:
            return [_event(_FRAME.decode(data).data)]
        except msgspec.ValidationError as error:
            return self._other(data, error)

    def _other(self, data: bytes | memoryview, error: Exception) -> list[VenueEvent]:
        other = _OTHER.decode(data)
        if other.e in _EVENTS:
            return [_event(_BARE.decode(data))]
        if other.data is not None and other.data.e in _EVENTS:
            # An event that we know, yet not as we know it.
            raise error
        fault = other.error.msg if other.error else other.msg
        if fault:
            return [VenueComplaint(fault)]
        if other.data is None and other.e is None and other.id is None:
            raise error
        return [Alive()]

    def symbol_of(self, head: bytes) -> str | None:
        symbol = search_text(_SYMBOL, head)
        if symbol is None:
            stream = search_text(_STREAM, head)
            symbol = stream.upper() if stream else None
        return symbol

    def is_book(self, head: bytes) -> bool:
        return b'"depthUpdate"' in head or b"@depth" in head


def _event(data: _Depth | _Trade | _AggTrade) -> VenueEvent:
    if isinstance(data, _Depth):
        if not 0 <= data.U <= data.u <= min(data.U + MOST_UPDATES, INT64_MAX):
            raise ValueError(f"updates {data.U} to {data.u} can't be those of one message")
        time_ns = epoch_ns(data.E) if data.E is not None else NO_TIME
        parts = book_parts(data.b, data.a)
        return BookUpdateEvent(data.s, parts, time_ns, first_id=data.U, last_id=data.u)
    # m: the buyer is the maker, so the taker sold.
    side = Side.SELL if data.m else Side.BUY
    if isinstance(data, _Trade):
        return TradeEvent(data.s, data.p, data.q, side, data.t, epoch_ns(data.T))
    return _aggregate(data.s, data)


def _aggregate(venue_symbol: str, data: _AggTrade | _RestAggTrade) -> TradeEvent:
    if not 0 <= data.l - data.f < MOST_MATCHES:
        raise ValueError(f"trades {data.f} to {data.l} can't be those of one order")
    return TradeEvent(
        venue_symbol,
        data.p,
        data.q,
        Side.SELL if data.m else Side.BUY,
        data.a,
        epoch_ns(data.T),
        id_kind=IdKind.AGGREGATE,
        matches=data.l - data.f + 1,
        first_match=data.f,
    )


class BinanceUs(Venue):
    """Binance.US spot markets."""

    name = "binance_us"
    limits: ClassVar[Limits] = Limits(
        connects=Budget(30, 60, 5), messages=Budget(4, 1, 4), rest_weight=Budget(1000, 60, 200)
    )

    def __init__(self, settings: BinanceUsSettings) -> None:
        super().__init__(settings)
        self.settings: BinanceUsSettings = settings

    @property
    def book_channel(self) -> str:
        return "depth"

    @property
    def liveness(self) -> Liveness:
        # The venue pings every 3 minutes only, and a quiet symbol sends nothing: probe it.
        return Liveness(None, None, self.settings.rotate_seconds)

    @property
    def sequenced(self) -> bool:
        return True

    @property
    def plain_frames(self) -> tuple[FrameLayout, ...]:
        return _PLAIN_FRAMES

    def metadata_request(self) -> RestRequest | None:
        return RestRequest("/api/v3/exchangeInfo", weight=10)

    def parse_metadata(self, body: bytes) -> list[VenueEvent]:
        return read_instruments(_EXCHANGE_INFO.decode(body).symbols, self._instrument)

    def parse_budget(self, body: bytes) -> Budget | None:
        for limit in _EXCHANGE_INFO.decode(body).rate_limits:
            if (
                limit.rate_limit_type == "REQUEST_WEIGHT"
                and limit.interval in _INTERVAL_SECONDS
                and 0 < limit.limit <= MOST_WEIGHT
                and 0 < limit.interval_num <= MOST_INTERVALS
            ):
                seconds = _INTERVAL_SECONDS[limit.interval] * limit.interval_num
                # Leave a sixth to other programs at the same address.
                return Budget(limit.limit * 5 / 6, seconds, limit.limit / 6)
        return None

    def _instrument(self, entry: msgspec.Raw) -> Instrument:
        """Scales come from the filters: texts have 8 decimals whatever the step."""
        symbol = _SYMBOL_ENTRY.decode(entry)
        price_step = size_step = "0.00000001"
        for rule in symbol.filters:
            if rule.filter_type == "PRICE_FILTER" and rule.tick_size:
                price_step = rule.tick_size
            elif rule.filter_type == "LOT_SIZE" and rule.step_size:
                size_step = rule.step_size
        price_exponent, size_exponent = decimal_places(price_step), decimal_places(size_step)
        return Instrument(
            id=0,
            exchange=self.name,
            symbol=unified_symbol(symbol.base_asset, symbol.quote_asset),
            venue_symbol=symbol.symbol,
            base=unify_asset(symbol.base_asset),
            quote=unify_asset(symbol.quote_asset),
            price_exponent=price_exponent,
            size_exponent=size_exponent,
            price_increment=parse_decimal(price_step, price_exponent),
            size_increment=parse_decimal(size_step, size_exponent),
        )

    def plan(self, symbols: Sequence[Instrument]) -> list[list[Instrument]]:
        size = min(self.settings.symbols_per_connection, MAX_STREAMS // 2)
        return [list(symbols[i : i + size]) for i in range(0, len(symbols), size)]

    def channel(self, symbols: Sequence[Instrument]) -> BinanceUsChannel:
        return BinanceUsChannel(self, symbols)

    def snapshot_request(self, instrument: Instrument) -> RestRequest | None:
        limit = self.settings.snapshot_limit
        weight = next(weight for most, weight in DEPTH_WEIGHTS if limit <= most)
        path = f"/api/v3/depth?symbol={instrument.venue_symbol}&limit={limit}"
        return RestRequest(path, weight)

    def parse_snapshot(self, instrument: Instrument, body: bytes) -> BookSnapshotEvent:
        book = _REST_BOOK.decode(body)
        return BookSnapshotEvent(
            instrument.venue_symbol,
            book_parts(book.bids, book.asks),
            last_id=book.last_update_id,
            limit=self.settings.snapshot_limit,
        )

    @property
    def trade_ids(self) -> IdKind:
        return IdKind.AGGREGATE if self.settings.trades == "agg" else IdKind.TRADE

    def trades_request(self, instrument: Instrument, span: TradeSpan) -> RestRequest | None:
        """See `Venue`.

        Single trades can be asked for by id with a key only. Without one, the latest may reach
        back far enough; what is older comes as aggregates.
        """
        symbol = instrument.venue_symbol
        if span.id_kind is IdKind.AGGREGATE and span.after_id is not None:
            return _aggregates(symbol, f"fromId={span.after_id + 1}")
        if span.id_kind is IdKind.AGGREGATE or span.aggregated:
            return _aggregates(symbol, f"startTime={_milliseconds(span.since_ns)}")
        if not self.settings.api_key:
            return RestRequest(f"/api/v3/trades?symbol={symbol}&limit={REST_PAGE}")
        if span.after_id is not None:
            return self._historical(symbol, span.after_id + 1)
        # Its first match tells the id to begin with.
        return _aggregates(symbol, f"startTime={_milliseconds(span.since_ns)}", limit=1)

    def _historical(self, symbol: str, first: int) -> RestRequest:
        path = f"/api/v3/historicalTrades?symbol={symbol}&limit={REST_PAGE}&fromId={first}"
        return RestRequest(path, weight=5, headers={"X-MBX-APIKEY": self.settings.api_key})

    def parse_trades(
        self, instrument: Instrument, span: TradeSpan, request: RestRequest, answer: RestAnswer
    ) -> TradesPage:
        symbol = instrument.venue_symbol
        kind = request.path.partition("?")[0].rpartition("/")[2]
        if kind == "aggTrades":
            trades = [_aggregate(symbol, row) for row in _REST_AGG_TRADES.decode(answer.body)]
            if "&limit=1&" in request.path:
                first = trades[0].first_match if trades else None
                return TradesPage([], None if first is None else self._historical(symbol, first))
        else:
            trades = [_rest_trade(symbol, row) for row in _REST_TRADES.decode(answer.body)]
        if kind == "trades":
            if not trades or span.reaches_back(trades[0]):
                return TradesPage(trades, None)
            older = _aggregates(symbol, f"startTime={_milliseconds(span.since_ns)}")
            return TradesPage(_without_first_order(trades), older)
        if len(trades) < REST_PAGE or span.ends_by(trades[-1]):
            return TradesPage(trades, None)
        path = _FIRST.sub("", request.path)
        next_path = f"{path}&fromId={trades[-1].trade_id + 1}"
        return TradesPage(trades, request._replace(path=next_path))


def _aggregates(symbol: str, first: str, limit: int = REST_PAGE) -> RestRequest:
    return RestRequest(f"/api/v3/aggTrades?symbol={symbol}&limit={limit}&{first}")


def _without_first_order(trades: list[TradeEvent]) -> list[TradeEvent]:
    """What is left of a page that may begin amid an order's matches, which an aggregate has whole.

    An aggregate's matches have the same time, price and side.
    """
    first = trades[0]
    for index, trade in enumerate(trades):
        if (trade.exchange_ns, trade.price, trade.side) != (
            first.exchange_ns,
            first.price,
            first.side,
        ):
            return trades[index:]
    return []


def _milliseconds(time_ns: int) -> int:
    return max(time_ns, 0) * 1000 // NS_PER_SECOND


def _rest_trade(venue_symbol: str, row: _RestTrade) -> TradeEvent:
    side = Side.SELL if row.is_buyer_maker else Side.BUY
    return TradeEvent(venue_symbol, row.price, row.qty, side, row.id, epoch_ns(row.time))
