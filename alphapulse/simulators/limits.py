"""Budgets by which a venue turns clients away."""

from __future__ import annotations

from collections import deque

from alphapulse.clock import NS_PER_SECOND, monotonic_ns


class TokenBucket:
    """So many a second, and a burst on top after a pause.

    Parameters
    ----------
    per_second : how fast the bucket fills
    burst : how much it holds
    """

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self.burst = burst
        self._left = burst
        self._at_ns = monotonic_ns()

    def take(self) -> bool:
        """Use one; False if there is none left."""
        now = monotonic_ns()
        gained = (now - self._at_ns) * self.per_second / NS_PER_SECOND
        self._left = min(self.burst, self._left + gained)
        self._at_ns = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class RollingBudget:
    """So much within any window of time.

    Parameters
    ----------
    limit : what may be used within a window
    window_seconds : its length
    ban_seconds : how long nothing is granted after a use was refused
    """

    def __init__(self, limit: int, window_seconds: float, ban_seconds: float = 0.0) -> None:
        self.limit = limit
        self._window_ns = round(window_seconds * NS_PER_SECOND)
        self._ban_ns = round(ban_seconds * NS_PER_SECOND)
        self._banned_until_ns = 0
        self._uses: deque[tuple[int, int]] = deque()
        self.used = 0
        """What was used within the window that ends now."""

    def take(self, amount: int = 1) -> bool:
        """Use that much; False, and nothing used, if it would exceed the limit."""
        now = monotonic_ns()
        while self._uses and self._uses[0][0] <= now - self._window_ns:
            self.used -= self._uses.popleft()[1]
        if now < self._banned_until_ns:
            return False
        if self.used + amount > self.limit:
            self._banned_until_ns = now + self._ban_ns
            return False
        self._uses.append((now, amount))
        self.used += amount
        return True

    def wait_seconds(self) -> float:
        """How long until the oldest use leaves the window."""
        if not self._uses:
            return 0.0
        return max(self._uses[0][0] + self._window_ns - monotonic_ns(), 0) / NS_PER_SECOND
