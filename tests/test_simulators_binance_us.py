"""The simulated Binance.US, over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alphapulse.capture import read_capture
from alphapulse.simulators import BinanceUsSimulator, CaptureSource, Market
from tests.simulator_client import Client, NaiveBook, finish, get

START_NS = 1_700_000_000_000_000_000
SYMBOLS = ["BTCUSD", "ETHUSD", "SOLUSD"]


def streams(*kinds: str, symbols: list[str] = SYMBOLS) -> str:
    return "/".join(f"{symbol.lower()}@{kind}" for symbol in symbols for kind in kinds)


def fast_market(events: int = 3000, **settings: Any) -> Market:
    settings = {"trade_rate": 10_000, "levels": 40, "start_ns": START_NS} | settings
    return Market(3, book_rate=None, events=events, **settings)


def load(body: Any) -> NaiveBook:
    book = NaiveBook()
    for side, rows in (("bid", body["bids"]), ("ask", body["asks"])):
        for price, size in rows:
            book.set(side, price, size)
    return book


def apply(book: NaiveBook, data: Any) -> None:
    for side, rows in (("bid", data["b"]), ("ask", data["a"])):
        for price, size in rows:
            book.set(side, price, size)


@pytest.fixture
async def resting() -> AsyncIterator[BinanceUsSimulator]:
    """A venue whose market doesn't move."""
    market = Market(3, levels=30, start_ns=START_NS)
    async with BinanceUsSimulator(market, start="manual") as venue:
        yield venue


async def test_books_follow_from_a_snapshot_fetched_on_the_way() -> None:
    market = Market(3, book_rate=3000, trade_rate=100, levels=40, events=1500)
    async with (
        BinanceUsSimulator(market, start="manual") as venue,
        Client(f"{venue.ws_url}/stream?streams={streams('depth@100ms')}") as client,
    ):
        venue.play()
        frames = [await client.receive() for _ in SYMBOLS]
        bodies = {
            symbol: (await get(f"{venue.rest_url}/api/v3/depth?symbol={symbol}&limit=1000"))[2]
            for symbol in SYMBOLS
        }
        await finish(venue)
        frames += await client.drain()
        for symbol in SYMBOLS:
            book, last = load(bodies[symbol]), bodies[symbol]["lastUpdateId"]
            diffs = [f["data"] for f in frames if f["stream"] == f"{symbol.lower()}@depth@100ms"]
            assert all(b["U"] == a["u"] + 1 for a, b in itertools.pairwise(diffs))
            assert diffs[0]["U"] <= last + 1
            for data in diffs:
                if data["u"] > last:
                    apply(book, data)
            assert book.levels() == venue.book(symbol)
    assert 3 <= len(frames) <= 60, "changes of 100 ms come together"


async def test_trades_and_aggregates_agree_with_rest() -> None:
    async with BinanceUsSimulator(fast_market()) as venue:
        url = f"{venue.ws_url}/stream?streams={streams('trade', 'aggTrade', symbols=['BTCUSD'])}"
        async with Client(url) as client:
            await finish(venue)
            frames = await client.drain()
        fills = list(venue.books["BTCUSD"].fills)[60:]
        rest = f"{venue.rest_url}/api/v3"
        _, _, recent = await get(f"{rest}/trades?symbol=BTCUSD&limit=1000")
        refused, _, _ = await get(f"{rest}/historicalTrades?symbol=BTCUSD&fromId=1")
        _, _, old = await get(
            f"{rest}/historicalTrades?symbol=BTCUSD&fromId={fills[5].trade_id}&limit=3",
            {"X-MBX-APIKEY": "key"},
        )
        _, _, grouped = await get(
            f"{rest}/aggTrades?symbol=BTCUSD&fromId={fills[0].order}&limit=1000"
        )
        start = fills[9].t_ns // 1_000_000
        _, _, timed = await get(f"{rest}/aggTrades?symbol=BTCUSD&startTime={start}&endTime={start}")
    trades = [f["data"] for f in frames if f["stream"].endswith("@trade")]
    assert [(t["t"], t["m"]) for t in trades] == [(f.trade_id, not f.buy) for f in fills]
    assert [t["t"] for t in trades] == [row["id"] for row in recent][-len(trades) :]
    assert [(t["p"], t["q"]) for t in trades] == [(row["price"], row["qty"]) for row in recent][
        -len(trades) :
    ]
    assert all(len(t["p"].split(".")[1]) == 8 for t in trades)
    assert refused == 401
    assert [row["id"] for row in old] == [fill.trade_id for fill in fills[5:8]]
    orders = [f["data"] for f in frames if f["stream"].endswith("@aggTrade")]
    keys = ("a", "p", "q", "f", "l", "T", "m")
    assert [[o[k] for k in keys] for o in orders] == [[o[k] for k in keys] for o in grouped]
    assert [o["a"] for o in orders] == list(range(orders[0]["a"], orders[0]["a"] + len(orders)))
    assert [i for o in orders for i in range(o["f"], o["l"] + 1)] == [f.trade_id for f in fills]
    assert any(o["f"] < o["l"] for o in orders)
    assert timed
    assert {row["T"] for row in timed} == {start}


