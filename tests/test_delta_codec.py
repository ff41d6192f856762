"""Records to and from the objects of the model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.clock import NO_TIME
from alphapulse.delta import (
    HEADER_SIZE,
    Encoder,
    decode,
    decode_header,
    encode_instrument,
    split_records,
)
from alphapulse.errors import RecordError
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Change,
    Channel,
    Gap,
    Heartbeat,
    IdKind,
    InstrumentDefined,
    Level,
    Reason,
    RecordFlag,
    RecordType,
    Side,
    StateChange,
    Trade,
)
from tests.records import Fields, book_of, records, written_in_python
from tests.reference import codec
from tests.support import make_instrument

BITCOIN = make_instrument(
    id=3, price_exponent=1, size_exponent=8, price_increment=1, size_increment=1
)
KNOWN = {3: BITCOIN}
TIMES = {"exchange_ns": 5, "received_ns": 6}


def decoded(record: Encoder | bytes) -> object:
    return decode(record, KNOWN, "kraken")


def test_every_type_becomes_its_object() -> None:
    encoder = Encoder()
    common: dict[str, Any] = {"exchange": "kraken", "sequence": 9, "published_ns": 7, "flags": 0}
    times: dict[str, Any] = {**common, "exchange_ns": 5, "received_ns": 6}

    encoder.trade(3, 294302, 18967538, 2, "42", 1, 3, exchange_ns=5, received_ns=6)
    assert decoded(encoder.stamp(9, 2, 7)) == Trade(
        **times,
        instrument=BITCOIN,
        price=294302,
        size=18967538,
        side=Side.SELL,
        trade_id="42",
        id_kind=IdKind.AGGREGATE,
        matches=3,
    )
    encoder.state(3, BookState.STALE, Reason.DISCONNECTED, exchange_ns=5, received_ns=6)
    assert decoded(encoder.stamp(9, 2, 7)) == StateChange(
        **times, instrument=BITCOIN, state=BookState.STALE, reason=Reason.DISCONNECTED
    )
    encoder.gap(3, Channel.TRADES, Reason.GAP, 4, None, 2, 1, exchange_ns=5, received_ns=6)
    assert decoded(encoder.stamp(9, 2, 7)) == Gap(
        **times,
        instrument=BITCOIN,
        channel=Channel.TRADES,
        reason=Reason.GAP,
        first=4,
        last=None,
        count=2,
        since_ns=1,
    )
    encoder.gap(0, Channel.RING, Reason.RESTARTED, received_ns=6)
    assert decoded(encoder.stamp(9, 2, 7)) == Gap(
        **common,
        received_ns=6,
        instrument=None,
        channel=Channel.RING,
        reason=Reason.RESTARTED,
    )
    encoder.heartbeat(received_ns=6)
    assert decoded(encoder.stamp(9, 2, 7)) == Heartbeat(**common, received_ns=6)
    encode_instrument(encoder, BITCOIN, received_ns=6)
    assert decode(encoder.stamp(9, 2, 7), {}, "kraken") == InstrumentDefined(
        **common, received_ns=6, instrument=BITCOIN
    )


def test_books_become_their_objects() -> None:
    encoder = Encoder()
    book = book_of(((294302, 5), (294296, 6)), ((294303, 7),))
    encoder.snapshot(
        book, 3, 7, Reason.REPEATED, 10, 294296, flags=RecordFlag.REPEAT, received_ns=6
    )
    snapshot = decoded(encoder)
    assert snapshot == BookSnapshot(
        exchange="kraken",
        sequence=0,
        received_ns=6,
        published_ns=0,
        flags=1,
        instrument=BITCOIN,
        version=7,
        reason=Reason.REPEATED,
        bids=(Level(294302, 5), Level(294296, 6)),
        asks=(Level(294303, 7),),
        depth=10,
        trusted_bid=294296,
        trusted_ask=None,
    )
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.repeat
    assert snapshot.exchange_ns == NO_TIME
    body = codec.delta_body(8, 7, ((1, 294302, 0, 3), (1, 294300, 5, 1), (2, 294303, 1, 2)))
    assert decoded(codec.record(codec.DELTA, 3, body)) == BookDelta(
        exchange="kraken",
        sequence=0,
        published_ns=0,
        instrument=BITCOIN,
        version=8,
        prev_version=7,
        changes=(
            Change(BookSide.BID, 294302, 0, Action.REMOVE),
            Change(BookSide.BID, 294300, 5, Action.ADD),
            Change(BookSide.ASK, 294303, 1, Action.UPDATE),
        ),
    )


@given(records())
def test_whatever_is_decoded_is_an_event_or_a_record_error(fields: Fields) -> None:
    data = written_in_python(fields)
    kind, header, body = fields
    reasons = {codec.SNAPSHOT: 1, codec.STATE: 1, codec.GAP: 1}
    limits = {codec.STATE: (0, 3), codec.GAP: (0, 3)}
    valid = kind not in reasons or body[reasons[kind]] <= max(Reason)
    if kind in limits:
        place, largest = limits[kind]
        valid = valid and (kind == codec.STATE or body[place] >= 1) and body[place] <= largest
    instruments = {header["instrument"]: BITCOIN}
    if valid:
        event = decode(data, instruments, "kraken")
        assert event is not None
        assert not hasattr(event, "sequence") or event.sequence == header["sequence"]
    else:
        with pytest.raises(RecordError, match=f"a record of type {kind}"):
            decode(data, instruments, "kraken")


@pytest.mark.parametrize("kind", [RecordType.TRADE, RecordType.STATE])
def test_unknown_instrument_is_an_error(kind: RecordType) -> None:
    encoder = Encoder()
    record = encoder.trade(4, 1, 1, 1, 1) if kind == RecordType.TRADE else encoder.state(4, 1, 1)
    with pytest.raises(RecordError, match="instrument 4, which wasn't announced"):
        decoded(record)


def test_unknown_type_is_skipped() -> None:
    assert decoded(codec.record(77, 4, b"of a later version")) is None


def test_bad_bytes_are_an_error() -> None:
    with pytest.raises(RecordError):
        decoded(b"")
    with pytest.raises(RecordError):
        decode_header(b"short")


@given(st.lists(records(), max_size=5), st.booleans())
def test_a_run_of_records_is_split(several: list[Fields], padded_end: bool) -> None:
    written = [written_in_python(fields) for fields in several]
    run = b"".join(record + bytes(-len(record) % 8) for record in written)
    if not padded_end and written:
        run = run[: len(run) - -len(written[-1]) % 8]
    assert [bytes(record) for record in split_records(run)] == written
    if len(run) >= HEADER_SIZE:
        with pytest.raises(RecordError):
            list(split_records(run[: len(run) - 8]))


def test_header_names_its_fields() -> None:
    encoder = Encoder()
    header = decode_header(encoder.state(3, 1, 1, **TIMES).stamp(9, 2, 7))
    assert header.length == 48
    assert header.type == RecordType.STATE
    assert (header.instrument, header.sequence, header.ring_id, header.flags) == (3, 9, 2, 0)
    assert (header.exchange_ns, header.received_ns, header.published_ns) == (5, 6, 7)
