"""``alphapulse export`` as a program: from a file, from a server, from Redis."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from alphapulse.history import BookRow, GapRow, TradeRow
from alphapulse.model import Channel, Level, Reason
from alphapulse.store import WriteBatch, open_store
from tests.programs import ended
from tests.serving import api_settings, kept, serving
from tests.trading import NOW_NS, redis_server, row, settings_for

COMMAND = ("alphapulse.cli", "export")
DAY = datetime.fromtimestamp(NOW_NS // 10**9, UTC).date()
ROWS = [row(number, timestamp_ns=NOW_NS + number, price=10000 + number) for number in range(50)]


GAPS = [
    GapRow(
        exchange="kraken",
        symbol=symbol,
        channel=Channel.RING if symbol is None else Channel.TRADES,
        reason=Reason.LAPPED if symbol is None else Reason.GAP,
        first=number,
        last=number + 1,
        count=2,
        since_ns=NOW_NS,
        received_ns=NOW_NS + number,
    )
    for number, symbol in enumerate(("BTC-USD", "ETH-USD", None))
]


def lacking(folder: Path) -> list[tuple[object, ...]]:
    """Symbols and bounds of exported gaps, as DuckDB reads them."""
    files = f"{folder}/gaps/**/*.parquet"
    with duckdb.connect() as database:
        found = database.read_parquet(files, hive_partitioning=True)
        return found.project('symbol, "first", "last"').order('"first"').fetchall()


def book(symbol: str, version: int, timestamp_ns: int) -> BookRow:
    return BookRow(
        exchange="kraken",
        symbol=symbol,
        version=version,
        timestamp_ns=timestamp_ns,
        price_exponent=2,
        size_exponent=8,
        bids=(Level(10001, 1), Level(9900, 250000000)),
        asks=(Level(10002, 30),),
    )


BOOKS = [
    book("BTC-USD", 7, NOW_NS + 1),
    book("BTC-USD", 9, NOW_NS + 2),
    # Of a symbol and a day without trades.
    book("ETH-USD", 3, NOW_NS - 86400 * 10**9),
]
LEVELS = [
    ("ETH-USD", 3, "bid", 1, Decimal("100.01"), Decimal("0.00000001")),
    ("ETH-USD", 3, "bid", 2, Decimal("99"), Decimal("2.5")),
    ("ETH-USD", 3, "ask", 1, Decimal("100.02"), Decimal("0.0000003")),
]


def levels(folder: Path) -> list[tuple[Any, ...]]:
    """Exported books as polars reads them, by day in the order of the files."""
    frame = pl.scan_parquet(folder / "books", hive_partitioning=True).sort("date").collect()
    assert frame.schema["price"] == frame.schema["volume"] == pl.Decimal(38, 18)
    times = frame["timestamp"].dt.timestamp("ns").to_list()
    assert times == sorted(times)
    return frame.select("symbol", "version", "side", "level", "price", "volume").rows()


BTC_LEVELS = [("BTC-USD", version, *each[2:]) for version in (7, 9) for each in LEVELS]


def prices(folder: Path) -> list[object]:
    frame = pl.scan_parquet(folder / "trades", hive_partitioning=True).collect()
    return frame.sort("timestamp")["price"].to_list()


def exact(rows: list[TradeRow]) -> list[object]:
    return [each.exact_price for each in rows]


async def test_a_file_is_exported(tmp_path: Path, ring_prefix: str) -> None:
    path = str(tmp_path / "history.duckdb")
    async with kept(settings_for(ring_prefix, path=path, retention_days=0), *ROWS) as store:
        await store.append(WriteBatch(exchange="kraken", gaps=GAPS, books=BOOKS))
    environ = {"ALPHAPULSE__STORE__PATH": path}
    status, out, error = await ended(*COMMAND, str(tmp_path), **environ)
    assert (status, error) == (0, "")
    assert f"kraken BTC-USD {DAY}: 50 rows" in out
    assert "1 files written with 50 rows, 0 were there already" in out
    assert prices(tmp_path) == exact(ROWS)
    arguments = (str(tmp_path), "--table", "bars_1s", "--symbol", "BTC/USD")
    status, out, _ = await ended(*COMMAND, *arguments, **environ)
    assert (status, out.splitlines()[-1]) == (
        0,
        "1 files written with 1 rows, 0 were there already",
    )
    gaps = (str(tmp_path), "--table", "gaps")
    status, out, _ = await ended(*COMMAND, *gaps, **environ)
    assert status == 0
    assert f"kraken {DAY}: 3 rows" in out
    assert lacking(tmp_path) == [("BTC-USD", 0, 1), ("ETH-USD", 1, 2), (None, 2, 3)]
    status, out, _ = await ended(*COMMAND, str(tmp_path), "--table", "books", **environ)
    assert status == 0
    assert "2 files written with 9 rows" in out
    assert levels(tmp_path) == [*LEVELS, *BTC_LEVELS]
    today = (str(tmp_path / "today"), "--table", "books", "--start", str(DAY))
    status, out, _ = await ended(*COMMAND, *today, **environ)
    assert "1 files written with 6 rows" in out
    before = (*today[:3], "--end", str(DAY - timedelta(days=1)))
    status, out, _ = await ended(*COMMAND, *before, **environ)
    assert "1 files written with 3 rows" in out
    status, _, error = await ended(*COMMAND, *gaps, "--symbol", "BTC-USD", **environ)
    assert status == 2
    assert "--symbol BTC-USD: a file of gaps has those of all symbols" in error
    status, _, error = await ended(*COMMAND, str(tmp_path), "--table", "states", **environ)
    assert status == 1
    assert "nothing to export" in error
    status, _, error = await ended(*COMMAND, str(tmp_path), "--exchange", "coinbase", **environ)
    assert status == 1
    assert "nothing to export of coinbase, any symbol" in error
    status, _, error = await ended(*COMMAND, str(tmp_path), "--table", "levels", **environ)
    assert status == 2
    assert "--table levels: use one of trades, bars_1s" in error


async def test_a_running_server_is_exported(tmp_path: Path, ring_prefix: str) -> None:
    settings = api_settings(ring_prefix, path=str(tmp_path / "h.duckdb"), retention_days=0)
    environ = {"ALPHAPULSE__STORE__PATH": settings.store.path}
    async with kept(settings, *ROWS) as store, serving(settings, store) as api:
        await store.append(WriteBatch(exchange="kraken", gaps=GAPS, books=BOOKS))
        status, _, error = await ended(*COMMAND, str(tmp_path), **environ)
        assert status == 1
        assert "export --from" in error
        url = f"http://127.0.0.1:{api.port}"
        status, out, error = await ended(*COMMAND, str(tmp_path), "--from", url, **environ)
        assert (status, error) == (0, "")
        assert "with 50 rows" in out
        arguments = (str(tmp_path), "--from", url, "--table")
        status, out, error = await ended(*COMMAND, *arguments, "gaps", **environ)
        assert (status, error) == (0, "")
        assert "1 files written with 3 rows" in out
        status, out, error = await ended(*COMMAND, *arguments, "books", **environ)
        # Of ETH-USD it has no trades, and doesn't collect it.
        assert (status, error) == (0, "")
        assert levels(tmp_path) == BTC_LEVELS
        status, _, error = await ended(*COMMAND, *arguments, "states", **environ)
        assert status == 2
        assert "--table states: a server doesn't tell them" in error
    assert prices(tmp_path) == exact(ROWS)
    assert lacking(tmp_path) == [("BTC-USD", 0, 1), ("ETH-USD", 1, 2), (None, 2, 3)]
    status, _, error = await ended(*COMMAND, str(tmp_path), "--from", "ftp://x", **environ)
    assert status == 2
    assert "--from: 'ftp://x' is none like http://" in error


async def test_redis_is_exported(tmp_path: Path, ring_prefix: str) -> None:
    with redis_server() as redis:
        settings = settings_for(ring_prefix, redis_url=redis.url, retention_days=0)
        async with kept(settings, *ROWS) as store:
            await store.append(WriteBatch(exchange="kraken", gaps=GAPS, books=BOOKS))
        arguments = (*COMMAND, str(tmp_path), "--prefix", ring_prefix)
        status, out, error = await ended(*arguments, REDIS_URL=redis.url)
        assert (status, error) == (0, "")
        assert "with 50 rows" in out
        status, out, error = await ended(*arguments, "--table", "gaps", REDIS_URL=redis.url)
        assert (status, error) == (0, "")
        assert lacking(tmp_path) == [("BTC-USD", 0, 1), ("ETH-USD", 1, 2), (None, 2, 3)]
        # Symbols without trades are known by the settings.
        symbols = {"ALPHAPULSE__VENUES__KRAKEN__SYMBOLS": "ETH-USD", "REDIS_URL": redis.url}
        status, out, error = await ended(*arguments, "--table", "books", **symbols)
        assert (status, error) == (0, "")
        assert levels(tmp_path) == [*LEVELS, *BTC_LEVELS]
        store = await open_store(settings)
        assert await store.position("kraken") is None
        await store.close()
    assert prices(tmp_path) == exact(ROWS)


async def test_days_that_are_none_are_refused(tmp_path: Path) -> None:
    days = ("--start", "2026-11-02", "--end", "2026-11-01")
    status, _, error = await ended(*COMMAND, str(tmp_path), *days)
    assert status == 2
    assert error == "alphapulse: --start 2026-11-02: is after --end 2026-11-01\n"


async def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    status, _, error = await ended(*COMMAND, str(tmp_path), "--from", url)
    assert status == 1
    assert error.startswith(f"alphapulse: --from: {url} failed: ")
    assert "is `alphapulse up` or `alphapulse-api-server` running there?" in error


async def test_a_server_that_does_not_answer_is_given_up_soon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        status, _, error = await ended(*COMMAND, str(tmp_path), "--from", url)
    assert status == 1
    assert f"--from: {url} failed: no answer in 5 s; is" in error
