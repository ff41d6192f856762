"""The newest trades in memory are those of the tables, whatever comes in whatever order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from alphapulse.config import StoreSettings
from alphapulse.history import TradeRow, in_order
from alphapulse.store import EmbeddedStore, WriteBatch, recent
from alphapulse.store.recent import RecentTrades
from tests.trading import NOW_NS, row

KEY = ("kraken", "BTC-USD")
KEPT = 10


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "KEPT", KEPT)


def at(second: int, number: int) -> TradeRow:
    return row(number, timestamp_ns=NOW_NS + second * 10**9)


def test_any_order_gives_the_newest() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        rows = [at(rng.randrange(20), number) for number in range(rng.randrange(1, 40))]
        first = rng.randrange(len(rows) + 1)
        newest = RecentTrades()
        newest.put(KEY, in_order(rows[:first])[-KEPT:])
        held = rows[:first]
        rest = rows[first:]
        while rest:
            size = rng.randrange(1, 6)
            batch, rest = rest[:size], rest[size:]
            newest.add(batch)
            held += batch
            for limit in (1, 5, KEPT):
                found = newest.read(KEY, limit)
                assert found == in_order(held)[-limit:], (limit, len(held))
            whole = newest.read(KEY, None)
            assert whole in (None, in_order(held))
            # Exactly `KEPT` at the start leave open whether there are more.
            assert len(held) > KEPT or first == KEPT or whole is not None


def test_a_series_that_nobody_asked_for_is_not_kept() -> None:
    newest = RecentTrades()
    newest.add([at(1, 1)])
    assert newest.read(KEY, 1) is None


async def test_requests_see_what_was_committed(tmp_path: object) -> None:
    store = await EmbeddedStore.open(
        StoreSettings(path=f"{tmp_path}/history.duckdb", retention_days=0)
    )
    held: list[TradeRow] = []
    for number in range(1, 30):
        batch = [at(number, number), at(number - 7, 100 + number)]
        await store.append(WriteBatch(exchange="kraken", trades=batch))
        held += batch
        for limit in (1, 3, KEPT, 25):
            found = await store.read_trades(*KEY, limit=limit, newest=True)
            assert found == in_order(held)[-limit:]
    await store.close()


async def test_what_there_is_nothing_of_is_not_kept(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(StoreSettings(path=f"{tmp_path}/history.duckdb"))
    for number in range(5):
        assert await store.read_trades("kraken", f"NO-{number}", limit=3, newest=True) == []
    assert store._recent._series == {}
    await store.append(WriteBatch(exchange="kraken", trades=[at(1, 1)]))
    assert await store.read_trades(*KEY, limit=3, newest=True) == [at(1, 1)]
    assert list(store._recent._series) == [KEY]
    await store.close()
