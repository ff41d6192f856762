"""The stream with WebSocket clients that people use: each follows a book, which is compared."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from websockets.asyncio.client import connect

from alphapulse.delta import BookView, decode_header
from alphapulse.model import BookSide, BookState, Reason, RecordType
from tests.clients import PATIENCE_SECONDS, ServerThread, exact, server_thread
from tests.streaming import Consumer, Exchange
from tests.support import ROOT, find_program

BID, ASK = BookSide
WS_VERSION = "8.23.0"
INSTALL_SECONDS = 120.0
PAGE = (ROOT / "docs" / "stream.md").read_text(encoding="utf-8")
ADDRESS = "ws://127.0.0.1:8765/ws"


@pytest.fixture
def exchange(ring_prefix: str) -> Iterator[Exchange]:
    with Exchange(ring_prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 22) as exchange:
        exchange.reset("BTC-USD", {10012: 5, 10000: 10}, {10111: 3})
        exchange.reset("ETH-USD", {500: 5}, {510: 3})
        yield exchange


@pytest.fixture
def server(ring_prefix: str, exchange: Exchange) -> Iterator[ServerThread]:
    with server_thread(ring_prefix) as server:
        yield server


def play(exchange: Exchange, count: int = 100) -> int:
    """Change the book in random ways, the last time visibly; its version then."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for number in range(count):
        side = rng.choice((BID, ASK))
        distance = rng.randrange(30)
        price = 10050 - distance if side is BID else 10060 + distance
        exchange.change("BTC-USD", (side, price, rng.randrange(3) * (number + 1)))
    size = exchange.versions["BTC-USD"] + 1000
    exchange.change("BTC-USD", (BID, 10051, size), (ASK, 10059, size))
    return exchange.versions["BTC-USD"]


def book_at(exchange: Exchange, version: int) -> tuple[dict[Decimal, Decimal], ...]:
    """Bids and asks of a version, exact."""
    sides = exchange.history[exchange.epoch, "BTC-USD", version]
    return tuple(dict(exact(list(side.items()))) for side in sides)


SUBSCRIBE = {
    "type": "subscribe",
    "channels": ["orderbook", "state", "trades"],
    "exchanges": ["kraken"],
    "symbols": ["BTC-USD"],
    "depth": "full",
}


