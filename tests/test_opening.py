"""A program written for the protocol works with each history by changing one line: its address."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from alphapulse import open_repository
from alphapulse.client.repository import HttpRepository
from alphapulse.config import RingSettings
from alphapulse.errors import RequestError, StoreError
from alphapulse.store import EmbeddedStore, RedisStore, WriteBatch, open_store
from tests.serving import api_settings, serving
from tests.support import ROOT
from tests.trading import NOW_NS, redis_server, row

ADDRESS = "http://127.0.0.1:3001"
ROWS = [
    row(number, timestamp_ns=NOW_NS + number * 10**9, price=2943020, size=18967538, size_exponent=8)
    for number in range(3)
]


def example(name: str) -> str:
    """The program that a page shows."""
    text = (ROOT / name).read_text(encoding="utf-8")
    programs: list[str] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (program,) = (each for each in programs if "open_repository" in each)
    assert ADDRESS in program
    return program


async def run(program: str, where: str) -> str:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program.replace(ADDRESS, where)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b""), errors.decode()
    return output.decode()


async def test_the_same_program_reads_every_history(ring_prefix: str, tmp_path: Path) -> None:
    path = str(tmp_path / "history.duckdb")
    programs = [example("docs/client.md"), example("README.md")]
    printed: dict[str, list[str]] = {}
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server())
        settings = api_settings(ring_prefix, path=path, retention_days=0)
        store = await open_store(settings)
        await store.append(WriteBatch(exchange="kraken", trades=ROWS))
        async with serving(settings, store) as api:
            where = f"http://127.0.0.1:{api.port}"
            printed["http"] = [await run(program, where) for program in programs]
        await store.close()
        printed["embedded"] = [await run(program, path) for program in programs]
        usual = replace(
            settings,
            ring=RingSettings(),
            store=replace(settings.store, redis_url=redis.url),
        )
        store = await open_store(usual)
        await store.append(WriteBatch(exchange="kraken", trades=ROWS))
        await store.close()
        printed["redis"] = [await run(program, redis.url) for program in programs]
    assert printed["http"][0] == "29430.2 0.18967538\n0.56902614\n"
    assert printed["http"][1].count("29430.2 29430.2 29430.2 29430.2 ") >= 1
    assert printed["embedded"] == printed["http"]
    assert printed["redis"] == printed["http"]


async def test_the_address_tells_the_kind(tmp_path: Path) -> None:
    for where, kind in (
        ("http://127.0.0.1:1", HttpRepository),
        ("https://example.org/alphapulse", HttpRepository),
        ("redis://127.0.0.1:1", RedisStore),
        ("unix:///nowhere/redis.sock", RedisStore),
        (str(tmp_path / "new.duckdb"), EmbeddedStore),
    ):
        repository = await open_repository(where)
        assert isinstance(repository, kind), where
        await repository.close()


async def test_several_may_read_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "history.duckdb")
    with pytest.raises(StoreError, match=re.escape(path)):
        await open_repository(path, read_only=True)
    repository = await open_repository(path)
    trade = {"timestamp": 1, "price": 1, "volume": 1, "side": "buy", "trade_id": 1}
    await repository.save_trades([trade], "BTC-USD", "kraken")
    await repository.close()
    reader = await open_repository(path, read_only=True)
    program = example("README.md").replace(f'"{ADDRESS}"', f'"{path}", read_only=True')
    assert await run(program, path) == "0.0 1.0 1.0 1.0 1.0 1.0\n"
    with pytest.raises(StoreError):
        await reader.save_trades([trade], "BTC-USD", "coinbase")
    await reader.close()


@pytest.mark.parametrize("where", ["ftp://example.org", "ws://127.0.0.1:8765/ws", "http://"])
async def test_other_addresses_are_refused(where: str) -> None:
    with pytest.raises(RequestError, match=re.escape(repr(where))):
        await open_repository(where)


@pytest.mark.parametrize("where", ["127.0.0.1:3001", "localhost:6379", "[::1]:3001", "api:3001/"])
async def test_a_host_and_port_make_no_file(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=f"http://{re.escape(where)}"):
        await open_repository(where)
    assert os.listdir(tmp_path) == []
