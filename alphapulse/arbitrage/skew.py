"""How far a venue's clock is from ours, as far as its messages tell."""

from __future__ import annotations

from collections import deque

from alphapulse.clock import NS_PER_SECOND

BUCKET_NS = 10 * NS_PER_SECOND
BUCKETS = 30
"""The estimate looks back over five minutes, so that it follows clocks that drift or are set."""

_NONE = 1 << 64


class Skew:
    """The least of "received by us" minus "happened at the venue" over the last minutes.

    It is the difference of the clocks plus the quickest way of a message. The way isn't known, so
    that the difference of the clocks isn't either; but what a message takes beyond it is.
    """

    __slots__ = ("_bucket", "_least", "_lowest", "_past")

    def __init__(self) -> None:
        self._past: deque[tuple[int, int]] = deque()
        self._bucket = -1
        self._lowest = _NONE
        self._least = _NONE

    @property
    def least_ns(self) -> int | None:
        """The estimate in nanoseconds; None before the first message with a time."""
        return None if self._least == _NONE else self._least

    def add(self, received_ns: int, delay_ns: int) -> None:
        """A message was received that the venue dates `delay_ns` earlier."""
        bucket = received_ns // BUCKET_NS
        if bucket != self._bucket:
            self._turn(bucket)
        if delay_ns < self._lowest:
            self._lowest = delay_ns
            self._least = min(self._least, delay_ns)

    def _turn(self, bucket: int) -> None:
        past = self._past
        if self._lowest != _NONE:
            past.append((self._bucket, self._lowest))
        # A clock that was set back makes what came before as unusable as what is too old.
        while past and not bucket - BUCKETS < past[0][0] <= bucket:
            past.popleft()
        self._bucket = bucket
        self._lowest = _NONE
        self._least = min((lowest for _, lowest in past), default=_NONE)
