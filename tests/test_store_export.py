"""Exported files give back what the store has, exactly, in the libraries that people use."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from alphapulse.clock import NO_TIME
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.history import TradeRow, in_order
from alphapulse.model import IdKind, Side
from alphapulse.store import EmbeddedStore, WriteBatch, export
from alphapulse.store.export import Done, StoreSource
from tests.reference import bars as reference
from tests.trading import row

INT64_MAX = 2**63 - 1
DAY_NS = 86400 * 10**9
FIRST = date(2025, 11, 18)
FIRST_NS = (FIRST - date(1970, 1, 1)).days * DAY_NS


def trades() -> list[TradeRow]:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    rows = [
        row(
            number,
            timestamp_ns=FIRST_NS + rng.choice([0, 2]) * DAY_NS + rng.randrange(DAY_NS),
            received_ns=rng.choice([NO_TIME, FIRST_NS + number]),
            price=rng.choice([1, 29430, INT64_MAX]),
            price_exponent=rng.choice([0, 2, 18]),
            size=rng.choice([1, INT64_MAX]),
            size_exponent=rng.choice([0, 8, 18]),
            side=rng.choice([Side.BUY, Side.SELL]),
            matches=rng.choice([0, 1, 7]),
            filled=rng.random() < 0.2,
        )
        for number in range(1, 200)
    ]
    edges = [
        row("first", timestamp_ns=FIRST_NS),
        row("last", timestamp_ns=FIRST_NS + DAY_NS - 1),
        row(2**64 - 1, id_kind=IdKind.AGGREGATE, timestamp_ns=FIRST_NS + DAY_NS - 1),
        row(7, symbol="ETH-USD", timestamp_ns=FIRST_NS),
    ]
    return [*rows, *edges]


def plain(row: TradeRow) -> tuple[Any, ...]:
    return (
        row.timestamp_ns,
        None if row.received_ns == NO_TIME else row.received_ns,
        row.trade_id,
        row.id_kind.text,
        reference.value(row.price, row.price_exponent),
        reference.value(row.size, row.size_exponent),
        row.side.text,
        row.matches or None,
        row.filled,
    )


async def export_all(
    store: EmbeddedStore, folder: Path, table: str = "trades", **options: Any
) -> list[Done]:
    source = StoreSource(store)
    days = options.pop("first", None), options.pop("last", None)
    items = await export.plan(source, folder, table, lambda series: True, *days)
    options.setdefault("overwrite", False)
    return [done async for done in export.export(source, items, table, **options)]


def stored(folder: Path, symbol: str = "BTC-USD") -> list[tuple[Any, ...]]:
    """What DuckDB reads of a symbol, in the order of its days."""
    files = str(folder / "trades/**/*.parquet").replace("'", "''")
    with duckdb.connect() as database:
        return database.execute(
            f"""
            SELECT epoch_ns("timestamp"), epoch_ns(received), trade_id, id_kind, price, volume,
                side, matches, filled
            FROM read_parquet('{files}', hive_partitioning = true, file_row_number = true)
            WHERE symbol = '{symbol}' AND exchange = 'kraken'
            ORDER BY date, file_row_number
            """  # noqa: S608
        ).fetchall()


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    settings = StoreSettings(path=str(tmp_path / "history.duckdb"), retention_days=0)
    opened = await EmbeddedStore.open(settings)
    yield opened
    await opened.close()


async def test_every_trade_is_there_exactly(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 17)
    rows = trades()
    await store.append(WriteBatch(exchange="kraken", trades=rows))
    folder = tmp_path / "it's here"
    done = await export_all(store, folder)
    assert sum(each.rows for each in done) == len(rows)
    for symbol in ("BTC-USD", "ETH-USD"):
        expected = [plain(each) for each in in_order(rows) if each.symbol == symbol]
        assert stored(folder, symbol) == expected
    days = sorted(path.parent.name for path in folder.glob("trades/*/symbol=BTC-USD/*/*"))
    assert days == [f"date={FIRST}", f"date={FIRST + timedelta(days=2)}"]


async def test_other_libraries_read_them(store: EmbeddedStore, tmp_path: Path) -> None:
    rows = trades()
    await store.append(WriteBatch(exchange="kraken", trades=rows))
    await export_all(store, tmp_path)
    lazy = pl.scan_parquet(tmp_path / "trades", hive_partitioning=True)
    frame = lazy.filter(pl.col("symbol") == "BTC-USD").collect()
    expected = [plain(each) for each in in_order(rows) if each.symbol == "BTC-USD"]
    assert sorted(frame["price"].to_list()) == sorted(each[4] for each in expected)
    assert frame.schema["price"] == pl.Decimal(38, 18)
    assert frame.schema["timestamp"] == pl.Datetime("ns")
    one = tmp_path / f"trades/exchange=kraken/symbol=ETH-USD/date={FIRST}/part.parquet"
    assert pl.read_parquet(one)["timestamp"].dt.timestamp("ns").to_list() == [FIRST_NS]


async def test_bars_are_exported(store: EmbeddedStore, tmp_path: Path) -> None:
    rows = [row(number, timestamp_ns=FIRST_NS + number * 10**10) for number in range(100)]
    await store.append(WriteBatch(exchange="kraken", trades=rows))
    done = await export_all(store, tmp_path, "bars_1m")
    found = pl.read_parquet(done[0].item.path)
    bars = reference.bars(rows, 60 * 10**9)
    names = ["open", "high", "low", "close", "volume", "trades"]
    assert found["timestamp"].dt.timestamp("ns").to_list() == [bar.timestamp_ns for bar in bars]
    assert found.select(names).rows() == [tuple(bar)[1:] for bar in bars]


async def test_a_whole_day_is_written_once(store: EmbeddedStore, tmp_path: Path) -> None:
    await store.append(WriteBatch(exchange="kraken", trades=trades()))
    first = await export_all(store, tmp_path)
    paths = [each.item.path for each in first if each.rows]
    written = {path: path.stat().st_mtime_ns for path in paths}

    def kept(done: Sequence[Done]) -> list[bool]:
        return [each.kept for each in done if each.item.path in written]

    assert kept(await export_all(store, tmp_path)) == [True] * len(paths)
    assert {path: path.stat().st_mtime_ns for path in paths} == written
    # A file from before its day's end isn't whole.
    os.utime(paths[0], ns=(FIRST_NS, FIRST_NS + DAY_NS - 1))
    (paths[0].parent / ".part.parquet.999999999").write_bytes(b"left by a killed one")
    assert kept(await export_all(store, tmp_path)) == [False] + [True] * (len(paths) - 1)
    assert os.listdir(paths[0].parent) == ["part.parquet"]
    assert kept(await export_all(store, tmp_path, overwrite=True)) == [False] * len(paths)


async def test_days_may_be_chosen(store: EmbeddedStore, tmp_path: Path) -> None:
    await store.append(WriteBatch(exchange="kraken", trades=trades()))
    second = FIRST + timedelta(days=1)
    done = await export_all(store, tmp_path, first=second)
    assert {each.item.day for each in done} == {second, second + timedelta(days=1)}
    done = await export_all(store, tmp_path, first=second, last=second)
    assert [each.rows for each in done] == [0]
    assert await export_all(store, tmp_path, last=FIRST - timedelta(days=1)) == []


async def test_a_folder_that_can_not_be_written_is_named(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    await store.append(WriteBatch(exchange="kraken", trades=trades()))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/trades/.*can't be written"):
        await export_all(store, tmp_path / "file")
