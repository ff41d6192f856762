"""The embedded store's own: one process, retention, its file."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec.structs import replace

from alphapulse.clock import wall_ns
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.history import (
    INTERVALS_NS,
    BookRow,
    FillStatus,
    GapRow,
    SeriesSummary,
    StateRow,
    TradeRow,
    in_order,
)
from alphapulse.model import BookState, Channel, Level, Reason
from alphapulse.shm import Position
from alphapulse.store import (
    EmbeddedStore,
    WriteBatch,
    embedded,
    embedded_bars,
    embedded_retention,
    tables,
)
from tests.reference import bars as reference
from tests.support import ROOT
from tests.trading import NOW_NS, eventually, row, stored_ids

OLD = ROOT / "tests" / "data" / "history-1.duckdb.gz"
"""A file that a program with tables of version 1 wrote."""
DAY_NS = 86400 * 10**9
KEY = ("kraken", "BTC-USD")

HOLD = """
import duckdb, sys
held = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "True")
print("open", flush=True)
sys.stdin.read()
"""


def state(received_ns: int) -> StateRow:
    return StateRow(
        exchange="kraken",
        symbol="BTC-USD",
        state=BookState.LIVE,
        reason=Reason.SUBSCRIBED,
        timestamp_ns=received_ns,
        received_ns=received_ns,
    )


def gap(received_ns: int) -> GapRow:
    return GapRow(
        exchange="kraken",
        symbol="BTC-USD",
        channel=Channel.TRADES,
        reason=Reason.GAP,
        first=1,
        last=3,
        count=3,
        since_ns=received_ns,
        received_ns=received_ns,
    )


def book(version: int, timestamp_ns: int, symbol: str = "BTC-USD") -> BookRow:
    return BookRow(
        exchange="kraken",
        symbol=symbol,
        version=version,
        timestamp_ns=timestamp_ns,
        price_exponent=2,
        size_exponent=4,
        bids=(Level(9999, 1),),
        asks=(Level(10001, 1),),
    )


def copy_files(source: str, target: str) -> None:
    """What a crash would leave behind, while nothing is under way."""
    for end in ("", ".wal"):
        Path(f"{target}{end}").unlink(missing_ok=True)
        if Path(f"{source}{end}").exists():
            shutil.copy(f"{source}{end}", f"{target}{end}")


def put_version_1(target: str) -> None:
    Path(target).write_bytes(gzip.decompress(OLD.read_bytes()))


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., StoreSettings]:
    def make(**fields: Any) -> StoreSettings:
        return StoreSettings(path=str(tmp_path / "history.duckdb"), **fields)

    return make


def _holding(path: str, *, read_only: bool = False) -> subprocess.Popen[str]:
    """A process that has the file open."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path, str(read_only)],
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


