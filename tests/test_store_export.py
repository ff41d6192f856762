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
from alphapulse.history import BookRow, FillStatus, GapFill, GapRow, StateRow, TradeRow, in_order
from alphapulse.model import BookState, Channel, IdKind, Level, Reason, Side
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


def every(exchange: str, symbol: str | None) -> bool:
    return True


async def export_all(
    store: EmbeddedStore, folder: Path, table: str = "trades", **options: Any
) -> list[Done]:
    source = StoreSource(store, options.pop("collected", ()))
    days = options.pop("first", None), options.pop("last", None)
    items = await export.plan(source, folder, table, options.pop("wanted", every), *days)
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


def gap(day: int, **fields: Any) -> GapRow:
    """A loss of Kraken's BTC-USD, seen at the beginning of a day."""
    defaults: dict[str, Any] = {
        "exchange": "kraken",
        "symbol": "BTC-USD",
        "channel": Channel.TRADES,
        "reason": Reason.GAP,
        "first": 7,
        "last": 9,
        "count": 3,
        "since_ns": FIRST_NS - 1,
        "received_ns": FIRST_NS + day * DAY_NS,
    }
    return GapRow(**{**defaults, **fields})


GAPS = [
    gap(0),
    gap(0, received_ns=FIRST_NS + DAY_NS - 1, first=None, last=None, count=None),
    gap(2, exchange="coinbase", channel=Channel.ORDERBOOK, reason=Reason.CHECKSUM),
    gap(2, symbol=None, channel=Channel.RING, reason=Reason.LAPPED, epoch=5, since_ns=NO_TIME),
]


async def test_gaps_are_exported_with_what_became_of_them(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    for each in GAPS:
        await store.append(WriteBatch(exchange=each.exchange, gaps=[each]))
    collected = [("coinbase", "BTC-USD"), ("kraken", "BTC-USD")]
    done = await export_all(store, tmp_path, "gaps", collected=collected)
    assert [each.rows for each in done] == [1, 2, 1]
    path = tmp_path / f"gaps/exchange=coinbase/date={FIRST + timedelta(days=2)}/part.parquet"
    assert done[0].item.path == path

    def found() -> list[tuple[Any, ...]]:
        columns = [
            *("exchange", "symbol", "channel", "reason", "first", "last", "count", "epoch"),
            *("timestamp", "since", "status", "filled", "filled_time"),
        ]
        frame = pl.scan_parquet(tmp_path / "gaps", hive_partitioning=True).select(columns)
        times = pl.col(pl.Datetime("ns")).dt.timestamp("ns")
        ordered = frame.with_columns(times).sort("timestamp", "exchange")
        return ordered.collect().rows()

    third = FIRST_NS + 2 * DAY_NS
    lapped = ("kraken", None, "ring", "lapped", 7, 9, 3, 5, third, None, "open", 0, None)
    unknown = [None] * 4
    begin, fate = FIRST_NS - 1, ("open", 0, None)
    assert found() == [
        ("kraken", "BTC-USD", "trades", "gap", 7, 9, 3, None, FIRST_NS, begin, *fate),
        ("kraken", "BTC-USD", "trades", "gap", *unknown, FIRST_NS + DAY_NS - 1, begin, *fate),
        ("coinbase", "BTC-USD", "orderbook", "checksum", 7, 9, 3, None, third, begin, *fate),
        lapped,
    ]
    # What isn't open any more is written once more.
    [ring] = [each for each in await store.read_gaps("kraken") if each.symbol is None]
    fill = GapFill(id=ring.id, status=FillStatus.FILLED, filled_ns=third + 5, filled=2)
    await store.append(WriteBatch(exchange="kraken", fills=[fill]))
    await export_all(store, tmp_path, "gaps", collected=collected)
    assert found()[-1] == (*lapped[:-3], "filled", 2, third + 5)
    done = await export_all(store, tmp_path, "gaps", collected=collected)
    assert [each.kept for each in done] == [False, False, True]


async def test_states_are_exported(store: EmbeddedStore, tmp_path: Path) -> None:
    states = [
        StateRow(
            exchange="kraken",
            symbol=symbol,
            state=state,
            reason=Reason.SUBSCRIBED,
            timestamp_ns=FIRST_NS + second * 10**9 - 5,
            received_ns=FIRST_NS + second * 10**9,
        )
        for second, state in enumerate(BookState)
        for symbol in ("BTC-USD", "ETH-USD")
    ]
    await store.append(WriteBatch(exchange="kraken", states=states))
    collected = [("kraken", "BTC-USD"), ("kraken", "ETH-USD")]
    options = {"collected": collected, "wanted": lambda exchange, symbol: symbol == "ETH-USD"}
    done = await export_all(store, tmp_path, "states", **options, last=FIRST)
    [path] = [each.item.path for each in done]
    assert path == tmp_path / f"states/exchange=kraken/symbol=ETH-USD/date={FIRST}/part.parquet"
    times = pl.col(pl.Datetime("ns")).dt.timestamp("ns")
    rows = pl.read_parquet(path, hive_partitioning=False).with_columns(times).rows()
    assert rows == [
        (each.timestamp_ns, each.received_ns, each.state.text, each.reason.text)
        for each in states
        if each.symbol == "ETH-USD"
    ]
    [again] = await export_all(store, tmp_path, "states", **options)
    assert again.kept
    assert await export_all(store, tmp_path, "states", **options, last=date(2025, 1, 1)) == []


async def test_every_kept_book_is_there_exactly(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_BOOKS", 7)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    edges = [FIRST_NS, FIRST_NS + 1, FIRST_NS + DAY_NS - 1, FIRST_NS + 2 * DAY_NS]
    times = {*edges, *(FIRST_NS + rng.randrange(3 * DAY_NS) for _ in range(50))}

    def side() -> tuple[Level, ...]:
        return tuple(Level(rng.choice([1, INT64_MAX]), 5) for _ in range(rng.randrange(4)))

    books = [
        BookRow(
            exchange="kraken",
            symbol="BTC-USD",
            version=version,
            timestamp_ns=time_ns,
            price_exponent=rng.choice([0, 2, 18]),
            size_exponent=rng.choice([0, 8, 18]),
            bids=side(),
            asks=side(),
        )
        for version, time_ns in enumerate(sorted(times))
    ]
    await store.append(WriteBatch(exchange="kraken", books=books))
    done = await export_all(store, tmp_path, "books", collected=[("kraken", "BTC-USD")])
    assert [each.item.day for each in done] == [FIRST + timedelta(days=day) for day in range(3)]
    found = [
        level
        for each in done
        if each.rows
        for level in pl.read_parquet(each.item.path, hive_partitioning=False)
        .with_columns(pl.col("timestamp").dt.timestamp("ns"))
        .rows()
    ]
    assert found == [
        (
            *(book.timestamp_ns, book.version, name, place),
            reference.value(level.price, book.price_exponent),
            reference.value(level.size, book.size_exponent),
        )
        for book in books
        for name, levels in (("bid", book.bids), ("ask", book.asks))
        for place, level in enumerate(levels, start=1)
    ]


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
