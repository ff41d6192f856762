"""Statistics over REST: of real rings, checked against what was written to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alphapulse import metrics
from alphapulse.api.stats import histogram_distribution
from alphapulse.api.traffic import WINDOW, Window, distribution_of
from tests.serving import Api, api_settings, kept, serving
from tests.trading import Venue


@pytest.fixture
async def api(ring_prefix: str, tmp_path: Path) -> AsyncIterator[Api]:
    settings = api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"))
    async with kept(settings) as store, serving(settings, store) as api:
        yield api


async def test_updates_are_counted(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix, "kraken", "BTC-USD", "ETH-USD") as venue:
        levels = {str(1000 - n): "1.5" for n in range(200)}
        venue.book("BTC-USD", levels, {"1001": "1"})
        for size in range(2, 22):
            venue.change("BTC-USD", {"1000": str(size), "999": str(size)}, {"1001": str(size)})
        venue.book("ETH-USD", {"10": "1"}, {"11": "1"})
        venue.change("ETH-USD", {"10": "2"}, {})
        await api.until("/symbols", lambda body: body["count"] == 2)
        venue.trade("ETH-USD", 1)

        def complete(body: Any) -> bool:
            last = body["series"][-1]["stage_latency_us"] if body["series"] else {}
            updates: int = body["compression"]["updates"]
            return updates == 21 and last["collector"]["count"] == 2

        body = await api.until("/stats", complete)
        assert [(one["exchange"], one["symbol"]) for one in body["series"]] == [
            ("kraken", "BTC-USD"),
            ("kraken", "ETH-USD"),
        ]
        bitcoin = body["series"][0]
        assert bitcoin["changes_per_update"] == {
            "count": 20,
            "mean": 3,
            "p50": 3,
            "p95": 3,
            "p99": 3,
            "max": 3,
        }
        sizes = bitcoin["compression"]
        assert (sizes["updates"], sizes["snapshots"]) == (20, 1)
        mean = Decimal(sizes["update_bytes"]) / 20
        assert abs(sizes["ratio"] - sizes["snapshot_bytes"] / mean) < Decimal("0.001")
        assert sizes["ratio"] > 5
        latency = bitcoin["stage_latency_us"]["collector"]
        assert latency["count"] == 20
        assert 0 <= latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        assert body["series"][1]["stage_latency_us"]["collector"]["count"] == 2
        assert body["changes_per_update"]["max"] == 3

        one = await api.get("/stats", exchange="kraken", symbol="eth/usd")
        assert [each["symbol"] for each in one["series"]] == ["ETH-USD"]
        assert (one["exchange"], one["symbol"]) == ("kraken", "ETH-USD")
        assert one["compression"] == body["series"][1]["compression"]
        refused = await api.refused("/stats", exchange="mtgox")
        assert refused[:2] == (400, "exchange")
        refused = await api.refused("/stats", symbol="DOGE-USD")
        assert refused[:2] == (404, "symbol")


async def test_rings_and_their_readers_are_shown(api: Api, ring_prefix: str) -> None:
    with Venue(ring_prefix) as venue:
        body = await api.until("/stats", lambda body: body["rings"] and body["rings"][0]["readers"])
        ring = body["rings"][0]
        assert (ring["exchange"], ring["name"]) == ("kraken", f"{ring_prefix}.kraken")
        assert (ring["epoch"], ring["size_bytes"]) == (venue.writer.epoch, 1 << 20)
        assert (ring["alive"], ring["problem"]) == (True, None)
        reader = ring["readers"][0]
        assert set(reader) == {"pid", "epoch", "sequence", "lag", "sleeping"}
        assert reader["epoch"] == venue.writer.epoch


async def test_stages_come_from_the_metrics(api: Api) -> None:
    stage = metrics.STAGE_LATENCY.bind(stage="test")
    for _ in range(100):
        stage.observe(3e-6)
    found = (await api.get("/stats"))["stage_latency_us"]["test"]
    assert found["count"] % 100 == 0
    assert 2 <= found["p50"] <= found["p95"] <= found["p99"] <= found["max"] == 5
    assert found["mean"] == 3


def test_percentiles_are_the_smallest_values_that_reach_them() -> None:
    window = Window()
    for value in range(1, 101):
        window.add(value)
    found = distribution_of([window])
    assert (found.p50, found.p95, found.p99, found.max) == (50, 95, 99, 100)
    assert (found.count, found.mean) == (100, 50.5)


def test_a_window_keeps_the_latest() -> None:
    window = Window()
    for value in range(WINDOW + 10):
        window.add(value)
    assert sorted(window.values) == list(range(10, WINDOW + 10))


def test_histograms_beyond_their_buckets_have_no_maximum() -> None:
    infinite = float("inf")
    found = histogram_distribution([(1.0, 1.0), (2.0, 3.0), (infinite, 4.0)], 10.0, 1.0)
    assert (found.count, found.mean, found.p50, found.max) == (4, 2.5, 1.5, None)
    empty = histogram_distribution([(1.0, 0.0), (infinite, 0.0)], 0.0, 1.0)
    assert (empty.count, empty.p50, empty.max) == (0, None, None)
