"""The settings as frozen records: one class per section of the file, units in the names."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from alphapulse.config.values import (
    BasisPoints,
    Bytes,
    Channels,
    Count,
    Host,
    HttpUrl,
    Milliseconds,
    Names,
    OptionalCount,
    OptionalDays,
    OptionalPath,
    OptionalSeconds,
    OptionalWebSocketUrl,
    Origins,
    Path,
    Port,
    Prefix,
    Rate,
    RedisUrl,
    Seconds,
    Secret,
    Share,
    Symbols,
    Token,
    WebSocketUrl,
    Workers,
    masked,
)

MIB = 2**20

DEFAULT_SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
"""Listed by all three venues."""

COINBASE_WS_URLS = {
    "exchange": "wss://ws-feed.exchange.coinbase.com",
    "advanced": "wss://advanced-trade-ws.coinbase.com",
}
"""Addresses of Coinbase's two feeds."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file; its ``repr`` hides secrets."""

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={masked(getattr(self, field.name), field.type)!r}"
            for field in msgspec.structs.fields(self)
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __rich_repr__(self) -> Any:
        for field in msgspec.structs.fields(self):
            yield field.name, masked(getattr(self, field.name), field.type)


class RingSettings(Section, frozen=True):
    """``[ring]``: the shared-memory rings, one per venue."""

    prefix: Prefix = "alphapulse"
    """Segments are named ``<prefix>.<venue>``; installations with different prefixes don't meet."""
    size_bytes: Bytes = 64 * MIB
    """Data area of each ring; rounded up to a power of two."""
    group: str = ""
    """Group (name or number) that may read the rings; nobody else but the owner where empty."""
    max_instruments: Annotated[
        int, Meta(ge=1, le=65535, description="a whole number, 1 to 65535")
    ] = 1024
    """Entries of a ring's instrument directory; each change of exponents takes a new one."""


class VenueSettings(Section, frozen=True, kw_only=True):
    """``[venues.<name>]``: what all venues have in common."""

    enabled: bool = True
    symbols: Symbols = DEFAULT_SYMBOLS
    """Unified symbols to collect."""
    channels: Channels = ("orderbook", "trades")
    """What to collect of each symbol."""
    ws_url: WebSocketUrl
    rest_url: HttpUrl
    symbols_per_connection: Count = 50
    """The venue's symbols are spread over as many connections as this makes necessary."""
    max_message_bytes: Bytes = 64 * MIB
    """A larger frame is refused and its connection replaced; full snapshots take several MB."""
    connect_timeout_seconds: Seconds = 10.0
    """From dialling to an open WebSocket."""
    acknowledge_timeout_seconds: Seconds = 10.0
    """From a subscription to the venue's answer."""
    rest_timeout_seconds: Seconds = 10.0
    """For a whole REST call."""
    silence_seconds: Seconds = 5.0
    """Longest silence of a connection that counts as healthy."""
    pong_timeout_seconds: Seconds = 10.0
    """How long a probing ping may stay unanswered, where the venue promises no heartbeats."""
    backoff_first_seconds: Seconds = 0.5
    """Mean wait before the first reconnect; doubled for each further one, with jitter."""
    backoff_max_seconds: Seconds = 60.0
    """Longest mean wait before a reconnect."""
    backoff_reset_seconds: Seconds = 30.0
    """The wait is the first one again once data has flowed for this long."""
    rate_share: Share = 1.0
    """Part of the venue's allowances (connections, messages, REST weight per address) to use; less
    where other programs share the address."""


