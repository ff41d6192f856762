"""Readers that wait: who wakes them, what ends it, and what it costs the writer."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alphapulse._core.uring import UringVigil
from alphapulse.errors import RingError
from alphapulse.model import (
    Event,
    InstrumentDefined,
    Overrun,
)
from alphapulse.shm import ReaderInfo, RingReader, RingWriter, list_rings, watcher
from tests.ring_process import Attach, attaching, begin_book, eventually, put
from tests.ring_records import instrument_record
from tests.ring_waits import KINDS, forbid_io_uring


@pytest.fixture
def writer(ring_prefix: str) -> Iterator[RingWriter]:
    with RingWriter("kraken", prefix=ring_prefix, size_bytes=1 << 16, max_instruments=8) as writer:
        yield writer


@pytest.fixture
def attach(ring_prefix: str) -> Iterator[Attach]:
    with attaching(ring_prefix) as start:
        yield start


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who waits on behalf of an event loop."""
    if request.param == "thread":
        forbid_io_uring(monkeypatch)
    return str(request.param)


def waits() -> int:
    """Of this process: open eventfds and io_urings."""
    files = Path("/proc/self/fd")
    kinds = [os.readlink(files / name) for name in os.listdir(files) if (files / name).is_symlink()]
    return sum("[eventfd]" in kind or "[io_uring]" in kind for kind in kinds)


def this_ring(writer: RingWriter, prefix: str) -> tuple[ReaderInfo, ...]:
    (ring,) = list_rings(prefix=prefix)
    assert ring.epoch == writer.epoch
    return ring.readers


def test_one_wake_up_for_a_burst_and_none_without_sleepers(
    ring_prefix: str, writer: RingWriter, attach: Attach
) -> None:
    reader = attach("oldest")
    put(writer, 100)
    assert writer.wakes == 0
    assert len(reader.read()) == 100
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(reader.wait(30)))
    thread.start()
    eventually(lambda: this_ring(writer, ring_prefix)[0].sleeping)
    put(writer, 100)
    put(writer, 100)
    thread.join()
    assert woken == [True]
    assert writer.wakes == 1
    assert len(reader.read()) == 200


def test_spinning_reader_does_not_ask_to_be_woken(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest", spin_ns=60_000_000_000)
    thread = threading.Thread(target=reader.wait, args=(30,))
    thread.start()
    put(writer, 1)
    thread.join()
    assert writer.wakes == 0


def test_wait_ends_with_its_timeout(writer: RingWriter, attach: Attach) -> None:
    reader = attach()
    assert not reader.wait(0)
    assert not reader.wait(0.001)
    put(writer, 1)
    assert reader.wait(0)
    assert reader.wait(None)


async def test_ready_returns_when_there_is_something(
    ring_prefix: str, writer: RingWriter, attach: Attach, kind: str
) -> None:
    reader = attach("oldest")
    put(writer, 1)
    await reader.ready()
    assert len(reader.read()) == 1
    waiting = asyncio.ensure_future(reader.ready())
    await asyncio.to_thread(eventually, lambda: this_ring(writer, ring_prefix)[0].sleeping)
    assert not waiting.done()
    put(writer, 1)
    await asyncio.wait_for(waiting, 30)
    assert len(reader.read()) == 1


async def test_ready_can_be_cancelled_and_asked_again(
    writer: RingWriter, attach: Attach, kind: str
) -> None:
    reader = attach("oldest")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.ready(), 0.01)
    put(writer, 1)
    await asyncio.wait_for(reader.ready(), 30)
    assert len(reader.read()) == 1


def test_ready_goes_on_when_another_thread_runs_the_loop(
    writer: RingWriter, attach: Attach, kind: str
) -> None:
    reader, loop = attach("oldest"), asyncio.new_event_loop()
    problems: list[object] = []
    loop.set_exception_handler(lambda _, problem: problems.append(problem))

    async def begin() -> asyncio.Task[None]:
        waiting = asyncio.create_task(reader.ready())
        await asyncio.sleep(0)
        return waiting

    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(loop.run_until_complete, begin()).result()
    put(writer, 1)
    loop.run_until_complete(asyncio.wait_for(waiting, 30))
    assert len(reader.read()) == 1
    assert not problems
    reader.close()
    loop.close()


