"""Rows of trades made natively, against plain Python."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.consumer import Consumer
from alphapulse._core.records import Records
from alphapulse._core.segment import Segment
from alphapulse.config import StoreSettings
from alphapulse.delta import decode
from alphapulse.errors import RecordError
from alphapulse.history import OrderKey, TradeRow, in_order, trade_row
from alphapulse.model import IdKind, Trade
from alphapulse.store import EmbeddedStore, WriteBatch, embedded_trades
from alphapulse.store._columns import trade_columns
from alphapulse.store._rows import rows_of_columns
from tests.records import Fields, records, written_in_python
from tests.reference import codec
from tests.ring_memory import new_ring, producer
from tests.support import make_instrument
from tests.test_store_columns import trades
from tests.trading import NOW_NS, row

KEY = ("kraken", "BTC-USD")
INSTRUMENTS = {number: make_instrument(id=number) for number in range(3)}
SIDE_AT, KIND_AT = 68, 69
"""Where a trade's record has them."""


def plain_row(body: bytes) -> TradeRow | None:
    if body[4] != codec.TRADE or body[KIND_AT] == IdKind.TEXT:
        return None
    try:
        event = decode(body, INSTRUMENTS, "kraken")
    except RecordError:
        return None
    assert isinstance(event, Trade)
    return trade_row(event)


@given(
    st.lists(
        st.tuples(
            records((codec.TRADE, codec.TRADE, codec.TRADE, codec.GAP)),
            st.integers(0, 4),
            st.sampled_from([None, (SIDE_AT, 0), (SIDE_AT, 3), (KIND_AT, 2), (KIND_AT, 255)]),
        ),
        max_size=8,
    )
)
def test_rows_of_records_are_those_of_their_events(
    drawn: list[tuple[Fields, int, tuple[int, int] | None]],
) -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    expected = []
    for (kind, header, fields), instrument, spoilt in drawn:
        body = bytearray(written_in_python((kind, {**header, "instrument": instrument}, fields)))
        if spoilt is not None and kind == codec.TRADE:
            body[spoilt[0]] = spoilt[1]
        expected.append(plain_row(bytes(body)))
        writer.write(bytes(body))
    found = consumer.next(100) or Records()
    assert isinstance(found, Records)
    rows = found.trade_rows(INSTRUMENTS, "kraken", TradeRow)
    assert rows == [each for each in expected if each is not None]


@given(st.lists(trades(), max_size=20))
def test_rows_of_columns_are_what_the_columns_were_made_of(rows: list[TradeRow]) -> None:
    columns = trade_columns(rows, [1] * len(rows), 0)
    texts = columns.setdefault("trade_text", np.array([""] * len(rows), object))
    assert len(texts) == len(rows)
    assert rows_of_columns(columns, *KEY) == rows


@pytest.mark.parametrize(
    ("unsorted", "most"),
    [
        (1, embedded_trades.MOST_UNSORTED),
        (2, embedded_trades.MOST_UNSORTED),
        (embedded_trades.UNSORTED, 0),
        (embedded_trades.UNSORTED, 3),
        (embedded_trades.UNSORTED, embedded_trades.MOST_UNSORTED),
    ],
)
async def test_any_part_is_that_of_a_plain_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsorted: int, most: int
) -> None:
    monkeypatch.setattr(embedded_trades, "UNSORTED", unsorted)
    monkeypatch.setattr(embedded_trades, "MOST_UNSORTED", most)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    rows = [
        row(number if rng.random() < 0.7 else f"t{number}", timestamp_ns=NOW_NS + second * 10**9)
        for number, second in enumerate(rng.choices([0, 0, 0, 1, 2, 3, 50, 400], k=120))
    ]
    rng.shuffle(rows)
    held = in_order(rows)
    store = await EmbeddedStore.open(StoreSettings(path=f"{tmp_path}/history.duckdb"))
    for first in range(0, len(rows), 50):
        batch = WriteBatch(exchange="kraken", trades=rows[first : first + 50])
        await store.append(batch)
    for _ in range(150):
        newest, limit = (
            rng.random() < 0.5,
            rng.choice([None, 0, 1, 2, 9, 40, 200, 2**63 - 1, 2**70]),
        )
        beyond: OrderKey | None = rng.choice([None, rng.choice(held).order_key])
        start = rng.choice([None, NOW_NS + rng.randrange(4) * 10**9])
        wanted = [one for one in held if start is None or one.timestamp_ns >= start]
        if beyond is not None:
            wanted = [one for one in wanted if (one.order_key < beyond) == newest]
            wanted = [one for one in wanted if one.order_key != beyond]
        if limit is not None:
            wanted = wanted[max(len(wanted) - limit, 0) :] if newest else wanted[:limit]
        found = await store.read_trades(*KEY, start, None, limit, newest=newest, beyond=beyond)
        assert found == wanted, (newest, limit, beyond, start)
    await store.close()
