"""The simulated Kraken, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import aiohttp
import pytest

from alphapulse.capture import read_capture
from alphapulse.simulators import CaptureSource, KrakenSimulator, Market
from tests.simulator_client import Client, NaiveBook, finish, get

START_NS = 1_700_000_000_000_000_000


def fast_market(events: int = 3000, **settings: Any) -> Market:
    settings = {"trade_rate": 10_000, "levels": 40, "start_ns": START_NS} | settings
    return Market(3, book_rate=None, events=events, **settings)


def subscribe(channel: str, symbols: list[str] | None = None, **more: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"channel": channel, **more}
    if symbols is not None:
        params["symbol"] = symbols
    return {"method": "subscribe", "params": params}


def checksum(book: NaiveBook) -> int:
    """As the venue's guide describes it, from the digits as they were written."""
    text = ""
    for side in ("ask", "bid"):
        for price, size in book.top(side)[:10]:
            text += price.replace(".", "").lstrip("0") + size.replace(".", "").lstrip("0")
    return crc32(text.encode())


def apply(book: NaiveBook, row: dict[str, Any]) -> None:
    for side, rows in (("bid", row["bids"]), ("ask", row["asks"])):
        for level in rows:
            book.set(side, level["price"], level["qty"])
    book.truncate()


@pytest.fixture
async def resting() -> AsyncIterator[KrakenSimulator]:
    """A venue whose market doesn't move."""
    async with KrakenSimulator(Market(3, levels=30, start_ns=START_NS), start="manual") as venue:
        yield venue


