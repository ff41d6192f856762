"""Several server processes on one port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from alphapulse.config import load
from alphapulse.errors import ConfigError
from alphapulse.stream.workers import run_workers
from tests.programs import program
from tests.streaming import Exchange

WORKERS = 3
CLIENTS = 24

SAMPLE = """
import sys
from alphapulse import metrics
metrics.setup("any")
print(metrics.sample(sys.argv[1]))
"""


def children(pid: int) -> set[int]:
    """Pids of a process's children."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {int(one) for thread in threads for one in (thread / "children").read_text().split()}


def alive(pids: set[int]) -> set[int]:
    """Those of them that are processes."""
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


async def holds(condition: Callable[[], bool]) -> None:
    """Return when it does."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


async def sample(name: str) -> float:
    """A metric's value as the processes share it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SAMPLE, name), stdout=asyncio.subprocess.PIPE
    )
    text, _ = await process.communicate()
    return float(text)


async def joined(stack: AsyncExitStack, port: int) -> ClientConnection:
    url = f"ws://127.0.0.1:{port}/ws?channels=trades"
    client = await stack.enter_async_context(connect(url))
    await told(client, "subscribed")
    return client


async def told(client: ClientConnection, kind: str) -> None:
    """Read until an event of that type comes."""
    while json.loads(await client.recv())["type"] != kind:
        continue


async def reopened(stack: AsyncExitStack, port: int) -> ClientConnection:
    while True:
        try:
            return await joined(stack, port)
        except (OSError, ConnectionClosed, InvalidMessage):
            continue  # the kernel has dealt it to one that is dying


async def test_workers_share_a_port_and_come_back(
    ring_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    with Exchange(ring_prefix) as exchange:
        environ = {
            "ALPHAPULSE__RING__PREFIX": ring_prefix,
            "ALPHAPULSE__STREAM__WORKERS": str(WORKERS),
            "STREAM_PORT": "0",
        }
        async with (
            asyncio.timeout(120),
            program("alphapulse.cli.serve", "stream", environ=environ) as running,
            AsyncExitStack() as stack,
        ):
            port = await running.port()
            workers = children(running.pid)
            assert len(workers) == WORKERS
            clients = [await joined(stack, port) for _ in range(CLIENTS)]
            exchange.trade("BTC-USD")
            await asyncio.gather(*(told(client, "trade") for client in clients))
            assert await sample("stream_clients") == CLIENTS

            victim = min(workers)
            os.kill(victim, signal.SIGKILL)
            waiting = {asyncio.create_task(client.wait_closed()) for client in clients}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            await reopened(stack, port)
            await holds(lambda: len(children(running.pid) - {victim}) == WORKERS)
            workers |= children(running.pid)
            assert await running.end() == 0
            assert not alive(workers)


async def test_a_port_that_is_taken_is_refused(ring_prefix: str) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        overrides = {"stream.port": port, "stream.workers": 2, "ring.prefix": ring_prefix}
        with pytest.raises(ConfigError, match="can't listen on"):
            await run_workers(load(environ={}, overrides=overrides))
