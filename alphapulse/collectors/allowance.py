"""Budgets that nobody exceeds, and who waits for them.

Time comes from a clock that is handed in, in seconds that only ever grow.
"""

from __future__ import annotations

import asyncio
import time

from alphapulse.backoff import Clock
from alphapulse.collectors.venue import Budget


class TokenBucket:
    """A budget as a bucket that fills evenly: `Budget.amount` per `Budget.seconds`, and a burst.

    Parameters
    ----------
    budget : the venue's allowance
    share : part of it to use, above 0 to 1
    clock : where time comes from
    """

    def __init__(self, budget: Budget, share: float = 1.0, *, clock: Clock) -> None:
        self._share = share
        self._clock = clock
        self._set(budget)
        self._left = self._burst
        self._at = clock()

    def _set(self, budget: Budget) -> None:
        self._rate = budget.amount * self._share / budget.seconds
        self._burst = max(1.0, budget.burst * self._share)

    def change(self, budget: Budget) -> None:
        """Go on with another allowance; what has been used stays used."""
        self._refill()
        self._set(budget)
        self._left = min(self._left, self._burst)

    def wait_seconds(self, amount: float = 1.0) -> float:
        """How long until that much can be taken; 0 for now.

        What is larger than the whole burst has to wait for a full bucket, and leaves it empty for
        as long as the rest takes.
        """
        self._refill()
        lacking = min(amount, self._burst) - self._left
        # Less than a thousandth short is a rounding error of the clock.
        held = max(0.0, self._at - self._clock())
        return held + (lacking / self._rate if lacking > 1e-3 else 0.0)

    def take(self, amount: float = 1.0) -> bool:
        """Take that much; False, and nothing taken, if it isn't there yet."""
        if self.wait_seconds(amount) > 0:
            return False
        self._left -= amount
        return True

    def hold(self, seconds: float) -> None:
        """Give nothing for so long, and begin with a single one then, not with a burst."""
        self._refill()
        self._at = max(self._at, self._clock() + seconds)
        self._left = min(self._left, 1.0)

    def _refill(self) -> None:
        now = self._clock()
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now


class Allowance:
    """A token bucket that tasks wait at, first come, first served.

    Parameters
    ----------
    budget, share : as for `TokenBucket`
    """

    def __init__(self, budget: Budget, share: float = 1.0) -> None:
        self._bucket = TokenBucket(budget, share, clock=time.monotonic)
        self._queue = asyncio.Lock()

    def change(self, budget: Budget) -> None:
        """Go on with another allowance."""
        self._bucket.change(budget)

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so long; those who wait already wait longer."""
        self._bucket.hold(seconds)

    def try_take(self, amount: float = 1.0) -> bool:
        """Take at once, before those who wait; False if there isn't enough left."""
        return self._bucket.take(amount)

    async def take(self, amount: float = 1.0) -> None:
        """Wait until it is this task's turn and there is enough left, and take it."""
        async with self._queue:
            while True:
                # A hold may come while this task sleeps.
                seconds = self._bucket.wait_seconds(amount)
                if seconds <= 0:
                    break
                await asyncio.sleep(seconds)
            self._bucket.take(amount)
