"""The simulated Coinbase Advanced Trade, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alphapulse.simulators import CaptureSource, CoinbaseAdvancedSimulator, Market
from tests.simulator_client import Client, NaiveBook, finish, get

START_NS = 1_700_000_000_000_000_000
PRODUCTS = ["BTC-USD", "ETH-USD", "SOL-USD"]


def paced_market(events: int = 400, **settings: Any) -> Market:
    return Market(3, book_rate=2000, trade_rate=500, levels=30, events=events, **settings)


def subscribe(channel: str, products: list[str] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"type": "subscribe", "channel": channel}
    return message if products is None else message | {"product_ids": products}


def events_of(frames: list[Any], channel: str) -> list[Any]:
    return [event for f in frames if f.get("channel") == channel for event in f["events"]]


def apply(book: NaiveBook, event: dict[str, Any]) -> None:
    for update in event["updates"]:
        side = {"bid": "bid", "offer": "ask"}[update["side"]]
        book.set(side, update["price_level"], update["new_quantity"])


@pytest.fixture
async def resting() -> AsyncIterator[CoinbaseAdvancedSimulator]:
    """A venue whose market doesn't move, with -USDC twins."""
    market = Market(3, levels=30, start_ns=START_NS)
    async with CoinbaseAdvancedSimulator(market, start="manual", usdc_twins=True) as venue:
        yield venue


async def test_one_channel_a_message_numbered_over_the_connection(
    resting: CoinbaseAdvancedSimulator,
) -> None:
    async with Client(resting.ws_url) as client:
        await client.send(subscribe("level2", PRODUCTS))
        await client.send(subscribe("market_trades", PRODUCTS[:1]))
        await client.send(subscribe("heartbeats"))
        frames = await client.until(lambda frame: frame["channel"] == "heartbeats")
    assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
    assert [frame["channel"] for frame in frames] == [
        *("subscriptions", "l2_data", "l2_data", "l2_data"),
        *("subscriptions", "market_trades", "subscriptions", "heartbeats"),
    ]
    assert frames[0]["events"][0]["subscriptions"] == {"level2": PRODUCTS}
    for event in events_of(frames, "l2_data"):
        assert event["type"] == "snapshot"
        book = NaiveBook()
        apply(book, event)
        assert book.levels() == resting.book(event["product_id"])
    (trades,) = events_of(frames, "market_trades")
    assert trades["type"] == "snapshot"
    fills = list(resting.books["BTC-USD"].fills)[:-51:-1]
    assert [row["trade_id"] for row in trades["trades"]] == [str(f.trade_id) for f in fills]


@pytest.mark.parametrize("text_counter", [False, True])
async def test_heartbeats_count(text_counter: bool) -> None:
    venue = CoinbaseAdvancedSimulator(Market(1), start="manual", text_counter=text_counter)
    async with venue, Client(venue.ws_url) as client:
        await client.send(subscribe("heartbeats"))
        frames = await client.until(lambda frame: frame["channel"] == "heartbeats")
    counter = frames[-1]["events"][0]["heartbeat_counter"]
    assert counter == ("1" if text_counter else 1)


async def test_refuses_with_an_error(resting: CoinbaseAdvancedSimulator) -> None:
    async with Client(resting.ws_url) as client:
        for message in (
            "{",
            subscribe("level2", ["NO-PE"]),
            subscribe("level2", []),
            subscribe("gossip", PRODUCTS),
            {"type": "dance"},
        ):
            await client.send(message)
            (answer,) = await client.drain()
            assert answer["type"] == "error"
        for _ in range(5):
            await client.send(subscribe("level2", PRODUCTS))
        assert await client.closed() == 1008


async def test_bears_16_books_a_connection() -> None:
    async with (
        CoinbaseAdvancedSimulator(Market(20, levels=2), start="manual") as venue,
        Client(venue.ws_url) as client,
    ):
        names = list(venue.books)
        await client.send(subscribe("level2", names[:16]))
        assert len(await client.drain()) == 17
        await client.send(subscribe("level2", names[16:17]))
        (answer,) = await client.drain()
    assert answer["type"] == "error"


