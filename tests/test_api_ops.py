"""Health and metrics over REST."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import alphapulse
from alphapulse.api import ops
from alphapulse.config import KrakenSettings, Settings
from alphapulse.errors import StoreError
from alphapulse.model import BookState, Reason
from alphapulse.shm import Position, RingReader
from alphapulse.store import Store, WriteBatch
from alphapulse.store.follower import BEGINNING
from alphapulse.store.service import WriterLock
from tests.programs import script
from tests.serving import Api, api_settings, kept, serving
from tests.trading import Venue, eventually, redis_server, store_writer


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
    assert list(body["components"]) == ["store", "collectors", "stream", "writer"]
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


def written(condition: Callable[[dict[str, Any]], bool]) -> Callable[[dict[str, Any]], bool]:
    """Whether the history's writer is in such health."""
    return lambda body: condition(body["components"]["writer"])


@pytest.fixture
async def watched(settings: Settings, store: Store) -> AsyncIterator[Api]:
    """A server that is told that its history is being written."""
    async with serving(settings, store, written=True) as api:
        yield api


async def test_health_tells_how_far_the_history_is_behind(
    watched: Api, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = watched
    nothing = {"status": "ok", "behind_seconds": {}}
    assert (await api.get("/health"))["components"]["writer"] == nothing
    with Venue(settings.ring.prefix) as venue:
        venue.trade("BTC-USD", 1)
        body = await api.until("/health", written(lambda writer: writer["behind_seconds"]))
        before = body["components"]["writer"]["behind_seconds"]["kraken"]
        assert before > 0
        body = await api.get("/health")
        assert body["components"]["writer"]["behind_seconds"]["kraken"] > before, "nobody writes"
        monkeypatch.setattr(ops, "LATE_NS", 0)
        body = await api.get("/health")
        writer = body["components"]["writer"]
        assert writer["status"] == "degraded"
        assert writer["problem"].startswith("not stored as yet: ")
        assert f"writer: {writer['problem']}" in body["reasons"]
        async with store_writer(settings, store):
            body = await api.until("/health", written(lambda writer: writer["status"] == "ok"))
            assert body["components"]["writer"]["behind_seconds"] == {"kraken": 0}
        # A place that this ring never had, and one behind the end of another ring.
        for place in (venue.writer.epoch, 10**9), BEGINNING:
            await store.append(WriteBatch(exchange="kraken", position=Position(*place)))
            body = await api.get("/health")
            assert body["components"]["writer"]["behind_seconds"]["kraken"] > before

        async def away(exchange: str) -> None:
            raise StoreError("no disk")

        monkeypatch.setattr(store, "position", away)
        unknown = {"status": "unknown", "behind_seconds": {}}
        assert (await api.get("/health"))["components"]["writer"] == unknown


async def test_what_a_ring_no_longer_holds_is_behind(
    api: Api, store: Store, ring_prefix: str
) -> None:
    with Venue(ring_prefix) as venue:
        start = Position(venue.writer.epoch, 1)
        await store.append(WriteBatch(exchange="kraken", position=start))
        with RingReader("kraken", prefix=ring_prefix, start=start) as reader:
            for number in range(20_000):
                venue.trade("BTC-USD", number)
            assert reader.read(1).overrun is not None
        await api.until(
            "/health", written(lambda writer: writer["behind_seconds"].get("kraken", 0) > 0)
        )
        writer = (await api.get("/health"))["components"]["writer"]
        assert (writer["status"], "problem" in writer) == ("not configured", False)


async def test_a_dead_writer_is_told(ring_prefix: str, tmp_path: Path) -> None:
    with redis_server() as redis:
        environ = {
            "PATH": os.environ["PATH"],
            "REDIS_URL": redis.url,
            "ALPHAPULSE_CONFIG": os.devnull,
            "ALPHAPULSE__RING__PREFIX": ring_prefix,
            "ALPHAPULSE__STORE__BACKFILL": "false",
            "ALPHAPULSE__STORE__WRITER": "apart",
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
            "STREAM_PORT": "0",
            "API_PORT": "0",
        }
        async with script("alphapulse-api-server", environ=environ) as server:
            api = Api(await server.port())
            body = await api.get("/health")
            assert body["components"]["writer"] == {"status": "not running", "behind_seconds": {}}
            with Venue(ring_prefix) as venue:
                async with script("alphapulse-store", environ=environ) as writer:
                    venue.trade("BTC-USD", 1)
                    stored = {"status": "ok", "behind_seconds": {"kraken": 0}}
                    await api.until("/health", written(lambda writer: writer == stored))
                    writer.process.send_signal(signal.SIGKILL)
                    body = await api.until(
                        "/health", written(lambda writer: writer["status"] == "failed")
                    )
                    assert "writer: no process writes the history" in body["reasons"]
                venue.trade("BTC-USD", 2)
                await api.until(
                    "/health", written(lambda writer: writer["behind_seconds"]["kraken"] > 0)
                )
            await api.http.aclose()
            assert await server.end() == 0
    killed = WriterLock(ring_prefix)
    assert killed.take()
    killed.close()  # removes what the writer left


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
