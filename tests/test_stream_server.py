"""The stream over real sockets: what it serves, and how it begins and ends."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from alphapulse import metrics
from alphapulse.config import load
from alphapulse.errors import ConfigError
from alphapulse.model import BookSide, BookState, Channel, Reason
from alphapulse.shm import remove_dead
from alphapulse.stream.server import run_stream
from tests.stream_server import (
    Listener,
    Served,
    beating,
    closing,
    exchange,
    holds,
    known,
    listening,
    on_uvloop,
    serving,
)
from tests.streaming import Exchange
from tests.support import ROOT

__all__ = ["exchange"]

BID, ASK = BookSide


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
        async with listening(served, exchange, max_queue=None) as listener:
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

    async with serving(ring_prefix) as served, beating(exchange):
        await known(served, exchange)
        await asyncio.gather(market(), *(client(served, depth) for depth in depths))


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
