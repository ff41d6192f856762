"""What all simulators have in common: life, faults, control, a failing source, load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from alphapulse.errors import CaptureError, SymbolError
from alphapulse.simulators import (
    FAULTS,
    SIMULATORS,
    CaptureSource,
    CoinbaseSimulator,
    KrakenSimulator,
    Market,
)
from tests.simulator_client import Client, NaiveBook, finish, get, post

BOOK = {"method": "subscribe", "params": {"channel": "book", "symbol": ["BTC/USD"], "depth": 10}}


def open_sockets() -> int:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if link.is_symlink())


def _is_update(frame: Any) -> bool:
    return bool((frame.get("channel"), frame.get("type")) == ("book", "update"))


@pytest.fixture
async def resting() -> AsyncIterator[KrakenSimulator]:
    """A venue whose market doesn't move."""
    async with KrakenSimulator(Market(3, levels=30), start="manual") as venue:
        venue.rest_bucket = None
        yield venue


@pytest.mark.parametrize("name", SIMULATORS)
async def test_leaves_nothing_behind(name: str) -> None:
    await asyncio.sleep(0)
    sockets, tasks = open_sockets(), len(asyncio.all_tasks())
    async with SIMULATORS[name](Market(2)) as venue:
        url = venue.ws_url + ("/ws" if name == "binance_us" else "")
        async with Client(url) as client:
            assert (await get(f"{venue.rest_url}/control"))[2]["exchange"] == venue.exchange
            farewell = asyncio.create_task(client.closed())
            await venue.__aexit__()
            assert await farewell == 1001
        assert len(asyncio.all_tasks()) == tasks
        assert open_sockets() == sockets
    assert open_sockets() == sockets


async def test_takes_the_ports_asked_for(resting: KrakenSimulator) -> None:
    port = int(resting.rest_url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        async with KrakenSimulator(Market(1), rest_port=port):
            pass
    ws_port = int(resting.ws_url.rsplit(":", 1)[1].removesuffix("/v2"))
    with pytest.raises(OSError, match="in use"):
        async with KrakenSimulator(Market(1), ws_port=ws_port):
            pass


async def test_other_paths_are_not_served(resting: KrakenSimulator) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError):
        async with Client(resting.ws_url.removesuffix("/v2") + "/v1"):
            pass


async def test_a_pause_lets_books_be_compared() -> None:
    async with (
        CoinbaseSimulator(Market(1, book_rate=3000, levels=30)) as venue,
        Client(venue.ws_url) as client,
    ):
        await client.send(
            {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["level2_batch"]}
        )
        book = NaiveBook()
        frames = await client.until(lambda frame: frame["type"] == "l2update")
        for _ in range(2):
            venue.pause()
            frames += await client.drain()
            for frame in frames:
                for side, name in (("bid", "bids"), ("ask", "asks")):
                    for price, size in frame.get(name, []):
                        book.set(side, price, size)
                for side, price, size in frame.get("changes", []):
                    book.set({"buy": "bid", "sell": "ask"}[side], price, size)
            assert book.levels() == venue.book("BTC-USD")
            _, _, told = await get(f"{venue.rest_url}/control/book/BTC-USD")
            assert told["bids"] == [[str(p), str(s)] for p, s in venue.book("BTC-USD").bids]
            assert await client.drain() == []
            venue.resume()
            frames = await client.until(lambda frame: frame["type"] == "l2update")


async def test_control_calls_faults(resting: KrakenSimulator) -> None:
    url = f"{resting.rest_url}/control"
    assert await post(f"{url}/drop_update", {"symbol": "BTC-USD", "count": 3}) == (
        200,
        {"done": "drop_update"},
    )
    _, _, state = await get(url)
    assert state["pending_faults"] == {"drop_update BTC/USD": 3}
    assert state["symbols"]["BTC-USD"] == "BTC/USD"
    assert (await post(f"{url}/dance"))[0] == 404
    bodies: list[Any] = [{"symbol": "NO-PE"}, {}, {"symbol": "BTC-USD", "count": 0}, {"x": 1}, []]
    for body in bodies:
        status, answer = await post(f"{url}/drop_update", body)
        assert status == 422, answer
    assert (await get(f"{url}/book/NO-PE"))[0] == 404
    assert "take" not in FAULTS
    assert {"drop_update", "silence", "close", "send_huge", "pause"} <= FAULTS


