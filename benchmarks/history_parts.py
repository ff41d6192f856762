"""What the history benchmarks start: Redis, a collector and its venue, the store's writer."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec
import redis

from alphapulse.store.entries import Keys
from benchmarks import programs
from benchmarks.harness import Absent
from benchmarks.history_feed import Task
from benchmarks.history_market import EXCHANGE, SPECS
from benchmarks.history_writer import Report

RING_BYTES = 64 << 20
REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "everysec")
"""As in the repository's compose file; the rest is Redis's default."""

_TRADE_BYTES = 104
"""Of a record in a ring, with room to spare."""
_LOOK_SECONDS = 0.01
_QUIET_SECONDS = 10.0
"""When nothing more has been written for so long, the rest is lost."""


def missing_redis() -> Absent | None:
    """Why there is no Redis here, None if there is."""
    return None if shutil.which("redis-server") else Absent("Redis", "no redis-server on the path")


class Redis:
    """A server of the benchmark's own, its files in a folder that is removed in the end.

    Parameters
    ----------
    stack : ends it
    """

    def __init__(self, stack: ExitStack) -> None:
        self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="apbench-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = stack.enter_context(redis.Redis(port=self.port))
        self._process: subprocess.Popen[bytes] | None = None
        stack.callback(self.stop)
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it with what its files hold, and wait until it answers."""
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
             "--dir", self._folder, *REDIS_OPTIONS],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + programs.PATIENCE_SECONDS
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError("redis-server doesn't start")
            time.sleep(_LOOK_SECONDS)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Shut it down, as a service manager would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def trades(self, prefix: str) -> int:
        """How many trades our store has there.

        Parameters
        ----------
        prefix : of the rings
        """
        keys = Keys(prefix, EXCHANGE)
        return sum(self.client.xlen(keys.trades(spec.symbol)) for spec in SPECS)

    def wait_for(self, prefix: str, trades: int) -> None:
        """Wait until our store has so many trades. `RuntimeError` if no more come."""
        seen, since = -1, time.monotonic()
        while (found := self.trades(prefix)) < trades:
            if found != seen:
                seen, since = found, time.monotonic()
            if time.monotonic() - since > _QUIET_SECONDS:
                raise RuntimeError(f"only {found} trades of {trades} are in Redis")
            time.sleep(_LOOK_SECONDS)
        if found > trades:
            raise RuntimeError(f"{found} trades are in Redis, and there were {trades}")


def settings(prefix: str, **more: str) -> dict[str, str]:
    """Environment of a program of ours.

    Parameters
    ----------
    prefix : of the rings
    more : further settings as ``section__key``
    """
    chosen = {"ring__prefix": prefix, "log__level": "warning", **more}
    return {f"ALPHAPULSE__{key.upper()}": value for key, value in chosen.items()}


class Writer:
    """The store's writer at work; made by `start_writer`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def report(self) -> Report:
        """What it has written since the last report."""
        programs.write(self._process, b"report")
        return msgspec.json.decode(programs.read(self._process), type=Report)


def start_writer(stack: ExitStack, prefix: str, url: str) -> Writer:
    """A writer to the Redis at that address; it has begun."""
    process = programs.start(
        stack,
        [sys.executable, "-m", "benchmarks.history_writer"],
        environ=settings(prefix, store__redis_url=url),
    )
    programs.read(process)
    return Writer(process)


class Feed:
    """A process that makes trades when told to: a simulated venue, or what writes a ring."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def begin(self, count: int, rate: float = 0.0) -> None:
        """Have so many trades made; without a rate as fast as it goes."""
        programs.write(self._process, msgspec.json.encode(Task(count=count, rate=rate)))

    def done(self, seconds: float = 0.0) -> int:
        """Wait until they have been, which takes about so long; all trades that were ever made."""
        return int(programs.read(self._process, seconds))

    def make(self, count: int, rate: float = 0.0) -> int:
        """Have trades made, and wait for it."""
        self.begin(count, rate)
        return self.done(count / rate if rate else 0.0)


def start_ring_feed(
    stack: ExitStack,
    prefix: str,
    size_bytes: int = RING_BYTES,
    first: int = 0,
    cpus: set[int] | None = None,
) -> Feed:
    """What writes trades to a ring, beginning with trade `first`; the ring is there."""
    arguments = [prefix, str(size_bytes), str(first)]
    command = [sys.executable, "-m", "benchmarks.history_feed", *arguments]
    process = programs.start(stack, command, cpus=cpus)
    programs.read(process)
    return Feed(process)


def start_collector(stack: ExitStack, prefix: str) -> tuple[Feed, int]:
    """A simulated venue, and our collector of it: the first one's feed, the second one's pid."""
    venue = programs.start(stack, [sys.executable, "-m", "benchmarks.history_venue"])
    url = programs.read(venue).decode().strip()
    chosen: Mapping[str, str] = {
        "venues__kraken__ws_url": url,
        "venues__kraken__symbols": ",".join(spec.symbol for spec in SPECS),
    }
    collector = programs.start(
        stack,
        [sys.executable, "-m", "alphapulse.collectors.daemon", EXCHANGE],
        environ=settings(prefix, **chosen),
    )
    programs.read(collector)
    return Feed(venue), collector.pid


def bytes_of_ring(trades: int) -> int:
    """A ring that holds so many trades, about, and is no smaller than the default."""
    wanted = RING_BYTES
    while wanted < trades * _TRADE_BYTES:
        wanted *= 2
    return wanted


def room_for_rings() -> int:
    """Bytes that are free where rings are."""
    return shutil.disk_usage(Path("/dev/shm")).free
