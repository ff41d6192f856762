"""Time as far as this process has been running, to judge others' silence by."""

from __future__ import annotations

import time

from alphapulse.backoff import Clock


class RunningClock:
    """Seconds that grow while this process runs, and stand still while it is stopped.

    What the venues sent to a stopped process waits in its sockets: time in which nobody could read
    it proves no silence. The process is taken to be stopped where it doesn't come to call `tick`
    as soon as it has promised.

    Parameters
    ----------
    clock : where time comes from
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stopped_seconds = 0.0
        self._promised = float("inf")

    def now(self) -> float:
        """Seconds since some moment."""
        return min(self._clock(), self._promised) - self._stopped_seconds

    def tick(self, within_seconds: float) -> None:
        """Say that the process runs, and that it will say so again within that time."""
        now = self._clock()
        self._stopped_seconds += max(0.0, now - self._promised)
        self._promised = now + within_seconds
