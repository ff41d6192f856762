"""The schema describes what is served: by its own text, and by requests made from it at random."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from alphapulse.api.app import ENDPOINTS
from alphapulse.config import KrakenSettings
from alphapulse.store import WriteBatch, open_store
from tests.serving import Api, api_settings, problem, serving
from tests.support import ROOT
from tests.trading import NOW_NS, Venue, row

BEAT_SECONDS = 0.5
EXAMPLES = 5
EXAMPLES_SOAK = 300


@asynccontextmanager
async def collecting(prefix: str, path: Path, **api: Any) -> AsyncIterator[Api]:
    """A server with history, and a venue whose collector is at work."""
    settings = api_settings(prefix, api=api, path=str(path), retention_days=0)
    venues = replace(settings.venues, kraken=KrakenSettings(symbols=("BTC-USD",)))
    store = await open_store(replace(settings, venues=venues))
    trades = [row(number, timestamp_ns=NOW_NS + number * 10**8) for number in range(1000)]
    await store.append(WriteBatch(exchange="kraken", trades=trades))
    try:
        async with serving(replace(settings, venues=venues), store) as client:
            with Venue(prefix) as venue, at_work(venue):
                venue.book("BTC-USD", {"100": "1", "99": "2"}, {"101": "1"})
                for size in range(5):
                    venue.change("BTC-USD", {"100": str(size + 2)}, {})
                    venue.trade("BTC-USD", size)
                await client.until("/health", lambda body: body["status"] == "ok")
                yield client
    finally:
        await store.close()


@contextmanager
def at_work(venue: Venue) -> Iterator[None]:
    """The ring shows signs of life, as a collector's does."""

    async def beat() -> None:
        while True:
            venue.writer.beat()
            await asyncio.sleep(BEAT_SECONDS)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


async def test_every_path_is_described(ring_prefix: str, tmp_path: Path) -> None:
    async with collecting(ring_prefix, tmp_path / "history.duckdb") as api:
        schema = await api.get("/openapi.json")
        assert schema["openapi"] == "3.1.0"
        described = {(path, method) for path, item in schema["paths"].items() for method in item}
        assert described == {(endpoint.path, endpoint.method.lower()) for endpoint in ENDPOINTS}
        text = json.dumps(schema, default=float)
        for reference in re.findall(r'"\$ref": "([^"]+)"', text):
            assert reference.rpartition("/")[2] in schema["components"]["schemas"], reference
        for path, method in described:
            operation = schema["paths"][path][method]
            assert operation["summary"], path
            assert all(each["description"] for each in operation["parameters"]), path
        limit = parameter(schema, "/trades/{symbol}", "limit")
        assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 10000,
                                   "default": 100}  # fmt: skip
        exchange = parameter(schema, "/orderbook/{symbol}", "exchange")
        # The default is none of those that are known here.
        assert exchange["required"]
        assert exchange["schema"] == {"type": "string", "enum": ["kraken", "all"]}


def parameter(schema: Any, path: str, name: str) -> Any:
    """A parameter's description."""
    found = schema["paths"][path]["get"]["parameters"]
    return next(each for each in found if each["name"] == name)


async def test_the_page_needs_nothing_from_elsewhere(ring_prefix: str, tmp_path: Path) -> None:
    async with collecting(ring_prefix, tmp_path / "history.duckdb") as api:
        response = await api.http.get("/docs")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "//" not in re.sub(r"//.*", "", response.text) or "http" not in response.text
        assert not re.search(r"(src|href)=\"(?!openapi\.json)", response.text)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert policy.count("'sha256-") == 2
        assert '<html lang="en">' in response.text


async def test_a_token_is_described_and_the_page_needs_none(
    ring_prefix: str, tmp_path: Path
) -> None:
    async with collecting(ring_prefix, tmp_path / "history.duckdb", token="right") as api:
        schema = await api.get("/openapi.json")
        assert schema["components"]["securitySchemes"] == {
            "bearer": {"type": "http", "scheme": "bearer"}
        }
        assert schema["paths"]["/summary"]["get"]["security"] == [{"bearer": []}]
        assert "security" not in schema["paths"]["/docs"]["get"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}") as anyone:
            assert (await anyone.get("/docs")).status_code == 200
            assert problem(await anyone.get("/openapi.json"))[0] == 401


async def run_schemathesis(api: Api, examples: int, *options: str) -> None:
    """Requests made from the schema, right ones and wrong ones; all answers must conform."""
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("run", f"http://127.0.0.1:{api.port}/openapi.json", "--no-color"),
        *(f"--max-examples={examples}", *options),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_requests_made_from_the_schema_get_what_it_says(
    ring_prefix: str, tmp_path: Path
) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis isn't installed")
    async with collecting(ring_prefix, tmp_path / "history.duckdb", writable=True) as api:
        await run_schemathesis(api, EXAMPLES, "--phases=coverage,fuzzing")


@pytest.mark.soak
async def test_many_requests_made_from_the_schema_get_what_it_says(
    ring_prefix: str, tmp_path: Path
) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis isn't installed")
    options = {"token": "right", "writable": True}
    async with collecting(ring_prefix, tmp_path / "history.duckdb", **options) as api:
        await run_schemathesis(api, EXAMPLES_SOAK, "--header=Authorization: Bearer right")
