"""The history's writer as a program: alone, as a child of the API server, and standing by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from alphapulse.store import RedisStore
from alphapulse.store.service import WriterLock, is_being_written
from tests.programs import ended, script
from tests.support import ROOT
from tests.trading import (
    NOW_NS,
    RedisServer,
    Venue,
    eventually,
    redis_server,
    settings_for,
    stored_ids,
)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def environ(redis: RedisServer, ring_prefix: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "REDIS_URL": redis.url,
        "ALPHAPULSE_CONFIG": os.devnull,
        "ALPHAPULSE__RING__PREFIX": ring_prefix,
        "ALPHAPULSE__STORE__BACKFILL": "false",
        "ALPHAPULSE__STORE__RETENTION_DAYS": "0",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "STREAM_PORT": "0",
        "API_PORT": "0",
    }


@pytest.fixture
async def store(redis: RedisServer, ring_prefix: str) -> RedisStore:
    settings = settings_for(ring_prefix, redis_url=redis.url)
    return await RedisStore.open(settings.store, ring_prefix)


async def test_another_writer_stands_by_and_takes_over(
    environ: dict[str, str], store: RedisStore, ring_prefix: str
) -> None:
    async def both() -> bool:
        return await stored_ids(store) == ["1", "2"]

    assert not is_being_written(ring_prefix)
    with Venue(ring_prefix) as venue:
        venue.trade("BTC-USD", 1)
        async with script("alphapulse-store", environ=environ) as first:
            await first.line("store is ready: store unix://")
            assert is_being_written(ring_prefix)
            async with script("alphapulse-store", environ=environ) as second:
                first.process.send_signal(signal.SIGKILL)
                await second.line("store is ready")
                venue.trade("BTC-USD", 2, exchange_ns=NOW_NS + 1)
                await eventually(both)
                assert await second.end() == 0
    assert not is_being_written(ring_prefix)
    await store.close()


async def test_the_api_server_has_a_child_that_writes(
    environ: dict[str, str], store: RedisStore, ring_prefix: str
) -> None:
    async def there() -> bool:
        return await stored_ids(store) == ["1"]

    with Venue(ring_prefix) as venue:
        venue.trade("BTC-USD", 1)
        async with script("alphapulse-api-server", environ=environ) as api:
            await eventually(there)
            [child] = psutil.Process(api.pid).children()
            assert "store" in child.cmdline()
            assert await api.end() == 0
    assert not is_being_written(ring_prefix)
    await store.close()


async def test_the_api_server_leaves_the_writing_to_a_program_apart(
    environ: dict[str, str], store: RedisStore, ring_prefix: str
) -> None:
    environ["ALPHAPULSE__STORE__WRITER"] = "apart"
    async with script("alphapulse-api-server", environ=environ) as api:
        await api.port()
        assert psutil.Process(api.pid).children() == []
        assert not is_being_written(ring_prefix)
        assert await api.end() == 0
    await store.close()


async def test_there_is_no_writer_apart_without_redis() -> None:
    status, _, error = await ended("alphapulse.cli.serve", "store", REDIS_URL="")
    assert status == 2
    assert "store.redis_url" in error


def test_a_lock_is_one_processs_and_ends_with_it(ring_prefix: str) -> None:
    first, second = WriterLock(ring_prefix), WriterLock(ring_prefix)
    assert first.take()
    assert not second.take()
    first.close()
    assert second.take()
    second.close()
    assert not first.path.exists()


LOOK = """
import os, sys
from alphapulse.store.service import is_being_written

prefix, group = sys.argv[1:]
os.setgroups([int(group)] if group else [])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    print(is_being_written(prefix))
except PermissionError:
    print("refused")
"""
"""As a user without rights, who may be in a group."""


def seen_by_another_user(prefix: str, group: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, prefix, group],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_rings_group_sees_another_users_lock(ring_prefix: str) -> None:
    lock = WriterLock(ring_prefix, "64321")
    assert seen_by_another_user(ring_prefix, "64321") == "False"
    assert lock.take()
    assert seen_by_another_user(ring_prefix, "64321") == "True"
    assert seen_by_another_user(ring_prefix) == "refused"
    lock.close()


def test_a_lock_is_there_without_the_group(ring_prefix: str) -> None:
    lock = WriterLock(ring_prefix, "no-such-group")
    assert lock.take()
    assert lock.path.stat().st_mode & 0o777 == 0o600
    assert is_being_written(ring_prefix)
    lock.close()


def test_a_lock_that_is_there_to_be_read_is_seen(ring_prefix: str) -> None:
    """What the group may do, tried without another user."""
    lock = WriterLock(ring_prefix, str(os.getgid()))
    assert lock.take()
    assert lock.path.stat().st_mode & 0o777 == 0o640
    lock.path.chmod(0o440)
    assert is_being_written(ring_prefix)
    lock.close()
