"""Gaps over REST: what was lost, when, and what has become of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from alphapulse.client.repository import HttpRepository
from alphapulse.config import Settings
from alphapulse.history import FillStatus, GapFill, GapRow
from alphapulse.model import Channel, Reason
from alphapulse.store import Store, WriteBatch
from tests.serving import Api, api_settings, kept, serving
from tests.trading import NOW_NS, row

NOW = NOW_NS // 10**9


def gap(number: int, **fields: object) -> GapRow:
    """A loss of one trade of Kraken's BTC-USD, `number` seconds from now."""
    defaults: dict[str, object] = {
        "exchange": "kraken",
        "symbol": "BTC-USD",
        "channel": Channel.TRADES,
        "reason": Reason.GAP,
        "first": number,
        "last": number,
        "count": 1,
        "since_ns": NOW_NS + (number - 1) * 10**9,
        "received_ns": NOW_NS + number * 10**9,
    }
    return GapRow(**{**defaults, **fields})  # type: ignore[arg-type]


@pytest.fixture
def settings(ring_prefix: str, tmp_path: Path) -> Settings:
    return api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"))


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with kept(settings) as store:
        lost = gap(3, symbol=None, channel=Channel.RING, reason=Reason.LAPPED, epoch=NOW * 1000)
        batch = WriteBatch(exchange="kraken", trades=[row(1)], gaps=[gap(1), gap(2), lost])
        await store.append(batch)
        other = {"exchange": "coinbase", "symbol": "ETH-USD", "first": None, "last": None}
        trades = [row(1, exchange="coinbase", symbol="ETH-USD")]
        await store.append(
            WriteBatch(exchange="coinbase", trades=trades, gaps=[gap(4, **other, count=None)])
        )
        yield store


@pytest.fixture
async def api(settings: Settings, store: Store) -> AsyncIterator[Api]:
    async with serving(settings, store) as api:
        yield api


async def test_a_gap_is_told_with_its_bounds_and_what_became_of_it(api: Api, store: Store) -> None:
    body = await api.get("/gaps", exchange="kraken", limit=1, start_time=NOW)
    assert body.pop("processing_time_ms") >= 0
    assert body.pop("next").startswith("/gaps?")
    told = {
        "exchange": "kraken",
        "symbol": "BTC-USD",
        "channel": "trades",
        "reason": "gap",
        "first": 1,
        "last": 1,
        "count": 1,
        "epoch": None,
        "since": NOW,
        "timestamp": NOW + 1,
        "status": "open",
        "filled": 0,
        "filled_time": None,
    }
    assert body == {"data": [told], "exchange": "kraken", "symbol": None, "count": 1}
    first = (await store.read_gaps("kraken"))[0]
    fill = GapFill(id=first.id, status=FillStatus.FILLED, filled_ns=NOW_NS + 9 * 10**9, filled=1)
    await store.append(WriteBatch(exchange="kraken", fills=[fill]))
    [told] = (await api.get("/gaps", exchange="kraken", end_time=NOW + 1))["data"]
    assert (told["status"], told["filled"], told["filled_time"]) == ("filled", 1, NOW + 9)


async def test_the_newest_gaps_of_all_exchanges_are_told(api: Api) -> None:
    body = await api.get("/gaps", limit=2)
    assert [(one["exchange"], one["channel"]) for one in body["data"]] == [
        ("kraken", "ring"),
        ("coinbase", "trades"),
    ]
    assert [one["epoch"] for one in body["data"]] == [NOW * 1000, None]
    assert [one["first"] for one in body["data"]] == [3, None]


async def test_gaps_are_chosen_by_time_and_symbol(api: Api) -> None:
    async def firsts(**query: object) -> list[int | None]:
        return [one["first"] for one in (await api.get("/gaps", **query))["data"]]

    assert await firsts(start_time=NOW + 2, end_time=NOW + 3) == [2, 3]
    assert await firsts(start_time=NOW + 2, limit=1) == [2]
    assert await firsts(symbol="BTC/USD") == [1, 2, 3], "a ring's loss may concern each symbol"
    assert await firsts(symbol="ETH-USD", exchange="coinbase") == [None]


async def test_gaps_come_in_pages(api: Api, store: Store) -> None:
    same = [gap(5, first=number, last=number) for number in range(10, 23)]
    await store.append(WriteBatch(exchange="kraken", gaps=same))
    expected = [1, 2, 3, None, *range(10, 23)]
    for limit in (1, 3, 16, 17, 100):
        for forwards in (True, False):
            path, found = "/gaps", []
            query = {"limit": limit} | ({"start_time": 0} if forwards else {})
            while path:
                response = await api.http.get(path, params=query or None)
                body = response.json()
                found.append(body["data"])
                path, query = body.get("next"), {}
                link = response.headers.get("link")
                assert link == (f'<{path}>; rel="next"' if path else None)
            ordered = found if forwards else reversed(found)
            assert [one["first"] for page in ordered for one in page] == expected
            assert {len(page) for page in found[:-1]} <= {limit}
    first = (await api.get("/gaps", limit=1))["next"]
    assert (await api.refused(first + "&symbol=BTC-USD"))[:2] == (404, "cursor")


async def test_a_repository_reads_all_pages(api: Api, store: Store) -> None:
    first = (await store.read_gaps("kraken"))[0]
    fill = GapFill(id=first.id, status=FillStatus.FILLED, filled_ns=NOW_NS + 1, filled=1)
    await store.append(WriteBatch(exchange="kraken", fills=[fill]))
    repository = HttpRepository(f"http://127.0.0.1:{api.port}", page_rows=1)
    found = await repository.read_gaps()
    await repository.close()
    rows = [*await store.read_gaps("kraken"), *await store.read_gaps("coinbase")]
    assert found == [replace(each, id="") for each in rows]


async def test_what_is_unknown_is_refused(api: Api) -> None:
    assert (await api.refused("/gaps", exchange="nowhere"))[:2] == (400, "exchange")
    assert (await api.refused("/gaps", symbol="NO-SUCH"))[:2] == (404, "symbol")
    assert (await api.refused("/gaps", limit="0"))[:2] == (400, "limit")
    assert (await api.refused("/gaps", start_time=NOW, end_time=NOW - 1))[1] == "start_time"
