"""What a client yields beside the model's events, as frozen objects with exact numbers.

The model's events (`Trade`, `BookSnapshot`, `BookDelta`, `StateChange`, `Gap`) hold integers scaled
by their instrument; these here are about several venues with scales of their own: `Decimal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec

from alphapulse.clock import NO_TIME
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Gap,
    Reason,
    StateChange,
    Trade,
)

OVERALL = "all"
"""Stands for all venues together where an exchange is named."""


class Quote(NamedTuple):
    """A best bid or ask."""

    price: Decimal
    size: Decimal
    """Of all that quote this price."""
    exchanges: tuple[str, ...]
    """Who quotes it."""


class Bbo(msgspec.Struct, frozen=True, kw_only=True):
    """Best bid and offer of a venue, or of all together (``exchange`` is `OVERALL`)."""

    exchange: str
    symbol: str
    bid: Quote | None
    """None where the side is empty or the book isn't live."""
    ask: Quote | None
    state: BookState
    source: str | None = None
    """Whose change it was, where ``exchange`` is `OVERALL`."""
    exchange_ns: int = NO_TIME
    received_ns: int = NO_TIME
    sequence: int = 0


class ConsolidatedLevel(NamedTuple):
    """A price level of several venues."""

    price: Decimal
    size: Decimal
    """The sum."""
    exchanges: Mapping[str, Decimal]
    """Size by venue."""


class ConsolidatedChange(NamedTuple):
    """A level's net change; ``size`` is the new sum and ``exchanges`` who quotes it now."""

    side: BookSide
    price: Decimal
    size: Decimal
    action: Action
    exchanges: Mapping[str, Decimal]


class Source(msgspec.Struct, frozen=True):
    """A venue's part in a consolidated book; only live books take part."""

    version: int
    state: BookState
    epoch: int = 0


class ConsolidatedSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol's book across venues; levels best first."""

    symbol: str
    version: int
    epoch: int
    """Of the stream server: versions count from a new beginning when it changes."""
    reason: Reason
    sources: Mapping[str, Source]
    bids: tuple[ConsolidatedLevel, ...]
    asks: tuple[ConsolidatedLevel, ...]
    exchange_ns: int = NO_TIME
    received_ns: int = NO_TIME
    exchange: str = OVERALL


class ConsolidatedDelta(msgspec.Struct, frozen=True, kw_only=True):
    """Net difference of a consolidated book since ``prev_version``."""

    symbol: str
    version: int
    prev_version: int
    changes: tuple[ConsolidatedChange, ...]
    source: str | None = None
    """Whose change it was."""
    exchange_ns: int = NO_TIME
    received_ns: int = NO_TIME
    exchange: str = OVERALL


class ArbitrageUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A crossing between two venues appeared, changed or ended."""

    symbol: str
    status: Literal["opened", "changed", "closed"]
    data: Mapping[str, Any]
    """The opportunity as the stream sends it, numbers as `int` or `Decimal`."""


class Disconnected(msgspec.Struct, frozen=True, kw_only=True):
    """The connection was lost: no book is live until the client is told otherwise."""

    reason: str
    code: int | None
    """The server's WebSocket close code; None where it gave none."""
    received_ns: int


class Reconnected(msgspec.Struct, frozen=True, kw_only=True):
    """There is a connection again, and all subscriptions were renewed."""

    attempts: int
    resumed: Mapping[str, str]
    """By exchange: ``records`` where nothing was missed, ``snapshot`` where the books begin anew
    (and a `Gap` tells the loss)."""
    received_ns: int


StreamEvent = (
    Trade
    | BookSnapshot
    | BookDelta
    | StateChange
    | Gap
    | Bbo
    | ConsolidatedSnapshot
    | ConsolidatedDelta
    | ArbitrageUpdate
    | Disconnected
    | Reconnected
)
"""What iterating over a client gives."""