async def test_a_usdc_product_answers_as_its_usd_twin(resting: CoinbaseAdvancedSimulator) -> None:
    _, _, products = await get(f"{resting.rest_url}/products")
    assert "BTC-USDC" in {product["id"] for product in products}
    async with Client(resting.ws_url) as client:
        await client.send(subscribe("level2", ["BTC-USDC"]))
        frames = await client.drain()
    assert [event["product_id"] for event in events_of(frames, "l2_data")] == ["BTC-USD"]


@pytest.mark.parametrize("trade_side", ["maker", "taker"])
async def test_books_and_trades_follow(trade_side: Any) -> None:
    venue = CoinbaseAdvancedSimulator(paced_market(), start="manual", trade_side=trade_side)
    async with venue, Client(venue.ws_url) as client:
        await client.send(subscribe("level2", PRODUCTS))
        await client.send(subscribe("market_trades", PRODUCTS))
        frames = await client.drain()
        venue.play()
        await finish(venue)
        frames += await client.drain()
        assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
        books = {product: NaiveBook() for product in PRODUCTS}
        for event in events_of(frames, "l2_data"):
            apply(books[event["product_id"]], event)
        for product, book in books.items():
            assert book.levels() == venue.book(product)
        assert max(len(f["events"]) for f in frames if f["channel"] == "l2_data") > 1
        rows = [
            row
            for event in events_of(frames, "market_trades")
            if event["type"] == "update"
            for row in event["trades"]
        ]
        for product in PRODUCTS:
            mine = sorted(
                (int(r["trade_id"]), r["side"]) for r in rows if r["product_id"] == product
            )
            assert mine == [
                (f.trade_id, "BUY" if f.buy is (trade_side == "taker") else "SELL")
                for f in list(venue.books[product].fills)[60:]
            ]


async def test_a_dropped_update_leaves_a_hole_in_the_numbers() -> None:
    venue = CoinbaseAdvancedSimulator(paced_market(), start="manual")
    async with venue, Client(venue.ws_url) as client:
        await client.send(subscribe("level2", PRODUCTS))
        frames = await client.drain()
        venue.faults.drop_update("BTC-USD")
        venue.play()
        await finish(venue)
        frames += await client.drain()
    numbers = [frame["sequence_num"] for frame in frames]
    assert len(set(range(numbers[-1] + 1)) - set(numbers)) == 1


async def test_closes_idle_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CoinbaseAdvancedSimulator, "idle_close_seconds", 0.1)
    async with (
        CoinbaseAdvancedSimulator(Market(1), start="manual") as venue,
        Client(venue.ws_url) as idler,
        Client(venue.ws_url) as client,
    ):
        await idler.send(subscribe("level2", ["BTC-USD"]))
        await client.send(subscribe("heartbeats"))
        assert await idler.closed() == 1000
        await client.until(lambda frame: frame["channel"] == "heartbeats")


async def test_plays_a_capture_verbatim(tmp_path: Path) -> None:
    rows = [
        {"channel": "subscriptions", "sequence_num": 0, "events": [{"subscriptions": {}}]},
        {
            "channel": "l2_data",
            "sequence_num": 1,
            "events": [{"type": "snapshot", "product_id": "BTC-USD", "updates": []}],
        },
        {
            "channel": "market_trades",
            "sequence_num": 2,
            "events": [{"type": "update", "trades": [{"product_id": "BTC-USD", "trade_id": "1"}]}],
        },
        {"channel": "heartbeats", "sequence_num": 3, "events": [{"heartbeat_counter": 1}]},
    ]
    path = tmp_path / "advanced.jsonl"
    path.write_text(
        "".join(
            json.dumps({"t": n, "src": "ws", "raw": json.dumps(row)}) + "\n"
            for n, row in enumerate(rows)
        )
    )
    async with CoinbaseAdvancedSimulator(CaptureSource(path=str(path))) as venue:
        venue.faults.lose_heartbeats()
        async with Client(venue.ws_url) as client:
            await client.send(subscribe("heartbeats"))
            await client.send(subscribe("level2", ["BTC-USD"]))
            await client.send(subscribe("market_trades", ["BTC-USD"]))
            await finish(venue)
            await client.drain()
    played = [text for text in client.raw if '"client_id"' not in text]
    assert played == [json.dumps(row) for row in rows[1:]]
