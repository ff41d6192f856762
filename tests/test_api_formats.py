"""JSON, CSV and Arrow, by `Accept` or `format`; compression; what a client has already."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.requests import Request

from alphapulse.api.formats import ARROW, CSV, JSON, TABLE_FORMATS, accepted
from alphapulse.api.problems import Problem
from alphapulse.config import Settings
from alphapulse.model import Side
from alphapulse.store import Store, WriteBatch
from tests.serving import Api, api_settings, kept, problem, serving
from tests.trading import NOW_NS, row

ROWS = [
    row(1, price=2943020, price_exponent=2, size=18967538, size_exponent=8),
    row(2, price=1, price_exponent=8, size=10**18, size_exponent=18, side=Side.SELL),
    row('3 "quoted", and more', price=2**63 - 1, price_exponent=2, timestamp_ns=NOW_NS + 61),
]
NAMES = ["timestamp", "symbol", "exchange", "price", "volume", "side", "trade_id"]

ACCEPTED: list[tuple[str, Any]] = [
    ("", JSON),
    ("*/*", JSON),
    ("application/*", JSON),
    ("text/csv", CSV),
    ("text/*", CSV),
    ("TEXT/CSV; charset=utf-8", CSV),
    ("application/vnd.apache.arrow.stream", ARROW),
    ("application/json;q=0.5, text/csv", CSV),
    ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
    ("text/csv;q=0.2, application/json;q=0.3, */*;q=0.1", JSON),
    ("application/json;q=0, */*", CSV),
    ("text/html", None),
    ("text/csv;q=0", None),
    ("text/csv;q=much", None),
    (",", None),
]


@pytest.fixture
def settings(ring_prefix: str, tmp_path: Path) -> Settings:
    return api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"), retention_days=0)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with kept(settings, *ROWS) as store:
        yield store


@pytest.fixture
async def api(settings: Settings, store: Store) -> AsyncIterator[Api]:
    async with serving(settings, store) as api:
        yield api


def test_the_format_is_what_is_accepted_most() -> None:
    formats = tuple(TABLE_FORMATS.values())
    for header, expected in ACCEPTED:
        request = Request({"type": "http", "headers": [(b"accept", header.encode())]})
        if expected is None:
            with pytest.raises(Problem) as caught:
                accepted(request, formats)
            assert (caught.value.status, caught.value.parameter) == (406, "Accept")
        else:
            assert accepted(request, formats) is expected, header


async def test_csv_has_the_digits_of_json(api: Api) -> None:
    url = "/trades/BTC-USD?exchange=kraken"
    response = await api.http.get(url, headers={"Accept": "text/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "Accept" in response.headers["vary"]
    header, *lines = csv.reader(io.StringIO(response.text))
    assert header == NAMES
    data = (await api.get("/trades/BTC-USD", exchange="kraken"))["data"]
    assert lines == [[str(trade[name]) if not isinstance(trade[name], Decimal)
                      else f"{trade[name]:f}" for name in NAMES] for trade in data]  # fmt: skip
    assert (await api.http.get(f"{url}&format=csv")).text == response.text
    bars = await api.http.get("/ohlcv/BTC-USD?exchange=kraken&format=csv&interval=1d")
    assert bars.text.startswith("timestamp,open,high,low,close,volume,trades\r\n")


async def test_arrow_is_exact(api: Api) -> None:
    response = await api.http.get(
        "/trades/BTC-USD?exchange=kraken", headers={"Accept": ARROW.media_type}
    )
    assert response.headers["content-type"] == ARROW.media_type
    table = pl.read_ipc_stream(response.content)
    assert table.columns == NAMES
    assert table.schema["price"] == pl.Decimal(38, 8)
    assert table.schema["volume"] == pl.Decimal(38, 18)
    assert table.schema["timestamp"] == pl.Datetime("ns", "UTC")
    data = (await api.get("/trades/BTC-USD", exchange="kraken"))["data"]
    for name in ("symbol", "exchange", "side", "trade_id", "price", "volume"):
        assert table[name].to_list() == [trade[name] for trade in data], name
    assert table["timestamp"].to_physical().to_list() == [NOW_NS + 61, NOW_NS + 10**9,
                                                          NOW_NS + 2 * 10**9]  # fmt: skip


async def test_arrow_bars_and_empty_tables(api: Api) -> None:
    response = await api.http.get("/ohlcv/BTC-USD?exchange=kraken&interval=1d&format=arrow")
    table = pl.read_ipc_stream(response.content)
    data = (await api.get("/ohlcv/BTC-USD", exchange="kraken", interval="1d"))["data"]
    assert table.columns == list(data[0])
    for name in ("open", "high", "low", "close", "volume", "trades"):
        assert table[name].to_list() == [bar[name] for bar in data], name
    assert table["timestamp"].to_list() == [
        datetime.fromtimestamp(bar["timestamp"], UTC) for bar in data
    ]
    for path in ("/trades/BTC-USD", "/ohlcv/BTC-USD"):
        response = await api.http.get(f"{path}?exchange=kraken&end_time=0&format=arrow")
        assert pl.read_ipc_stream(response.content).height == 0


async def test_too_many_digits_for_arrow_are_told(api: Api, store: Store) -> None:
    values = {"size": 2**63 - 1, "size_exponent": 0}
    many = [row(10), row(11, size=1, size_exponent=18)]
    many += [row(number, **values) for number in range(12, 34)]
    await store.append(WriteBatch(exchange="kraken", trades=many))
    url = "/ohlcv/BTC-USD?exchange=kraken&interval=1d&format=arrow"
    assert problem(await api.http.get(url))[:2] == (406, "Accept")
    assert (await api.http.get(url.replace("arrow", "csv"))).status_code == 200


async def test_what_cannot_be_had_is_refused(api: Api) -> None:
    for path in ("/trades/BTC-USD?exchange=kraken", "/ohlcv/BTC-USD?exchange=kraken",
                 "/exchanges", "/summary", "/orderbook/BTC-USD?exchange=kraken"):  # fmt: skip
        response = await api.http.get(path, headers={"Accept": "image/png"})
        assert problem(response)[:2] == (406, "Accept"), path
    refused = await api.refused("/trades/BTC-USD", exchange="kraken", format="xml")
    assert refused[:2] == (400, "format")


async def test_unchanged_answers_are_not_sent_again(api: Api, store: Store) -> None:
    for path in ("/exchanges", "/symbols", "/symbols/kraken", "/openapi.json", "/docs",
                 "/trades/BTC-USD?exchange=kraken", "/trades/BTC-USD/recent?exchange=kraken",
                 "/ohlcv/BTC-USD?exchange=kraken",
                 "/ohlcv/BTC-USD?exchange=kraken&format=arrow"):  # fmt: skip
        first = await api.http.get(path)
        tag = first.headers["etag"]
        for known in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
            again = await api.http.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b""), path
            assert again.headers["etag"] == tag
        assert (await api.http.get(path, headers={"If-None-Match": '"x"'})).status_code == 200
    url = "/trades/BTC-USD?exchange=kraken"
    tag = (await api.http.get(url)).headers["etag"]
    await store.append(WriteBatch(exchange="kraken", trades=[row(9)]))
    again = await api.http.get(url, headers={"If-None-Match": tag})
    assert again.status_code == 200
    assert again.headers["etag"] != tag


async def test_long_answers_are_compressed(api: Api) -> None:
    response = await api.http.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    plain = await api.http.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == response.content
    assert plain.headers["etag"] == response.headers["etag"]


async def test_bodies_and_long_queries_are_refused(api: Api) -> None:
    response = await api.http.request("GET", "/exchanges", content=b"x" * 65537)
    assert problem(response)[:2] == (413, "Content-Length")
    response = await api.http.get("/exchanges", params={"x": "y" * 9000})
    assert problem(response)[:2] == (414, None)
