"""Bodies of answers. Numbers have the exact digits of what they stand for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from alphapulse.clock import NO_TIME
from alphapulse.fixed import INT64_MAX, format_decimal
from alphapulse.repository import MOST_ID_LENGTH

MOST_SECONDS = 9_223_372_036
"""Latest time that nanoseconds can tell, in seconds since the epoch."""
MOST_VALUE = INT64_MAX
"""Largest price or volume that is taken."""


def _given(most: int) -> Meta:
    """Schema of a number that may stand in a text or not."""
    text = {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$"}
    return Meta(
        extra_json_schema={"anyOf": [text, {"type": "number", "minimum": 0, "maximum": most}]}
    )


Number = Annotated[Raw, Meta(extra_json_schema={"type": "number"})]
"""A JSON number written by `number`: no exponent, no float noise."""

OptionalNumber = Annotated[Raw, Meta(extra_json_schema={"type": ["number", "null"]})]

PriceLevel = tuple[Number, Number]
"""Price and volume."""

NULL = Raw(b"null")


def number(value: int, exponent: int) -> Raw:
    """A scaled integer as a JSON number."""
    return Raw(format_decimal(value, exponent).encode())


def seconds(time_ns: int | None) -> Raw:
    """A time as JSON number of seconds since the epoch; null where unknown."""
    return NULL if time_ns is None or time_ns == NO_TIME else number(time_ns, 9)


class TradeItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One trade; ``side`` is the taker's."""

    timestamp: Number
    symbol: str
    exchange: str
    price: Number
    volume: Number
    side: str
    trade_id: str
    id_kind: Literal["aggregate", "text"] | None = None
    """Told where the id isn't the number of a single trade."""


class TradesBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of ``/trades``."""

    data: list[TradeItem]
    symbol: str
    exchange: str
    count: int
    next: str | None = None
    """Where the next page is, if there is one."""
    processing_time_ms: float


class GivenTrade(msgspec.Struct, kw_only=True):
    """A trade to be stored; numbers are taken as they are written, in a text or not."""

    timestamp: Annotated[Raw, _given(MOST_SECONDS)]
    """Epoch seconds, or ISO 8601."""
    price: Annotated[Raw, _given(MOST_VALUE)]
    volume: Annotated[Raw, _given(MOST_VALUE)]
    side: Literal["buy", "sell"]
    """The taker's."""
    trade_id: Annotated[str, Meta(min_length=1, max_length=MOST_ID_LENGTH)]
    id_kind: Literal["trade", "aggregate", "text"] | None = None
    """What the id is; if not given, a number is a trade's."""


class GivenTrades(msgspec.Struct, kw_only=True):
    """Trades to be stored."""

    data: list[GivenTrade]


class SavedBody(msgspec.Struct, kw_only=True):
    """What has become of trades to be stored."""

    success: bool
    saved: int
    duplicates: int
    """Trades that were there already."""
    processing_time_ms: float


class BarItem(msgspec.Struct, kw_only=True):
    """One bar; ``timestamp`` is when it begins."""

    timestamp: Number
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    trades: int


class BarsBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of ``/ohlcv``."""

    data: list[BarItem]
    symbol: str
    exchange: str
    interval: str
    count: int
    next: str | None = None
    """Where the next page is, if there is one."""
    processing_time_ms: float


class VenueBook(msgspec.Struct, kw_only=True):
    """What one venue is part of a consolidated book with."""

    version: int | None
    state: str
    reason: str | None
    timestamp: OptionalNumber


class BookBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of ``/orderbook``; without levels unless ``state`` is ``live`` or ``stored``."""

    symbol: str
    exchange: str
    version: int | None
    state: str
    reason: str | None
    """Why the book is in this state, where known."""
    timestamp: OptionalNumber
    bids: list[PriceLevel]
    asks: list[PriceLevel]
    exchanges: dict[str, VenueBook] | None = None
    """Of a consolidated book: the venues that know the symbol."""
    processing_time_ms: float


