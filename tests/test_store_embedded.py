"""The embedded store's own: one process, retention, its file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from alphapulse.clock import wall_ns
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.history import SeriesSummary
from alphapulse.store import EmbeddedStore, WriteBatch, tables
from tests.support import ROOT
from tests.trading import NOW_NS, row, stored_ids

DAY_NS = 86400 * 10**9

HOLD = """
import duckdb, sys
held = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., StoreSettings]:
    def make(**fields: Any) -> StoreSettings:
        return StoreSettings(path=str(tmp_path / "history.duckdb"), **fields)

    return make


def _holding(path: str) -> subprocess.Popen[str]:
    """A process that has the file open."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    return holder


async def test_a_file_in_another_process_is_refused_naming_it(
    settings: Callable[..., StoreSettings],
) -> None:
    with _holding(settings().path) as holder:
        with pytest.raises(StoreError, match=rf"open in process {holder.pid}.*store\.path"):
            await EmbeddedStore.open(settings())
        holder.kill()
    store = await EmbeddedStore.open(settings())
    await store.close()


async def test_old_trades_are_deleted(settings: Callable[..., StoreSettings]) -> None:
    now_ns = wall_ns()
    rows = [row(day, timestamp_ns=now_ns - (10 - day) * DAY_NS) for day in range(10)]
    store = await EmbeddedStore.open(settings(retention_days=0))
    await store.append(WriteBatch(exchange="kraken", trades=rows))
    assert len(await stored_ids(store)) == 10
    await store.close()
    store = await EmbeddedStore.open(settings(retention_days=3.5))
    await store.append(WriteBatch(exchange="kraken", trades=[row(10, timestamp_ns=now_ns)]))
    assert await stored_ids(store) == ["7", "8", "9", "10"]
    # What was seen stays known.
    assert await store.append(WriteBatch(exchange="kraken", trades=rows)) == 0
    await store.close()
    store = await EmbeddedStore.open(settings(retention_days=0))
    assert await store.append(WriteBatch(exchange="kraken", trades=rows)) == 0
    await store.close()


async def test_summaries_are_what_the_tables_hold(
    settings: Callable[..., StoreSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def counted(store: EmbeddedStore) -> list[SeriesSummary]:
        return [SeriesSummary._make(each) for each in await store._read(tables.SELECT_SUMMARY, [])]

    store = await EmbeddedStore.open(settings(retention_days=0))
    assert await store.summarise() == []
    old = row(5, timestamp_ns=NOW_NS - 40 * DAY_NS)
    for trades in (
        [row(7), row(8), row("x"), row(1, symbol="ETH-USD")],
        [row(7), row(9), old],  # seen before, new, late
        [],
        [row(3, symbol="SOL-USD", timestamp_ns=NOW_NS - 50 * DAY_NS)],
    ):
        await store.append(WriteBatch(exchange="kraken", trades=trades))
        assert await store.summarise() == await counted(store)
    before = await store.summarise()
    assert [summary.trades for summary in before] == [5, 1, 1]
    with monkeypatch.context() as broken:
        broken.setattr(tables, "INSERT_TRADES", "INSERT INTO nowhere SELECT 1")
        with pytest.raises(StoreError):
            await store.append(WriteBatch(exchange="kraken", trades=[row(10)]))
    assert await store.summarise() == before == await counted(store)
    await store.append(WriteBatch(exchange="kraken", trades=[row(11)]))
    assert await store.summarise() == await counted(store) != before
    await store.close()
    # What retention deletes is counted no more, a whole series included.
    store = await EmbeddedStore.open(settings(retention_days=30))
    await store.append(WriteBatch(exchange="kraken", trades=[row(12)]))
    assert await store.summarise() == await counted(store)
    assert [summary.symbol for summary in await store.summarise()] == ["BTC-USD", "ETH-USD"]
    await store.close()


async def test_a_file_that_is_no_database_is_refused(
    settings: Callable[..., StoreSettings], tmp_path: Path
) -> None:
    (tmp_path / "history.duckdb").write_bytes(b"something else")
    with pytest.raises(StoreError, match=r"history\.duckdb can't be opened"):
        await EmbeddedStore.open(settings())


async def test_tables_of_another_version_are_refused(
    settings: Callable[..., StoreSettings],
) -> None:
    with duckdb.connect(settings().path) as database:
        database.execute("CREATE TABLE about (schema_version INTEGER)")
        database.execute("INSERT INTO about VALUES (99)")
    with pytest.raises(StoreError, match=r"version 99.*store\.path"):
        await EmbeddedStore.open(settings())


async def test_the_memory_limit_holds(settings: Callable[..., StoreSettings]) -> None:
    store = await EmbeddedStore.open(settings(memory_limit_bytes=64 << 20))
    answer = await store._read("SELECT current_setting('memory_limit')", [])
    assert answer == [("64.0 MiB",)]
    await store.close()


async def test_a_closed_store_says_so(settings: Callable[..., StoreSettings]) -> None:
    store = await EmbeddedStore.open(settings())
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.ping()
    assert (await store.health_check())["status"] == "failed"
