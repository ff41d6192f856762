"""What the records of a ring amount to: sizes, changes and latencies, symbol by symbol."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from alphapulse.api.bodies import Compression, Distribution
from alphapulse.clock import NO_TIME
from alphapulse.shm import RawRecord

WINDOW = 4096
"""Latest observations of a symbol that distributions are made of."""

_BODY = 40
"""Where a record's body begins (docs/wire-format.md)."""


class Window:
    """The latest observations of a number, in a ring of fixed size."""

    __slots__ = ("_at", "_values")

    def __init__(self) -> None:
        self._values: array[int] = array("q")
        self._at = 0

    def add(self, value: int) -> None:
        """Take one in; the oldest makes room for it."""
        if len(self._values) < WINDOW:
            self._values.append(value)
        else:
            self._values[self._at] = value
            self._at = (self._at + 1) % WINDOW

    @property
    def values(self) -> Sequence[int]:
        """In no order."""
        return self._values


class Traffic:
    """One symbol's records, counted."""

    __slots__ = (
        *("changes", "latency", "snapshot_bytes", "snapshots", "transit"),
        *("update_bytes", "updates"),
    )

    def __init__(self) -> None:
        self.updates = 0
        self.update_bytes = 0
        self.snapshots = 0
        self.snapshot_bytes = 0
        self.changes = Window()
        self.latency = Window()
        """From a frame's arrival at the collector until its record was in the ring; nanoseconds.
        Of trades, too, but not the transit: a venue tells old ones again."""
        self.transit = Window()
        """From the venue's time to the frame's arrival, differences of clocks included."""

    def take_update(self, record: RawRecord) -> None:
        """Count a delta."""
        self.updates += 1
        self.update_bytes += len(record)
        self.changes.add(_changes(record.data))
        self.latency.add(record.published_ns - record.received_ns)
        if record.exchange_ns != NO_TIME:
            self.transit.add(record.received_ns - record.exchange_ns)

    def take_snapshot(self, record: RawRecord) -> None:
        """Count a snapshot; what is repeated tells nothing of latencies."""
        self.snapshots += 1
        self.snapshot_bytes += len(record)


def compression_of(traffic: Sequence[Traffic]) -> Compression:
    """What several symbols' records amount to; the ratio weighs each symbol by its updates."""
    updates = sum(one.updates for one in traffic)
    update_bytes = sum(one.update_bytes for one in traffic)
    counted = [one for one in traffic if one.snapshots and one.updates]
    whole = sum(one.updates * one.snapshot_bytes / one.snapshots for one in counted)
    changed = sum(one.update_bytes for one in counted)
    return Compression(
        updates=updates,
        update_bytes=update_bytes,
        snapshots=sum(one.snapshots for one in traffic),
        snapshot_bytes=sum(one.snapshot_bytes for one in traffic),
        ratio=round(whole / changed, 3) if changed else None,
    )


def distribution_of(windows: Iterable[Window], divisor: int = 1) -> Distribution:
    """Of all observations of several windows together, each divided by a number."""
    values = sorted(value for window in windows for value in window.values)
    if not values:
        return Distribution(count=0, mean=None, p50=None, p95=None, p99=None, max=None)

    def rank(percent: int) -> float:
        # The smallest value that at least so many percent don't exceed.
        return values[-(-len(values) * percent // 100) - 1] / divisor

    return Distribution(
        count=len(values),
        mean=round(sum(values) / len(values) / divisor, 3),
        p50=rank(50),
        p95=rank(95),
        p99=rank(99),
        max=values[-1] / divisor,
    )


def _changes(data: memoryview) -> int:
    """How many levels a delta changes: the third and fourth of its leading uvarints."""
    at = _BODY
    number = shift = field = total = 0
    while field < 4:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if field >= 2:
                total += number
            field += 1
            number = shift = 0
    return total
