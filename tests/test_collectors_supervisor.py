"""Real processes: restarted where they die, stopped together, and nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alphapulse.collectors import daemon
from alphapulse.collectors.daemon import run_venue
from alphapulse.config import RingSettings, Settings, VenuesSettings
from alphapulse.errors import ConfigError, RingBusy, RingNotFound
from alphapulse.model import BookState, Reason
from alphapulse.simulators import (
    BinanceUsSimulator,
    CoinbaseSimulator,
    KrakenSimulator,
    Market,
    VenueSimulator,
)
from tests.collecting import TIMEOUT_SECONDS, Follower, settings_for

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
PROGRAM = """
import asyncio, sys
import msgspec
from alphapulse import log
from alphapulse.collectors.supervisor import run_collectors
from alphapulse.config import Settings
settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
log.setup(settings.log, "collectors")
sys.exit(asyncio.run(run_collectors(settings)))
"""


@asynccontextmanager
async def make_simulators() -> AsyncIterator[list[VenueSimulator]]:
    market = Market(SYMBOLS, seed=17, book_rate=50, trade_rate=5, levels=30)
    async with (
        CoinbaseSimulator(market) as coinbase,
        KrakenSimulator(market) as kraken,
        BinanceUsSimulator(market) as binance_us,
    ):
        yield [coinbase, kraken, binance_us]


def settings_of(simulators: list[VenueSimulator], prefix: str) -> Settings:
    """Settings that collect all of these."""
    single = [settings_for(simulator, prefix) for simulator in simulators]
    sections = {
        simulator.exchange: getattr(settings.venues, simulator.exchange)
        for simulator, settings in zip(simulators, single, strict=True)
    }
    rest = single[0].venues
    names = rest.__struct_fields__
    others = {
        name: msgspec.structs.replace(getattr(rest, name), enabled=False)
        for name in names
        if name not in sections
    }
    return msgspec.structs.replace(single[0], venues=VenuesSettings(**others, **sections))


class Program:
    """``alphapulse-collectors`` at work in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, prefix: str) -> None:
        self.process = process
        self.prefix = prefix
        self.output = ""

    async def end(self) -> int:
        """Wait until it has ended; gives its exit status."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, errors = await self.process.communicate()
        self.output += errors.decode()
        return self.process.returncode or 0

    def children(self) -> list[int]:
        """Process ids of the collectors."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def follow(self, venue: str) -> Follower:
        """A reader of a venue's ring, once there is one."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                try:
                    return Follower(venue, self.prefix)
                except RingNotFound:
                    assert self.process.returncode is None, "it has ended"
                    await asyncio.sleep(0.02)


@asynccontextmanager
async def program(settings: Settings) -> AsyncIterator[Program]:
    """Run the program; whatever is left of it in the end is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(settings))
    await process.stdin.drain()
    process.stdin.close()
    running = Program(process, settings.ring.prefix)
    try:
        yield running
    finally:
        if process.returncode is None:
            for child in running.children():
                os.kill(child, signal.SIGKILL)
            process.kill()
            await process.communicate()


async def gone(pids: list[int]) -> None:
    """Wait until these processes have ended."""
    loop = asyncio.get_running_loop()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)


def segments(prefix: str) -> list[str]:
    return sorted(path.name for path in Path("/dev/shm").glob(f"{prefix}*"))


async def test_all_venues_end_cleanly_together(ring_prefix: str) -> None:
    async with make_simulators() as simulators:
        await _ends_by(signal.SIGTERM, simulators, ring_prefix)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_other_signals_end_it_cleanly_too(number: int, ring_prefix: str) -> None:
    simulator = KrakenSimulator(Market(SYMBOLS, seed=17, book_rate=50, levels=30))
    async with simulator:
        await _ends_by(number, [simulator], ring_prefix)


