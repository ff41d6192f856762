from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.clock import NO_TIME
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
    Overrun,
    Reason,
    RecordFlag,
    Side,
    StateChange,
    Trade,
)
from alphapulse.stream.messages import PART_BYTES, Times, encode_event, encode_parts, snapshot_head
from tests.support import make_instrument

KRAKEN = make_instrument(id=1, price_exponent=1, size_exponent=8)


def exact(text: str | None) -> dict[str, Any]:
    """An event's content, every number as the decimal that it is written as."""
    assert text is not None
    loaded = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=Decimal)
    assert isinstance(loaded["data"], dict)
    return {"type": loaded["type"], **loaded["data"]}


def test_a_trade() -> None:
    trade = Trade(
        exchange="kraken",
        sequence=99,
        exchange_ns=1690730998343415000,
        received_ns=1690730998400000001,
        instrument=KRAKEN,
        price=294302,
        size=18967538,
        side=Side.BUY,
        trade_id="42",
    )
    assert encode_event(trade, 1) == (
        '{"type":"trade","data":{"exchange":"kraken","symbol":"BTC-USD","price":29430.2,'
        '"volume":0.18967538,"side":"buy","trade_id":"42","id_kind":"trade",'
        '"timestamp":1690730998.343415,"timestamp_ns":1690730998343415000,'
        '"received_ns":1690730998400000001,"sequence":99}}'
    )


def test_a_snapshot_and_a_delta() -> None:
    snapshot = BookSnapshot(
        exchange="kraken",
        sequence=7,
        exchange_ns=1_500_000_000,
        received_ns=2_000_000_000,
        instrument=KRAKEN,
        version=7,
        reason=Reason.SUBSCRIBED,
        bids=(Level(294302, 18967538), Level(294000, 100000000)),
        asks=(),
    )
    assert encode_event(snapshot, 1790000000000) == (
        '{"type":"orderbook_snapshot","data":{"exchange":"kraken","symbol":"BTC-USD","version":7,'
        '"reason":"subscribed","timestamp":1.5,"timestamp_ns":1500000000,'
        '"received_ns":2000000000,"sequence":7,"epoch":1790000000000,'
        '"bids":[[29430.2,0.18967538],[29400,1]],"asks":[]}}'
    )
    delta = BookDelta(
        exchange="kraken",
        sequence=8,
        instrument=KRAKEN,
        version=8,
        prev_version=7,
        changes=(
            Change(BookSide.BID, 294302, 50000000, Action.UPDATE),
            Change(BookSide.BID, 294000, 0, Action.REMOVE),
            Change(BookSide.ASK, 294310, 1, Action.ADD),
        ),
    )
    assert exact(encode_event(delta, 1)) == {
        "type": "orderbook_delta",
        "exchange": "kraken",
        "symbol": "BTC-USD",
        "version": 8,
        "prev_version": 7,
        "timestamp": None,
        "timestamp_ns": None,
        "received_ns": None,
        "sequence": 8,
        "changes": [
            {
                "side": "bid",
                "price": Decimal("29430.2"),
                "volume": Decimal("0.5"),
                "action": "update",
            },
            {"side": "bid", "price": 29400, "volume": 0, "action": "remove"},
            {"side": "ask", "price": 29431, "volume": Decimal("0.00000001"), "action": "add"},
        ],
    }


def test_states_and_gaps() -> None:
    state = StateChange(
        exchange="kraken",
        sequence=3,
        received_ns=5,
        instrument=KRAKEN,
        state=BookState.STALE,
        reason=Reason.DISCONNECTED,
    )
    assert exact(encode_event(state, 1)) == {
        "type": "state",
        "exchange": "kraken",
        "symbol": "BTC-USD",
        "state": "stale",
        "reason": "disconnected",
        "timestamp": None,
        "timestamp_ns": None,
        "received_ns": 5,
        "sequence": 3,
    }
    gap = Gap(
        exchange="kraken",
        sequence=4,
        received_ns=5,
        instrument=None,
        channel=Channel.RING,
        reason=Reason.RESTARTED,
        first=2,
        count=0,
    )
    assert exact(encode_event(gap, 1)) == {
        "type": "gap",
        "exchange": "kraken",
        "symbol": None,
        "channel": "ring",
        "first": 2,
        "last": None,
        "count": 0,
        "reason": "restarted",
        "received_ns": 5,
        "since_ns": None,
    }
    overrun = Overrun(exchange="kraken", epoch=1, first=10, last=19, count=9, reason=Reason.LAPPED)
    told = exact(encode_event(overrun, 1))
    assert (told["channel"], told["first"], told["last"], told["count"]) == ("ring", 10, 19, 9)
    assert told["received_ns"] > 1_600_000_000 * 10**9