class CoinbaseSettings(VenueSettings, frozen=True):
    """``[venues.coinbase]``."""

    feed: Literal["exchange", "advanced"] = "exchange"
    """The dialect: Coinbase Exchange, or Advanced Trade."""
    ws_url: OptionalWebSocketUrl = ""
    """That of the feed if not given."""
    rest_url: HttpUrl = "https://api.exchange.coinbase.com"
    symbols_per_connection: Count = 10
    """Advanced Trade allows 16 books a connection."""
    api_key: Secret = ""
    """With key, secret and passphrase the Exchange feed's unbatched ``level2`` is used."""
    api_secret: Secret = ""
    api_passphrase: Secret = ""
    advanced_side: Literal["maker", "taker"] = "maker"
    """Whose side Advanced Trade's ``market_trades`` tell; sources disagree."""
    symbol_silence_seconds: Seconds = 10.0
    """Longest silence of a symbol; the Exchange feed sends a heartbeat a second for each."""
    rest_check_seconds: OptionalSeconds = 600.0
    """How often each book is compared with the REST one; its updates bear no sequence."""

    def __post_init__(self) -> None:
        if not self.ws_url:
            msgspec.structs.force_setattr(self, "ws_url", COINBASE_WS_URLS[self.feed])


class KrakenSettings(VenueSettings, frozen=True):
    """``[venues.kraken]``."""

    ws_url: WebSocketUrl = "wss://ws.kraken.com/v2"
    rest_url: HttpUrl = "https://api.kraken.com"
    depth: Literal[10, 25, 100, 500, 1000] = 1000
    """Levels a side to subscribe to."""


class BinanceUsSettings(VenueSettings, frozen=True):
    """``[venues.binance_us]``."""

    ws_url: WebSocketUrl = "wss://stream.binance.us:9443"
    rest_url: HttpUrl = "https://api.binance.us"
    trades: Literal["trade", "agg"] = "trade"
    """One event per match, or one per taker's order."""
    snapshot_limit: Literal[100, 500, 1000, 5000] = 1000
    """Levels a side of a REST snapshot; 5000 costs 50 of 1200 a minute, 1000 costs 10."""
    silence_seconds: Seconds = 30.0
    """A connection silent for this long is probed by a ping: the venue promises no heartbeat."""
    rotate_seconds: Seconds = 23.0 * 3600
    """A connection of this age is replaced by an overlapping one; the venue ends it at 24 h."""
    api_key: Secret = ""
    """For filling gaps with single trades instead of aggregated ones."""


class VenuesSettings(Section, frozen=True):
    """``[venues]``: one table per venue."""

    coinbase: CoinbaseSettings = CoinbaseSettings()
    kraken: KrakenSettings = KrakenSettings()
    binance_us: BinanceUsSettings = BinanceUsSettings()

    def enabled(self) -> dict[str, VenueSettings]:
        """Settings of the venues that are switched on, by name."""
        every = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: venue for name, venue in every.items() if venue.enabled}


class ServerSettings(Section, frozen=True, kw_only=True):
    """What the two servers have in common."""

    host: Host = "127.0.0.1"
    port: Port
    token: Token = ""
    """Clients have to present it; needed to listen beyond loopback."""
    allow_without_token: bool = False
    """Listen beyond loopback even without a token."""
    allowed_hosts: Names = ()
    """Names accepted in the Host header besides localhost, loopback addresses and ``host``."""


class StreamSettings(ServerSettings, frozen=True):
    """``[stream]``: the WebSocket server."""

    port: Port = 8765
    origins: Origins = ()
    """Web pages of these origins may connect; others than localhost's are refused."""
    depth: Count = 100
    """Levels a side of a subscription that names no depth."""
    workers: Workers = 1
    """Processes that share the port and read the same rings."""
    tls_certificate: OptionalPath = ""
    """PEM file of the server's certificate and those it is signed with; with it, only wss."""
    tls_key: OptionalPath = ""
    """PEM file of the certificate's private key; empty: in the certificate's file."""
    compression: bool = False
    """Compress messages for clients that offer permessage-deflate."""
    max_clients: Count = 10_000
    """Further clients are refused; of each worker."""
    max_handshakes: Count = 1_000
    """Connections that may be in their handshake; beyond, the oldest is ended. Of each worker."""
    handshake_seconds: Seconds = 5.0
    """How long a handshake may take."""
    max_queue_bytes: Bytes = 4 * MIB
    """Bytes waiting for one client before it is conflated."""
    behind_seconds: Seconds = 10.0
    """A client that stays behind for this long is closed with 1008."""
    max_request_bytes: Bytes = 64 * 1024
    """A longer message from a client is refused."""
    max_subscriptions: Count = 10_000
    """Subscriptions (channel, exchange, symbol) of one client."""
    max_requests_per_second: Rate = 100.0
    """Frames of one client; as many may come at once, further ones are refused."""


