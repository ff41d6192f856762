"""The stream over real sockets, on the event loop that it runs on."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop
import websockets
from websockets.asyncio.client import ClientConnection, connect

from alphapulse import metrics
from alphapulse.config import load
from alphapulse.errors import ConfigError
from alphapulse.model import BookSide, BookState, Channel, Reason
from alphapulse.shm import remove_dead
from alphapulse.stream.server import StreamServer, run_stream
from tests.streaming import Consumer, Exchange
from tests.support import ROOT

BID, ASK = BookSide
PATIENCE_SECONDS = 60.0
"""After which a test that waits for an event fails."""


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the event loop that the server uses."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        uvloop.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_SECONDS))

    return run


class Served:
    """A server that runs in this process."""

    def __init__(self, server: StreamServer, port: int) -> None:
        self.server = server
        self.port = port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def health(self, **options: Any) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/health", **options) as response,
        ):
            assert response.status == 200
            answer: dict[str, Any] = await response.json()
            return answer


@asynccontextmanager
async def serving(prefix: str, **overrides: Any) -> AsyncIterator[Served]:
    settings = load(
        environ={},
        overrides={
            "ring.prefix": prefix,
            "stream.port": 0,
            **{f"stream.{name}": value for name, value in overrides.items()},
        },
    )
    server = StreamServer(settings)
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(stop, port.set_result))
    await asyncio.wait((port, task), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield Served(server, await port)
    finally:
        stop.set()
        await task


class Listener:
    """A client that takes messages until it has seen what a test waits for."""

    def __init__(self, socket: ClientConnection, consumer: Consumer) -> None:
        self.socket = socket
        self.consumer = consumer

    async def ask(self, **fields: Any) -> None:
        await self.socket.send(json.dumps(fields))

    async def take(self, count: int = 1) -> list[dict[str, Any]]:
        return [self.consumer.take(str(await self.socket.recv())) for _ in range(count)]

    async def until(self, seen: Callable[[], bool]) -> None:
        while not seen():
            await self.take()

    async def kinds(self, count: int) -> list[str]:
        return [event["type"] for event in await self.take(count)]


@asynccontextmanager
async def listening(
    served: Served, exchange: Exchange | None = None, query: str = "", **options: Any
) -> AsyncIterator[Listener]:
    async with connect(served.url + query, max_size=None, **options) as socket:
        yield Listener(socket, Consumer([exchange] if exchange else []))


@pytest.fixture
def exchange(ring_prefix: str) -> Any:
    with Exchange(ring_prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 24) as exchange:
        yield exchange


async def holds(condition: Callable[[], bool]) -> None:
    """Return when it does."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


async def known(served: Served, exchange: Exchange) -> None:
    """Wait until the server has read all that the exchange wrote."""
    venue = served.server.hub.venue(exchange.exchange)
    await holds(lambda: venue.sequence == exchange.writer.sequence)


async def closing(socket: ClientConnection) -> int:
    """Read until the server closes the connection; the close code."""
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await _read_on(socket)
    return closed.value.rcvd.code if closed.value.rcvd is not None else 0


