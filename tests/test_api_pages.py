"""Pages by cursor: every row once, whatever is inserted meanwhile, in both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from alphapulse.config import Settings
from alphapulse.store import Store, WriteBatch
from tests.serving import Api, api_settings, kept, serving
from tests.trading import NOW_NS, redis_server, row

# Three trades share a time, and one has an id that is no number.
ROWS = [
    row(number, timestamp_ns=NOW_NS + (number - number % 3) * 10**9) for number in range(1, 41)
] + [row("x", timestamp_ns=NOW_NS + 9 * 10**9)]
IN_ORDER = [trade.trade_id for trade in sorted(ROWS, key=lambda trade: trade.order_key)]

Between = Callable[[int], Awaitable[None]]


@pytest.fixture(params=["embedded", "redis"])
async def settings(
    request: pytest.FixtureRequest, ring_prefix: str, tmp_path: Path
) -> AsyncIterator[Settings]:
    if request.param == "embedded":
        yield api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"), retention_days=0)
    else:
        with redis_server() as server:
            yield api_settings(ring_prefix, redis_url=server.url, retention_days=0)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with kept(settings, *ROWS) as store:
        yield store


@pytest.fixture
async def api(settings: Settings, store: Store) -> AsyncIterator[Api]:
    async with serving(settings, store) as api:
        yield api


async def nothing(_: int) -> None:
    """Nothing happens between two pages."""


async def pages(
    api: Api, path: str, between: Between = nothing, **query: Any
) -> list[list[dict[str, Any]]]:
    """All pages from the first one on, by the links alone."""
    response = await api.http.get(path, params={"exchange": "kraken", **query})
    found = []
    while True:
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["count"] == len(body["data"])
        found.append(body["data"])
        if "next" not in body:
            assert "link" not in response.headers
            return found
        assert response.headers["link"] == f'<{body["next"]}>; rel="next"'
        await between(len(found))
        response = await api.http.get(body["next"])


def ids(found: Iterable[list[dict[str, Any]]]) -> list[str]:
    """Of all pages' trades."""
    return [trade["trade_id"] for page in found for trade in page]


async def test_trades_page_forwards(api: Api) -> None:
    for limit in (1, 2, 7, 20, 41, 100):
        found = await pages(api, "/trades/BTC-USD", limit=limit, start_time=0)
        assert ids(found) == IN_ORDER, limit
        assert all(len(page) == limit for page in found[:-1])
        assert found[-1]


async def test_trades_page_backwards_without_a_start(api: Api) -> None:
    found = await pages(api, "/trades/BTC%2FUSD", limit=6)
    assert ids(reversed(found)) == IN_ORDER
    end = NOW_NS // 10**9 + 9
    found = await pages(api, "/trades/BTC-USD", limit=4, end_time=end)
    until = [trade.trade_id for trade in ROWS if trade.timestamp_ns <= end * 10**9]
    assert set(ids(found)) == set(until)


async def test_recent_trades_page_backwards(api: Api) -> None:
    found = await pages(api, "/trades/BTC/USD/recent", limit=6)
    assert ids(found) == IN_ORDER[::-1]


async def test_trades_that_come_meanwhile_shift_nothing(api: Api, store: Store) -> None:
    async def insert(page: int) -> None:
        # A new one, a late one in what was read, and a late one in what is still to be read.
        times = {100 + page: 99, 200 + page: 0, 300 + page: 38}
        await store.append(
            WriteBatch(
                exchange="kraken",
                trades=[
                    row(number, timestamp_ns=NOW_NS + second * 10**9 + number)
                    for number, second in times.items()
                ],
            )
        )

    found = ids(await pages(api, "/trades/BTC-USD", insert, limit=10, start_time=0))
    assert [each for each in found if each in IN_ORDER] == IN_ORDER
    assert len(set(found)) == len(found)
    assert {"101", "301"} <= set(found)
    assert "201" not in found
    before = [each["trade_id"] for each in (await api.get("/trades/BTC-USD/recent",
              exchange="kraken", limit=1000))["data"]]  # fmt: skip

    async def insert_newer(page: int) -> None:
        newer = row(1000 + page, timestamp_ns=NOW_NS + (2000 + page) * 10**9)
        await store.append(WriteBatch(exchange="kraken", trades=[newer]))

    found = ids(await pages(api, "/trades/BTC-USD/recent", insert_newer, limit=9))
    assert found == before


async def test_bars_page_both_ways(api: Api) -> None:
    whole = (await api.get("/ohlcv/BTC-USD", exchange="kraken", interval="1s", limit=100))["data"]
    begins = [bar["timestamp"] for bar in whole]
    assert len(begins) == 14
    for limit in (1, 5, 14):
        forwards = await pages(api, "/ohlcv/BTC-USD", interval="1s", limit=limit, start_time=0)
        assert [bar["timestamp"] for page in forwards for bar in page] == begins
        backwards = await pages(api, "/ohlcv/BTC/USD", interval="1s", limit=limit)
        assert [bar["timestamp"] for page in reversed(backwards) for bar in page] == begins


async def test_a_cursor_of_another_request_is_refused(api: Api) -> None:
    body = await api.get("/trades/BTC-USD", exchange="kraken", limit=5)
    cursor = body["next"].rpartition("cursor=")[2]
    for path, query in (
        ("/trades/BTC-USD", {"start_time": 0}),
        ("/trades/ETH-USD", {}),
        ("/ohlcv/BTC-USD", {}),
        ("/trades/BTC-USD", {"exchange": "coinbase"}),
    ):
        status, parameter, _ = await api.refused(
            path, **{"exchange": "kraken", **query, "cursor": cursor}
        )
        assert (status, parameter) == (404, "cursor")
    damaged = cursor[:12] + ("A" if cursor[12] != "A" else "B") + cursor[13:-4]
    refused = await api.refused("/trades/BTC-USD", exchange="kraken", cursor=damaged)
    assert refused[:2] == (404, "cursor")
    for text in ("", "5", "garbage", "%00", cursor + "=", "é", "lM7" + "A" * 2000):
        refused = await api.refused("/trades/BTC-USD", exchange="kraken", cursor=text)
        assert refused[:2] == (400, "cursor"), text
