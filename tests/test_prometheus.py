"""A real Prometheus scrapes a real installation; every panel and every alert finds data."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
import yaml

from tests.monitoring import PROMETHEUS, alerts, measure, panels
from tests.programs import program
from tests.support import find_program
from tests.trading import redis_server

PACKAGE = "prometheus"
SCRAPE_SECONDS = 1
SCRAPES = 60
"""Until a series that there is must have been seen."""
PINGS = 300
"""More than a client may send at once."""


def promtool(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [find_program("promtool", PACKAGE), *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        cwd=PROMETHEUS,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_has_no_objection(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


class Installation:
    """A running installation on simulated venues, and the Prometheus that scrapes it."""

    def __init__(self, http: aiohttp.ClientSession, api: str, stream: str, url: str) -> None:
        self._http = http
        self.api = api
        self.stream = stream
        self.url = url

    async def query(self, text: str) -> list[dict[str, Any]]:
        """What an instant query finds; NaN counts as nothing."""
        async with self._http.get(f"{self.url}/api/v1/query", params={"query": text}) as answer:
            body = await answer.json()
        assert body["status"] == "success", f"{text}: {body}"
        found: list[dict[str, Any]] = body["data"]["result"]
        return [one for one in found if not math.isnan(float(one["value"][1]))]

    async def until(self, text: str) -> list[dict[str, Any]]:
        """What a query finds, as soon as it finds anything."""
        for _ in range(SCRAPES):
            if found := await self.query(text):
                return found
            await asyncio.sleep(SCRAPE_SECONDS)
        raise AssertionError(f"{text} finds nothing")

    async def rules(self) -> list[dict[str, Any]]:
        async with self._http.get(f"{self.url}/api/v1/rules") as answer:
            groups = (await answer.json())["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def get(self, path: str) -> int:
        """Status of a REST request."""
        async with self._http.get(self.api + path) as answer:
            return answer.status

    async def use(self) -> None:
        """What clients do, good ones and others, so that all that is counted has happened."""
        await self.until("stream_clients")
        assert await self.get("/trades/BTC-USD?exchange=kraken") == 200
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(self.stream, origin=websockets.Origin("https://else.where"))
        async with websockets.connect(self.stream) as client:
            for _ in range(PINGS):
                await client.send('{"type":"ping"}')
            await client.recv()


def scraping(folder: Path, target: str) -> Path:
    """The repository's configuration with this target and small intervals."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = dict.fromkeys(config["global"], f"{SCRAPE_SECONDS}s")
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[str]:
    """Run Prometheus on a free port; gives its address."""
    process = await asyncio.create_subprocess_exec(
        find_program("prometheus", PACKAGE),
        f"--config.file={scraping(folder, target)}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        said = ""
        while "Server is ready" not in said:
            line = (await process.stderr.readline()).decode()
            assert line, f"prometheus has ended: {said}"
            said += line
        found = re.search(r"Listening on.*address=([\d.]+:\d+)", said)
        assert found, said
        reader = asyncio.create_task(process.stderr.read())
        yield f"http://{found[1]}"
        process.terminate()
        await reader
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def installation(folder: Path, prefix: str, redis_url: str) -> AsyncIterator[Installation]:
    """Simulated venues, `alphapulse up` with history in Redis, and Prometheus."""
    find_program("prometheus", PACKAGE)
    environ = {
        "REDIS_URL": redis_url,
        "ALPHAPULSE__RING__SIZE_BYTES": "8MiB",
        "ALPHAPULSE__METRICS__SAMPLE_SECONDS": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
    }
    simulate = ("alphapulse.cli", "simulate", "--symbols", "BTC-USD,ETH-USD,SOL-USD")
    up = ("alphapulse.cli", "up", "--config", os.devnull, "--prefix", prefix)
    ports = ("--api-port", "0", "--stream-port", "0")
    async with program(*simulate, environ={}) as venues:
        for _ in range(6):
            name, url = (await venues.line(r"export (\w+)=(\S+)")).groups()
            environ[name] = url
        async with program(*up, *ports, environ=environ) as running:
            api = (await running.line(r"REST\s+(\S+)/health"))[1]
            stream = (await running.line(r"stream\s+(\S+)"))[1]
            await running.line("all books are live")
            async with (
                prometheus(folder, api.removeprefix("http://")) as url,
                aiohttp.ClientSession() as http,
            ):
                yield Installation(http, api, stream, url)
            assert await running.end() == 0
        assert await venues.end() == 0


async def test_every_panel_and_every_alert_finds_data(tmp_path: Path, ring_prefix: str) -> None:
    with redis_server() as redis:
        async with installation(tmp_path, ring_prefix, redis.url) as running:
            await running.use()
            assert await running.until('up{job="alphapulse"} == 1')
            await check_metrics(running.api)
            for panel in panels():
                for query in panel.queries:
                    await running.until(query)
            assert await running.query('ALERTS{alertstate="firing"}') == []
            # Two alerts are about what there is no trace of until it happens.
            redis.stop()
            assert await running.get("/trades/BTC-USD") == 503
            await running.until('redis_operations_total{status="error"}')
            for alert in alerts():
                await running.until(measure(alert))
            await running.until('ALERTS{alertname="RedisErrors"}')
            rules = await running.rules()
            assert {rule["name"]: rule.get("lastError", "") for rule in rules} == {
                alert["alert"]: "" for alert in alerts()
            }


async def check_metrics(api: str) -> None:
    """What /metrics shows is well formed, but for the contract's names in milliseconds."""
    async with aiohttp.ClientSession() as http, http.get(f"{api}/metrics") as answer:
        text = await answer.read()
    done = await asyncio.to_thread(promtool, "check", "metrics", stdin=text)
    notes = (done.stdout + done.stderr).decode().splitlines()
    assert [note for note in notes if not re.match(r"\w+_ms .*\bunit", note)] == []