async def _ends_by(number: int, simulators: list[VenueSimulator], prefix: str) -> None:
    """Send a signal as soon as all books are live; nothing must be left."""
    async with program(settings_of(simulators, prefix)) as running:
        followers = [await running.follow(one.exchange) for one in simulators]
        for follower in followers:
            await follower.until(partial(follower.is_live, *SYMBOLS))
        children = running.children()
        assert len(children) == len(simulators)
        running.process.send_signal(number)
        assert await running.end() == 0
        await gone(children)
        assert segments(prefix) == []
        for follower in followers:
            follower.read()
            for symbol in SYMBOLS:
                assert follower.states[symbol] == (BookState.STALE, Reason.STOPPED)
            follower.close()


async def test_children_end_with_a_supervisor_that_is_killed(ring_prefix: str) -> None:
    async with make_simulators() as simulators:
        simulators = simulators[:2]
        settings = settings_of(simulators, ring_prefix)
        async with program(settings) as running:
            followers = [await running.follow(one.exchange) for one in simulators]
            children = running.children()
            running.process.kill()
            assert await running.end() == -signal.SIGKILL
            await gone(children)
            assert segments(ring_prefix) == []
            for follower in followers:
                follower.close()


async def test_a_killed_collector_is_started_again_and_readers_are_told(ring_prefix: str) -> None:
    simulator = KrakenSimulator(Market(SYMBOLS, seed=17, book_rate=200, levels=30))
    async with simulator, program(settings_of([simulator], ring_prefix)) as running:
        follower = await running.follow("kraken")
        await follower.until(partial(follower.is_live, *SYMBOLS))
        for _ in range(2):
            (child,) = running.children()
            epoch = follower.reader.epoch
            gaps = len(follower.gaps())
            os.kill(child, signal.SIGKILL)
            await follower.until(partial(_has_moved_on, follower, epoch))
            await follower.until(partial(follower.is_live, *SYMBOLS))
            assert len(follower.gaps()) == gaps + 1
            assert follower.gaps()[-1].reason is Reason.RESTARTED
            simulator.pause()
            await follower.until(
                lambda: all(
                    follower.book(symbol) == simulator.book(symbol, 1000) for symbol in SYMBOLS
                )
            )
            simulator.resume()
        follower.close()
        running.process.terminate()
        assert await running.end() == 0
        assert "SIGKILL" in running.output
        assert segments(ring_prefix) == []


class CountingSimulator(KrakenSimulator):
    """Counts its heartbeats."""

    def heartbeat(self) -> None:
        super().heartbeat()
        self.counts["heartbeats"] += 1
        self._notify()


@pytest.mark.usefixtures("quick_pulse")
async def test_a_stopped_process_takes_nobody_for_silent_when_it_goes_on(ring_prefix: str) -> None:
    simulator = CountingSimulator(Market(SYMBOLS, seed=17, book_rate=50, levels=30))
    async with simulator:
        settings = settings_for(simulator, ring_prefix, silence_seconds=0.5)
        async with program(settings) as running:
            follower = await running.follow("kraken")
            await follower.until(partial(follower.is_live, *SYMBOLS))
            (child,) = running.children()
            # What comes first then, the overdue timers or the sockets, isn't the same every time.
            for _ in range(3):
                os.kill(child, signal.SIGSTOP)
                beaten = simulator.counts["heartbeats"] + 4
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await simulator.wait_until(partial(_beaten, simulator, beaten))
                follower.read()
                seen = len(follower.events)
                os.kill(child, signal.SIGCONT)
                await follower.until(partial(_more_than, follower, seen))
            beats = follower.heartbeats
            await follower.until(lambda: follower.heartbeats > beats)
            assert (BookState.STALE, Reason.SILENT) not in follower.history("BTC-USD")
            assert simulator.counts["connections"] == 2
            follower.close()
            running.process.terminate()
            assert await running.end() == 0


