"""The records: frozen, exact, with the integer values of the wire format."""

from __future__ import annotations

import pickle
import re
from decimal import Decimal
from enum import IntEnum
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse import model
from alphapulse.clock import NO_TIME
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
    InstrumentDefined,
    Level,
    Overrun,
    Reason,
    Record,
    RecordFlag,
    RecordType,
    Side,
    StateChange,
    Trade,
)
from tests.support import ROOT, make_instrument

INSTRUMENT = make_instrument(id=7, price_exponent=1, size_exponent=8)

EVENTS: list[Event] = [
    InstrumentDefined(exchange="kraken", sequence=1, instrument=INSTRUMENT),
    BookSnapshot(
        exchange="kraken",
        sequence=2,
        instrument=INSTRUMENT,
        version=1,
        reason=Reason.SUBSCRIBED,
        bids=(Level(294302, 18967538),),
        asks=(Level(294303, 1),),
    ),
    BookDelta(
        exchange="kraken",
        sequence=3,
        instrument=INSTRUMENT,
        version=2,
        prev_version=1,
        changes=(Change(BookSide.BID, 294302, 0, Action.REMOVE),),
    ),
    Trade(
        exchange="kraken",
        sequence=4,
        instrument=INSTRUMENT,
        price=294302,
        size=1,
        side=Side.BUY,
        trade_id="42",
    ),
    StateChange(
        exchange="kraken",
        sequence=5,
        instrument=INSTRUMENT,
        state=BookState.STALE,
        reason=Reason.DISCONNECTED,
    ),
    Gap(
        exchange="kraken",
        sequence=6,
        instrument=None,
        channel=Channel.TRADES,
        reason=Reason.RECONNECTED,
    ),
    Heartbeat(exchange="kraken", sequence=7),
    Overrun(exchange="kraken", epoch=1, first=8, last=9, count=2, reason=Reason.LAPPED),
]


def test_every_kind_of_event_is_here() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_frozen_and_travel_between_processes(event: Event) -> None:
    with pytest.raises(AttributeError):
        event.exchange = "other"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize(
    "event",
    [event for event in EVENTS if isinstance(event, Record)],
    ids=lambda event: type(event).__name__,
)
def test_times_that_nobody_gave_are_unknown_not_zero(event: Record) -> None:
    assert event.exchange_ns == event.received_ns == event.published_ns == NO_TIME


def test_a_gap_says_nothing_that_it_does_not_know() -> None:
    gap = next(event for event in EVENTS if isinstance(event, Gap))
    assert (gap.first, gap.last, gap.count) == (None, None, None)


def test_only_the_flag_makes_a_snapshot_a_repeat() -> None:
    snapshot = next(event for event in EVENTS if isinstance(event, BookSnapshot))
    assert not snapshot.repeat
    for flags, repeat in ((RecordFlag.REPEAT, True), (RecordFlag.MADE, False), (3, True)):
        flagged = BookSnapshot(
            **{
                name: getattr(snapshot, name)
                for name in snapshot.__struct_fields__
                if name != "flags"
            },
            flags=flags,
        )
        assert flagged.repeat is repeat


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_prices_and_sizes_come_out_exact(scaled: int) -> None:
    assert INSTRUMENT.price(scaled) * 10 == Decimal(scaled)
    assert INSTRUMENT.size(scaled).as_tuple().exponent == -8
    assert str(INSTRUMENT.size(18967538)) == "0.18967538"


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (Side.BUY, "buy"),
        (Side.SELL, "sell"),
        (BookSide.BID, "bid"),
        (BookSide.ASK, "ask"),
        (Action.ADD, "add"),
        (Action.UPDATE, "update"),
        (Action.REMOVE, "remove"),
        (BookState.SYNCING, "syncing"),
        (BookState.LIVE, "live"),
        (BookState.STALE, "stale"),
        (BookState.INVALID, "invalid"),
        (Channel.TRADES, "trades"),
        (Channel.ORDERBOOK, "orderbook"),
        (Channel.RING, "ring"),
        (IdKind.TRADE, "trade"),
        (IdKind.AGGREGATE, "aggregate"),
        (Reason.CHECKSUM, "checksum"),
    ],
)
def test_words_of_the_json_events(member: Side | BookSide | Action | Reason, text: str) -> None:
    assert member.text == text


WIRE_FORMAT = (ROOT / "docs" / "wire-format.md").read_text(encoding="utf-8")


def test_record_types_are_those_of_the_wire_format() -> None:
    documented = {
        word.upper(): int(number)
        for number, word in re.findall(r"^### (\d+) (\w+)$", WIRE_FORMAT, flags=re.MULTILINE)
    }
    assert documented == {member.name: member.value for member in RecordType}


def test_reasons_are_those_of_the_wire_format() -> None:
    table = WIRE_FORMAT.partition("## Reasons")[2].partition("\n## ")[0]
    documented = {
        word.upper(): int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", table)
    }
    assert documented == {member.name: member.value for member in Reason}


@pytest.mark.parametrize(
    ("enumeration", "sentence"),
    [
        (BookState, r"`state` \| u8; ([^|]*)"),
        (Channel, r"`channel` \| u8; ([^|]*)"),
        (Side, r"`side` \| u8; the taker's: ([^|]*)"),
    ],
)
def test_enumerations_are_those_of_the_wire_format(
    enumeration: type[IntEnum], sentence: str
) -> None:
    found = re.search(sentence, WIRE_FORMAT)
    assert found is not None
    documented = {word.upper(): int(number) for number, word in re.findall(r"(\d) (\w+)", found[1])}
    assert documented == {member.name: member.value for member in enumeration}


def test_flags_are_those_of_the_wire_format() -> None:
    documented = {
        word.upper(): 1 << int(bit)
        for bit, word in re.findall(r"bit (\d) `(repeat|made)`", WIRE_FORMAT)
    }
    assert documented == {member.name: member.value for member in RecordFlag}


def test_every_enumeration_has_distinct_values() -> None:
    for enumeration in vars(model).values():
        if isinstance(enumeration, type) and issubclass(enumeration, IntEnum):
            assert len(enumeration.__members__) == len(set(enumeration)), enumeration
