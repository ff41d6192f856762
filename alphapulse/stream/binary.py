"""Records that the stream makes itself, for binary clients: docs/wire-format.md, flag ``made``.

All else that these clients get are the ring's own bytes.
"""

from __future__ import annotations

from alphapulse.clock import wall_ns
from alphapulse.delta import Book, BookView, ChangeSet, Encoder, LevelStage, TopView, codec
from alphapulse.model import BookSide, Gap, Instrument, Reason, RecordFlag, StateChange
from alphapulse.shm import ring_id
from alphapulse.stream.messages import Times

_MADE = int(RecordFlag.MADE)
_ENCODER = Encoder()
"""Shared: it holds one record at a time, which is copied at once."""


def encode_instrument(instrument: Instrument) -> bytes:
    """Announce an instrument whose own record went by before."""
    codec.encode_instrument(_ENCODER, instrument, flags=_MADE)
    return _stamped(instrument.exchange, 0)


def encode_snapshot(
    book: Book,
    view: BookView,
    depth: int,
    version: int,
    reason: Reason,
    times: Times,
    instrument: Instrument,
) -> bytes:
    """A book as a subscriber of the best `depth` levels sees it.

    Parameters
    ----------
    book : what to encode, of which levels beyond `depth` are left out
    view : the book that it is a view of
    depth : levels a side, 0 for all
    version, times : of the latest change that is included
    """
    depths = [each for each in (depth, view.depth) if each]
    _ENCODER.snapshot(
        book,
        instrument.id,
        version,
        reason,
        min(depths, default=0),
        view.trusted_bid,
        view.trusted_ask,
        exchange_ns=times.exchange_ns,
        received_ns=times.received_ns,
        flags=_MADE,
        limit=depth,
    )
    return _stamped(instrument.exchange, times.sequence)


def encode_delta(
    changes: ChangeSet, version: int, prev_version: int, times: Times, instrument: Instrument
) -> bytes:
    """The net difference between two events of a view."""
    _ENCODER.delta(
        changes,
        instrument.id,
        version,
        prev_version,
        exchange_ns=times.exchange_ns,
        received_ns=times.received_ns,
        flags=_MADE,
    )
    return _stamped(instrument.exchange, times.sequence)


def encode_state(state: StateChange) -> bytes:
    """A book's state that no record of the ring tells, or not to this client."""
    _ENCODER.state(
        state.instrument.id,
        state.state,
        state.reason,
        exchange_ns=state.exchange_ns,
        received_ns=state.received_ns,
        flags=_MADE,
    )
    return _stamped(state.exchange, state.sequence)


def encode_gap(gap: Gap) -> bytes:
    """A loss that no record of the ring tells."""
    _ENCODER.gap(
        gap.instrument.id if gap.instrument else 0,
        gap.channel,
        gap.reason,
        gap.first,
        gap.last,
        gap.count,
        gap.since_ns,
        exchange_ns=gap.exchange_ns,
        received_ns=gap.received_ns,
        flags=_MADE,
    )
    return _stamped(gap.exchange, gap.sequence)


def book_of(top: TopView, stage: LevelStage) -> Book:
    """A book of a view's levels."""
    stage.clear()
    for side, levels in zip(BookSide, (top.bids(), top.asks()), strict=True):
        for price, size in levels:
            stage.append(side, price, size)
    book = Book()
    book.load(stage)
    return book


def _stamped(exchange: str, sequence: int) -> bytes:
    return bytes(_ENCODER.stamp(sequence, ring_id(exchange), wall_ns()))
