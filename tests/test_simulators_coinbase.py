"""The simulated Coinbase Exchange, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alphapulse.capture import read_capture
from alphapulse.simulators import CaptureSource, CoinbaseSimulator, Market
from tests.simulator_client import Client, NaiveBook, finish, get

START_NS = 1_700_000_000_000_000_000
SIGNED = {"signature": "s", "key": "k", "passphrase": "p", "timestamp": "1"}


def fast_market(events: int = 3000, **settings: Any) -> Market:
    settings = {"trade_rate": 10_000, "levels": 40, "start_ns": START_NS} | settings
    return Market(3, book_rate=None, events=events, **settings)


def subscribe(channels: list[Any], products: list[str], **more: Any) -> dict[str, Any]:
    return {"type": "subscribe", "product_ids": products, "channels": channels, **more}


def apply(book: NaiveBook, frame: dict[str, Any]) -> None:
    if frame["type"] == "snapshot":
        for side, rows in (("bid", frame["bids"]), ("ask", frame["asks"])):
            for price, size in rows:
                book.set(side, price, size)
    elif frame["type"] == "l2update":
        for side, price, size in frame["changes"]:
            book.set({"buy": "bid", "sell": "ask"}[side], price, size)


@pytest.fixture
async def resting() -> AsyncIterator[CoinbaseSimulator]:
    """A venue whose market doesn't move."""
    async with CoinbaseSimulator(Market(3, levels=30, start_ns=START_NS), start="manual") as venue:
        yield venue


async def test_acknowledges_then_gives_snapshot_and_last_match(resting: CoinbaseSimulator) -> None:
    async with Client(resting.ws_url) as client:
        channels = ["level2_batch", {"name": "matches", "product_ids": ["ETH-USD"]}, "heartbeat"]
        await client.send(subscribe(channels, ["BTC-USD"]))
        answer, snapshot, last = await client.drain()
        assert answer == {
            "type": "subscriptions",
            "channels": [
                {"name": "heartbeat", "product_ids": ["BTC-USD"]},
                {"name": "level2_batch", "product_ids": ["BTC-USD"]},
                {"name": "matches", "product_ids": ["ETH-USD"]},
            ],
        }
        book = NaiveBook()
        apply(book, snapshot)
        assert book.levels() == resting.book("BTC-USD")
        assert (last["type"], last["product_id"]) == ("last_match", "ETH-USD")
        assert last["trade_id"] == resting.books["ETH-USD"].next_trade_id - 1
        await client.send(
            {"type": "unsubscribe", "product_ids": ["BTC-USD"], "channels": ["level2_batch"]}
        )
        (answer,) = await client.drain()
        assert [channel["name"] for channel in answer["channels"]] == ["heartbeat", "matches"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (subscribe(["level2"], ["BTC-USD"]), "level2 requires authentication"),
        (subscribe(["full"], ["BTC-USD"]), "full requires authentication"),
        (subscribe(["level2_batch"], ["BTC-USD", "NO-PE"]), "NO-PE is not a valid product"),
        (subscribe(["gossip"], ["BTC-USD"]), "gossip is not a valid channel"),
        (subscribe([], ["BTC-USD"]), "No channels provided"),
        ({"type": "dance"}, "dance is no valid type"),
    ],
)
async def test_refuses_with_an_error(
    resting: CoinbaseSimulator, message: dict[str, Any], reason: str
) -> None:
    async with Client(resting.ws_url) as client:
        await client.send(message)
        (answer,) = await client.drain()
        assert (answer["type"], answer["reason"]) == ("error", reason)
        await client.send("{")
        (answer,) = await client.drain()
        assert answer["type"] == "error"
        assert resting.topics == {}


async def test_level2_works_with_keys(resting: CoinbaseSimulator) -> None:
    async with Client(resting.ws_url) as client:
        await client.send(subscribe(["level2"], ["BTC-USD"], **SIGNED))
        assert [frame["type"] for frame in await client.drain()] == ["subscriptions", "snapshot"]


