"""The stream's JSON messages as typed structs: requests, answers and events (docs/stream.md).

Prices and volumes are left as they are written, to be scaled without a float in between.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import msgspec

from alphapulse.clock import NO_TIME

FULL = "full"
"""Depth that stands for the whole book."""

EVERYTHING = "*"

RECORDS = "records"
"""Says that nothing was missed where a subscription is resumed."""

Format = Literal["json", "binary"]
Depth = int | Literal["full"]


class Resume(msgspec.Struct, frozen=True):
    """The last record of an exchange that a client has seen."""

    epoch: int
    sequence: int


class Subscribe(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="subscribe"
):
    """Wishes for some channels."""

    channels: tuple[str, ...]
    exchanges: tuple[str, ...] | None = None
    symbols: tuple[str, ...] | None = None
    depth: Depth | None = None
    format: Format = "json"
    conflate_ms: int | None = None
    resume: dict[str, Resume] | None = None


class Unsubscribe(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="type",
    tag="unsubscribe",
):
    """What isn't wished any more."""

    channels: tuple[str, ...] | None = None
    exchanges: tuple[str, ...] | None = None
    symbols: tuple[str, ...] | None = None


class SendSnapshot(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="snapshot"
):
    """Books that are to be sent again."""

    exchanges: tuple[str, ...] | None = None
    symbols: tuple[str, ...] | None = None


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Wants a pong."""


Request = Subscribe | Unsubscribe | SendSnapshot | Ping


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """As the server writes it; fields that aren't known here are passed over."""


class Subscribed(_Message, frozen=True, kw_only=True, tag="subscribed"):
    """A subscription's confirmation."""

    channels: tuple[str, ...]
    exchanges: tuple[str, ...]
    symbols: tuple[str, ...]
    format: str = "json"
    depth: Depth | None = None
    conflate_ms: int | None = None
    epochs: dict[str, int] = {}
    """Of the rings that are read now, by exchange."""
    sequences: dict[str, int] = {}
    """Where these rings are."""
    waiting: tuple[str, ...] = ()
    """Exchanges that have no ring yet; they join in when they do."""
    resumed: dict[str, str] = {}
    """By exchange: ``records`` or ``snapshot``."""


class Unsubscribed(_Message, frozen=True, kw_only=True, tag="unsubscribed"):
    """The confirmation that a subscription ended."""

    channels: tuple[str, ...]
    exchanges: tuple[str, ...]
    symbols: tuple[str, ...]


class Pong(_Message, frozen=True, kw_only=True, tag="pong"):
    """A ping's answer."""


class Refusal(_Message, frozen=True, kw_only=True, tag="error"):
    """Why a request isn't served."""

    code: str
    message: str


class EpochMessage(_Message, frozen=True, kw_only=True, tag="epoch"):
    """An exchange has a new ring; its records follow."""

    exchange: str
    epoch: int


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    exchange: str
    symbol: str
    timestamp_ns: int | None = None
    received_ns: int | None = None
    sequence: int = 0

    @property
    def times(self) -> dict[str, int]:
        """The fields that every event of the model has."""
        return {
            "sequence": self.sequence,
            "exchange_ns": NO_TIME if self.timestamp_ns is None else self.timestamp_ns,
            "received_ns": NO_TIME if self.received_ns is None else self.received_ns,
        }


class TradeData(_Data, frozen=True, kw_only=True):
    """Fields of a trade."""

    price: msgspec.Raw
    volume: msgspec.Raw
    side: Literal["buy", "sell"]
    trade_id: str
    id_kind: Literal["trade", "aggregate", "text"] = "trade"


class SnapshotData(_Data, frozen=True, kw_only=True):
    """Fields of a book, or of a part of one."""

    version: int
    epoch: int
    reason: str
    bids: msgspec.Raw
    asks: msgspec.Raw
    part: int = 1
    parts: int = 1
    sources: dict[str, SourceData] = {}


class SourceData(msgspec.Struct, frozen=True):
    """A venue's part in a consolidated book."""

    version: int = 0
    epoch: int = 0
    state: str = "live"


class DeltaData(_Data, frozen=True, kw_only=True):
    """Fields of a book's net difference."""

    version: int
    prev_version: int
    changes: msgspec.Raw
    source: str | None = None


class StateData(_Data, frozen=True, kw_only=True):
    """Fields of a book's state."""

    state: str
    reason: str


class GapData(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a loss."""

    exchange: str
    symbol: str | None
    channel: str
    reason: str
    first: int | None = None
    last: int | None = None
    count: int | None = None
    received_ns: int | None = None
    since_ns: int | None = None


class QuoteData(msgspec.Struct, frozen=True, array_like=True):
    """[price, volume] and who quotes it: a name, a list of names, or nothing for the book's own."""

    price: Decimal
    volume: Decimal
    exchanges: str | tuple[str, ...] | None = None


class BboData(_Data, frozen=True, kw_only=True):
    """Fields of a best bid and offer."""

    source: str | None = None
    bid: QuoteData | None
    ask: QuoteData | None
    state: str


class SharedLevel(msgspec.Struct, frozen=True, array_like=True):
    """[price, total, {exchange: volume}]."""

    price: Decimal
    volume: Decimal
    exchanges: dict[str, Decimal]


class SharedChange(msgspec.Struct, frozen=True):
    """A change of a consolidated book."""

    side: Literal["bid", "ask"]
    price: Decimal
    volume: Decimal
    action: Literal["add", "update", "remove"]
    exchanges: dict[str, Decimal]


class TradeMessage(_Message, frozen=True, kw_only=True, tag="trade"):
    """A trade."""

    data: TradeData


class SnapshotMessage(_Message, frozen=True, kw_only=True, tag="orderbook_snapshot"):
    """A book."""

    data: SnapshotData


class DeltaMessage(_Message, frozen=True, kw_only=True, tag="orderbook_delta"):
    """A book's change."""

    data: DeltaData


class StateMessage(_Message, frozen=True, kw_only=True, tag="state"):
    """A book's state."""

    data: StateData


class GapMessage(_Message, frozen=True, kw_only=True, tag="gap"):
    """A loss."""

    data: GapData


class BboMessage(_Message, frozen=True, kw_only=True, tag="bbo"):
    """A best bid and offer."""

    data: BboData


class ArbitrageMessage(_Message, frozen=True, kw_only=True, tag="arbitrage"):
    """A crossing."""

    data: msgspec.Raw


Answer = Subscribed | Unsubscribed | Pong | Refusal
EventMessage = (
    TradeMessage
    | SnapshotMessage
    | DeltaMessage
    | StateMessage
    | GapMessage
    | BboMessage
    | ArbitrageMessage
    | EpochMessage
    | Subscribed
    | Unsubscribed
)


class _HeadData(msgspec.Struct, frozen=True):
    exchange: str | None = None
    sequence: int = 0
    epoch: int = 0
    channel: str | None = None
    reason: str | None = None


class Head(msgspec.Struct, frozen=True):
    """What has to be known of a message when it arrives; the rest is read when it is its turn."""

    type: str
    exchange: str | None = None
    epoch: int = 0
    data: _HeadData | None = None


ANSWERS = frozenset({"subscribed", "unsubscribed", "pong", "error"})

encode = msgspec.json.Encoder().encode
decode_head = msgspec.json.Decoder(Head).decode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_event = msgspec.json.Decoder(EventMessage).decode
decode_shared_levels = msgspec.json.Decoder(tuple[SharedLevel, ...]).decode
decode_shared_changes = msgspec.json.Decoder(tuple[SharedChange, ...]).decode
decode_opportunity = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