class Records:
    """Keeps a book from binary messages."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.view = BookView()
        self.kinds: set[int] = set()

    def take(self, record: bytes) -> None:
        header = decode_header(record)
        assert header.length == len(record)
        self.kinds.add(header.type)
        if header.type in (RecordType.SNAPSHOT, RecordType.DELTA):
            self.view.apply(record)
            bids, asks = self.exchange.history[self.exchange.epoch, "BTC-USD", self.view.version]
            assert dict(self.view.bids()) == bids
            assert dict(self.view.asks()) == asks


async def test_the_python_client_websockets(server: ServerThread, exchange: Exchange) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), connect(server.url, max_size=None) as socket:
        await socket.send(json.dumps(SUBSCRIBE))
        consumer = Consumer([exchange])
        while not consumer.books:
            consumer.take(str(await socket.recv()))
        exchange.trade("BTC-USD")
        version = play(exchange)
        while consumer.versions["kraken", "BTC-USD"] < version:
            consumer.take(str(await socket.recv()))
        assert consumer.of("trade")
        await socket.send(json.dumps({**SUBSCRIBE, "format": "binary"}))
        records = Records(exchange)
        version = play(exchange)
        while records.view.version < version:
            message = await socket.recv()
            if isinstance(message, bytes):
                records.take(message)
        assert records.kinds >= {RecordType.INSTRUMENT, RecordType.SNAPSHOT, RecordType.DELTA}


async def test_the_python_client_aiohttp(server: ServerThread, exchange: Exchange) -> None:
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        aiohttp.ClientSession() as session,
        session.ws_connect(server.url, max_msg_size=0, heartbeat=1.0) as socket,
    ):
        await socket.send_json({**SUBSCRIBE, "format": "binary"})
        records = Records(exchange)
        while not records.view.ready:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                records.take(message.data)
        version = play(exchange)
        while records.view.version < version:
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT)
            if message.type is aiohttp.WSMsgType.BINARY:
                records.take(message.data)
        await socket.send_json(SUBSCRIBE)
        consumer = Consumer([exchange])
        version = play(exchange)
        while consumer.versions.get(("kraken", "BTC-USD"), 0) < version:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                consumer.take(message.data)
        exchange.state("BTC-USD", BookState.STALE, Reason.SILENT)
        while not consumer.of("state") or consumer.states["kraken", "BTC-USD"] != "stale":
            consumer.take(await socket.receive_str())


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package ws; the test is skipped where it can't be had."""
    find_program("node", "nodejs")
    npm = find_program("npm", "npm")
    folder = tmp_path_factory.mktemp("node")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    done = subprocess.run(
        [*install, f"ws@{WS_VERSION}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm can't install ws: {done.stderr.strip()[-300:]}")
    for script in (ROOT / "tests" / "node").glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


@asynccontextmanager
async def program(
    *command: str, cwd: Path | None = None, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program whose output is read; killed in the end if it hasn't ended."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line that a program prints."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
    assert line, (await process.stderr.read()).decode()
    return line.decode().rstrip("\n")


async def test_the_npm_package_ws(
    server: ServerThread, exchange: Exchange, node_modules: Path
) -> None:
    command = ("node", "follow.mjs", server.url, "kraken", "BTC-USD")
    async with program(*command, cwd=node_modules) as process:
        shown = json.loads(await line_of(process), parse_float=Decimal)
        version = play(exchange)
        while True:
            # Object keys are text in JavaScript, and numbers as short as they can be.
            sides = tuple(
                {Decimal(price): Decimal(volume) for price, volume in shown[name].items()}
                for name in ("bids", "asks")
            )
            assert sides == book_at(exchange, shown["version"])
            if shown["version"] == version:
                break
            shown = json.loads(await line_of(process), parse_float=Decimal)
        await asyncio.to_thread(server.stop)
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0


class Browser:
    """A page in Chromium, spoken to by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def show(self, url: str) -> None:
        """Load a page."""
        await self._call("Page.enable")
        await self._call("Page.navigate", url=url)
        while (await self._socket.receive_json()).get("method") != "Page.loadEventFired":
            pass

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; of a promise, what it is resolved to."""
        result = await self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while (message := await self._socket.receive_json()).get("id") != self._number:
            pass
        return message["result"]


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """A browser with an empty page."""
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={profile}"),
    )
    async with program(find_program("chromium", "chromium"), *options, "about:blank") as process:
        assert process.stderr is not None
        debugger = ""
        while not debugger:
            line = await asyncio.wait_for(process.stderr.readline(), PATIENCE_SECONDS)
            assert line, "chromium has ended"
            found = re.search(rb"DevTools listening on ws://([^/]+)/", line)
            debugger = found[1].decode() if found else ""
        async with aiohttp.ClientSession() as session:
            address = await _page_address(session, debugger)
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Browser(socket)


async def _page_address(session: aiohttp.ClientSession, debugger: str) -> str:
    while True:
        async with session.get(f"http://{debugger}/json/list") as response:
            for target in await response.json(content_type=None):
                if target["type"] == "page":
                    return str(target["webSocketDebuggerUrl"])
        await asyncio.sleep(0.05)


HEAD = """<!doctype html><title>A book</title><table id="book"></table><script>
const waiting = [];
const show = () => {
  const rows = side => [...book[side]].sort(([a], [b]) => side === "bid" ? b - a : a - b);
  document.getElementById("book").innerHTML = ["ask", "bid"].map(side => rows(side).map(
    ([price, volume]) => `<tr class=${side}><td>${price}<td>${volume}`).join("")).join("");
  document.title = version;
  for (const each of waiting.splice(0)) version >= each.version ? each.done() : waiting.push(each);
};
const reached = version => new Promise(done => { waiting.push({version, done}); show(); });
const print = console.log;
console.log = (...words) => { print(...words); show(); };
</script><script>
"""
SHOWN = """
[...document.querySelectorAll("#book tr.SIDE")].map(row => [...row.children].map(
    cell => cell.textContent))
"""


def javascript() -> str:
    """The page's example."""
    (code,) = re.findall(r"```javascript\n(.*?)```", PAGE, re.DOTALL)
    assert ADDRESS in code
    return str(code)


@asynccontextmanager
async def served(page: str) -> AsyncIterator[str]:
    """Address of a page on this machine."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_page_in_chromium(server: ServerThread, exchange: Exchange, tmp_path: Path) -> None:
    find_program("chromium", "chromium")
    page = f"{HEAD}{javascript().replace(ADDRESS, server.url)}</script>"
    async with served(page) as url, chromium(tmp_path / "profile") as browser:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await browser.show(url)
            for _ in range(3):
                version = play(exchange, 30)
                await browser.evaluate(f"reached({version})")
                for side, levels in zip(("bid", "ask"), book_at(exchange, version), strict=True):
                    shown = await browser.evaluate(SHOWN.replace("SIDE", side))
                    best = sorted(levels.items(), reverse=side == "bid")[:10]
                    assert [(Decimal(price), Decimal(volume)) for price, volume in shown] == best
            assert await browser.evaluate("document.title") == str(version)


def shell_examples() -> list[str]:
    """Commands of the page that speak WebSocket."""
    lines = re.findall(r"^    \$ (.*(?:websocat|websockets) .*)$", PAGE, re.MULTILINE)
    assert len(lines) >= 3
    return [line for line in lines if ADDRESS in line]


@pytest.mark.parametrize("line", shell_examples())
async def test_a_command_of_the_page(
    server: ServerThread, exchange: Exchange, tmp_path: Path, line: str
) -> None:
    python = shlex.quote(sys.executable)
    tool = tmp_path / "websocat"
    if shutil.which("websocat") is None:
        tool.write_text(f'#!/bin/sh\nexec {python} {ROOT / "tests" / "websocat.py"} "$@"\n')
        tool.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Its own terminal client ends with its input.
    command = f"sleep {PATIENCE_SECONDS} | {line}" if "python -m" in line else line
    shell = ("sh", "-c", command.replace(ADDRESS, server.url))
    async with program(*shell, PATH=path) as process:
        while "subscribed" not in await line_of(process):
            pass
        exchange.trade("BTC-USD", 10055, 7)
        exchange.change("BTC-USD", (BID, 10013, 8))
        while not re.search(r'"price":100\.55|\[100\.13,0\.0008', await line_of(process)):
            pass