async def test_drops_who_does_not_subscribe_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CoinbaseSimulator, "subscribe_timeout_seconds", 0.05)
    async with (
        CoinbaseSimulator(Market(1), start="manual") as venue,
        Client(venue.ws_url) as client,
    ):
        await client.send(subscribe(["heartbeat"], ["BTC-USD"]))
        async with Client(venue.ws_url) as idler:
            assert await idler.closed() == 1008
        assert (await client.drain())[0]["type"] == "subscriptions"


async def test_limits_subscriptions_and_messages(resting: CoinbaseSimulator) -> None:
    clients = [Client(resting.ws_url) for _ in range(11)]
    for client in clients:
        await client.__aenter__()
        await client.send(subscribe(["matches"], ["BTC-USD"]))
        frames = await client.drain()
        assert (frames[0]["type"] == "error") == (client is clients[-1])
    for _ in range(110):
        await clients[0].send({"type": "unsubscribe"})
    assert await clients[0].closed() == 1008
    for client in clients:
        await client.__aexit__()


@pytest.mark.parametrize("channel", ["level2", "level2_batch"])
async def test_books_follow(channel: str) -> None:
    async with CoinbaseSimulator(fast_market()) as venue, Client(venue.ws_url) as client:
        products = ["BTC-USD", "ETH-USD", "SOL-USD"]
        await client.send(subscribe([channel], products, **SIGNED))
        await finish(venue)
        frames = (await client.drain())[1:]
        books = {product: NaiveBook() for product in products}
        for frame in frames:
            apply(books[frame["product_id"]], frame)
        for product, book in books.items():
            assert book.levels() == venue.book(product)
    sizes = {size for f in frames for _, _, size in f.get("changes", []) if float(size) == 0}
    assert sizes == {"0", "0.00000000"}
    assert len(frames) > 1000


async def test_batches_for_50_ms_what_comes_at_a_rate() -> None:
    market = Market(1, book_rate=2000, trade_rate=0, events=400, levels=30)
    async with CoinbaseSimulator(market, start="manual") as venue, Client(venue.ws_url) as client:
        await client.send(subscribe(["level2_batch"], ["BTC-USD"]))
        await client.drain()
        venue.play()
        await finish(venue)
        frames = await client.drain()
    times = [frame["time"] for frame in frames]
    assert 1 <= len(frames) <= 10
    assert times == sorted(times)
    assert all(
        len({(s, p) for s, p, _ in frame["changes"]}) == len(frame["changes"]) for frame in frames
    )


async def test_matches_bear_the_makers_side_and_running_ids() -> None:
    async with CoinbaseSimulator(fast_market()) as venue, Client(venue.ws_url) as client:
        await client.send(subscribe(["matches", "ticker"], ["BTC-USD"]))
        await finish(venue)
        frames = (await client.drain())[1:]
        fills = list(venue.books["BTC-USD"].fills)[60:]
        _, headers, rows = await get(f"{venue.rest_url}/products/BTC-USD/trades?limit=1000")
    assert frames[0]["type"] == "last_match"
    matches = [frame for frame in frames if frame["type"] == "match"]
    assert [m["trade_id"] for m in matches] == [fill.trade_id for fill in fills]
    assert [m["side"] for m in matches] == ["sell" if fill.buy else "buy" for fill in fills]
    sequences = [m["sequence"] for m in matches]
    assert sequences == sorted(set(sequences))
    told = {row["trade_id"]: row for row in rows}
    assert [row["trade_id"] for row in rows] == sorted(told, reverse=True)
    for match in matches:
        row = told[match["trade_id"]]
        assert (row["side"], float(row["price"])) == (match["side"], float(match["price"]))
    assert headers["CB-BEFORE"] == str(rows[0]["trade_id"])
    assert headers["CB-AFTER"] == str(rows[-1]["trade_id"])