async def test_says_its_status_with_an_id_beyond_2_to_the_53(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        status = await client.receive()
    assert status["channel"] == "status"
    assert status["data"][0]["system"] == "online"
    assert status["data"][0]["connection_id"] > 2**53


async def test_answers_each_symbol_by_itself(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        request = subscribe("book", ["BTC/USD", "NO/PE", "ETH/USD"], depth=25, snapshot=True)
        await client.send(request | {"req_id": 7})
        frames = (await client.drain())[1:]
    answers = [frame for frame in frames if "method" in frame]
    assert [(a["success"], a["req_id"]) for a in answers] == [(True, 7), (False, 7), (True, 7)]
    assert answers[0]["result"] == {
        "channel": "book",
        "symbol": "BTC/USD",
        "depth": 25,
        "snapshot": True,
    }
    assert answers[1]["error"] == "Currency pair not supported NO/PE"
    assert all(a["time_in"] <= a["time_out"] for a in answers)
    books = [frame["data"][0] for frame in frames if frame.get("channel") == "book"]
    assert [(b["symbol"], len(b["bids"]), len(b["asks"])) for b in books] == [
        ("BTC/USD", 25, 25),
        ("ETH/USD", 25, 25),
    ]


async def test_refuses_other_depths_and_stays_up(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        await client.send(subscribe("book", ["BTC/USD"], depth=50))
        (_, answer) = await client.drain()
        assert answer["success"] is False
        assert answer["symbol"] == "BTC/USD"
        assert resting.topics == {}
        await client.send(subscribe("book", ["BTC/USD"]))
        answer, snapshot = await client.drain()
    assert answer["result"]["depth"] == 10
    assert len(snapshot["data"][0]["bids"]) == 10


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("{", "Malformed request"),
        ('{"method":"dance"}', "Method not supported"),
        ('{"method":"subscribe","params":{"channel":"gossip"}}', "Symbol(s) not found"),
        (
            '{"method":"unsubscribe","params":{"channel":"book","symbol":["BTC/USD"]}}',
            "Subscription Not Found",
        ),
    ],
)
async def test_refuses_what_it_does_not_know(
    resting: KrakenSimulator, message: str, problem: str
) -> None:
    async with Client(resting.ws_url) as client:
        await client.send(message)
        (_, answer) = await client.drain()
    assert (answer["success"], answer["error"]) == (False, problem)


async def test_resubscribing_gives_a_new_snapshot(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        await client.send(subscribe("book", ["BTC/USD"], depth=10))
        await client.send(subscribe("book", ["BTC/USD"], depth=10))
        *_, again = await client.drain()
        assert again["error"] == "Already subscribed"
        request = subscribe("book", ["BTC/USD"], depth=10)
        await client.send(request | {"method": "unsubscribe"})
        await client.send(request)
        gone, answer, snapshot = await client.drain()
    assert gone["method"] == "unsubscribe"
    assert gone["success"]
    assert answer["success"]
    assert snapshot["type"] == "snapshot"


async def test_lists_pairs_with_their_precisions(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        await client.send(subscribe("instrument", snapshot=True))
        _, answer, listing = await client.drain()
    assert answer["result"]["channel"] == "instrument"
    pairs = {pair["symbol"]: pair for pair in listing["data"]["pairs"]}
    assert pairs.keys() == {"BTC/USD", "ETH/USD", "SOL/USD"}
    assert (pairs["BTC/USD"]["price_precision"], pairs["BTC/USD"]["qty_precision"]) == (1, 8)
    assert pairs["BTC/USD"]["price_increment"] == "0.1"
    assert pairs["BTC/USD"]["qty_increment"] == "1e-08"


@pytest.mark.parametrize(("levels", "depth"), [(40, 10), (40, 25), (12, 10), (5, 10), (150, 100)])
async def test_books_follow_with_every_checksum_right(levels: int, depth: int) -> None:
    market = fast_market(levels=levels)
    async with KrakenSimulator(market) as venue, Client(venue.ws_url) as client:
        symbols = ["BTC/USD", "ETH/USD", "SOL/USD"]
        await client.send(subscribe("book", symbols, depth=depth, snapshot=True))
        await finish(venue)
        frames = [f for f in await client.drain() if f.get("channel") == "book"]
        books = {symbol: NaiveBook(depth) for symbol in symbols}
        for frame in frames:
            for row in frame["data"]:
                book = books[row["symbol"]]
                apply(book, row)
                assert checksum(book) == row["checksum"]
        for symbol, book in books.items():
            assert book.levels() == venue.book(symbol, depth)
    assert len(frames) > 1000


async def test_tells_no_removal_of_what_leaves_the_depth() -> None:
    market = fast_market(levels=40)
    async with KrakenSimulator(market) as venue, Client(venue.ws_url) as client:
        await client.send(subscribe("book", ["BTC/USD"], depth=10))
        await finish(venue)
        book = NaiveBook()
        for frame in await client.drain():
            for row in frame.get("data", []) if frame.get("channel") == "book" else []:
                apply(book, row)
        assert len(book.sides["bid"]) > 10, "a client that doesn't truncate keeps stale levels"


async def test_trades_bear_the_takers_side_and_running_ids() -> None:
    market = fast_market()
    async with KrakenSimulator(market) as venue, Client(venue.ws_url) as client:
        await client.send(subscribe("trade", ["BTC/USD"], snapshot=True))
        await finish(venue)
        frames = [f for f in await client.drain() if f.get("channel") == "trade"]
        book = venue.books["BTC/USD"]
        fills = list(book.fills)
        status, _, body = await get(f"{venue.rest_url}/0/public/Trades?pair=XBTUSD&since=1")
    assert frames[0]["type"] == "snapshot"
    assert len(frames[0]["data"]) == 50
    rows = [row for frame in frames for row in frame["data"]]
    assert [row["trade_id"] for row in rows] == [fill.trade_id for fill in fills][10:]
    assert [row["side"] for row in rows] == ["buy" if f.buy else "sell" for f in fills][10:]
    assert any(len(frame["data"]) > 1 for frame in frames[1:])
    assert status == 200
    told = body["result"]["XXBTZUSD"]
    assert [row[6] for row in told] == [fill.trade_id for fill in fills]
    assert [(r["price"], r["qty"], r["side"][0]) for r in rows] == [
        (row[0], row[1], row[3]) for row in told
    ][10:]
    assert body["result"]["last"] == str(fills[-1].t_ns)


async def test_rest_pages_by_nanoseconds(resting: KrakenSimulator) -> None:
    fills = list(resting.books["BTC/USD"].fills)
    url = f"{resting.rest_url}/0/public/Trades?pair=BTC/USD"
    _, _, body = await get(f"{url}&since={fills[20].t_ns}&count=5")
    assert [row[6] for row in body["result"]["XXBTZUSD"]] == [f.trade_id for f in fills[21:26]]
    assert body["result"]["last"] == str(fills[25].t_ns)
    _, _, body = await get(f"{url}NOPE")
    assert body["error"] == ["EQuery:Unknown asset pair"]
    _, _, body = await get(f"{resting.rest_url}/0/public/AssetPairs")
    assert body["result"]["XXBTZUSD"]["wsname"] == "XBT/USD"
    for _ in range(5):
        status, _, body = await get(f"{resting.rest_url}/0/public/SystemStatus")
    assert (status, body["error"]) == (200, ["EAPI:Rate limit exceeded"])


async def test_heartbeats_come_where_nothing_else_does(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        frames = await client.until(lambda frame: frame["channel"] == "heartbeat")
        assert len(frames) == 2
        resting.faults.lose_heartbeats()
        resting.faults.maintenance()
        frames = await client.until(lambda frame: frame["channel"] == "status")
        assert frames[-1]["data"][0]["system"] == "maintenance"


async def test_counts_messages_and_connections(resting: KrakenSimulator) -> None:
    async with Client(resting.ws_url) as client:
        for _ in range(70):
            await client.send({"method": "ping"})
        *_, last = await client.drain()
        assert last["error"] == "Exceeded msg rate"
    assert resting.connections_budget is not None
    while resting.connections_budget.take():
        pass
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with Client(resting.ws_url):
            pass
    assert refused.value.status == 429


async def collect(
    events: int, prepare: Callable[[KrakenSimulator], None]
) -> tuple[list[Any], KrakenSimulator]:
    market = fast_market(events)
    async with KrakenSimulator(market, start="manual") as venue, Client(venue.ws_url) as client:
        await client.send(subscribe("book", ["BTC/USD", "ETH/USD"], depth=10))
        await client.send(subscribe("trade", ["BTC/USD"]))
        await client.drain()
        prepare(venue)
        venue.play()
        await finish(venue)
        return await client.drain(), venue


def book_rows(frames: list[Any], symbol: str) -> list[Any]:
    rows = [row for f in frames if f.get("channel") == "book" for row in f["data"]]
    return [row for row in rows if row["symbol"] == symbol]


async def test_a_dropped_update_is_missing_for_its_symbol_alone() -> None:
    whole, _ = await collect(500, lambda _: None)
    lacking, _ = await collect(500, lambda venue: venue.faults.drop_update("BTC-USD", count=20))
    assert book_rows(lacking, "BTC/USD") == book_rows(whole, "BTC/USD")[20:]
    assert book_rows(lacking, "ETH/USD") == book_rows(whole, "ETH/USD")


async def test_checksums_are_wrong_as_often_as_wanted() -> None:
    whole, _ = await collect(500, lambda _: None)
    spoilt, _ = await collect(500, lambda venue: venue.faults.corrupt_checksum("BTC/USD", 20))
    differing = [(a, b) for a, b in zip(whole, spoilt, strict=True) if a != b]
    assert len(differing) == 20, "changes that nobody is sent don't count"
    for right, wrong in differing:
        assert right["data"][0].pop("checksum") != wrong["data"][0].pop("checksum")
        assert right == wrong


async def test_a_skipped_trade_is_missing_but_rest_has_it() -> None:
    frames, venue = await collect(500, lambda venue: venue.faults.skip_trade("BTC-USD"))
    ids = [row["trade_id"] for f in frames if f.get("channel") == "trade" for row in f["data"]]
    fills = list(venue.books["BTC/USD"].fills)[60:]
    assert ids == [fill.trade_id for fill in fills][1:]


async def test_silence_of_one_symbol() -> None:
    frames, _ = await collect(500, lambda venue: venue.faults.silence("BTC-USD"))
    assert not book_rows(frames, "BTC/USD")
    assert book_rows(frames, "ETH/USD")


async def test_a_refused_subscription_succeeds_later(resting: KrakenSimulator) -> None:
    resting.faults.refuse("ETH-USD")
    async with Client(resting.ws_url) as client:
        for _ in range(2):
            await client.send(subscribe("book", ["BTC/USD", "ETH/USD"], depth=10))
        answers = [f for f in await client.drain() if "method" in f]
    assert [a["success"] for a in answers] == [True, False, False, True]


@pytest.mark.parametrize("name", ["kraken", "kraken-btcusd-depth10"])
async def test_plays_a_capture_verbatim(captures: Path, name: str) -> None:
    path = captures / f"{name}.jsonl"
    recorded = [frame.raw.decode() for frame in read_capture(path)]
    source = CaptureSource(path=str(path))
    async with KrakenSimulator(source) as venue, Client(venue.ws_url) as client:
        assert await client.receive_raw() == recorded[0]
        await client.send(subscribe("instrument"))
        await client.receive()
        assert await client.receive_raw() == recorded[1]
        listed = [pair["symbol"] for pair in json.loads(recorded[1])["data"]["pairs"]]
        await client.send(subscribe("trade", listed))
        await client.drain()
        assert not venue.finished.is_set()
        await client.send(subscribe("book", listed, depth=1000))
        await finish(venue)
        await client.drain()
    got = [text for text in client.raw if '"method":"' not in text]
    wanted = [text for text in recorded if "heartbeat" not in text]
    assert [text for text in got if "heartbeat" not in text] == wanted


async def test_a_capture_waits_for_all_its_subscriptions(captures: Path) -> None:
    source = CaptureSource(path=str(captures / "kraken-btcusd-depth10.jsonl"))
    async with KrakenSimulator(source) as venue, Client(venue.ws_url) as client:
        await client.send(subscribe("trade", ["BTC/USD"]))
        await client.send(subscribe("book", ["ETH/USD"]))
        frames = await client.drain()
        assert [f.get("success") for f in frames] == [None, True, False]
        assert not venue.finished.is_set()
        await client.send(subscribe("book", ["BTC/USD"]))
        await finish(venue)
        assert len([f for f in await client.drain() if f.get("channel") == "book"]) == 201
