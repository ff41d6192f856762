"""Waits for a ring in a thread, on behalf of an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from threading import Thread

from alphapulse._core.consumer import Consumer
from alphapulse._core.vigil import Vigil

_JOIN_SECONDS = 0.01


class Watcher:
    """One thread, started when it is first needed, that sleeps on a futex for an event loop.

    The thread never needs the interpreter: it writes to an eventfd that the loop polls, so that the
    loop is woken by the very call that follows the futex's.
    """

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call: Callable[[], None] | None = None
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._vigil = Vigil(self._event)
        self._thread = Thread(target=_run, args=(self._vigil, self._event), name=name, daemon=True)
        self._thread.start()

    def watch(
        self,
        call: Callable[[], None],
        consumer: Consumer,
        spin_ns: int,
        timeout_ns: int,
        ended: int,
    ) -> None:
        """Have the running loop call this when `Consumer.wait` would return.

        Now and then it is called earlier; and soon, if it wasn't yet, when this is stopped.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._leave()
            loop.add_reader(self._event, self._told)
            self._loop = loop
        self._call = call
        self._vigil.arm(consumer, spin_ns, timeout_ns, ended)

    async def news(self, consumer: Consumer, spin_ns: int, timeout_ns: int, ended: int) -> None:
        """The same for a coroutine: return then."""
        news = asyncio.get_running_loop().create_future()

        def tell() -> None:
            if not news.done():
                news.set_result(None)

        self.watch(tell, consumer, spin_ns, timeout_ns, ended)
        await news

    def interrupt(self) -> None:
        """Have it over with, if anybody waits."""
        call, self._call = self._call, None
        if call is not None:
            call()

    def stop(self) -> None:
        """End the thread."""
        if self._call is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call)
        self._call = None
        self._leave()
        while self._thread.is_alive():
            # It may have been about to sleep when it was told.
            self._vigil.end()
            self._thread.join(_JOIN_SECONDS)

    def _told(self) -> None:
        self._vigil.hear()
        self.interrupt()

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
