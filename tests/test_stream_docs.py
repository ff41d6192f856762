"""The examples of docs/stream.md, as they stand there."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from typing import Any

import pytest

from alphapulse.model import BookSide
from tests.stream_server import exchange, on_uvloop, serving
from tests.streaming import Exchange
from tests.support import ROOT

__all__ = ["exchange"]

BID, ASK = BookSide
PAGE = (ROOT / "docs" / "stream.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
JAVASCRIPT = re.findall(r"```javascript\n(.*?)```", PAGE, re.DOTALL)
ADDRESS = "ws://127.0.0.1:8765/ws"


async def first_lines(exchange: Exchange, prefix: str, code: str, command: Any, count: int) -> Any:
    """What an example prints while the market moves."""
    exchange.change("BTC-USD", (BID, 10050, 12345), (ASK, 10060, 20000))
    async with serving(prefix) as served:
        assert ADDRESS in code
        program = await asyncio.create_subprocess_exec(
            *command, code.replace(ADDRESS, served.url), stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout is not None
        moving = asyncio.create_task(move(exchange))
        try:
            return [(await program.stdout.readline()).decode().strip() for _ in range(count)]
        finally:
            moving.cancel()
            program.kill()
            await program.wait()


async def move(exchange: Exchange) -> None:
    while True:
        exchange.trade("BTC-USD", 10055, 7)
        exchange.change("BTC-USD", (BID, 10051, 1))
        exchange.change("BTC-USD", (BID, 10051, 0))
        await asyncio.sleep(0.01)


@on_uvloop
async def test_the_book_in_python(exchange: Exchange, ring_prefix: str) -> None:
    command = (sys.executable, "-c")
    lines = await first_lines(exchange, ring_prefix, PYTHON[0], command, 3)
    assert set(lines) == {"100.5 100.6", "100.51 100.6"}


@on_uvloop
async def test_trades_from_records(exchange: Exchange, ring_prefix: str) -> None:
    command = (sys.executable, "-c")
    (line,) = await first_lines(exchange, ring_prefix, PYTHON[1], command, 1)
    assert line.startswith("BTC-USD 100.55 0.0007 buy sequence ")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js isn't installed")
@on_uvloop
async def test_the_book_in_javascript(exchange: Exchange, ring_prefix: str) -> None:
    command = ("node", "--experimental-websocket", "-e")
    lines = await first_lines(exchange, ring_prefix, JAVASCRIPT[0], command, 3)
    assert set(lines) == {"100.5 100.6", "100.51 100.6"}
