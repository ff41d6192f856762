"""Live books over REST, from real rings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alphapulse.model import BookState, Reason
from tests.serving import Api, api_settings, kept, serving
from tests.trading import NOW_NS, Venue


@pytest.fixture
async def api(ring_prefix: str, tmp_path: Path) -> AsyncIterator[Api]:
    settings = api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"))
    async with kept(settings) as store, serving(settings, store) as api:
        yield api


def live(body: Any) -> bool:
    return bool(body["state"] == "live")


async def until_known(api: Api, count: int) -> None:
    await api.until("/symbols", lambda body: body["count"] >= count)


async def book_until(api: Api, condition: Any, **query: Any) -> Any:
    await until_known(api, 1)
    return await api.until("/orderbook/BTC-USD", condition, **{"exchange": "kraken", **query})


async def test_a_live_book_follows_its_ring(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"100.01": "2.5", "99": "1"}, {"100.02": "0.0001", "100.3": "7"})
        body = await book_until(api, live)
        assert list(body) == [
            *("symbol", "exchange", "version", "state", "reason", "timestamp"),
            *("bids", "asks", "processing_time_ms"),
        ]
        assert [str(price) for price, _ in body["bids"]] == ["100.01", "99"]
        response = await api.http.get("/orderbook/BTC-USD?exchange=kraken")
        assert '"bids":[[100.01,2.5],[99,1]],"asks":[[100.02,0.0001],[100.3,7]]' in response.text
        assert f'"timestamp":{NOW_NS // 10**9}.123456789' in response.text
        assert body["version"] == 1
        assert body["processing_time_ms"] > 0
        venue.change("BTC-USD", {"100.01": "0"}, {"100.02": "3"})
        body = await book_until(api, lambda body: body["version"] == 2, depth=1)
        assert [[str(n) for n in level] for level in body["bids"]] == [["99", "1"]]
        assert [[str(n) for n in level] for level in body["asks"]] == [["100.02", "3"]]


async def test_a_book_that_is_not_live_has_no_levels(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix) as venue:
        body = await book_until(api, lambda _: True)
        assert (body["state"], body["version"], body["timestamp"]) == ("syncing", None, None)
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        await book_until(api, live)
        for state in (BookState.STALE, BookState.INVALID, BookState.SYNCING):
            venue.state("BTC-USD", state, Reason.CHECKSUM)
            body = await book_until(api, lambda body, state=state: body["state"] == state.text)
            assert (body["reason"], body["bids"], body["asks"]) == ("checksum", [], [])
            assert body["version"] is None
        venue.book("BTC-USD", {"100": "2"}, {"101": "1"})
        assert (await book_until(api, live))["version"] == 2


async def test_a_rescaled_book_goes_on(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        await book_until(api, live)
        venue.define("BTC-USD", price_exponent=8, size_exponent=8)
        venue.book("BTC-USD", {"100.00000001": "0.00000001"}, {"101": "1"})
        body = await book_until(api, live)
        assert [f"{n:f}" for n in body["bids"][0]] == ["100.00000001", "0.00000001"]


async def test_a_ring_without_a_writer_shows_no_books(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        await book_until(api, live)
    body = await book_until(api, lambda body: body["state"] == "stale")
    assert (body["reason"], body["bids"], body["asks"]) == ("stopped", [], [])
    # A new one takes its place.
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"200": "1"}, {"201": "1"})
        body = await book_until(api, live)
        assert body["bids"] == [[200, 1]]
        venue.writer.enlarge(2 << 20)
        venue.define("BTC-USD")
        venue.book("BTC-USD", {"300": "1"}, {"301": "1"})
        await book_until(api, lambda body: body["bids"] == [[300, 1]])


async def test_a_lapped_reader_comes_back_with_the_right_book(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix, size_bytes=1 << 14) as venue:
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        await book_until(api, live)
        # Without a pause for the reader, so that the writer gets round.
        for number in range(2000):
            venue.trade("BTC-USD", number)
            if number % 50 == 0:
                venue.change("BTC-USD", {"99": str(number + 1)}, {})
                venue.book("BTC-USD", {"100": "1", "98": str(number + 1)}, {"101": "1"})
        body = await book_until(api, lambda body: live(body) and body["version"] == 81)
        assert body["bids"] == [[100, 1], [98, 1951]]


async def test_books_of_all_venues_add_up(api: Api, ring_prefix: str) -> None:
    with (
        Venue(ring_prefix, "kraken") as kraken,
        Venue(ring_prefix, "coinbase") as coinbase,
        Venue(ring_prefix, "binance_us"),
    ):
        coinbase.define("BTC-USD", price_exponent=4, size_exponent=8)
        kraken.book("BTC-USD", {"100": "1", "99.5": "2", "97": "1"}, {"101": "1"})
        coinbase.book("BTC-USD", {"99.5": "0.00000001", "99.1234": "5"}, {"100.5": "2"})

        def both(body: Any) -> bool:
            states = {name: book["state"] for name, book in body["exchanges"].items()}
            return states == {"kraken": "live", "coinbase": "live", "binance_us": "syncing"}

        await until_known(api, 1)
        body = await api.until("/orderbook/BTC-USD", both, exchange="all", depth=3)
        assert (body["exchange"], body["state"], body["version"]) == ("all", "live", None)
        levels = [[f"{number:f}" for number in map(Decimal, level)] for level in body["bids"]]
        assert levels == [["100", "1"], ["99.5", "2.00000001"], ["99.1234", "5"]]
        assert [[f"{Decimal(n):f}" for n in level] for level in body["asks"]] == [
            ["100.5", "2"],
            ["101", "1"],
        ]
        kraken.state("BTC-USD", BookState.INVALID, Reason.CHECKSUM)
        body = await api.until(
            "/orderbook/BTC-USD",
            lambda body: body["exchanges"]["kraken"]["state"] == "invalid",
            exchange="all",
        )
        assert len(body["bids"]) == 2


async def test_symbols_of_rings_are_known_without_history(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix, "kraken", "ETH-USD"):
        await until_known(api, 1)
        assert (await api.get("/symbols/kraken"))["symbols"] == ["ETH-USD"]
        assert (await api.get("/exchanges"))["exchanges"] == ["kraken"]
        assert (await api.get("/trades/ETH-USD", exchange="kraken"))["data"] == []
