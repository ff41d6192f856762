"""What may be stored over REST, and by whom."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from alphapulse.api.writing import MAX_TRADES_BYTES
from alphapulse.model import BookState, Reason
from alphapulse.store import Store, open_store
from tests.serving import Api, api_settings, problem, serving
from tests.trading import NOW_NS, Venue, eventually

TRADE = {"timestamp": "1690730998.343415001", "price": "29430.20", "volume": "0.18967538",
         "side": "buy", "trade_id": "42"}  # fmt: skip
URL = "/trades/BTC-USD?exchange=kraken"


class Running(NamedTuple):
    """A server and its store."""

    api: Api
    store: Store


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def serve(ring_prefix: str, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def make(**api: Any) -> AsyncIterator[Running]:
        path = str(tmp_path / "history.duckdb")
        settings = api_settings(ring_prefix, api=api, path=path, retention_days=0)
        store = await open_store(settings)
        try:
            async with serving(settings, store) as client:
                yield Running(client, store)
        finally:
            await store.close()

    return make


@pytest.fixture
async def running(serve: Serve) -> AsyncIterator[Running]:
    async with serve(writable=True) as running:
        yield running


def body(*trades: dict[str, Any]) -> dict[str, Any]:
    return {"data": list(trades)}


async def test_nothing_is_stored_unless_the_settings_allow_it(serve: Serve) -> None:
    async with serve() as (api, store):
        for url in (URL, "/orderbook/BTC-USD/snapshot?exchange=kraken"):
            status, _, detail = problem(await api.http.post(url, json=body(TRADE)))
            assert status == 403
            assert "api.writable" in detail
        assert await store.summarise() == []


async def test_only_with_the_token(serve: Serve) -> None:
    async with serve(writable=True, token="right") as (api, store):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}") as anyone:
            assert problem(await anyone.post(URL, json=body(TRADE)))[0] == 401
        assert await store.summarise() == []
        assert (await api.http.post(URL, json=body(TRADE))).status_code == 200


async def test_web_pages_store_nothing(running: Running) -> None:
    api, store = running
    for origin in ("https://evil.org", f"http://127.0.0.1:{api.port}", "null"):
        response = await api.http.post(URL, json=body(TRADE), headers={"Origin": origin})
        assert problem(response)[:2] == (403, "Origin")
    # What a form of any page sends without asking.
    response = await api.http.post(
        URL, content=json.dumps(body(TRADE)), headers={"Content-Type": "text/plain"}
    )
    assert problem(response)[:2] == (415, "Content-Type")
    assert await store.summarise() == []


async def test_trades_are_stored_exactly_and_once(running: Running) -> None:
    api, _ = running
    number = {**TRADE, "trade_id": "43", "timestamp": 1690730999.5, "price": 0.1, "volume": 2}
    text = {**TRADE, "trade_id": "a", "timestamp": "2023-07-30T15:30:00Z", "id_kind": "text"}
    response = await api.http.post(URL, json=body(TRADE, number, text, TRADE))
    answer = response.json()
    assert answer.pop("processing_time_ms") > 0
    assert answer == {"success": True, "saved": 3, "duplicates": 1}
    found = await api.get("/trades/BTC-USD", exchange="kraken")
    assert [(each["timestamp"], each["price"], each["volume"]) for each in found["data"]] == [
        (Decimal("1690730998.343415001"), Decimal("29430.2"), Decimal("0.18967538")),
        (Decimal("1690730999.5"), Decimal("0.1"), 2),
        (1690731000, Decimal("29430.2"), Decimal("0.18967538")),
    ]
    assert [each.get("id_kind") for each in found["data"]] == [None, None, "text"]
    # What was read may be stored as it is.
    response = await api.http.post(
        "/trades/BTC/USD?exchange=elsewhere", json=json.loads(json.dumps(found, default=float))
    )
    assert response.json()["saved"] == 3


@pytest.mark.parametrize(
    ("url", "content", "expected"),
    [
        ("/trades/BTC-USD", body(TRADE), (400, "exchange")),
        ("/trades/BTC-USD?exchange=all", body(TRADE), (400, "exchange")),
        ("/trades/BTC-USD?exchange=Kr%20aken", body(TRADE), (400, "exchange")),
        ("/trades/BTC-USD?exchange=kraken&limit=1", body(TRADE), (400, "limit")),
        ("/trades/BTCUSD?exchange=kraken", body(TRADE), (400, "symbol")),
        ("/trades/%F0%9F%92%A9-USD?exchange=kraken", body(TRADE), (400, "symbol")),
        (f"/trades/{'A' * 80}-USD?exchange=kraken", body(TRADE), (400, "symbol")),
        (URL, [], (400, "body")),
        (URL, {"data": 1}, (400, "body")),
        (URL, body({**TRADE, "side": "up"}), (400, "body")),
        (URL, body({**TRADE, "trade_id": ""}), (400, "body")),
        (URL, body(TRADE, {**TRADE, "trade_id": "1", "price": "NaN"}), (400, "data")),
        (URL, body(TRADE, {**TRADE, "trade_id": "1", "price": None}), (400, "data")),
        (URL, body(TRADE, {**TRADE, "trade_id": "1", "price": [1]}), (400, "data")),
        (URL, body(TRADE, {**TRADE, "trade_id": "1", "volume": "1e-19"}), (400, "data")),
        (URL, body(TRADE, {**TRADE, "trade_id": "1", "volume": -1}), (400, "data")),
        (URL, body(TRADE, {**TRADE, "trade_id": "1", "price": "1e99"}), (400, "data")),
        (URL, body(TRADE, {**TRADE, "trade_id": "1", "timestamp": "soon"}), (400, "data")),
        (URL, body(TRADE, {**TRADE, "trade_id": "x", "id_kind": "trade"}), (400, "data")),
    ],
)
async def test_what_can_not_be_stored_is_named_and_nothing_of_it_is_stored(
    running: Running, url: str, content: Any, expected: tuple[int, str]
) -> None:
    api, store = running
    assert problem(await api.http.post(url, json=content))[:2] == expected
    assert await store.summarise() == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"side": "up"}, "data[1].side`; use buy or sell"),
        ({"side": 1}, "data[1].side`; use buy or sell"),
        ({"id_kind": "x"}, "data[1].id_kind`; use trade or aggregate or text"),
    ],
)
async def test_what_a_field_may_be_is_told(
    running: Running, wrong: dict[str, Any], right: str
) -> None:
    response = await running.api.http.post(URL, json=body(TRADE, {**TRADE, **wrong}))
    status, _, detail = problem(response)
    assert status == 400
    assert detail.endswith(right)


async def test_bodies_are_bounded(running: Running) -> None:
    api, _ = running
    kind = {"Content-Type": "application/json"}
    response = await api.http.post(URL, content=b" " * (MAX_TRADES_BYTES + 1), headers=kind)
    assert problem(response)[:2] == (413, "Content-Length")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2 * MAX_TRADES_BYTES // 65536):
            yield b" " * 65536

    response = await api.http.post(URL, content=endless(), headers=kind)
    assert problem(response)[:2] == (413, "body")
    assert problem(await api.http.post(URL, content=b"{", headers=kind))[:2] == (400, "body")


async def test_a_book_is_kept_as_it_is(running: Running, ring_prefix: str) -> None:
    api, store = running
    url = "/orderbook/BTC-USD/snapshot?exchange=kraken"
    assert problem(await api.http.post(url))[:2] == (400, "exchange")
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"100.01": "2.5", "99": "1"}, {"100.02": "0.0001"})

        async def stored() -> Any:
            response = await api.http.post(url)
            return response.json() if response.status_code == 200 else None

        answer = await eventually(stored)
        assert (answer["state"], answer["version"]) == ("stored", 1)
        assert answer["bids"] == [[100.01, 2.5], [99, 1]]
        venue.change("BTC-USD", {"100.01": "0"}, {})
        now = await api.get("/orderbook/BTC-USD", exchange="kraken")
        assert (now["state"], now["version"]) == ("live", 2)
        kept = await api.get(
            "/orderbook/BTC-USD", exchange="kraken", depth=1, timestamp=NOW_NS // 10**9 + 1
        )
        assert (kept["state"], kept["version"]) == ("stored", 1)
        assert kept["bids"] == [[Decimal("100.01"), Decimal("2.5")]]
        assert kept["timestamp"] == Decimal(f"{NOW_NS // 10**9}.123456789")
        before = await api.refused(
            "/orderbook/BTC-USD", exchange="kraken", timestamp=NOW_NS // 10**9
        )
        assert before[:2] == (404, "timestamp")
        venue.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
        status, _, detail = problem(await api.http.post(url))
        assert (status, detail) == (
            409,
            "the book of BTC-USD at kraken is stale, disconnected",
        )
    book = await store.read_book("kraken", "BTC-USD")
    assert book is not None
    assert book.version == 1
