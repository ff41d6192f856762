"""Waits for a ring in a thread, on behalf of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from queue import SimpleQueue
from threading import Thread

from alphapulse._core.consumer import Consumer

_Task = tuple[asyncio.AbstractEventLoop, asyncio.Future[None], Consumer, int, int, int]


class Watcher:
    """One thread, started when it is first needed, that sleeps on a futex for coroutines."""

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = Thread(target=_run, args=(self._tasks,), name=name, daemon=True)
        self._thread.start()

    async def news(self, consumer: Consumer, spin_ns: int, timeout_ns: int, ended: int) -> None:
        """Return when `Consumer.wait` has returned."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._tasks.put((loop, future, consumer, spin_ns, timeout_ns, ended))
        await future

    def stop(self, consumer: Consumer) -> None:
        """End the thread, which may be waiting for this consumer's ring."""
        self._tasks.put(None)
        consumer.nudge()
        self._thread.join()

    def __del__(self) -> None:
        self._tasks.put(None)


def _run(tasks: SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        loop, future, consumer, spin_ns, timeout_ns, ended = task
        if not future.cancelled():
            consumer.wait(spin_ns, timeout_ns, ended)
        # The loop may have been closed meanwhile: then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_finish, future)
        del task, loop, future, consumer


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
