"""Waits for a ring on behalf of an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from threading import Thread

from alphapulse._core.consumer import Consumer
from alphapulse._core.uring import UringVigil
from alphapulse._core.vigil import Vigil
from alphapulse.shm.polling import Polled

_JOIN_SECONDS = 0.01


class Watcher:
    """Has an event loop call back when there is something to read in a ring.

    The loop polls an eventfd that the kernel writes to in the very call that wakes the ring's
    readers. Where the kernel can't, or may not (io_uring is often forbidden in containers), and for
    a reader that spins, a thread waits and writes to it: that is a second wake-up.

    Parameters
    ----------
    name : of the thread
    spins : whether the reader spins
    """

    def __init__(self, name: str, spins: bool) -> None:
        self._name = name
        self._threaded = spins
        self._call: Callable[[], None] | None = None
        self._wait: _InKernel | _InThread | None = None
        self._polled: Polled | None = None

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
        wait, polled = self._wait, self._polled
        if wait is None or polled is None or not polled.is_here():
            wait = self._begin()
        self._call = call
        try:
            wait.arm(consumer, spin_ns, timeout_ns, ended)
        except OSError:
            self._threaded = True
            self._begin().arm(consumer, spin_ns, timeout_ns, ended)

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

    def stop(self, *, join: bool = True) -> None:
        """End the wait; without joining a thread, it ends soon by itself."""
        call, self._call = self._call, None
        if call is not None and self._polled is not None:
            self._polled.tell(call)
        self._drop(join=join)

    def _begin(self) -> _InKernel | _InThread:
        self._drop()
        try:
            wait = _InThread(self._name) if self._threaded else _InKernel()
        except OSError:
            self._threaded = True
            wait = _InThread(self._name)
        self._wait, self._polled = wait, Polled(wait.event, self._told)
        return wait

    def _told(self) -> None:
        wait, polled = self._wait, self._polled
        if wait is not None and polled is not None:
            try:
                wait.hear()
            except OSError:
                # Whoever is called begins another: in a thread, unless it is just that the loop
                # runs in another one by now.
                self._threaded = self._threaded or polled.is_here()
                self._drop()
        self.interrupt()

    def _drop(self, *, join: bool = True) -> None:
        """Have no wait any more, and the loop forget it."""
        wait, polled = self._wait, self._polled
        self._wait = self._polled = None
        if wait is not None and polled is not None:
            polled.forget(wait.close if join else wait.end)


class _InKernel:
    """A wait of the kernel's own."""

    def __init__(self) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._vigil = UringVigil(self.event)
        except OSError:
            os.close(self.event)
            raise
        self.hear = self._vigil.hear

    def arm(self, consumer: Consumer, spin_ns: int, timeout_ns: int, ended: int) -> None:
        self._vigil.arm(consumer, timeout_ns, ended)

    def end(self) -> None:
        self._vigil.close()
        os.close(self.event)

    close = end


class _InThread:
    """A wait in a thread, which never needs the interpreter."""

    def __init__(self, name: str) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._vigil = Vigil(self.event)
        self.arm, self.hear = self._vigil.arm, self._vigil.hear
        self._thread = Thread(target=_watch, args=(self._vigil, self.event), name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Have the thread end, and close the eventfd, soon."""
        self._vigil.end()

    def close(self) -> None:
        while self._thread.is_alive():
            # It may have been about to sleep when it was told.
            self.end()
            self._thread.join(_JOIN_SECONDS)


def _watch(vigil: Vigil, event: int) -> None:
    vigil.run()
    os.close(event)