async def _read_on(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


@on_uvloop
async def test_a_client_gets_books_trades_states_and_gaps(
    ring_prefix: str, exchange: Exchange
) -> None:
    async with serving(ring_prefix) as served, listening(served, exchange) as listener:
        await known(served, exchange)
        await listener.ask(
            type="subscribe", channels=["trades", "orderbook", "state"], symbols=["BTC-USD"]
        )
        assert await listener.kinds(3) == ["subscribed", "orderbook_snapshot", "state"]
        exchange.change("BTC-USD", (BID, 100, 1), (ASK, 101, 2))
        exchange.trade("ETH-USD")
        exchange.trade("BTC-USD")
        exchange.gap("BTC-USD", Channel.TRADES, 2)
        exchange.state("BTC-USD", BookState.INVALID, Reason.CHECKSUM)
        assert await listener.kinds(4) == ["orderbook_delta", "trade", "gap", "state"]
        assert listener.consumer.current("kraken", "BTC-USD", 2)
        await listener.ask(type="ping")
        assert await listener.take() == [{"type": "pong"}]
        await (await listener.socket.ping(b"still there?"))
        await listener.ask(type="unsubscribe")
        assert await listener.kinds(1) == ["unsubscribed"]
        assert metrics.sample("stream_clients") == 1


@on_uvloop
async def test_another_client_library(ring_prefix: str, exchange: Exchange) -> None:
    async with (
        serving(ring_prefix) as served,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{served.url}?channels=trades&symbols=btc%2Fusd") as socket,
    ):
        assert (await socket.receive_json())["symbols"] == ["BTC-USD"]
        trade = exchange.trade("BTC-USD", 12345, 10**9)
        data = (await socket.receive_json())["data"]
        assert (data["trade_id"], data["price"], data["volume"]) == (trade, 123.45, 100000)
        await socket.close(code=4000)
        assert socket.close_code == 4000


@on_uvloop
async def test_a_wrong_query_is_told_and_the_connection_stays(ring_prefix: str) -> None:
    async with (
        serving(ring_prefix) as served,
        listening(served, query="?channels=bars") as listener,
    ):
        (error,) = await listener.take()
        assert (error["type"], error["code"]) == ("error", "bad_request")
        await listener.ask(type="ping")
        assert await listener.kinds(1) == ["pong"]


@on_uvloop
async def test_requests_that_are_none(ring_prefix: str) -> None:
    async with (
        serving(ring_prefix, max_request_bytes=1000) as served,
        listening(served) as listener,
    ):
        socket = listener.socket
        padding = " " * 900

        async def answer() -> str:
            (event,) = await listener.take()
            assert event["type"] in ("error", "pong")
            return str(event.get("code", "served"))

        await socket.send("{")
        assert await answer() == "malformed"
        await socket.send(b"\xff\xfe", text=True)
        assert await answer() == "malformed"
        await socket.send(b'{"type":"ping"}')
        assert await answer() == "malformed"
        await socket.send('{"type":"ping"}' + padding)
        assert await answer() == "served"
        await socket.send('{"type":"ping"}' + padding * 2)
        assert await answer() == "too_large"
        await socket.send(['{"type"', ":", '"ping"}', padding])
        assert await answer() == "served"
        await socket.send(['{"type"', ":", '"ping"}', *([padding] * 3)])
        assert await answer() == "too_large"
        await listener.ask(type="subscribe", channels=["trades"], exchanges=["x" * 900])
        assert await answer() == "unknown_exchange"
        await listener.ask(type="subscribe", channels=["trades"], format="xml")
        assert await answer() == "bad_request"
        await socket.send("x" * 5000)
        assert await closing(socket) == 1009


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade"
    b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@asynccontextmanager
async def raw(
    served: Served, handshake: bytes = HANDSHAKE
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose bytes the test writes itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(handshake)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


@on_uvloop
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02{}", 1002),  # not masked
        (b"\xc1\x82\0\0\0\0{}", 1002),  # compressed
        (b"\x80\x82\0\0\0\0{}", 1002),  # continues nothing
        (b"\x01\x81\0\0\0\0{\x81\x81\0\0\0\0}", 1002),  # a message within another
        (b"\x8f\x80\0\0\0\0", 1002),  # a kind of frame that there isn't
    ],
)
async def test_frames_that_break_the_protocol(ring_prefix: str, frame: bytes, code: int) -> None:
    async with serving(ring_prefix) as served, raw(served) as (reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(frame)
        head = await reader.readexactly(4)
        assert (head[0], int.from_bytes(head[2:4])) == (0x88, code)
        await reader.read()
        await holds(lambda: not served.server.hub.clients)


@on_uvloop
@pytest.mark.parametrize(
    ("payload", "code"), [(b"", 1000), (b"\x03\xe9", 1001), (b"\x0f\xa0", 4000)]
)
async def test_a_close_frame_is_answered(ring_prefix: str, payload: bytes, code: int) -> None:
    async with serving(ring_prefix) as served, raw(served) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bytes((0x88, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        assert await reader.read() == b"\x88\x02" + code.to_bytes(2)


@on_uvloop
@pytest.mark.parametrize("request_", [b"\x16\x03\x01garbage\r\n\r\n", b"POST /ws HTTP/1.1\r\n\r\n"])
async def test_what_is_no_handshake(ring_prefix: str, request_: bytes) -> None:
    async with serving(ring_prefix) as served, raw(served, request_) as (reader, _):
        assert b" 400 " in await reader.readline()
        await reader.read()
        assert (await served.health())["clients"] == 0


async def refused(served: Served, url: str = "", **options: Any) -> int:
    with pytest.raises(websockets.InvalidStatus) as error:
        async with connect(url or served.url, **options):
            pass
    return int(error.value.response.status_code)


@on_uvloop
async def test_who_may_not_connect(ring_prefix: str) -> None:
    async with serving(
        ring_prefix, token="s3cret", origins=["https://charts.example.org"], max_clients=2
    ) as served:
        bearer = websockets.Subprotocol("bearer.s3cret")
        charts = websockets.Origin("https://charts.example.org")
        right: dict[str, Any] = {"subprotocols": [bearer]}
        assert await refused(served) == 401
        assert await refused(served, additional_headers={"Authorization": "Bearer no"}) == 401
        assert await refused(served, f"{served.url}?token=s3cret") == 401
        assert await refused(served, origin="https://example.org", **right) == 403
        assert await refused(served, f"ws://127.0.0.1:{served.port}/other", **right) == 404
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"http://127.0.0.1:{served.port}/health", headers={"Host": "example.org"}
            ) as response,
        ):
            assert response.status == 403
        assert await served.health() == {"status": "ok", "service": "stream"}
        header = {"Authorization": "Bearer s3cret"}
        assert (await served.health(headers=header))["clients"] == 0
        async with (
            connect(served.url, origin=charts, **right) as one,
            connect(served.url, additional_headers=header) as two,
        ):
            assert one.subprotocol == bearer
            assert two.subprotocol is None
            assert await refused(served, **right) == 503
            assert (await served.health(headers=header))["clients"] == 2


@on_uvloop
async def test_health_tells_the_rings(ring_prefix: str, exchange: Exchange) -> None:
    async with serving(ring_prefix) as served:
        await known(served, exchange)
        rings = (await served.health())["rings"]
        assert rings["kraken"] == {
            "connected": True,
            "epoch": exchange.epoch,
            "sequence": exchange.writer.sequence,
            "symbols": 2,
        }
        assert rings["coinbase"]["connected"] is False


@on_uvloop
async def test_subscribing_under_load_gives_no_hole_and_no_repeat(
    ring_prefix: str, exchange: Exchange
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    depths: list[int | str] = [1, 3, 25, "full"] * 2
    subscribing = len(depths)
    written = asyncio.Event()

    async def market() -> None:
        while subscribing:
            for _ in range(chance.randrange(1, 6)):
                side = chance.choice((BID, ASK))
                price = chance.randrange(60) + (1 if side is BID else 61)
                exchange.change("BTC-USD", (side, price, chance.choice((0, 1, 2, 3))))
            await asyncio.sleep(0)
        written.set()

    async def client(served: Served, depth: int | str) -> None:
        nonlocal subscribing
        async with listening(served, exchange) as listener:
            consumer = listener.consumer
            consumer.depth = depth if isinstance(depth, int) else None
            for number in range(1, 4):
                await listener.ask(
                    type="subscribe", channels=["orderbook"], symbols=["BTC-USD"], depth=depth
                )
                await listener.until(lambda: len(consumer.of("orderbook_snapshot")) == number)  # noqa: B023
                await listener.take(chance.randrange(50))
            subscribing -= 1
            await written.wait()
            version = exchange.versions["BTC-USD"]
            await listener.until(lambda: consumer.current("kraken", "BTC-USD", version))

    async with serving(ring_prefix) as served:
        await known(served, exchange)
        await asyncio.gather(market(), *(client(served, depth) for depth in depths))


@on_uvloop
async def test_a_client_that_never_reads_is_conflated_then_closed(
    ring_prefix: str, exchange: Exchange
) -> None:
    before = metrics.sample("stream_conflations_total") or 0
    async with (
        serving(ring_prefix, max_queue_bytes=100_000, behind_seconds=1.0) as served,
        listening(served, exchange) as other,
        listening(served, exchange, max_queue=1) as slow,
    ):
        await known(served, exchange)
        for listener in (other, slow):
            await listener.ask(type="subscribe", channels=["orderbook"], symbols=["BTC-USD"])
            await listener.kinds(2)
        hub = served.server.hub
        told = 0
        while len(hub.clients) == 2:
            levels = [(BID, 1000 + price, told + price + 1) for price in range(100)]
            exchange.change("BTC-USD", *levels)
            told += 1
            await other.take()
        assert other.consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])
        assert len(other.consumer.of("orderbook_delta")) == told
        assert (metrics.sample("stream_conflations_total") or 0) > before
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await slow.until(lambda: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert len(slow.consumer.of("orderbook_delta")) < told


@on_uvloop
async def test_a_client_that_is_gone_without_a_word(ring_prefix: str, exchange: Exchange) -> None:
    async with serving(ring_prefix) as served, listening(served, exchange) as listener:
        await listener.ask(type="subscribe", channels=["orderbook"])
        await listener.take()
        listener.socket.transport.abort()

        def gone() -> bool:
            exchange.change("BTC-USD", (BID, 100, exchange.versions["BTC-USD"]))
            return not served.server.hub.clients

        await holds(gone)


async def start(role: str, *args: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stream_processes", role, *args),
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def line(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    return int(await process.stdout.readline())


async def change(process: asyncio.subprocess.Process) -> int:
    """Have a venue change its book; the version."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    return await line(process)


async def ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


@on_uvloop
async def test_a_killed_collector_and_its_successor(ring_prefix: str) -> None:
    processes = []
    try:
        async with (
            serving(ring_prefix) as served,
            listening(served, query="?channels=orderbook&exchanges=kraken") as listener,
        ):
            # Versions and levels are compared by hand: the oracle is in another process.
            listener.consumer.exchanges.clear()
            (answer,) = await take_plain(listener)
            assert answer["waiting"] == ["kraken"]
            before = 0
            for _ in range(3):
                processes.append(await start("venue", ring_prefix))
                epoch = await line(processes[-1])
                assert epoch > before
                before = epoch
                snapshot = await next_of(listener, "orderbook_snapshot")
                while snapshot["version"] < 2:
                    snapshot = await next_of(listener, "orderbook_snapshot")
                assert snapshot["epoch"] == epoch
                version = await change(processes[-1])
                delta = await next_of(listener, "orderbook_delta")
                assert (delta["version"], delta["prev_version"]) == (version, version - 1)
                os.kill(processes[-1].pid, signal.SIGKILL)
                state = await next_of(listener, "state", lambda data: data["state"] == "stale")
                assert (state["symbol"], state["reason"]) == ("BTC-USD", "disconnected")
    finally:
        for process in processes:
            await ended(process)
        remove_dead(prefix=ring_prefix)


async def take_plain(listener: Listener) -> list[dict[str, Any]]:
    return [json.loads(await listener.socket.recv())]


async def next_of(
    listener: Listener, kind: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True
) -> dict[str, Any]:
    while True:
        (event,) = await take_plain(listener)
        if event["type"] == kind and wanted(event["data"]):
            data: dict[str, Any] = event["data"]
            return data


@on_uvloop
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_program_in_order(
    ring_prefix: str, exchange: Exchange, number: signal.Signals
) -> None:
    server = await start("server", ALPHAPULSE__RING__PREFIX=ring_prefix, STREAM_PORT="0")
    try:
        port = await line(server)
        async with connect(f"ws://127.0.0.1:{port}/ws?channels=trades") as socket:
            await socket.recv()
            server.send_signal(number)
            assert await closing(socket) == 1001
        assert await server.wait() == 0
    finally:
        await ended(server)


@on_uvloop
async def test_where_it_may_not_or_can_not_listen(ring_prefix: str) -> None:
    exposed = load(environ={}, overrides={"stream.host": "0.0.0.0", "ring.prefix": ring_prefix})
    with pytest.raises(ConfigError, match="listens beyond this machine"):
        await run_stream(exposed)
    async with serving(ring_prefix) as served:
        overrides = {"stream.port": served.port, "ring.prefix": ring_prefix}
        taken = load(environ={}, overrides=overrides)
        with pytest.raises(ConfigError, match="can't listen on") as error:
            await run_stream(taken)
        assert f"127.0.0.1:{served.port}" in error.value.problem


@on_uvloop
async def test_run_stream_ends_when_told(ring_prefix: str) -> None:
    stop = asyncio.Event()
    ports: list[int] = []

    def ready(port: int) -> Awaitable[None] | None:
        ports.append(port)
        stop.set()
        return None

    settings = load(environ={}, overrides={"stream.port": 0, "ring.prefix": ring_prefix})
    assert await run_stream(settings, ready=ready, stop=stop) == 0
    assert ports[0] > 0
