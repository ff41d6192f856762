"""What the ring carries, as frozen Python objects.

Prices and sizes are integers scaled by the instrument's exponents (`alphapulse.fixed`); times are
nanoseconds since the Unix epoch, ``NO_TIME`` where unknown. `exchange_ns` is the venue's time,
`received_ns` ours at the frame's arrival, `published_ns` ours when the record entered the ring.
The integer values of the enumerations are those of the wire format (docs/wire-format.md).
"""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple

import msgspec

from alphapulse.clock import NO_TIME
from alphapulse.fixed import to_decimal


class RecordType(IntEnum):
    """Type byte of a record."""

    INSTRUMENT = 1
    SNAPSHOT = 2
    DELTA = 3
    TRADE = 4
    STATE = 5
    GAP = 6
    HEARTBEAT = 7


class RecordFlag(IntEnum):
    """Bits of a record's flag byte."""

    REPEAT = 1
    """A snapshot repeated for newcomers: consumers in step skip it."""
    MADE = 2
    """Made by the stream for its clients; its sequence is that of the last record it includes."""


class Side(IntEnum):
    """The taker's side of a trade."""

    BUY = 1
    SELL = 2

    @property
    def text(self) -> str:
        return "buy" if self is Side.BUY else "sell"


class BookSide(IntEnum):
    """A side of the book."""

    BID = 1
    ASK = 2

    @property
    def text(self) -> str:
        return "bid" if self is BookSide.BID else "ask"


class Action(IntEnum):
    """What a change does to its price level."""

    ADD = 1
    UPDATE = 2
    REMOVE = 3

    @property
    def text(self) -> str:
        return self.name.lower()


class BookState(IntEnum):
    """Whether a book may be trusted; only a live one is ever shown."""

    SYNCING = 0
    LIVE = 1
    STALE = 2
    INVALID = 3

    @property
    def text(self) -> str:
        return self.name.lower()


class Reason(IntEnum):
    """Why a snapshot, a change of state or a gap came about."""

    STARTED = 0
    """The collector has just begun with this instrument."""
    SUBSCRIBED = 1
    """The snapshot that the venue sends on subscribing."""
    RESYNCED = 2
    """A snapshot that mends a book found wrong."""
    REPEATED = 3
    """The current book once more, for newcomers."""
    RESCALED = 4
    """The instrument's exponents changed."""
    GAP = 5
    """The venue's sequence jumped."""
    CHECKSUM = 6
    """The venue's checksum doesn't match the book."""
    CROSSED = 7
    """The best bid isn't below the best ask."""
    MALFORMED = 8
    """A frame for this book couldn't be used."""
    DISCONNECTED = 9
    SILENT = 10
    """The connection, or a part of it that the venue promises, went quiet."""
    REFUSED = 11
    """The venue refused the subscription."""
    MISMATCH = 12
    """The venue's REST book contradicts ours."""
    RECONNECTED = 13
    """Found on the first message after a reconnect."""
    LAPPED = 14
    """The writer overtook this reader."""
    RESTARTED = 15
    """The collector's predecessor ended; nobody listened in between."""
    STOPPED = 16
    """The collector ends, or no longer follows this instrument."""
    REQUESTED = 17
    """A client asked for it."""
    MAINTENANCE = 18
    """The venue said that it isn't trading."""

    @property
    def text(self) -> str:
        return self.name.lower()


class Channel(IntEnum):
    """Where a gap is."""

    TRADES = 1
    ORDERBOOK = 2
    RING = 3

    @property
    def text(self) -> str:
        return self.name.lower()


class IdKind(IntEnum):
    """What a trade id counts; part of a trade's identity."""

    TRADE = 0
    """One id per match."""
    AGGREGATE = 1
    """One id per taker order, which may have matched several makers."""
    TEXT = 2
    """The venue's ids are no integers."""

    @property
    def text(self) -> str:
        return self.name.lower()


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One tradable pair of one venue at one pair of exponents.

    A change of exponents makes a new instrument with a new ``id`` and the same symbol.
    """

    id: int
    """1 to 65535, unique within a ring's epoch; 0 where not yet assigned."""
    exchange: str
    symbol: str
    """Unified, ``BASE-QUOTE``."""
    venue_symbol: str
    """As the venue writes it (``BTC/USD``, ``BTCUSD``)."""
    base: str
    quote: str
    price_exponent: int
    """Decimal places of prices."""
    size_exponent: int
    """Decimal places of sizes."""
    price_increment: int = 0
    """Smallest price step, scaled; 0 where the venue gives none."""
    size_increment: int = 0
    """Smallest size step, scaled; 0 where the venue gives none."""

    @classmethod
    def named(cls, exchange: str, symbol: str) -> Instrument:
        """One of which nothing but its unified symbol is known."""
        base, _, quote = symbol.partition("-")
        return cls(
            id=0,
            exchange=exchange,
            symbol=symbol,
            venue_symbol=symbol,
            base=base,
            quote=quote,
            price_exponent=0,
            size_exponent=0,
        )

    def price(self, scaled: int) -> Decimal:
        """Exact price of a scaled integer."""
        return to_decimal(scaled, self.price_exponent)

    def size(self, scaled: int) -> Decimal:
        """Exact size of a scaled integer."""
        return to_decimal(scaled, self.size_exponent)