class OpportunitiesBody(msgspec.Struct, kw_only=True):
    """Body of ``/arbitrage/opportunities``; docs/arbitrage.md says what an opportunity has."""

    data: list[Annotated[Raw, Meta(extra_json_schema={"type": "object"})]]
    count: int
    processing_time_ms: float


class ExchangesBody(msgspec.Struct, kw_only=True):
    """Body of ``/exchanges``."""

    exchanges: list[str]
    count: int


class SymbolsBody(msgspec.Struct, kw_only=True):
    """Body of ``/symbols``; ``exchange`` is null where all are meant."""

    symbols: list[str]
    exchange: str | None
    count: int


class DateRange(msgspec.Struct, kw_only=True):
    """Times of the first and the last trade, null where there is none."""

    start: OptionalNumber
    end: OptionalNumber


class SummaryBody(msgspec.Struct, kw_only=True):
    """Body of ``/summary``: what the store holds."""

    total_symbols: int
    total_exchanges: int
    total_records: int
    date_range: DateRange
    symbols_by_exchange: dict[str, list[str]]
    record_count_by_symbol: dict[str, int]


class Compression(msgspec.Struct, kw_only=True):
    """How much smaller records of changes are than records of whole books."""

    updates: int
    update_bytes: int
    snapshots: int
    snapshot_bytes: int
    ratio: float | None
    """Mean size of a snapshot by that of an update, null where either is unknown."""


class Distribution(msgspec.Struct, kw_only=True):
    """Of a number of observations; null where there is none."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class SeriesStats(msgspec.Struct, kw_only=True):
    """Statistics of one exchange's symbol."""

    exchange: str
    symbol: str
    compression: Compression
    changes_per_update: Distribution
    stage_latency_us: dict[str, Distribution]


class ReaderStats(msgspec.Struct, kw_only=True):
    """A ring's reader as it describes itself."""

    pid: int
    epoch: int
    sequence: int
    lag: int
    sleeping: bool


class RingStats(msgspec.Struct, kw_only=True):
    """A ring in shared memory."""

    exchange: str
    name: str
    epoch: int
    pid: int
    alive: bool
    stuck: bool
    size_bytes: int
    position: int
    sequence: int
    instruments: int
    heartbeat: OptionalNumber
    created: OptionalNumber
    memory_bytes: int
    problem: str | None
    readers: list[ReaderStats]


class StatsBody(msgspec.Struct, kw_only=True):
    """Body of ``/stats``."""

    exchange: str | None
    symbol: str | None
    since: Number
    """From when on the rings' records are counted here."""
    compression: Compression
    changes_per_update: Distribution
    stage_latency_us: dict[str, Distribution]
    series: list[SeriesStats]
    rings: list[RingStats]
    processing_time_ms: float


class StoreHealth(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Whether the store answers."""

    status: str
    problem: str | None = None


class WriterHealth(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Whether what the rings give comes into the store."""

    status: str
    problem: str | None = None
    behind_seconds: dict[str, Number]
    """By exchange, the age of the oldest record that isn't known to be stored; 0 without one."""


class CollectorHealth(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A venue's ring as this server sees it."""

    status: str
    problem: str | None = None
    epoch: int | None = None
    sequence: int | None = None
    heartbeat: OptionalNumber
    books: dict[str, int]
    """How many are in which state."""


class StreamHealth(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Whether the WebSocket server answers."""

    status: str
    url: str | None = None
    clients: int | None = None


class Components(msgspec.Struct, kw_only=True):
    """The parts of the installation."""

    store: StoreHealth
    collectors: dict[str, CollectorHealth]
    stream: StreamHealth
    writer: WriterHealth


class HealthBody(msgspec.Struct, kw_only=True):
    """Body of ``/health``."""

    status: str
    service: str
    version: str
    timestamp: Number
    components: Components
    reasons: list[str]
    """Why the status isn't ``ok``."""


class LivenessBody(msgspec.Struct, kw_only=True):
    """Body of ``/health/live`` and ``/health/ready``."""

    status: str
