"""Sleeps that are shorter than an event loop's own timers can measure."""

from __future__ import annotations

import asyncio
import os

from alphapulse._core.alarm import open_alarm, set_alarm
from alphapulse.shm.liveness import Held
from alphapulse.shm.polling import Polled

_COUNT_BYTES = 8


class Alarm:
    """Sleeps for one coroutine at a time, to within some microseconds."""

    def __init__(self) -> None:
        self._held = Held(-1)
        self._polled: Polled | None = None
        self._future: asyncio.Future[None] | None = None

    async def sleep(self, nanoseconds: int) -> None:
        """Return so much later."""
        if self._polled is None or not self._polled.is_here():
            self.close()
            self._held = Held(open_alarm())
            self._polled = Polled(self._held.fd, self._told)
        self._future = asyncio.get_running_loop().create_future()
        set_alarm(self._held.fd, nanoseconds)
        await self._future

    def close(self) -> None:
        """Give the timer back. May be called twice."""
        polled, self._polled = self._polled, None
        if polled is not None:
            polled.forget(self._held.close)

    def _told(self) -> None:
        try:
            os.read(self._held.fd, _COUNT_BYTES)
        except BlockingIOError:
            return  # set anew meanwhile
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
