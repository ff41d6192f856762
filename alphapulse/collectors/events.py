"""What a venue's frames mean, in terms that all venues share.

A venue turns each frame into a list of these. Prices and sizes stay text, and lists of levels stay
the frame's own bytes: scaling needs the instrument's exponents, which the feed holds.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec

from alphapulse.clock import NO_TIME
from alphapulse.delta import LevelLayout
from alphapulse.model import BookSide, IdKind, Instrument, Side


class LevelPart(NamedTuple):
    """A list of levels as it stands in a frame.

    Parameters
    ----------
    layout : how the list is written
    side : the side of all its levels; None where each names its own
    raw : the list's JSON text, UTF-8
    """

    layout: LevelLayout
    side: BookSide | None
    raw: bytes | msgspec.Raw


PAIRS = LevelLayout.pairs()
"""``[[price, size, ...], ...]``, as most venues write a side."""


def book_parts(bids: msgspec.Raw, asks: msgspec.Raw) -> tuple[LevelPart, LevelPart]:
    """Both sides of a book written as lists of [price, size, ...]."""
    return LevelPart(PAIRS, BookSide.BID, bids), LevelPart(PAIRS, BookSide.ASK, asks)


class Instruments(msgspec.Struct, frozen=True):
    """The venue's metadata, or news of it. Instruments bear id 0: the feed numbers them."""

    instruments: list[Instrument]


class BookSnapshotEvent(msgspec.Struct, frozen=True, gc=False):
    """The whole book of a symbol, as far as the venue gives it."""

    venue_symbol: str
    parts: tuple[LevelPart, ...]
    exchange_ns: int = NO_TIME
    checksum: int | None = None
    last_id: int | None = None
    """Last update that the snapshot includes, where the venue numbers updates."""
    limit: int = 0
    """Levels a side that the venue's answer was cut off at: deeper ones are unknown; 0: none."""


class BookUpdateEvent(msgspec.Struct, frozen=True, gc=False):
    """Changed levels of a symbol, with absolute sizes; zero deletes.

    Where the venue numbers changes, ``first_id`` and ``last_id`` are those of the first and the
    last one in it: changes are missing unless ``first_id`` is one more than the ``last_id`` before.
    A venue that numbers a symbol's messages has the same number for both.
    """

    venue_symbol: str
    parts: tuple[LevelPart, ...]
    exchange_ns: int = NO_TIME
    checksum: int | None = None
    first_id: int | None = None
    last_id: int | None = None


class TradeEvent(msgspec.Struct, frozen=True, gc=False):
    """One trade; ``side`` is the taker's."""

    venue_symbol: str
    price: str
    size: str
    side: Side
    trade_id: int
    exchange_ns: int
    id_kind: IdKind = IdKind.TRADE
    matches: int = 1
    recent: bool = False
    """Sent on subscribing: made before, so new only where an earlier connection missed it."""
    contiguous: bool = True
    """Whether the venue's ids grow by one, so that a jump means a loss."""
    first_match: int | None = None
    """Of an aggregate: the id of the first of its matches, whose ids follow each other."""


class TradeMark(msgspec.Struct, frozen=True, gc=False):
    """The id of a symbol's last trade, as the venue says it without the trade itself.

    ``settled`` tells that everything up to it was sent before on this connection or never will be
    (Coinbase's ``last_match``); else (its heartbeat) the trade may still be on its way.
    """

    venue_symbol: str
    last_trade_id: int
    settled: bool


class Alive(msgspec.Struct, frozen=True, gc=False):
    """A sign of life: of the connection, or of one symbol where the venue sends it per symbol."""

    venue_symbol: str | None = None


class Acknowledged(msgspec.Struct, frozen=True):
    """The venue's answer to a subscription of one symbol; ``error`` is its words, None if fine."""

    channel: str
    venue_symbol: str
    error: str | None = None


class SequenceBreak(msgspec.Struct, frozen=True):
    """Messages of the whole connection are missing: each of its books may be wrong."""

    first: int
    last: int


class VenueStatus(Enum):
    """What the venue says of its own trading."""

    ONLINE = "online"
    RESTRICTED = "restricted"
    """Books move, but not all kinds of orders are taken."""
    MAINTENANCE = "maintenance"
    """No trading; silence is no stall."""


class StatusEvent(msgspec.Struct, frozen=True):
    """The venue's status changed."""

    status: VenueStatus
    text: str


class VenueComplaint(msgspec.Struct, frozen=True):
    """An error message of the venue that concerns no subscription in particular."""

    text: str


class Malformed(msgspec.Struct, frozen=True):
    """A frame, or a part of one, that can't be used.

    ``book`` tells whether the lost content may have been a change of that symbol's book.
    """

    venue_symbol: str | None
    problem: str
    book: bool


VenueEvent = (
    Instruments
    | BookSnapshotEvent
    | BookUpdateEvent
    | TradeEvent
    | TradeMark
    | Alive
    | Acknowledged
    | SequenceBreak
    | StatusEvent
    | VenueComplaint
    | Malformed
)
