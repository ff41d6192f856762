"""Who subscribes to what, and what the load client says of it in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from benchmarks.fanout_feed import Done


class Phase(msgspec.Struct, frozen=True):
    """What the load client has counted from one moment to another."""

    name: str
    deliveries: int
    apart: int
    """Snapshots."""
    bytes: int
    reads: int
    seconds: float
    """From the first to the last delivery."""
    rate: float
    """Deliveries a second."""
    p50_us: float
    p99_us: float
    p999_us: float
    most_us: float
    cpu_seconds: float
    """The load client's own."""


class Stalled(msgspec.Struct, frozen=True):
    """What the client got that stopped reading."""

    deliveries: int
    apart: int
    close_code: int


class Report(msgspec.Struct, frozen=True):
    """What the load client says in the end."""

    clients: int
    failed: int
    disconnects: int
    least: int
    """Deliveries of the client that got the fewest."""
    most: int
    closed: Mapping[str, int]
    cpu_seconds: float
    total: int
    phases: list[Phase]
    stalled: Stalled | None = None

    def check(self, done: Done) -> None:
        """Raise RuntimeError unless each client got every event of its symbols."""
        if self.total != done.deliveries or self.disconnects:
            raise RuntimeError(f"{done.deliveries} deliveries were due, but: {self}")

    def phase(self, name: str) -> Phase:
        """The phase of that name."""
        return next(one for one in self.phases if one.name == name)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Who subscribes to what.

    Parameters
    ----------
    clients : how many
    symbols : of the market
    each : symbols that each client subscribes to
    """

    clients: int
    symbols: int = 10
    each: int = 10

    def chosen(self) -> list[list[int]]:
        """Symbols of the clients, as often as it takes until they repeat themselves."""
        count = self.symbols
        return [sorted((first + i) % count for i in range(self.each)) for first in range(count)]

    def readers(self) -> list[int]:
        """Clients by symbol."""
        chosen = self.chosen()
        found = Counter(
            symbol for number in range(self.clients) for symbol in chosen[number % len(chosen)]
        )
        return [found[number] for number in range(self.symbols)]