async def test_what_is_old_is_deleted(
    settings: Callable[..., StoreSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_retention, "ROWS_AT_ONCE", 2)
    now_ns = wall_ns()
    times = {day: now_ns - (10 - day) * DAY_NS for day in range(10)}
    rows = [row(day, timestamp_ns=time) for day, time in times.items()]
    store = await EmbeddedStore.open(settings(retention_days=0))
    await store.append(
        WriteBatch(
            exchange="kraken",
            trades=rows,
            states=[state(time) for time in times.values()],
            gaps=[gap(time) for time in times.values()],
            books=[book(1, time) for time in times.values()] + [book(1, times[0], "ETH-USD")],
        )
    )
    assert len(await stored_ids(store)) == 10
    bars = await store.read_bars("kraken", "BTC-USD", DAY_NS)
    await store.close()

    store = await EmbeddedStore.open(settings(retention_days=3.5))

    async def swept() -> bool:
        return len(await store.read_gaps("kraken")) == 3

    await eventually(swept)
    assert await stored_ids(store) == ["7", "8", "9"]
    assert len(await store.read_states("kraken", "BTC-USD")) == 3
    assert await store.read_book("kraken", "BTC-USD", times[6]) is None
    assert await store.read_book("kraken", "BTC-USD", times[7]) == book(1, times[7])
    # A symbol's latest book stays, and bars have a retention of their own.
    assert await store.read_book("kraken", "ETH-USD") == book(1, times[0], "ETH-USD")
    assert await store.read_bars("kraken", "BTC-USD", DAY_NS) == bars
    # What was seen stays known.
    assert await store.append(WriteBatch(exchange="kraken", trades=rows)) == 0
    await store.close()
    store = await EmbeddedStore.open(settings(retention_days=0, bar_retention_days=3))
    assert await store.append(WriteBatch(exchange="kraken", trades=rows)) == 0

    async def forgotten() -> bool:
        return len(await store.read_bars("kraken", "BTC-USD", DAY_NS)) < 10

    await eventually(forgotten)
    left = await store.read_bars("kraken", "BTC-USD", DAY_NS)
    assert left == bars[-len(left) :]
    assert len(left) in (2, 3)
    await store.close()


async def test_bars_survive_a_crash(
    settings: Callable[..., StoreSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setattr(embedded_bars, "MOST_PARTS", 20)
    monkeypatch.setattr(embedded_bars, "ENTRIES_AT_ONCE", 7)
    crashed = StoreSettings(path=str(tmp_path / "crashed.duckdb"), retention_days=0)
    store = await EmbeddedStore.open(settings(retention_days=0))
    rows: list[TradeRow] = []
    for _ in range(15):
        begin = len(rows)
        batch = [
            row(
                number,
                timestamp_ns=NOW_NS + rng.randrange(200 * 10**9),
                price=rng.randrange(1, 1000),
                price_exponent=rng.choice([2, 2, 5]),
            )
            for number in range(begin, begin + rng.randrange(1, 12))
        ]
        await store.append(WriteBatch(exchange="kraken", trades=batch))
        rows += batch
        copy_files(settings().path, crashed.path)
        for read_only in (True, False):
            again = await EmbeddedStore.open(crashed, read_only=read_only)
            for length in ("1s", "15m", "1d"):
                interval_ns = INTERVALS_NS[length]
                expected = reference.bars(rows, interval_ns)
                for each in (store, again):
                    bars = await each.read_bars("kraken", "BTC-USD", interval_ns)
                    assert [reference.plain(bar) for bar in bars] == expected
            await again.close()
    await store.close()


async def test_bars_are_whole_while_they_are_written(
    settings: Callable[..., StoreSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_bars, "MOST_PARTS", 3)
    store = await EmbeddedStore.open(settings(retention_days=0))

    async def write() -> None:
        for number in range(1, 300):
            await store.append(WriteBatch(exchange="kraken", trades=[row(number)]))

    await store.append(WriteBatch(exchange="kraken", trades=[row(0)]))
    writing = asyncio.create_task(write())
    counts = [0]
    while not writing.done():
        bars = await store.read_bars("kraken", "BTC-USD", 60 * 10**9)
        counts.append(sum(bar.trades for bar in bars))
    await writing
    assert counts == sorted(counts)
    bars = await store.read_bars("kraken", "BTC-USD", DAY_NS, limit=1, newest=True)
    assert sum(bar.trades for bar in await store.read_bars("kraken", "BTC-USD", 10**9)) == 300
    assert bars == (await store.read_bars("kraken", "BTC-USD", DAY_NS))[-1:]
    await store.close()


async def test_times_at_the_ends_of_64_bits_stop_nothing(
    settings: Callable[..., StoreSettings], tmp_path: Path
) -> None:
    last_ns, earliest_ns = 2**63 - 1, embedded_bars.EARLIEST_NS
    times = [-last_ns, 10 - last_ns, 5 * 10**9 - last_ns, earliest_ns - 1, earliest_ns, last_ns]
    rows = [row(number, timestamp_ns=time) for number, time in enumerate(times)]
    store = await EmbeddedStore.open(settings(retention_days=0))
    for batch in (rows[:2], rows[2:], [row(9, timestamp_ns=NOW_NS)]):
        await store.append(WriteBatch(exchange="kraken", trades=batch))
    # What a crash leaves is summed up again.
    crashed = StoreSettings(path=str(tmp_path / "crashed.duckdb"), retention_days=0)
    copy_files(settings().path, crashed.path)
    await store.close()
    for each in (settings(retention_days=0), crashed):
        store = await EmbeddedStore.open(each)
        assert await store.read_trades(*KEY) == in_order([*rows, row(9, timestamp_ns=NOW_NS)])
        for interval_ns in INTERVALS_NS.values():
            bars = await store.read_bars(*KEY, interval_ns)
            begins = [time - time % interval_ns for time in (earliest_ns, NOW_NS, last_ns)]
            assert [bar.timestamp_ns for bar in bars] == begins
        await store.close()


async def test_a_file_of_version_1_is_changed(settings: Callable[..., StoreSettings]) -> None:
    put_version_1(settings().path)
    with pytest.raises(StoreError, match=r"version 1.*open it once"):
        await EmbeddedStore.open(settings(), read_only=True)
    store = await EmbeddedStore.open(settings(retention_days=0))
    trades = await store.read_trades("kraken", "BTC-USD")
    assert [each.trade_id for each in trades] == [*map(str, range(1, 301)), "late"]
    assert {each.filled for each in trades} == {False}
    bars = await store.read_bars("kraken", "BTC-USD", 60 * 10**9)
    numbered = [replace(each, trade_id=str(place)) for place, each in enumerate(trades)]
    assert [reference.plain(bar) for bar in bars] == reference.bars(numbered, 60 * 10**9)
    (gap,) = await store.read_gaps("kraken")
    assert (gap.count, gap.id, gap.status) == (3, "1", FillStatus.OPEN)
    book = await store.read_book("kraken", "BTC-USD")
    assert book is not None
    assert book.version == 9
    assert await store.position("kraken") == Position(5, 6)
    # Known trades stay known, and new ones go on.
    again = WriteBatch(exchange="kraken", trades=[*trades[-3:], row(301)])
    assert await store.append(again) == 1
    await store.close()
    store = await EmbeddedStore.open(settings(retention_days=0))
    assert len(await store.read_trades("kraken", "BTC-USD")) == 302
    await store.close()


async def test_a_file_may_be_read_by_several(settings: Callable[..., StoreSettings]) -> None:
    with pytest.raises(StoreError, match=r"history\.duckdb doesn't exist"):
        await EmbeddedStore.open(settings(), read_only=True)
    store = await EmbeddedStore.open(settings(retention_days=0))
    await store.append(WriteBatch(exchange="kraken", trades=[row(1), row(2)]))
    await store.close()
    with _holding(settings().path, read_only=True) as holder:
        reader = await EmbeddedStore.open(settings(), read_only=True)
        assert await stored_ids(reader) == ["1", "2"]
        with pytest.raises(StoreError, match="reading only"):
            await reader.append(WriteBatch(exchange="kraken", trades=[row(3)]))
        await reader.close()
        holder.kill()


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
        broken.setattr(tables, "INSERT_TRADES", "INSERT INTO nowhere SELECT {text}")
        with pytest.raises(StoreError):
            await store.append(WriteBatch(exchange="kraken", trades=[row(10)]))
    assert await store.summarise() == before == await counted(store)
    await store.append(WriteBatch(exchange="kraken", trades=[row(11)]))
    assert await store.summarise() == await counted(store) != before
    await store.close()
    # What retention deletes is counted no more, a whole series included.
    store = await EmbeddedStore.open(settings(retention_days=30))
    await store.append(WriteBatch(exchange="kraken", trades=[row(12)]))

    async def swept() -> bool:
        return len(await store.summarise()) == 2

    await eventually(swept)
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


async def test_the_writer_gives_way(settings: Callable[..., StoreSettings]) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    store = await EmbeddedStore.open(settings())
    assert await store._run(store._readers, niceness) == niceness()
    expected = min(niceness() + embedded.WRITER_NICENESS, 19)
    assert await store._run(store._writer, niceness) == expected
    await store.close()


async def test_a_writer_that_may_not_give_way_writes(
    settings: Callable[..., StoreSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    store = await EmbeddedStore.open(settings())
    assert await store.append(WriteBatch(exchange="kraken", trades=[row(1)])) == 1
    assert await stored_ids(store) == ["1"]
    await store.close()


async def test_a_table_of_somebody_else_is_not_taken_for_new_trades(
    settings: Callable[..., StoreSettings],
) -> None:
    store = await EmbeddedStore.open(settings(retention_days=0))
    await store.append(WriteBatch(exchange="kraken", trades=[row(1), row(2)]))
    await store._read("CREATE TABLE new_trades AS SELECT * FROM trades LIMIT 1", [])
    assert await store.append(WriteBatch(exchange="kraken", trades=[row(3), row("a")])) == 2
    assert sorted(await stored_ids(store)) == ["1", "2", "3", "a"]
    await store.close()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE trades SET side = 200", "side 200"),
        ("UPDATE trades SET side = 0", "side 0"),
        ("UPDATE trades SET id_kind = 3", "id_kind 3"),
    ],
)
async def test_a_damaged_table_is_a_store_error(
    settings: Callable[..., StoreSettings], damage: str, told: str
) -> None:
    store = await EmbeddedStore.open(settings(retention_days=0))
    await store.append(WriteBatch(exchange="kraken", trades=[row(1)]))
    await store._read(damage, [])
    with pytest.raises(StoreError, match=told):
        await stored_ids(store)
    await store.close()


async def test_reads_are_in_order_while_trades_come_and_go(
    settings: Callable[..., StoreSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setattr(embedded_retention, "ROWS_AT_ONCE", 50)
    store = await EmbeddedStore.open(settings(retention_days=1))
    now_ns = wall_ns()
    kept = [row(number, timestamp_ns=now_ns + rng.randrange(50)) for number in range(400)]
    old = [row(number, timestamp_ns=now_ns - 2 * DAY_NS) for number in range(400, 600)]
    await store.append(WriteBatch(exchange="kraken", trades=[*old, *kept[:100]]))

    async def change() -> None:
        more = True
        for begin in range(100, 400, 10):
            await store.append(WriteBatch(exchange="kraken", trades=kept[begin : begin + 10]))
            more = more and await store._run(store._writer, store._sweep)

    changing = asyncio.create_task(change())
    while not changing.done():
        there = (await store.summarise())[0].trades - 200
        limit, newest = rng.choice([1, 7, 40]), rng.random() < 0.5
        start = rng.choice([None, now_ns])
        found = await store.read_trades(*KEY, start, None, limit, newest=newest)
        assert len(found) == limit
        places = [each.order_key for each in found]
        assert places == sorted(set(places))
        everything = await store.read_trades(*KEY, now_ns)
        assert max(there, 100) <= len(everything) <= 400
    await changing
    while await store._run(store._writer, store._sweep):
        pass
    assert await stored_ids(store) == [each.trade_id for each in in_order(kept)]
    assert [each.trades for each in await store.summarise()] == [400]
    await store.close()


async def test_a_closed_store_says_so(settings: Callable[..., StoreSettings]) -> None:
    store = await EmbeddedStore.open(settings())
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.ping()
    assert (await store.health_check())["status"] == "failed"
