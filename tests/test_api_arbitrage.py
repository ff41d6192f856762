"""Crossings over REST, from real rings."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from alphapulse.config import ArbitrageSettings, FeesSettings
from alphapulse.model import BookState, Reason
from tests.serving import Api, api_settings, kept, serving
from tests.trading import Venue, cross

PATH = "/arbitrage/opportunities"
FEES = FeesSettings(kraken=Decimal(26), coinbase=Decimal("2.5"))
SETTINGS = ArbitrageSettings(fees_bps=FEES, max_age_seconds=1000.0)


@pytest.fixture
def kraken(ring_prefix: str) -> Iterator[Venue]:
    with Venue(ring_prefix, "kraken", "BTC-USD", "ETH-USD") as venue:
        yield venue


@pytest.fixture
def coinbase(ring_prefix: str) -> Iterator[Venue]:
    with Venue(ring_prefix, "coinbase", "BTC-USD", "ETH-USD") as venue:
        yield venue


@pytest.fixture
async def api(ring_prefix: str, tmp_path: Path) -> AsyncIterator[Api]:
    settings = api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"))
    settings = replace(settings, arbitrage=SETTINGS)
    async with kept(settings) as store, serving(settings, store) as api:
        yield api


def count(expected: int) -> Any:
    return lambda body: body["count"] == expected


async def test_an_opportunity(kraken: Venue, coinbase: Venue, api: Api) -> None:
    body = await api.get(PATH)
    assert (list(body), body["data"]) == (["data", "count", "processing_time_ms"], [])
    cross(kraken, coinbase)
    body = await api.until(PATH, count(1))
    (found,) = body["data"]
    assert (found["buy_exchange"], found["sell_exchange"]) == ("kraken", "coinbase")
    assert (found["symbol"], found["currency"]) == ("BTC-USD", "USD")
    assert [str(found[name]) for name in ("volume", "buy_amount", "sell_amount")] == [
        *("2.4", "240.09", "244.6")
    ]
    assert [str(found[name]) for name in ("buy_fee", "sell_fee", "profit", "net_bps")] == [
        *("0.624234", "0.06115", "3.824616", "159.2993")
    ]
    assert found["buy_fee_bps"] == 26
    assert "status" not in found
    text = (await api.http.get(PATH)).text
    assert '"buy_price":100.0375,' in text
    assert "E" not in text.split('"profit":')[1]
    later = (await api.get(PATH))["data"][0]
    assert later["opened_ns"] == found["opened_ns"]
    assert later["duration_ms"] > found["duration_ms"]


async def test_it_follows_the_books(kraken: Venue, coinbase: Venue, api: Api) -> None:
    cross(kraken, coinbase)
    before = (await api.until(PATH, count(1)))["data"][0]
    kraken.change("BTC-USD", {}, {"100": "0"})
    # The answer is of what is in the rings when it is asked for.
    found = (await api.get(PATH))["data"][0]
    assert (found["buy_best"], found["best_profit"]) == (Decimal("100.1"), before["profit"])
    assert found["opened_ns"] == before["opened_ns"]
    coinbase.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
    assert (await api.get(PATH))["data"] == []
    coinbase.book("BTC-USD", {"101": "1"}, {"103": "1"})
    found = (await api.get(PATH))["data"][0]
    assert found["opened_ns"] > before["opened_ns"]
    coinbase.define("BTC-USD", price_exponent=4)
    coinbase.book("BTC-USD", {"101.0001": "2"}, {"103": "1"})
    assert (await api.get(PATH))["data"][0]["sell_best"] == Decimal("101.0001")
    kraken.writer.close()
    await api.until(PATH, count(0))


async def test_a_minimum_counts_only_what_makes_it(
    kraken: Venue, coinbase: Venue, api: Api
) -> None:
    cross(kraken, coinbase)
    await api.until(PATH, count(1))
    # After fees the three parts make 171.45, 161.26 and 111.33 basis points.
    volumes = {
        least: [str(item["volume"]) for item in (await api.get(PATH, min_bps=least))["data"]]
        for least in ("0", "110.5", "150", "165.25", "172")
    }
    assert volumes == {"0": ["2.4"], "110.5": ["2.4"], "150": ["2"], "165.25": ["1.5"], "172": []}


async def test_a_symbol_may_be_chosen(kraken: Venue, coinbase: Venue, api: Api) -> None:
    for symbol in ("BTC-USD", "ETH-USD"):
        cross(kraken, coinbase, symbol)
    body = await api.until(PATH, count(2))
    assert [item["symbol"] for item in body["data"]] == ["BTC-USD", "ETH-USD"]
    for text in ("ETH-USD", "eth/usd"):
        assert (await api.get(PATH, symbol=text))["data"][0]["symbol"] == "ETH-USD"
        assert (await api.get(PATH, symbol=text))["count"] == 1


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"min_bps": "much"}, 400, "min_bps: 'much' is no number from 0 to 9999"),
        ({"min_bps": "-1"}, 400, "min_bps: '-1' is no number from 0 to 9999"),
        ({"min_bps": "10000"}, 400, "min_bps"),
        ({"min_bps": "0.0000001"}, 400, "at most 6 decimal places"),
        ({"min_bps": ""}, 400, "min_bps"),
        ({"symbol": "BTCUSD"}, 400, "symbol: 'BTCUSD' is no symbol"),
        ({"symbol": "DOGE-USD"}, 404, "nothing is known of DOGE-USD"),
        ({"exchange": "kraken"}, 400, "exchange: unknown parameter; use min_bps, symbol"),
    ],
)
async def test_what_is_wrong_is_said(
    api: Api, query: dict[str, str], status: int, said: str
) -> None:
    found, parameter, detail = await api.refused(PATH, **query)
    assert (found, parameter) == (status, next(iter(query)))
    assert said in detail


async def test_the_body_is_json_to_the_last_digit(kraken: Venue, coinbase: Venue, api: Api) -> None:
    coinbase.define("BTC-USD", price_exponent=9, size_exponent=9)
    cross(kraken, coinbase)
    coinbase.change("BTC-USD", {"102.000000001": "0.000000001"}, {})
    await api.until(PATH, count(1))
    text = (await api.http.get(PATH)).text
    assert json.loads(text, parse_float=Decimal)["data"][0]["sell_best"] == Decimal("102.000000001")