async def test_rest_pages_with_cursors(resting: CoinbaseSimulator) -> None:
    url = f"{resting.rest_url}/products/BTC-USD/trades"
    last = resting.books["BTC-USD"].next_trade_id - 1
    seen: list[int] = []
    query = "?limit=25"
    while True:
        _, headers, rows = await get(url + query)
        if not rows:
            break
        seen += [row["trade_id"] for row in rows]
        query = f"?limit=25&after={headers['CB-AFTER']}"
    assert seen == list(range(last, last - 60, -1))
    _, _, rows = await get(f"{url}?before={last - 10}&limit=4")
    assert [row["trade_id"] for row in rows] == [last, last - 1, last - 2, last - 3]
    for path in ("/products/NO-PE", "/products/NO-PE/trades", "/products/NO-PE/book"):
        assert (await get(resting.rest_url + path))[0] == 404


async def test_rest_lists_products_and_books(resting: CoinbaseSimulator) -> None:
    _, _, products = await get(f"{resting.rest_url}/products")
    assert [product["id"] for product in products] == ["BTC-USD", "ETH-USD", "SOL-USD"]
    assert (products[0]["quote_increment"], products[0]["base_increment"]) == ("0.1", "0.00000001")
    _, _, body = await get(f"{resting.rest_url}/products/BTC-USD/book?level=2")
    book = NaiveBook()
    for side, rows in (("bid", body["bids"]), ("ask", body["asks"])):
        for price, size, _orders in rows:
            book.set(side, price, size)
    assert book.levels() == resting.book("BTC-USD")
    assert body["sequence"] == resting.books["BTC-USD"].sequence


async def test_rest_turns_away_what_comes_too_fast(resting: CoinbaseSimulator) -> None:
    statuses = [(await get(f"{resting.rest_url}/time"))[0] for _ in range(40)]
    assert {200, 429} == set(statuses)


async def test_heartbeats_tell_the_last_trade() -> None:
    market = fast_market(300, levels=30)
    async with CoinbaseSimulator(market) as venue, Client(venue.ws_url) as client:
        venue.faults.skip_trade("BTC-USD", count=100_000)
        await client.send(subscribe(["heartbeat", "matches"], ["BTC-USD"]))
        await finish(venue)
        frames = await client.until(lambda frame: frame["type"] == "heartbeat")
        book = venue.books["BTC-USD"]
        assert frames[-1]["last_trade_id"] == book.next_trade_id - 1
        assert frames[-1]["sequence"] == book.sequence
        assert not [frame for frame in frames if frame["type"] == "match"]
        assert book.next_trade_id - 1 > frames[1]["trade_id"]


async def test_a_book_of_45000_levels_a_side_comes_whole() -> None:
    async with (
        CoinbaseSimulator(Market(["BTC-USD"], levels=45_000), start="manual") as venue,
        Client(venue.ws_url) as client,
    ):
        await client.send(subscribe(["level2_batch"], ["BTC-USD"]))
        _, snapshot = await client.drain()
    assert (len(snapshot["bids"]), len(snapshot["asks"])) == (45_000, 45_000)


async def test_plays_a_capture_verbatim(captures: Path) -> None:
    path = captures / "coinbase.jsonl"
    frames = list(read_capture(path))
    products = sorted(
        {
            text.split('"product_id":"')[1].split('"')[0]
            for f in frames
            if f.url is None
            for text in [f.raw.decode()]
        }
    )
    async with CoinbaseSimulator(CaptureSource(path=str(path))) as venue:
        status, _, body = await get(f"{venue.rest_url}/products")
        assert status == 200
        assert set(products) <= {product["id"] for product in body}
        assert (await get(f"{venue.rest_url}/products/YFI-BTC/trades"))[0] == 404
        async with Client(venue.ws_url) as client:
            await client.send(subscribe(["matches", "heartbeat"], products))
            assert len(await client.drain()) == 1
            await client.send(subscribe(["level2_batch", "ticker"], products))
            await finish(venue)
            await client.drain()
            beats = [
                await client.until(lambda frame: frame["type"] == "heartbeat") for _ in range(1)
            ]
            last = {
                f["product_id"]: f["trade_id"]
                for f in (json.loads(text) for text in client.raw)
                if f["type"] in {"match", "last_match"}
            }
            beat = beats[0][-1]
            assert beat["last_trade_id"] == last[beat["product_id"]]
    got = [t for t in client.raw if '"subscriptions"' not in t and '"heartbeat"' not in t]
    assert got == [frame.raw.decode() for frame in frames if frame.url is None]
