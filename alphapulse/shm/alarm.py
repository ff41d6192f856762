"""Sleeps that are shorter than an event loop's own timers can measure."""

from __future__ import annotations

import asyncio
import os

from alphapulse._core.alarm import open_alarm, set_alarm
from alphapulse.shm.liveness import Held

_COUNT_BYTES = 8


class Alarm:
    """Sleeps for one coroutine at a time, to within some microseconds."""

    def __init__(self) -> None:
        self._held = Held(open_alarm())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None

    async def sleep(self, nanoseconds: int) -> None:
        """Return so much later."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._leave()
            loop.add_reader(self._held.fd, self._told)
            self._loop = loop
        self._future = loop.create_future()
        set_alarm(self._held.fd, nanoseconds)
        await self._future

    def close(self) -> None:
        """Give the timer back. May be called twice."""
        self._leave()
        self._held.close()

    def _told(self) -> None:
        try:
            os.read(self._held.fd, _COUNT_BYTES)
        except BlockingIOError:
            return  # set anew meanwhile
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def _leave(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._held.fd)
        self._loop = None