async def test_a_thread_takes_over_from_a_kernel_that_fails(
    writer: RingWriter, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(UringVigil):
        def hear(self) -> None:
            raise OSError(errno.ENOMEM, "io_uring: no memory")

    monkeypatch.setattr(watcher, "UringVigil", Failing)
    reader = attach("oldest")
    before = threading.active_count()
    for _ in range(2):
        waiting = asyncio.create_task(reader.ready())
        await asyncio.sleep(0)
        put(writer, 1)
        await asyncio.wait_for(waiting, 30)
        assert len(reader.read()) == 1
    waiting = asyncio.create_task(reader.ready())
    await asyncio.sleep(0)
    assert threading.active_count() == before + 1
    reader.close()
    await waiting


async def test_closing_ends_ready_and_what_it_took(
    writer: RingWriter, attach: Attach, kind: str
) -> None:
    before, open_before = threading.active_count(), waits()
    reader = attach("oldest")
    waiting = asyncio.ensure_future(reader.ready())
    await asyncio.sleep(0)
    assert threading.active_count() == before + (kind == "thread")
    assert waits() == open_before + (2 if kind == "kernel" else 1)
    reader.close()
    await asyncio.wait_for(waiting, 30)
    assert threading.active_count() == before
    assert waits() == open_before


def descriptors() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/fd"))


async def test_a_reader_that_is_dropped_gives_back_what_it_took(
    ring_prefix: str, writer: RingWriter, kind: str
) -> None:
    async def use() -> RingReader:
        reader = RingReader("kraken", prefix=ring_prefix)
        await reader.ready(0.001, pause_ns=1)
        reader.when_ready(lambda: None)
        return reader

    await use_up(asyncio.create_task(use()))
    before, threads = descriptors(), threading.active_count()
    reader = await use()
    assert len(this_ring(writer, ring_prefix)) == 1
    assert descriptors() >= before + 4
    with pytest.warns(ResourceWarning, match="kraken' wasn't closed"):
        del reader
    assert this_ring(writer, ring_prefix) == ()
    await asyncio.to_thread(eventually, lambda: threading.active_count() <= threads + 1)
    assert descriptors() == before


async def use_up(opening: asyncio.Task[RingReader]) -> None:
    """Have the loop and its threads take what they need themselves."""
    (await opening).close()
    await asyncio.to_thread(eventually, lambda: True)


async def test_a_reader_may_be_dropped_by_another_thread(
    ring_prefix: str, writer: RingWriter, kind: str
) -> None:
    held = [RingReader("kraken", prefix=ring_prefix)]
    await held[0].ready(0.001, pause_ns=1)

    def drop() -> None:
        with pytest.warns(ResourceWarning, match="wasn't closed"):
            held.clear()

    open_before = waits()
    await asyncio.to_thread(drop)
    await asyncio.sleep(0)
    await asyncio.to_thread(eventually, lambda: waits() < open_before)
    assert waits() == open_before - (2 if kind == "kernel" else 1)


async def test_a_coroutine_that_waits_keeps_its_reader(
    ring_prefix: str, writer: RingWriter, kind: str
) -> None:
    found: list[int] = []

    async def wait() -> None:
        with RingReader("kraken", prefix=ring_prefix) as reader:
            await reader.ready()
            found.append(len(reader.read()))
        done.set()

    done = asyncio.Event()
    asyncio.create_task(wait()).add_done_callback(lambda _: None)
    await asyncio.sleep(0)
    gc.collect()
    put(writer, 1)
    await asyncio.wait_for(done.wait(), 30)
    assert found == [1]


async def test_asynchronous_iteration_gives_events(
    writer: RingWriter, attach: Attach, kind: str
) -> None:
    reader = attach("oldest")
    begin_book(writer)
    found: list[Event] = []
    async for event in reader:
        found.append(event)
        if len(found) == 3:
            put(writer, 5000)
            writer.write(instrument_record(2))
        if isinstance(event, InstrumentDefined) and event.instrument.id == 2:
            break
    assert [type(event) for event in found[-2:]] == [Overrun, InstrumentDefined]


def test_closing_ends_a_wait_in_another_thread(
    ring_prefix: str, writer: RingWriter, attach: Attach
) -> None:
    reader = attach()
    thread = threading.Thread(target=reader.wait)
    thread.start()
    eventually(lambda: this_ring(writer, ring_prefix)[0].sleeping)
    reader.close()
    thread.join()
    with pytest.raises(RingError, match="closed"):
        reader.read()
    with pytest.raises(RingError, match="closed"):
        _ = reader.writer_alive


async def test_a_pause_ends_after_its_time_whatever_comes(
    writer: RingWriter, attach: Attach
) -> None:
    reader = attach("oldest")
    put(writer, 1)
    began = time.monotonic_ns()
    await reader.ready(pause_ns=300_000)
    assert time.monotonic_ns() - began >= 300_000
    assert len(reader.read()) == 1
    assert writer.wakes == 0


async def test_ready_ends_with_its_time_or_a_nudge(
    writer: RingWriter, attach: Attach, kind: str
) -> None:
    reader = attach("oldest")
    await reader.ready(0.001)
    assert not reader.read()
    waiting = asyncio.create_task(reader.ready())
    await asyncio.sleep(0)
    reader.nudge()
    await waiting
    put(writer, 1)
    await reader.ready()
    assert len(reader.read()) == 1


async def test_a_loop_is_called_back_when_there_is_something(
    writer: RingWriter, attach: Attach, kind: str
) -> None:
    reader = attach("oldest")
    called = asyncio.Event()

    async def call() -> None:
        reader.when_ready(called.set)
        assert not called.is_set(), "never at once"
        await called.wait()
        called.clear()

    put(writer, 3)
    await call()
    assert len(reader.read()) == 3
    for count in (1, 2, 1):
        loop = asyncio.get_running_loop()
        loop.call_soon(put, writer, count)
        taken = 0
        while taken < count:
            await call()
            taken += len(reader.read())
    reader.when_ready(called.set)
    reader.close()
    await called.wait()
    called.clear()
    await call()