async def test_subscribes_by_message_too(resting: BinanceUsSimulator) -> None:
    async with Client(f"{resting.ws_url}/ws") as client:
        await client.send({"method": "SUBSCRIBE", "params": ["btcusd@trade"], "id": 1})
        await client.send({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        await client.send({"method": "UNSUBSCRIBE", "params": ["btcusd@trade"], "id": 3})
        assert await client.drain() == [
            {"result": None, "id": 1},
            {"result": ["btcusd@trade"], "id": 2},
            {"result": None, "id": 3},
        ]
        assert resting.topics == {}


async def test_raw_streams_are_not_wrapped() -> None:
    async with (
        BinanceUsSimulator(fast_market(400)) as venue,
        Client(f"{venue.ws_url}/ws/btcusd@trade") as client,
    ):
        await finish(venue)
        frames = await client.drain()
    assert frames
    assert {frame["e"] for frame in frames} == {"trade"}


async def test_unknown_streams_and_upper_case_are_accepted_and_silent() -> None:
    async with BinanceUsSimulator(fast_market(400)) as venue:
        names = "BTCUSD@trade/BTCUSD@depth@100ms/nopeusd@trade"
        async with Client(f"{venue.ws_url}/stream?streams={names}") as client:
            await finish(venue)
            assert await client.drain() == []


async def test_answers_malformed_requests(resting: BinanceUsSimulator) -> None:
    async with Client(f"{resting.ws_url}/ws") as client:
        await client.send("{")
        await client.send({"method": "DANCE", "id": 5})
        answers = await client.drain()
    assert [answer["error"]["code"] for answer in answers] == [3, 2]
    assert answers[1]["id"] == 5


async def test_drops_who_sends_more_than_5_messages_a_second(resting: BinanceUsSimulator) -> None:
    async with Client(f"{resting.ws_url}/ws") as client:
        for _ in range(3):
            await client.socket.ping()
            await client.send({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert await client.closed() == 1008


async def test_drops_who_wants_more_than_1024_streams(resting: BinanceUsSimulator) -> None:
    async with Client(f"{resting.ws_url}/ws") as client:
        names = [f"x{n}@trade" for n in range(1025)]
        await client.send({"method": "SUBSCRIBE", "params": names, "id": 1})
        assert await client.closed() == 1008


async def test_pings_and_ends_connections_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BinanceUsSimulator, "ping_seconds", 0.0)
    monkeypatch.setattr(BinanceUsSimulator, "life_seconds", 1.5)
    async with (
        BinanceUsSimulator(Market(1), start="manual") as venue,
        Client(f"{venue.ws_url}/ws") as client,
    ):
        assert await client.closed() == 1001
        assert client.pings >= 1
    monkeypatch.setattr(BinanceUsSimulator, "pong_seconds", 0.0)
    async with (
        BinanceUsSimulator(Market(1), start="manual") as venue,
        Client(f"{venue.ws_url}/ws") as client,
    ):
        assert await client.closed() == 1008


async def test_exchange_info_gives_the_steps(resting: BinanceUsSimulator) -> None:
    _, headers, info = await get(f"{resting.rest_url}/api/v3/exchangeInfo")
    assert [symbol["symbol"] for symbol in info["symbols"]] == SYMBOLS
    filters = {f["filterType"]: f for f in info["symbols"][0]["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.10000000"
    assert filters["LOT_SIZE"]["stepSize"] == "0.00000001"
    assert info["rateLimits"][0]["limit"] == 1200
    assert headers["X-MBX-USED-WEIGHT-1M"] == "10"
    status, _, body = await get(f"{resting.rest_url}/api/v3/depth?symbol=NOPE")
    assert (status, body["code"]) == (400, -1121)


async def test_requests_weigh_what_they_cost(resting: BinanceUsSimulator) -> None:
    url = f"{resting.rest_url}/api/v3/depth?symbol=BTCUSD&limit="
    used = []
    for limit in (100, 101, 1000, 1001):
        _, headers, body = await get(f"{url}{limit}")
        used.append(int(headers["X-MBX-USED-WEIGHT-1M"]))
        assert len(body["bids"]) == 30
    assert used == [1, 6, 16, 66]
    while resting.weight.take(50):
        pass
    statuses = []
    for _ in range(12):
        status, headers, _ = await get(f"{url}5000")
        statuses.append(status)
        assert int(headers["Retry-After"]) > 0
    assert statuses == [429] * 10 + [418, 418]
    assert 100 < int(headers["Retry-After"]) <= 120


async def test_faults_of_snapshots_and_updates() -> None:
    async with (
        BinanceUsSimulator(fast_market(600), start="manual") as venue,
        Client(f"{venue.ws_url}/stream?streams={streams('depth@100ms')}") as client,
    ):
        depth = f"{venue.rest_url}/api/v3/depth?symbol=BTCUSD&limit=5000"
        _, _, before = await get(depth)
        venue.faults.stale_snapshot("BTC-USD")
        venue.faults.drop_update("BTC-USD")
        venue.play()
        await finish(venue)
        frames = await client.drain()
        _, _, stale = await get(depth)
        _, _, fresh = await get(depth)
    assert stale == before
    assert fresh["lastUpdateId"] > before["lastUpdateId"]
    assert load(fresh).levels() == venue.book("BTC-USD")
    for symbol in SYMBOLS:
        diffs = [f["data"] for f in frames if f["data"]["s"] == symbol]
        first = diffs[0]["U"] - 1
        holes = sum(b["U"] != a["u"] + 1 for a, b in itertools.pairwise(diffs))
        if symbol == "BTCUSD":
            assert first > before["lastUpdateId"]
        assert holes == 0


async def test_times_may_be_in_microseconds() -> None:
    async with (
        BinanceUsSimulator(fast_market(400), microseconds=True) as venue,
        Client(f"{venue.ws_url}/ws/btcusd@trade") as client,
    ):
        await finish(venue)
        frames = await client.drain()
    assert all(len(str(frame["T"])) == 16 for frame in frames)


async def test_plays_a_capture_verbatim(captures: Path) -> None:
    path = captures / "binance_us.jsonl"
    frames = list(read_capture(path))
    async with BinanceUsSimulator(CaptureSource(path=str(path))) as venue:
        _, _, info = await get(f"{venue.rest_url}/api/v3/exchangeInfo")
        assert venue.symbols["OMG-BUSD"] == "OMGBUSD"
        assert len(info["symbols"]) >= 3
        depth = f"{venue.rest_url}/api/v3/depth?limit=1000&symbol="
        waiting = asyncio.create_task(get(f"{depth}ZRXUSDT"))
        names = streams("depth@100ms", "trade", symbols=["OMGBUSD", "CRVUSDT", "ZRXUSDT"])
        async with Client(f"{venue.ws_url}/stream?streams={names}") as client:
            await finish(venue)
            await client.drain()
        assert (await waiting)[2] == json.loads(frames[27].raw)
        assert (await get(f"{depth}NOPE"))[0] == 404
    assert client.raw == [frame.raw.decode() for frame in frames if b"@depth@100ms" in frame.raw]
    assert len(client.raw) == 229
