"""Events at random times, at a rate."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

SEED = 1
_LONGEST_SLEEP_SECONDS = 0.1


def bursts(rate: float, count: int) -> Iterator[int]:
    """So many events are due now, time and again, until all have been; sleeps in between.

    Parameters
    ----------
    rate : a second; each event is independent of the others
    count : of events
    """
    rng = random.Random(SEED)
    due = time.monotonic()
    left = count
    while left:
        now = time.monotonic()
        if due > now:
            time.sleep(min(due - now, _LONGEST_SLEEP_SECONDS))
            continue
        ready = 0
        while due <= now and ready < left:
            ready += 1
            due += rng.expovariate(rate)
        left -= ready
        yield ready