class Level(NamedTuple):
    """One price level, scaled."""

    price: int
    size: int


class Change(NamedTuple):
    """One price level's net change, scaled; ``size`` is absolute, 0 for ``REMOVE``."""

    side: BookSide
    price: int
    size: int
    action: Action


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What all events from a ring have."""

    exchange: str
    sequence: int
    """Position in the ring's epoch, +1 per record."""
    exchange_ns: int = NO_TIME
    received_ns: int = NO_TIME
    published_ns: int = NO_TIME
    flags: int = 0


class InstrumentDefined(Record, frozen=True, kw_only=True):
    """An instrument was announced; its id is valid from here on."""

    instrument: Instrument


class BookSnapshot(Record, frozen=True, kw_only=True):
    """The whole book: an explicit reset, unless flagged ``repeat`` and the consumer is in step.

    ``trusted_bid`` and ``trusted_ask`` are the prices beyond which (below, above) levels are
    unknown until they change, where the venue's snapshot was cut off; None where it wasn't.
    ``depth`` is the depth subscribed to at the venue, 0 for all.
    """

    instrument: Instrument
    version: int
    reason: Reason
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    depth: int = 0
    trusted_bid: int | None = None
    trusted_ask: int | None = None

    @property
    def repeat(self) -> bool:
        return bool(self.flags & RecordFlag.REPEAT)

    @property
    def symbol(self) -> str:
        return self.instrument.symbol


class BookDelta(Record, frozen=True, kw_only=True):
    """Net difference between the book at ``prev_version`` and at ``version``.

    Bids come first, best first, then asks, best first; each price at most once per side.
    """

    instrument: Instrument
    version: int
    prev_version: int
    changes: tuple[Change, ...]

    @property
    def symbol(self) -> str:
        return self.instrument.symbol


class Trade(Record, frozen=True, kw_only=True):
    """One trade. Its identity is (exchange, symbol, id_kind, trade_id)."""

    instrument: Instrument
    price: int
    size: int
    side: Side
    trade_id: str
    id_kind: IdKind = IdKind.TRADE
    matches: int = 1
    """How many of the venue's matches it stands for; 0 if unknown."""

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    @property
    def exact_price(self) -> Decimal:
        return self.instrument.price(self.price)

    @property
    def exact_size(self) -> Decimal:
        return self.instrument.size(self.size)


class StateChange(Record, frozen=True, kw_only=True):
    """A book's state changed."""

    instrument: Instrument
    state: BookState
    reason: Reason

    @property
    def symbol(self) -> str:
        return self.instrument.symbol


class Gap(Record, frozen=True, kw_only=True):
    """Something is missing, with its size as far as it is known.

    ``first`` and ``last`` are inclusive: trade ids for ``TRADES``, the venue's sequence numbers
    for ``ORDERBOOK``, the ring's for ``RING``; None where unknown. ``since_ns`` is our time from
    which on something may be missing.
    """

    instrument: Instrument | None
    channel: Channel
    reason: Reason
    first: int | None = None
    last: int | None = None
    count: int | None = None
    since_ns: int = NO_TIME

    @property
    def symbol(self) -> str | None:
        return self.instrument.symbol if self.instrument else None


class Heartbeat(Record, frozen=True, kw_only=True):
    """The collector lives; sent once a second."""


class Overrun(msgspec.Struct, frozen=True, kw_only=True):
    """Made by a reader that the writer overtook, or whose ring was replaced.

    ``first`` to ``last`` are the sequences from the first one not given to the last before
    reading goes on; ``count`` is how many of the sequences it was not given, None where the old
    segment is gone and nobody can tell. After it, each live book begins with a snapshot.
    """

    exchange: str
    epoch: int
    """Epoch of the lost sequences."""
    first: int
    last: int | None
    count: int | None
    reason: Reason

    def as_gap(self, seen_ns: int) -> Gap:
        """The loss as an event; `seen_ns` is our time now."""
        return Gap(
            exchange=self.exchange,
            sequence=self.last or 0,
            received_ns=seen_ns,
            flags=RecordFlag.MADE,
            instrument=None,
            channel=Channel.RING,
            reason=self.reason,
            first=self.first,
            last=self.last,
            count=self.count,
        )


Event = (
    InstrumentDefined | BookSnapshot | BookDelta | Trade | StateChange | Gap | Heartbeat | Overrun
)
