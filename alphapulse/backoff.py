"""How long to wait before trying again.

Time comes from a clock that is handed in, in seconds that only ever grow.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds from some fixed moment on, never going back."""

_MOST_DOUBLINGS = 64


class Backoff:
    """Pauses between attempts: each longer than the one before, none predictable.

    Opening a connection proves nothing: the pause is short again only once data has flowed for a
    while.

    Parameters
    ----------
    first_seconds : mean of the first pause; each further one is twice as long
    max_seconds : longest mean
    reset_seconds : how long data has to flow until the next pause is the first one again
    clock, rng : where time and chance come from

    Attributes
    ----------
    attempts : failures since the last reset
    """

    def __init__(
        self,
        first_seconds: float,
        max_seconds: float,
        reset_seconds: float,
        *,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.attempts = 0
        self._first = first_seconds
        self._max = max(first_seconds, max_seconds)
        self._reset = reset_seconds
        self._clock = clock
        self._rng = rng or random.Random()
        self._flowing_since: float | None = None

    def flowing(self) -> None:
        """Data came since the last call, or since the last failure; call it now and then."""
        now = self._clock()
        if self._flowing_since is None:
            self._flowing_since = now
        elif now - self._flowing_since >= self._reset:
            self.attempts = 0

    def failed(self) -> float:
        """Seconds to wait before the next attempt: the mean, give or take half of it."""
        self._flowing_since = None
        mean = min(self._max, self._first * 2.0 ** min(self.attempts, _MOST_DOUBLINGS))
        self.attempts += 1
        return mean * self._rng.uniform(0.5, 1.5)
