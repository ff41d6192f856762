"""Every path of the REST server that reads the history, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alphapulse.api import app
from alphapulse.config import Settings
from alphapulse.errors import StoreError
from alphapulse.history import INTERVALS_NS
from alphapulse.model import Side
from alphapulse.store import Store
from tests.reference import bars as reference
from tests.serving import Api, api_settings, kept, problem, serving
from tests.trading import NOW_NS, row

NOW = NOW_NS // 10**9

ROWS = [
    row(1, price=2943020, price_exponent=2, size=18967538, size_exponent=8),
    row(2, price=1, price_exponent=8, size=10**18, size_exponent=18, side=Side.SELL),
    row(3, price=3 * 10**10, price_exponent=10, timestamp_ns=NOW_NS + 61 * 10**9 + 343_415_001),
]


SPANS: list[tuple[dict[str, Any], list[str]]] = [
    ({"limit": 2}, ["2", "3"]),
    ({"limit": 2, "end_time": NOW + 2}, ["1", "2"]),
    ({"limit": 2, "start_time": 0}, ["1", "2"]),
    ({"start_time": f"{NOW + 1}.000000001"}, ["2", "3"]),
    ({"start_time": NOW + 1, "end_time": f"{NOW + 1}.0"}, ["1"]),
    ({"start_time": "2020-01-01"}, ["1", "2", "3"]),
    ({"start_time": "2020-01-01T00:00:00Z", "end_time": "2020-01-02T00:00:00+02:00"}, []),
    ({"end_time": "1969-12-31T23:59:59.5-01:00"}, []),
    ({"start_time": -5}, ["1", "2", "3"]),
    ({"start_time": "0001-01-01", "end_time": "9999-12-31T23:59:59.999999Z"}, ["1", "2", "3"]),
    ({"start_time": "9999-12-31"}, []),
]

ERRORS: list[tuple[str, int, str | None]] = [
    ("/trades/BTC-USD?limit=0", 400, "limit"),
    ("/trades/BTC-USD?limit=10001", 400, "limit"),
    ("/trades/BTC-USD?limit=1.5", 400, "limit"),
    ("/trades/BTC-USD?limit=", 400, "limit"),
    ("/trades/BTC-USD?limit=1&limit=2", 400, "limit"),
    ("/trades/BTC-USD?strat_time=1", 400, "strat_time"),
    ("/trades/BTC-USD?start_time=yesterday", 400, "start_time"),
    ("/trades/BTC-USD?start_time=1690730998343000", 400, "start_time"),
    ("/trades/BTC-USD?start_time=1.0000000001", 400, "start_time"),
    ("/trades/BTC-USD?start_time=9999-12-32", 400, "start_time"),
    ("/trades/BTC-USD?start_time=NaN", 400, "start_time"),
    ("/trades/BTC-USD?end_time=2020-13-01", 400, "end_time"),
    ("/trades/BTC-USD?start_time=2&end_time=1", 400, "start_time"),
    ("/trades/BTC-USD?exchange=mtgox", 400, "exchange"),
    ("/trades/BTC-USD?exchange=all", 400, "exchange"),
    ("/trades/BTC-USD?exchange=", 400, "exchange"),
    ("/gaps?exchange=", 400, "exchange"),
    ("/stats?exchange=", 400, "exchange"),
    ("/trades/BTCUSD?exchange=kraken", 400, "symbol"),
    ("/trades/BTC-USD-EUR?exchange=kraken", 400, "symbol"),
    ("/trades/DOGE-USD?exchange=kraken", 404, "symbol"),
    ("/trades/BTC-USD/recent?start_time=1", 400, "start_time"),
    ("/ohlcv/BTC-USD?exchange=kraken&interval=2m", 400, "interval"),
    ("/ohlcv/DOGE-USD?exchange=kraken", 404, "symbol"),
    ("/ohlcv/BTC-USD?exchange=mtgox", 400, "exchange"),
    ("/orderbook/BTC-USD?exchange=kraken&depth=0", 400, "depth"),
    ("/orderbook/BTC-USD?exchange=mtgox", 400, "exchange"),
    ("/orderbook/DOGE-USD?exchange=kraken", 404, "symbol"),
    ("/orderbook/DOGE-USD?exchange=all", 404, "symbol"),
    ("/symbols/mtgox", 400, "exchange"),
    ("/symbols?exchange=kraken", 400, "exchange"),
    ("/exchanges?x=1", 400, "x"),
    ("/summary?x=1", 400, "x"),
    ("/health?x=1", 400, "x"),
    ("/metrics?x=1", 400, "x"),
    ("/", 404, None),
    ("/trades", 404, None),
    ("/trades/BTC-USD/", 404, None),
    ("/trades/BTC/USD/EUR", 404, None),
    ("/trades/%FF", 400, "symbol"),
]


@pytest.fixture
def settings(ring_prefix: str, tmp_path: Path) -> Settings:
    return api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"), retention_days=0)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with kept(settings, *ROWS, row("c-1", exchange="coinbase", symbol="ETH-USD")) as store:
        yield store


@pytest.fixture
async def api(settings: Settings, store: Store) -> AsyncIterator[Api]:
    async with serving(settings, store) as api:
        yield api


async def test_trades_have_exact_digits(api: Api) -> None:
    response = await api.http.get("/trades/BTC-USD", params={"exchange": "kraken"})
    text = response.text
    assert '"price":29430.2,"volume":0.18967538,' in text
    assert '"price":0.00000001,"volume":1,' in text
    assert f'"timestamp":{NOW + 61}.343415001,' in text
    body = json.loads(text)
    assert list(body) == ["data", "symbol", "exchange", "count", "processing_time_ms"]
    assert list(body["data"][0]) == [
        *("timestamp", "symbol", "exchange", "price", "volume", "side", "trade_id"),
    ]
    assert [trade["trade_id"] for trade in body["data"]] == ["1", "2", "3"]
    assert [trade["side"] for trade in body["data"]] == ["buy", "sell", "buy"]
    assert (body["symbol"], body["exchange"], body["count"]) == ("BTC-USD", "kraken", 3)
    assert body["processing_time_ms"] > 0


async def test_symbols_may_be_written_in_each_way(api: Api) -> None:
    for symbol in ("BTC-USD", "BTC/USD", "BTC%2FUSD", "btc-usd", "xbt%2fusd"):
        for path, count in ((f"/trades/{symbol}", 3), (f"/trades/{symbol}/recent", 3),
                            (f"/ohlcv/{symbol}", 2)):  # fmt: skip
            body = await api.get(path, exchange="kraken")
            assert (body["symbol"], body["count"]) == ("BTC-USD", count), path
        book = await api.get(f"/orderbook/{symbol}", exchange="kraken")
        assert book["symbol"] == "BTC-USD"


async def test_recent_trades_come_newest_first(api: Api) -> None:
    body = await api.get("/trades/BTC-USD/recent", exchange="kraken", limit=2)
    assert [trade["trade_id"] for trade in body["data"]] == ["3", "2"]


async def test_the_exchange_is_coinbase_if_not_given(api: Api) -> None:
    body = await api.get("/trades/ETH-USD")
    assert (body["exchange"], body["data"][0]["trade_id"]) == ("coinbase", "c-1")


async def test_time_spans_and_limits(api: Api) -> None:
    for query, ids in SPANS:
        body = await api.get("/trades/BTC-USD", exchange="kraken", **query)
        assert [trade["trade_id"] for trade in body["data"]] == ids, query


async def test_a_plus_sign_that_was_not_escaped_is_understood(api: Api) -> None:
    response = await api.http.get(
        "/trades/BTC-USD?exchange=kraken&end_time=2020-01-02T00:00:00+02:00"
    )
    assert response.json()["count"] == 0


async def test_bars(api: Api) -> None:
    for interval, interval_ns in INTERVALS_NS.items():
        body = await api.get("/ohlcv/BTC-USD", exchange="kraken", interval=interval)
        expected = reference.bars(ROWS, interval_ns)
        assert body["interval"] == interval
        assert body["count"] == len(expected)
        found = [
            (
                int(bar["timestamp"]) * 10**9,
                *(Decimal(bar[name]) for name in ("open", "high", "low", "close", "volume")),
                bar["trades"],
            )
            for bar in body["data"]
        ]
        assert found == [tuple(bar) for bar in expected]


async def test_bars_of_a_span(api: Api) -> None:
    async def begins(**query: Any) -> list[int]:
        body = await api.get("/ohlcv/BTC-USD", exchange="kraken", interval="1s", **query)
        return [bar["timestamp"] - NOW for bar in body["data"]]

    assert await begins() == [1, 2, 61]
    assert await begins(limit=2) == [2, 61]
    assert await begins(limit=2, start_time=0) == [1, 2]
    assert await begins(start_time=f"{NOW + 1}.5", end_time=NOW + 61) == [2, 61]


async def test_exchanges_symbols_and_the_summary(api: Api) -> None:
    assert await api.get("/exchanges") == {"exchanges": ["coinbase", "kraken"], "count": 2}
    assert await api.get("/symbols") == {
        "symbols": ["BTC-USD", "ETH-USD"],
        "exchange": None,
        "count": 2,
    }
    assert await api.get("/symbols/kraken") == {
        "symbols": ["BTC-USD"],
        "exchange": "kraken",
        "count": 1,
    }
    assert await api.get("/summary") == {
        "total_symbols": 2,
        "total_exchanges": 2,
        "total_records": 4,
        "date_range": {"start": NOW, "end": Decimal(f"{NOW + 61}.343415001")},
        "symbols_by_exchange": {"coinbase": ["ETH-USD"], "kraken": ["BTC-USD"]},
        "record_count_by_symbol": {"BTC-USD": 3, "ETH-USD": 1},
    }


async def test_errors_name_the_parameter(api: Api) -> None:
    for path, status, parameter in ERRORS:
        found = await api.refused(path)
        assert found[:2] == (status, parameter), path
        if parameter is not None:
            assert found[2].startswith(f"{parameter}:"), path


async def test_other_methods_are_refused(api: Api) -> None:
    for method, path, allowed in (
        ("PUT", "/trades/BTC-USD", "GET, HEAD, POST"),
        ("POST", "/trades/BTC-USD/recent", "GET, HEAD"),
        ("GET", "/orderbook/BTC-USD/snapshot", "POST"),
        ("OPTIONS", "/summary", "GET, HEAD"),
    ):
        response = await api.http.request(method, path)
        assert problem(response)[0] == 405
        assert response.headers["allow"] == allowed


async def test_a_head_has_no_body(api: Api) -> None:
    response = await api.http.head("/trades/BTC-USD", params={"exchange": "kraken"})
    assert (response.status_code, response.content) == (200, b"")


async def test_a_store_that_fails_is_told(
    api: Api, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreError("the disk is away")

    monkeypatch.setattr(store, "read_trades", away)
    status, _, detail = await api.refused("/trades/BTC-USD", exchange="kraken")
    assert (status, detail) == (503, "the disk is away")


async def test_a_store_that_does_not_answer_is_told(
    api: Api, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "ANSWER_SECONDS", 0.05)

    async def hanging(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "read_trades", hanging)
    response = await api.http.get("/trades/BTC-USD?exchange=kraken")
    assert problem(response) == (503, None, "the store gave no answer in 0.05 s")
    assert response.headers["retry-after"] == "1"


async def test_a_fault_of_ours_is_a_500_without_details(
    api: Api, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(store, "read_trades", broken)
    status, parameter, detail = await api.refused("/trades/BTC-USD", exchange="kraken")
    assert (status, parameter) == (500, None)
    assert "secret" not in detail
