"""``alphapulse demo``: everything runs, beside another one, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import websockets

from tests.programs import TIMEOUT_SECONDS, Program, program
from tests.rebuild import Consumer

VENUES = ("coinbase", "kraken", "binance_us")


class Demo:
    """A running demo, as its own words describe it."""

    def __init__(self, running: Program, told: dict[str, str]) -> None:
        self.program = running
        self.api = told["REST"].removesuffix("/health")
        self.stream = told["stream"]
        self.prefix = told["rings"].removesuffix(".<venue>")

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(self.api + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    def folders(self) -> list[Path]:
        return list(Path(tempfile.gettempdir()).glob(f"{self.prefix}-*"))

    def segments(self) -> list[str]:
        return sorted(path.name for path in Path("/dev/shm").glob(f"{self.prefix}.*"))


@asynccontextmanager
async def demo(**environ: str) -> AsyncIterator[Demo]:
    """Start a demo on free ports; it is complete when all books are live."""
    arguments = ("alphapulse.cli", "demo", "--api-port", "0", "--stream-port", "0")
    async with program(*arguments, environ=environ) as running:
        await running.line("Ctrl-C")
        told = dict(line.split()[:2] for line in running.lines if line.startswith("  "))
        yield Demo(running, told)


async def gone(processes: list[psutil.Process]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, TIMEOUT_SECONDS)
    assert not alive


async def test_everything_is_live_and_trades_grow() -> None:
    async with demo() as running:
        health = await running.get("/health")
        assert health["status"] == "ok"
        assert set(health["components"]["collectors"]) == set(VENUES)
        for venue in VENUES:
            book = await running.get(f"/orderbook/BTC-USD?exchange={venue}&depth=5")
            assert book["state"] == "live"
            assert len(book["bids"]) == len(book["asks"]) == 5
        consumer = Consumer()
        url = f"{running.stream}?channels=trades,orderbook,state&exchanges=kraken"
        async with websockets.connect(url) as client:
            assert json.loads(await client.recv())["type"] == "subscribed"
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not consumer.trades or len(consumer.books) < 3:
                    consumer.take(json.loads(await client.recv()))
        trade = consumer.trades[0]
        path = f"/trades/{trade['symbol']}?exchange=kraken&limit=1000"
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while trade["trade_id"] not in {
                row["trade_id"] for row in (await running.get(path))["data"]
            }:
                pass
        assert len(running.segments()) == 6
        assert await running.program.end(signal.SIGINT) == 0
        assert running.segments() == []


async def test_two_demos_do_not_touch_each_other() -> None:
    async with demo() as first, demo() as second:
        assert first.prefix != second.prefix
        assert first.api != second.api
        assert await second.program.end() == 0
        assert second.segments() == []
        assert (await first.get("/health"))["status"] == "ok"
        assert len(first.segments()) == 6
        assert await first.program.end() == 0
        assert first.segments() == []


async def test_no_child_outlives_a_killed_demo_and_the_next_clears_up() -> None:
    async with demo() as running:
        parent = psutil.Process(running.program.pid)
        children = parent.children(recursive=True)
        assert len(children) == 5
        await running.program.end(signal.SIGKILL)
        await gone(children)
        assert running.segments() == []
    async with demo() as running:
        children = psutil.Process(running.program.pid).children(recursive=True)
        collectors = [child for child in children if "collectors.daemon" in child.cmdline()[2]]
        assert len(collectors) == 3
        # All at once, so that nobody is left to clear up.
        running.program.process.send_signal(signal.SIGSTOP)
        for child in collectors:
            child.kill()
        running.program.process.kill()
        await gone(children)
        assert len(running.segments()) == 6
        left = running
        folders = left.folders()
        assert folders
    async with demo() as running:
        assert await running.program.end() == 0
        assert left.segments() == []
        assert not any(folder.exists() for folder in folders)


async def test_a_killed_collector_is_started_again_and_its_books_come_back() -> None:
    async with demo() as running:
        children = psutil.Process(running.program.pid).children(recursive=True)
        [kraken] = [child for child in children if "kraken" in child.cmdline()]
        before = (await running.get("/health"))["components"]["collectors"]["kraken"]["epoch"]
        url = f"{running.stream}?channels=orderbook,state&exchanges=kraken&symbols=BTC-USD"
        async with websockets.connect(url) as client:
            kraken.kill()
            consumer = Consumer()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while True:
                    event = json.loads(await client.recv())
                    if event["type"] == "subscribed":
                        continue
                    consumer.take(event)
                    told = event["data"]
                    if event["type"] == "orderbook_snapshot" and told["epoch"] != before:
                        break
        assert ("BTC-USD", "stale", "disconnected") in consumer.changes_of_state
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (await running.get("/health"))["status"] != "ok":
                pass
        assert await running.program.end() == 0
        assert running.segments() == []


async def test_a_killed_server_is_started_again_where_it_listened() -> None:
    async with demo() as running:
        children = psutil.Process(running.program.pid).children(recursive=True)
        servers = [child for child in children if "alphapulse.cli.serve" in child.cmdline()]
        assert len(servers) == 2
        for server in servers:
            server.kill()
        await gone(servers)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                try:
                    async with websockets.connect(running.stream):
                        health = await running.get("/health")
                except (OSError, aiohttp.ClientError):
                    continue
                if health["status"] == "ok":
                    break
        assert await running.program.end() == 0


async def test_a_users_settings_and_redis_are_left_alone(tmp_path: Path) -> None:
    environ = {"REDIS_URL": "redis://127.0.0.1:1/0", "ALPHAPULSE__RING__PREFIX": "not-ours"}
    async with demo(**environ) as running:
        assert running.prefix != "not-ours"
        assert (await running.get("/health"))["components"]["store"]["status"] == "ok"
        assert await running.program.end() == 0


@pytest.mark.parametrize("option", ["--api-port", "--stream-port"])
async def test_a_port_that_is_taken_is_named(option: str) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    free = {"--api-port": "0", "--stream-port": "0", option: port}
    arguments = [part for pair in free.items() for part in pair]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alphapulse.cli", "demo", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    server.close()
    assert process.returncode == 1
    assert port in said.decode()
