"""The record format's public face: docs/wire-format.md to and from the objects of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

from alphapulse._core import decoder
from alphapulse._core.encoder import Encoder
from alphapulse.clock import NO_TIME
from alphapulse.errors import RecordError
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Change,
    Channel,
    Event,
    Gap,
    Heartbeat,
    IdKind,
    Instrument,
    InstrumentDefined,
    Level,
    Reason,
    RecordType,
    Side,
    StateChange,
    Trade,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "HEADER_SIZE",
    "Encoder",
    "Header",
    "decode",
    "decode_header",
    "encode_instrument",
    "split_records",
]

HEADER_SIZE = decoder.HEADER_SIZE
"""Bytes of a record's header."""

_SIDES = (BookSide.BID, BookSide.BID, BookSide.ASK)
_ACTIONS = (Action.ADD, Action.ADD, Action.UPDATE, Action.REMOVE)

Levels = tuple[tuple[int, int], ...]
Changes = tuple[tuple[int, int, int, int], ...]
Body = tuple[object, ...]


class _Common(TypedDict):
    """Fields that every event has."""

    exchange: str
    sequence: int
    exchange_ns: int
    received_ns: int
    published_ns: int
    flags: int


class Header(NamedTuple):
    """Header of a record; times in nanoseconds since the epoch."""

    length: int
    """Bytes of the record, header included, padding not."""
    type: int
    flags: int
    instrument: int
    """Id of the instrument, 0 where none is meant."""
    sequence: int
    ring_id: int
    exchange_ns: int
    received_ns: int
    published_ns: int


def decode_header(data: Buffer) -> Header:
    """Header of the record at the beginning of some bytes.

    Raises
    ------
    RecordError
        there are fewer bytes than the record has
    """
    return Header._make(decoder.read_header(data))


def split_records(data: Buffer) -> Iterator[memoryview]:
    """Each record, without padding, of a run of records as a binary stream client gets it.

    Raises
    ------
    RecordError
        the last record is cut off
    """
    rest = memoryview(data).cast("B")
    while len(rest):
        length = decoder.read_header(rest)[0]
        yield rest[:length]
        rest = rest[(length + 7) & ~7 :]


def decode(data: Buffer, instruments: Mapping[int, Instrument], exchange: str) -> Event | None:
    """Object of exactly one record, without padding.

    Parameters
    ----------
    data : the record's bytes
    instruments : by id, as announced so far; an `InstrumentDefined` that is returned is not
        added, that is the caller's to do
    exchange : the venue whose ring the record is from

    Returns
    -------
    Event or None
        None where the record's type is unknown, which is no error

    Raises
    ------
    RecordError
        the bytes are no record, or its instrument isn't in `instruments`
    """
    fields, body = decoder.decode(data)
    if body is None:
        return None
    header = Header._make(fields)
    common: _Common = {
        "exchange": exchange,
        "sequence": header.sequence,
        "exchange_ns": header.exchange_ns,
        "received_ns": header.received_ns,
        "published_ns": header.published_ns,
        "flags": header.flags,
    }
    try:
        match header.type:
            case RecordType.HEARTBEAT:
                return Heartbeat(**common)
            case RecordType.INSTRUMENT:
                return _instrument_defined(common, body, header.instrument)
            case RecordType.GAP:
                return _gap(common, body, _find(header, instruments) if header.instrument else None)
        return _EVENTS[header.type](common, body, _find(header, instruments))
    except ValueError as error:
        raise RecordError(f"a record of type {header.type}: {error}") from None


def _find(header: Header, instruments: Mapping[int, Instrument]) -> Instrument:
    instrument = instruments.get(header.instrument)
    if instrument is None:
        raise RecordError(
            f"record {header.sequence} is about instrument {header.instrument}, "
            "which wasn't announced"
        )
    return instrument


def _delta(common: _Common, body: Body, instrument: Instrument) -> BookDelta:
    version, prev_version, changes = cast("tuple[int, int, Changes]", body)
    return BookDelta(
        **common,
        instrument=instrument,
        version=version,
        prev_version=prev_version,
        changes=tuple(
            Change(_SIDES[side], price, size, _ACTIONS[action])
            for side, price, size, action in changes
        ),
    )


def _snapshot(common: _Common, body: Body, instrument: Instrument) -> BookSnapshot:
    version, reason, depth, trusted_bid, trusted_ask, bids, asks = cast(
        "tuple[int, int, int, int | None, int | None, Levels, Levels]", body
    )
    return BookSnapshot(
        **common,
        instrument=instrument,
        version=version,
        reason=Reason(reason),
        bids=tuple(map(Level._make, bids)),
        asks=tuple(map(Level._make, asks)),
        depth=depth,
        trusted_bid=trusted_bid,
        trusted_ask=trusted_ask,
    )


def _trade(common: _Common, body: Body, instrument: Instrument) -> Trade:
    price, size, side, trade_id, id_kind, matches = cast(
        "tuple[int, int, int, str, int, int]", body
    )
    return Trade(
        **common,
        instrument=instrument,
        price=price,
        size=size,
        side=Side(side),
        trade_id=trade_id,
        id_kind=IdKind(id_kind),
        matches=matches,
    )


def _state_change(common: _Common, body: Body, instrument: Instrument) -> StateChange:
    state, reason = cast("tuple[int, int]", body)
    return StateChange(
        **common, instrument=instrument, state=BookState(state), reason=Reason(reason)
    )


def _gap(common: _Common, body: Body, instrument: Instrument | None) -> Gap:
    channel, reason, first, last, count, since_ns = cast(
        "tuple[int, int, int | None, int | None, int | None, int]", body
    )
    return Gap(
        **common,
        instrument=instrument,
        channel=Channel(channel),
        reason=Reason(reason),
        first=first,
        last=last,
        count=count,
        since_ns=since_ns,
    )


def _instrument_defined(common: _Common, body: Body, instrument_id: int) -> InstrumentDefined:
    (
        price_exponent, size_exponent, price_increment, size_increment,
        exchange, symbol, venue_symbol, base, quote,
    ) = cast("tuple[int, int, int, int, str, str, str, str, str]", body)  # fmt: skip
    return InstrumentDefined(
        **common,
        instrument=Instrument(
            id=instrument_id,
            exchange=exchange,
            symbol=symbol,
            venue_symbol=venue_symbol,
            base=base,
            quote=quote,
            price_exponent=price_exponent,
            size_exponent=size_exponent,
            price_increment=price_increment,
            size_increment=size_increment,
        ),
    )


_EVENTS: dict[int, Callable[[_Common, Body, Instrument], Event]] = {
    RecordType.SNAPSHOT: _snapshot,
    RecordType.DELTA: _delta,
    RecordType.TRADE: _trade,
    RecordType.STATE: _state_change,
}


def encode_instrument(
    encoder: Encoder, instrument: Instrument, *, received_ns: int = NO_TIME, flags: int = 0
) -> Encoder:
    """Write the record that announces an instrument; returns the encoder."""
    return encoder.instrument(
        instrument.id,
        instrument.price_exponent,
        instrument.size_exponent,
        instrument.price_increment,
        instrument.size_increment,
        instrument.exchange,
        instrument.symbol,
        instrument.venue_symbol,
        instrument.base,
        instrument.quote,
        received_ns=received_ns,
        flags=flags,
    )
