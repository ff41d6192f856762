"""Dockerfile and compose.yaml: valid, and in accord with the settings and with each other."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from alphapulse.config import Settings, load, refuse_exposure
from tests.monitoring import GRAFANA, PROMETHEUS
from tests.programs import TIMEOUT_SECONDS, Program, program, script
from tests.support import ROOT, requires_program
from tests.trading import redis_server
from tools import check_image

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "alphapulse"]
STEPS = check_image.parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def environ_of(name: str) -> dict[str, str]:
    """A container's environment, where the user's has nothing to add."""
    environ: dict[str, str] = {}
    for step in STEPS:
        if step.name == "ENV":
            environ |= check_image.variables(step.text)
    for key, value in SERVICES[name]["environment"].items():
        environ[key] = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)
    return environ


def settings_of(name: str) -> Settings:
    """Settings with which a service's container runs."""
    return load(os.devnull, environ_of(name))


def test_compose_file_is_valid_by_the_specifications_schema() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", "compose.yaml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_parts_are_there() -> None:
    assert OURS == ["collectors", "stream", "store", "api"]
    assert {"redis", "prometheus", "grafana"} < SERVICES.keys()
    scripts = re.findall(r"^(alphapulse[\w-]*) =", (ROOT / "pyproject.toml").read_text(), re.M)
    assert {SERVICES[name]["command"][0] for name in OURS} <= set(scripts)


@pytest.mark.parametrize("name", OURS)
def test_settings_of_each_service_can_be_used(name: str) -> None:
    settings = settings_of(name)
    refuse_exposure("stream", settings.stream)
    refuse_exposure("api", settings.api)
    assert settings.store.redis_url == "redis://redis:6379/0"


def test_rings_are_shared_and_have_room() -> None:
    settings = settings_of("collectors")
    collectors = SERVICES["collectors"]
    assert collectors["ipc"] == "shareable"
    assert {SERVICES[name]["ipc"] for name in OURS if name != "collectors"} == {
        "service:collectors"
    }
    room = int(collectors["shm_size"].removesuffix("m")) << 20
    rings = len(settings.venues.enabled())
    assert room >= 2 * rings * settings.ring.size_bytes


def test_servers_listen_where_others_look_and_know_their_names() -> None:
    api, stream = settings_of("api"), settings_of("stream")
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = scraped["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    assert target == f"api:{api.api.port}"
    assert "api" in api.api.allowed_hosts
    assert (api.stream.host, api.stream.port) == ("stream", stream.stream.port)
    assert "stream" in stream.stream.allowed_hosts
    assert stream.stream.host == api.api.host == "0.0.0.0"
    for name, port in (("api", api.api.port), ("stream", stream.stream.port)):
        [published] = SERVICES[name]["ports"]
        assert published.endswith(f":{port}")
    outside = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert [port for port in outside if not port.startswith("127.0.0.1:")] == []


def test_what_is_mounted_exists_where_it_is_looked_for() -> None:
    mounted = dict(
        volume.split(":")[:2]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
    )
    named = {source for source in mounted if not source.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    assert [name for name in set(mounted) - named if not (ROOT / name).is_dir()] == []
    provider = GRAFANA / "provisioning" / "dashboards" / "alphapulse.yaml"
    [found] = yaml.safe_load(provider.read_text(encoding="utf-8"))["providers"]
    assert found["options"]["path"] == mounted["./grafana/dashboards"]
    source = GRAFANA / "provisioning" / "datasources" / "prometheus.yaml"
    [found] = yaml.safe_load(source.read_text(encoding="utf-8"))["datasources"]
    [published] = SERVICES["prometheus"]["ports"]
    assert found["url"] == f"http://prometheus:{published.rpartition(':')[2]}"


def test_image_has_two_stages_a_user_of_its_own_and_a_health_check() -> None:
    stages = [at for at, step in enumerate(STEPS) if step.name == "FROM"]
    assert len(stages) == 2
    final = {step.name: step.text for step in STEPS[stages[1] :]}
    assert final["USER"] == "alphapulse"
    assert "/health/live" in final["HEALTHCHECK"]
    assert "gcc" not in "".join(step.text for step in STEPS[stages[1] :])


def test_build_context_is_what_is_copied_and_nothing_built() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    files = set(check_image.context_files(ROOT, rules))
    copied = {
        Path(name)
        for step in STEPS
        if step.name == "COPY" and not step.text.startswith("--from")
        for name in step.text.split()[:-1]
    }
    assert {path.parts[0] for path in files} == {str(path) for path in copied}
    assert {path.suffix for path in files} <= {
        *("", ".py", ".pyx", ".pxd", ".pyi", ".h", ".html", ".md", ".toml", ".in", ".typed")
    }


async def test_the_services_work_together_and_tell_their_health(
    tmp_path: Path, ring_prefix: str
) -> None:
    """As four programs that share /dev/shm; what only Docker gives is replaced."""
    replaced = {
        "ALPHAPULSE__RING__PREFIX": ring_prefix,
        "ALPHAPULSE__RING__SIZE_BYTES": "8MiB",
        "ALPHAPULSE_CONFIG": os.devnull,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "STREAM_PORT": "0",
        "API_PORT": "0",
    }
    own = {"PATH": os.environ["PATH"]}
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server())
        simulate = ("alphapulse.cli", "simulate", "--symbols", "BTC-USD,ETH-USD,SOL-USD")
        venues = await stack.enter_async_context(program(*simulate, environ={}))
        for _ in range(6):
            name, url = (await venues.line(r"export (\w+)=(\S+)")).groups()
            replaced[name] = url
        replaced["REDIS_URL"] = redis.url

        async def start(name: str) -> Program:
            [command] = SERVICES[name]["command"]
            environ = environ_of(name) | replaced | own
            return await stack.enter_async_context(script(command, environ=environ))

        collectors = await start("collectors")
        stream = await start("stream")
        port = await stream.port()
        replaced |= {"STREAM_PORT": str(port), "ALPHAPULSE__STREAM__HOST": "127.0.0.1"}
        store = await start("store")
        await store.line("store is ready")
        api = await start("api")
        http = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://127.0.0.1:{await api.port()}"
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (health := await get(http, f"{url}/health", "api"))["status"] != "ok":
                pass
        assert health["components"]["stream"]["status"] == "ok"
        assert (await get(http, f"http://127.0.0.1:{port}/health", "stream"))["status"] == "ok"
        for name in ("collectors", "store"):
            await asyncio.to_thread(check_health, name, ring_prefix, 0)
        for running in (collectors, stream, store, api):
            assert await running.end() == 0
        for name in ("collectors", "store"):
            await asyncio.to_thread(check_health, name, ring_prefix, 1)


async def get(http: aiohttp.ClientSession, url: str, name: str) -> dict[str, Any]:
    """A JSON answer to a request that calls the server by its service's name."""
    async with http.get(url, headers={"Host": name}) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


def check_health(name: str, prefix: str, expected: int) -> None:
    """Run a service's health check on rings of this prefix."""
    *_, code = SERVICES[name]["healthcheck"]["test"]
    code = code.replace("list_rings()", f"list_rings(prefix={prefix!r})")
    code = code.replace('"alphapulse"', repr(prefix))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == expected


@pytest.mark.soak
@requires_program("debootstrap", "debootstrap")
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_the_images_steps_work_in_a_debian_root() -> None:
    done = subprocess.run([sys.executable, check_image.__file__], check=False)
    assert done.returncode == 0
