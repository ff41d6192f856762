"""Waits for a ring in a thread, on behalf of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from threading import Thread

from alphapulse._core.consumer import Consumer
from alphapulse._core.vigil import Vigil

_JOIN_SECONDS = 0.01


class Watcher:
    """One thread, started when it is first needed, that sleeps on a futex for coroutines.

    The thread never needs the interpreter: it writes to an eventfd that the loop polls, so that the
    loop is woken by the very call that follows the futex's.
    """

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._vigil = Vigil(self._event)
        self._thread = Thread(target=_run, args=(self._vigil, self._event), name=name, daemon=True)
        self._thread.start()

    async def news(self, consumer: Consumer, spin_ns: int, timeout_ns: int, ended: int) -> None:
        """Return when `Consumer.wait` would; now and then earlier, too."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._leave()
            loop.add_reader(self._event, self._told)
            self._loop = loop
        self._future = loop.create_future()
        self._vigil.arm(consumer, spin_ns, timeout_ns, ended)
        await self._future

    def interrupt(self) -> None:
        """Have `news` return, if a coroutine waits for some."""
        self._finish()

    def stop(self) -> None:
        """End the thread."""
        self._leave()
        while self._thread.is_alive():
            # It may have been about to sleep when it was told.
            self._vigil.end()
            self._thread.join(_JOIN_SECONDS)
        self._finish()

    def _told(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        self._finish()

    def _finish(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def _leave(self) -> None:
        """Have the loop forget the eventfd, which the thread closes when it ends."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._event)
        self._loop = None

    def __del__(self) -> None:
        self._leave()
        if hasattr(self, "_vigil"):
            self._vigil.end()


def _run(vigil: Vigil, event: int) -> None:
    vigil.run()
    os.close(event)