async def test_all_killed_at_once_a_new_start_takes_the_rings_over(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(Market(SYMBOLS, seed=17, book_rate=200, levels=30))
    async with simulator:
        settings = settings_of([simulator], ring_prefix)
        async with program(settings) as running:
            follower = await running.follow("binance_us")
            await follower.until(partial(follower.is_live, *SYMBOLS))
            children = running.children()
            for child in children:
                os.kill(child, signal.SIGKILL)
            running.process.kill()
            await running.end()
            await gone(children)
        assert segments(ring_prefix)
        async with program(settings) as running:
            await follower.until(lambda: bool(follower.gaps()) and follower.is_live(*SYMBOLS))
            assert follower.gaps()[-1].reason is Reason.RESTARTED
            running.process.terminate()
            assert await running.end() == 0
        follower.close()
        assert segments(ring_prefix) == []


async def test_a_second_start_gives_up_and_names_the_first(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "HANDOVER_SECONDS", 0.3)
    simulator = KrakenSimulator(Market(SYMBOLS, seed=17, book_rate=50, levels=30))
    async with simulator:
        settings = settings_of([simulator], ring_prefix)
        async with program(settings) as first:
            follower = await first.follow("kraken")
            await follower.until(partial(follower.is_live, *SYMBOLS))
            (child,) = first.children()
            # A ring that can't be had is what a supervised process gives up for.
            with pytest.raises(RingBusy, match=f"is being written by process {child}"):
                await run_venue("kraken", settings, stop=asyncio.Event())
            follower.close()
            first.process.terminate()
            assert await first.end() == 0


async def test_a_group_that_the_ring_cannot_be_given_to_is_named(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    settings = Settings(ring=RingSettings(prefix=ring_prefix, size_bytes=1 << 16, group="0"))
    with pytest.raises(ConfigError, match="Operation not permitted") as caught:
        await run_venue("kraken", settings, stop=asyncio.Event())
    assert caught.value.key == "ring.group"


async def test_what_cannot_work_is_not_tried_for_ever(ring_prefix: str) -> None:
    simulator = KrakenSimulator(Market(SYMBOLS, seed=17))
    async with simulator:
        settings = settings_of([simulator], ring_prefix)
        ring = msgspec.structs.replace(settings.ring, group="no-such-group")
        async with program(msgspec.structs.replace(settings, ring=ring)) as running:
            assert await running.end() == 2
            assert "ring.group" in running.output
        nothing: dict[str, Any] = {
            name: msgspec.structs.replace(getattr(settings.venues, name), enabled=False)
            for name in settings.venues.__struct_fields__
        }
        venues = VenuesSettings(**nothing)
        async with program(msgspec.structs.replace(settings, venues=venues)) as running:
            assert await running.end() == 2
            assert "no venue is enabled" in running.output


async def by_hand(
    simulator: KrakenSimulator, prefix: str, ring_bytes: int = 8 << 20
) -> asyncio.subprocess.Process:
    """Start one venue's process without a supervisor."""
    environment = {
        **os.environ,
        "ALPHAPULSE__RING__PREFIX": prefix,
        "ALPHAPULSE__RING__SIZE_BYTES": str(ring_bytes),
        "ALPHAPULSE__VENUES__KRAKEN__WS_URL": simulator.ws_url,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "alphapulse.collectors.daemon",
        "kraken",
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_lack_of_shared_memory_is_nothing_to_give_up_for(ring_prefix: str) -> None:
    async with KrakenSimulator(Market(SYMBOLS, seed=17)) as simulator:
        running = Program(await by_hand(simulator, ring_prefix, 1 << 40), ring_prefix)
        # A supervisor starts it again, however the lack came about.
        assert await running.end() == 1
        assert "shared memory" in running.output
    assert segments(ring_prefix) == []


async def test_one_venue_by_hand(ring_prefix: str) -> None:
    simulator = KrakenSimulator(Market(SYMBOLS, seed=17, book_rate=50, levels=30))
    async with simulator:
        process = await by_hand(simulator, ring_prefix)
        running = Program(process, ring_prefix)
        try:
            follower = await running.follow("kraken")
            await follower.until(partial(follower.is_live, *SYMBOLS))
            follower.close()
            process.send_signal(signal.SIGINT)
            assert await running.end() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    assert segments(ring_prefix) == []


def _has_moved_on(follower: Follower, epoch: int) -> bool:
    return follower.reader.epoch != epoch


def _beaten(simulator: VenueSimulator, heartbeats: int) -> bool:
    return simulator.counts["heartbeats"] >= heartbeats


def _more_than(follower: Follower, events: int) -> bool:
    return len(follower.events) > events
