"""Paths and methods lead to endpoints, symbols in each way of writing them."""

from __future__ import annotations

import pytest

from alphapulse.api.app import ENDPOINTS
from alphapulse.api.problems import Problem
from alphapulse.api.routing import Routes

FOUND = [
    ("GET", "/trades/BTC-USD", "/trades/{symbol}", {"symbol": "BTC-USD"}),
    ("HEAD", "/trades/BTC/USD", "/trades/{symbol}", {"base": "BTC", "quote": "USD"}),
    ("POST", "/trades/BTC/USD", "/trades/{symbol}", {"base": "BTC", "quote": "USD"}),
    ("GET", "/trades/BTC-USD/recent", "/trades/{symbol}/recent", {"symbol": "BTC-USD"}),
    ("GET", "/trades/A/B/recent", "/trades/{symbol}/recent", {"base": "A", "quote": "B"}),
    ("POST", "/orderbook/A-B/snapshot", "/orderbook/{symbol}/snapshot", {"symbol": "A-B"}),
    ("GET", "/symbols/kraken", "/symbols/{exchange}", {"exchange": "kraken"}),
    ("GET", "/health/live", "/health/live", {}),
]

REFUSED = [
    ("GET", "/", 404, None),
    ("GET", "", 404, None),
    ("OPTIONS", "*", 404, None),
    ("GET", "//", 404, None),
    ("GET", "/trades", 404, None),
    ("GET", "/trades/", 404, None),
    ("GET", "/trades/BTC-USD/", 404, None),
    ("GET", "/trades/A/B/C", 404, None),
    ("POST", "/trades/A/B/recent", 405, "GET, HEAD"),
    ("GET", "/orderbook/A/B/snapshot", 405, "POST"),
    ("DELETE", "/trades/A/B", 405, "GET, HEAD, POST"),
    ("PATCH", "/docs", 405, "GET, HEAD"),
]


@pytest.mark.parametrize(("method", "path", "pattern", "values"), FOUND)
def test_a_path_leads_to_its_endpoint(
    method: str, path: str, pattern: str, values: dict[str, str]
) -> None:
    endpoint, found = Routes(ENDPOINTS).find(method, path)
    assert (endpoint.path, found) == (pattern, values)
    assert endpoint.method == ("GET" if method == "HEAD" else method)


@pytest.mark.parametrize(("method", "path", "status", "allowed"), REFUSED)
def test_other_paths_and_methods_are_refused(
    method: str, path: str, status: int, allowed: str | None
) -> None:
    with pytest.raises(Problem) as caught:
        Routes(ENDPOINTS).find(method, path)
    assert caught.value.status == status
    assert (caught.value.headers or {}).get("Allow") == allowed
    assert (f"use {allowed}" if allowed else "/docs") in caught.value.detail
