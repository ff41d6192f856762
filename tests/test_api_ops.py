"""Health and metrics over REST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import alphapulse
from alphapulse.config import KrakenSettings, Settings
from alphapulse.errors import StoreError
from alphapulse.model import BookState, Reason
from alphapulse.store import Store
from tests.serving import Api, api_settings, kept, serving
from tests.trading import Venue, eventually


@pytest.fixture
def settings(ring_prefix: str, tmp_path: Path) -> Settings:
    """One venue is configured."""
    settings = api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"))
    venues = replace(settings.venues, kraken=KrakenSettings(symbols=("BTC-USD",)))
    return replace(settings, venues=venues)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with kept(settings) as store:
        yield store


@pytest.fixture
async def api(settings: Settings, store: Store) -> AsyncIterator[Api]:
    async with serving(settings, store) as api:
        yield api


async def test_health_is_ok_when_store_ring_and_a_book_are(
    api: Api, ring_prefix: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await api.get("/health")
    assert list(body) == ["status", "service", "version", "timestamp", "components", "reasons"]
    assert (body["service"], body["version"]) == ("alphapulse", alphapulse.__version__)
    assert body["status"] == "degraded"
    assert body["reasons"] == ["kraken: its collector isn't running"]
    assert list(body["components"]) == ["store", "collectors", "stream"]
    assert body["components"]["store"]["status"] == "ok"
    assert body["components"]["stream"]["status"] == "not configured"
    with Venue(ring_prefix) as venue:
        body = await api.until("/health", lambda body: "isn't" not in body["reasons"][0])
        assert body["reasons"] == ["kraken: none of its books is live"]
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        body = await api.until("/health", lambda body: body["status"] == "ok")
        assert body["reasons"] == []
        kraken = body["components"]["collectors"]["kraken"]
        assert kraken["books"] == {"syncing": 0, "live": 1, "stale": 0, "invalid": 0}
        assert kraken["epoch"] == venue.writer.epoch
        assert (await api.http.get("/health/ready")).status_code == 200

        async def away() -> None:
            raise StoreError("no disk")

        monkeypatch.setattr(store, "ping", away)
        body = await api.get("/health")
        assert (body["status"], body["reasons"]) == ("degraded", ["store: no disk"])
        assert body["components"]["store"] == {"status": "failed", "problem": "no disk"}
        assert (await api.http.get("/health/ready")).status_code == 503
        assert await api.get("/health/live") == {"status": "ok"}
        monkeypatch.undo()
        venue.state("BTC-USD", BookState.STALE, Reason.SILENT)
        await api.until("/health", lambda body: body["status"] == "degraded")


async def test_the_streams_health_is_asked_for(ring_prefix: str, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"status":"ok","clients":3}'
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    stream = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = stream.sockets[0].getsockname()[1]
    settings = api_settings(ring_prefix, stream_port=port, path=str(tmp_path / "history.duckdb"))
    async with kept(settings) as store, serving(settings, store) as api:
        body = await api.get("/health")
        assert body["components"]["stream"] == {
            "status": "ok",
            "url": f"http://127.0.0.1:{port}/health",
            "clients": 3,
        }
        assert body["status"] == "ok"
        stream.close()
        await stream.wait_closed()
        body = await api.get("/health")
        assert body["components"]["stream"]["status"] == "not running"


async def test_metrics_count_requests_by_pattern(api: Api) -> None:
    await api.http.get("/trades/BTC-USD?exchange=kraken")
    await api.http.get("/trades/BTC%2FUSD?exchange=kraken")
    await api.http.get("/trades/BTC-USD?limit=0")
    await api.http.get("/no/such/path")

    async def counted() -> str | None:
        response = await api.http.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        needed = (
            'http_requests_total{method="GET",path="/trades/{symbol}",status="200"} ',
            'http_requests_total{method="GET",path="/trades/{symbol}",status="400"} ',
            'http_requests_total{method="GET",path="other",status="404"} ',
            'http_request_duration_ms_count{method="GET",path="/trades/{symbol}"} ',
        )
        return response.text if all(line in response.text for line in needed) else None

    text = await eventually(counted)
    assert "store_rows_total" in text
    assert "/no/such/path" not in text