def test_what_clients_are_not_told() -> None:
    repeated = BookSnapshot(
        exchange="kraken",
        sequence=1,
        flags=RecordFlag.REPEAT,
        instrument=KRAKEN,
        version=1,
        reason=Reason.REPEATED,
        bids=(),
        asks=(),
    )
    assert encode_event(repeated, 1) is None
    assert encode_event(Heartbeat(exchange="kraken", sequence=1), 1) is None
    defined = InstrumentDefined(exchange="kraken", sequence=1, instrument=KRAKEN)
    assert encode_event(defined, 1) is None


int64s = st.integers(-(2**63) + 1, 2**63 - 1)


@given(
    price=int64s,
    size=st.integers(0, 2**63 - 1),
    places=st.tuples(st.integers(0, 18), st.integers(0, 18)),
    time_ns=int64s | st.just(NO_TIME),
    trade_id=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_numbers_have_all_their_digits_and_no_others(
    price: int, size: int, places: tuple[int, int], time_ns: int, trade_id: str
) -> None:
    trade = Trade(
        exchange="kraken",
        sequence=1,
        exchange_ns=time_ns,
        instrument=make_instrument(
            symbol="Ü-\u2028", price_exponent=places[0], size_exponent=places[1]
        ),
        price=price,
        size=size,
        side=Side.SELL,
        trade_id=trade_id,
        id_kind=IdKind.TEXT,
    )
    text = encode_event(trade, 1)
    told = exact(text)
    assert told["price"].compare_total(_shortest(price, places[0])) == 0
    assert told["volume"].compare_total(_shortest(size, places[1])) == 0
    assert told["trade_id"] == trade_id
    assert told["symbol"] == "Ü-\u2028"
    assert told["side"] == "sell"
    if time_ns == NO_TIME:
        assert told["timestamp"] is told["timestamp_ns"] is None
    else:
        assert told["timestamp"].compare_total(_shortest(time_ns, 9)) == 0
        assert told["timestamp_ns"] == time_ns
    assert text is not None
    assert "e" not in text.partition('"price":')[2].partition(',"side"')[0].replace("volume", "")


def _shortest(value: int, exponent: int) -> Decimal:
    """The decimal without trailing zeros after the point and without an exponent."""
    digits = f"{Decimal(value).scaleb(-exponent):f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return Decimal("0" if digits in ("-0", "") else digits)


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_a_large_book_comes_in_parts(count: int) -> None:
    bids = [(10**17 - price, 10**18 + price) for price in range(count)]
    asks = [(10**17 + price + 1, 10**18 + price) for price in range(count)]
    head = snapshot_head(KRAKEN, 3, Reason.REQUESTED, Times(1, 2, 3), 4)
    texts = encode_parts(head, bids, asks, KRAKEN, marked=True)
    parts = [exact(text) for text in texts]
    assert all(len(text.encode()) <= PART_BYTES for text in texts)
    assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert {int(part["parts"]) for part in parts} == {len(parts)}
    assert (len(parts) > 1) is (count > 1)
    for name, levels in (("bids", bids), ("asks", asks)):
        told = [tuple(level) for part in parts for level in part[name]]
        assert told == [
            (Decimal(price).scaleb(-1), Decimal(size).scaleb(-8)) for price, size in levels
        ]
    unmarked = encode_parts(head, bids, asks, KRAKEN, marked=False)
    assert ("parts" in exact(unmarked[0])) is (count > 1)