async def test_sends_garbage_and_huge_frames(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        await client.receive()
        resting.faults.send_text("not { json \u20ac")
        assert await client.receive_raw() == "not { json \u20ac"
        assert (await post(f"{resting.rest_url}/control/send_huge", {"size": 50_000_000}))[0] == 200
        text = await client.receive_raw()
        assert text is not None
        assert len(text) == 50_000_000
        with pytest.raises(ValueError, match="size"):
            resting.faults.send_huge(0)


async def test_closes_and_breaks_connections(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as one, Client(resting.ws_url) as other:
        resting.faults.close(1012, "restart")
        assert (await one.closed(), await other.closed()) == (1012, 1012)
    async with Client(resting.ws_url) as client:
        await client.receive()
        resting.faults.abort()
        assert await client.closed() == 1006
        await resting.wait_until(lambda: not resting.connections)
    resting.faults.refuse_connections()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with Client(resting.ws_url):
            pass
    assert refused.value.status == 503
    resting.faults.refuse_connections(False)
    async with Client(resting.ws_url) as client:
        await client.receive()


async def test_goes_silent_while_it_stays_connected(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as frozen:
        await frozen.send(BOOK)
        await frozen.drain()
        resting.faults.silence()
        await frozen.send({"method": "ping"})
        assert await frozen.drain() == []
        async with Client(resting.ws_url) as newcomer:
            assert (await newcomer.receive())["channel"] == "status"
        resting.faults.silence(newcomers=True)
        async with Client(resting.ws_url) as newcomer:
            assert await newcomer.drain() == []
        resting.faults.speak()
        await frozen.send({"method": "ping"})
        assert (await frozen.drain())[-1]["method"] == "pong"


async def test_answers_rest_with_errors_and_late(resting: KrakenSimulator) -> None:
    url = f"{resting.rest_url}/0/public/SystemStatus"
    resting.faults.rest_status(418, retry_after_seconds=7, count=2)
    for _ in range(2):
        status, headers, _ = await get(url)
        assert (status, headers["Retry-After"]) == (418, "7")
    assert (await get(url))[0] == 200
    resting.faults.delay_rest(3600)
    late = asyncio.create_task(get(url))
    await resting.wait_until(lambda: resting.counts["rest /0/public/SystemStatus"] == 4)
    await asyncio.sleep(0)
    assert not late.done()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)


async def test_maintenance_rests_the_market() -> None:
    async with (
        KrakenSimulator(Market(1, book_rate=2000, trade_rate=0)) as venue,
        Client(venue.ws_url) as client,
    ):
        await client.send(BOOK)
        await client.until(_is_update)
        venue.faults.maintenance()
        await client.until(lambda frame: frame.get("channel") == "status")
        assert await client.drain() == []
        venue.faults.maintenance("online")
        frames = await client.until(lambda frame: frame.get("channel") == "book")
        assert frames[0]["data"][0]["system"] == "online"


async def test_symbols_are_unified_or_the_venues(resting: KrakenSimulator) -> None:
    assert resting.book("BTC-USD", 5) == resting.book("BTC/USD", 5)
    with pytest.raises(SymbolError):
        resting.book("BTCUSD")


async def test_a_fast_market_waits_for_a_client_that_reads_slowly() -> None:
    market = Market(1, book_rate=None, trade_rate=0, levels=50, events=20_000)
    async with KrakenSimulator(market) as venue, Client(venue.ws_url) as client:
        await client.send(BOOK | {"params": BOOK["params"] | {"depth": 100}})  # type: ignore[operator]
        await venue.wait_until(lambda: venue.subscribers("book", "BTC/USD") == 1)
        connection = next(iter(venue.connections))
        highest = 0
        while not venue.finished.is_set():
            highest = max(highest, connection.waiting_bytes())
            await asyncio.sleep(0)
            if connection.writable.is_set():
                continue
            await client.receive_raw()
        assert highest < 4 * 1024 * 1024


async def test_frames_may_be_prepared() -> None:
    settings: dict[str, Any] = {"book_rate": None, "trade_rate": 0, "events": 2000, "levels": 50}
    texts = []
    for prepared in (False, True):
        market = Market(1, start_ns=1_700_000_000_000_000_000, **settings)
        async with (
            KrakenSimulator(market, prepared=prepared) as venue,
            Client(venue.ws_url) as client,
        ):
            await client.send(BOOK)
            await finish(venue)
            await client.drain()
            texts.append([t for t in client.raw if '"update"' in t and "status" not in t])
    assert texts[0] == texts[1]
    assert len(texts[0]) > 1000
    with pytest.raises(ValueError, match="prepared"):
        KrakenSimulator(Market(1), prepared=True)


async def test_a_source_that_fails_is_told_on_leaving(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    frame = '{"t":1,"src":"ws","raw":"{}"}\n'
    path.write_text(frame)
    venue = KrakenSimulator(CaptureSource(path=str(path)), start="manual")
    await venue.__aenter__()
    path.write_text(frame + "damaged\n")
    venue.play()
    await venue.finished.wait()
    with pytest.raises(CaptureError, match=r"a\.jsonl:2"):
        await venue.__aexit__()
    with pytest.raises(CaptureError, match="absent"):
        async with KrakenSimulator(CaptureSource(path=str(tmp_path / "absent"))):
            pass


async def test_garbage_in_a_capture_goes_to_everyone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"t":1,"src":"ws","raw":"garbage"}\n{"t":2,"src":"ws","raw":"{}"}\n')
    async with (
        KrakenSimulator(CaptureSource(path=str(path)), start="manual") as venue,
        Client(venue.ws_url) as client,
    ):
        await client.receive()
        venue.play()
        await finish(venue)
        assert await client.receive_raw() == "garbage"
        assert await client.receive_raw() == "{}"
