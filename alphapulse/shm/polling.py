"""Descriptors that an event loop polls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import get_ident


class Polled:
    """A descriptor that the running loop polls, until it is told to forget it.

    Parameters
    ----------
    fd : what to poll
    call : by the loop, whenever there is something to read
    """

    def __init__(self, fd: int, call: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread_id = get_ident()
        self._fd = fd
        self._loop.add_reader(fd, call)

    def is_here(self) -> bool:
        """Whether the loop that polls is the running one, still in the thread where it began."""
        return self._loop is asyncio.get_running_loop() and self._thread_id == get_ident()

    def tell(self, call: Callable[[], None]) -> None:
        """Have the loop call this once, soon, unless it is closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def forget(self, close: Callable[[], None]) -> None:
        """Have the loop poll no more, then close; later, if the loop runs in another thread.

        A loop's descriptors are its own thread's: uvloop looks at them without a lock.
        """
        if self._loop.is_running() and self._thread_id != get_ident():
            self._loop.call_soon_threadsafe(self._forget, close)
        else:
            self._forget(close)

    def _forget(self, close: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        close()