class ApiSettings(ServerSettings, frozen=True):
    """``[api]``: the REST server."""

    port: Port = 3001
    cors_origins: Origins = ()
    """Web pages of these origins may read the answers."""
    max_limit: Count = 10_000
    """Largest ``limit`` of a request."""
    writable: bool = False
    """Clients may store trades, and books as they are."""


class StoreSettings(Section, frozen=True):
    """``[store]``: history."""

    redis_url: RedisUrl = ""
    """With it, history is kept in Redis; without, in the embedded database."""
    path: Path = "alphapulse.duckdb"
    """File of the embedded database, from the working directory."""
    memory_limit_bytes: Bytes = 256 * MIB
    """Memory that the embedded database may take."""
    retention_days: OptionalDays = 30.0
    """Older trades, gaps, states and books are deleted."""
    bar_retention_days: OptionalDays = 0.0
    """Older bars are deleted."""
    max_trades: OptionalCount = 0
    """Most trades kept of a symbol, and changes of state and books (Redis); about as many."""
    book_interval_seconds: OptionalSeconds = 60.0
    """How often each live book is kept."""
    book_levels: Count = 100
    """Levels a side of the books that are kept."""
    writer: Literal["child", "apart"] = "child"
    """With Redis, who runs the writer: the API server, as a child, or ``alphapulse-store``."""
    buffer_size: Count = 1000
    """Rows written at once."""
    batch_timeout_ms: Count = 100
    """Longest wait of a row for others to be written with, in milliseconds."""
    backfill: bool = True
    """Fill gaps with trades from the venues' REST services."""


class FeesSettings(Section, frozen=True):
    """``[arbitrage.fees_bps]``: what each venue charges a taker, in basis points of the amount.

    The defaults are the venues' published fees for accounts without volume (docs/arbitrage.md).
    """

    coinbase: BasisPoints = Decimal(60)
    kraken: BasisPoints = Decimal(80)
    binance_us: BasisPoints = Decimal(60)
    """That of all pairs but the venue's "Tier 0" ones, which cost 1."""


class ArbitrageSettings(Section, frozen=True):
    """``[arbitrage]``: what counts as an opportunity."""

    min_bps: BasisPoints = Decimal(0)
    """Least profit after fees, in basis points of the purchase, of each part that is counted."""
    max_age_seconds: Seconds = 3.0
    """Oldest sign of life of a venue's ring; a ring shows one a second."""
    max_skew_ms: Milliseconds = 500.0
    """How much later than the other book's a book's latest change may have come, clocks aside."""
    depth: Count = 50
    """Levels a side that are looked through for the size available."""
    fees_bps: FeesSettings = FeesSettings()


class LogSettings(Section, frozen=True):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json: bool = False
    """One JSON object a line instead of text."""


class MetricsSettings(Section, frozen=True):
    """``[metrics]``."""

    sample_seconds: Seconds = 5.0
    """How often each process takes its memory and CPU time."""


class Settings(Section, frozen=True):
    """All settings."""

    ring: RingSettings = RingSettings()
    venues: VenuesSettings = VenuesSettings()
    stream: StreamSettings = StreamSettings()
    api: ApiSettings = ApiSettings()
    store: StoreSettings = StoreSettings()
    arbitrage: ArbitrageSettings = ArbitrageSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
