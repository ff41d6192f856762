"""``alphapulse export`` as a program: from a file, from a server, from Redis."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from alphapulse.history import TradeRow
from alphapulse.store import open_store
from tests.programs import ended
from tests.serving import api_settings, kept, serving
from tests.trading import NOW_NS, redis_server, row, settings_for

COMMAND = ("alphapulse.cli", "export")
DAY = datetime.fromtimestamp(NOW_NS // 10**9, UTC).date()
ROWS = [row(number, timestamp_ns=NOW_NS + number, price=10000 + number) for number in range(50)]


def prices(folder: Path) -> list[object]:
    frame = pl.scan_parquet(folder / "trades", hive_partitioning=True).collect()
    return frame.sort("timestamp")["price"].to_list()


def exact(rows: list[TradeRow]) -> list[object]:
    return [each.exact_price for each in rows]


async def test_a_file_is_exported(tmp_path: Path, ring_prefix: str) -> None:
    path = str(tmp_path / "history.duckdb")
    async with kept(settings_for(ring_prefix, path=path, retention_days=0), *ROWS):
        pass
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
    status, _, error = await ended(*COMMAND, str(tmp_path), "--exchange", "coinbase", **environ)
    assert status == 1
    assert "nothing to export of coinbase, any symbol" in error
    status, _, error = await ended(*COMMAND, str(tmp_path), "--table", "books", **environ)
    assert status == 2
    assert "--table books: use one of trades, bars_1s" in error


async def test_a_running_server_is_exported(tmp_path: Path, ring_prefix: str) -> None:
    settings = api_settings(ring_prefix, path=str(tmp_path / "h.duckdb"), retention_days=0)
    environ = {"ALPHAPULSE__STORE__PATH": settings.store.path}
    async with kept(settings, *ROWS) as store, serving(settings, store) as api:
        status, _, error = await ended(*COMMAND, str(tmp_path), **environ)
        assert status == 1
        assert "export --from" in error
        url = f"http://127.0.0.1:{api.port}"
        status, out, error = await ended(*COMMAND, str(tmp_path), "--from", url, **environ)
        assert (status, error) == (0, "")
        assert "with 50 rows" in out
    assert prices(tmp_path) == exact(ROWS)
    status, _, error = await ended(*COMMAND, str(tmp_path), "--from", "ftp://x", **environ)
    assert status == 2
    assert "ftp://x" in error


async def test_redis_is_exported(tmp_path: Path, ring_prefix: str) -> None:
    with redis_server() as redis:
        settings = settings_for(ring_prefix, redis_url=redis.url, retention_days=0)
        async with kept(settings, *ROWS):
            pass
        arguments = (*COMMAND, str(tmp_path), "--prefix", ring_prefix)
        status, out, error = await ended(*arguments, REDIS_URL=redis.url)
        assert (status, error) == (0, "")
        assert "with 50 rows" in out
        store = await open_store(settings)
        assert await store.position("kraken") is None
        await store.close()
    assert prices(tmp_path) == exact(ROWS)
