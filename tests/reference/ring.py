"""Plain-Python twin of the native ring: what a reader must be given, worked out from all records.

It keeps every record ever written and says which of them the ring still holds; nothing is
concurrent here. Records are known by their sequence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

INSTRUMENT, SNAPSHOT, DELTA, TRADE, STATE, GAP, HEARTBEAT = range(1, 8)
LIVE = 1


@dataclass
class Refused:
    """The ring is too small for the record."""

    needed_bytes: int


@dataclass
class Kept:
    """One record as it was written."""

    position: int
    kind: int
    instrument: int
    data: bytes

    @property
    def padded(self) -> int:
        return (len(self.data) + 7) // 8 * 8


@dataclass
class ReferenceRing:
    """The writer, and all that it ever wrote."""

    capacity: int
    ring_id: int
    records: list[Kept] = field(default_factory=list)
    snapshots: dict[int, int | None] = field(default_factory=dict)
    """Sequence of each announced instrument's latest snapshot, None while it can't be shown."""
    states: dict[int, int] = field(default_factory=dict)
    index: dict[int, int] = field(default_factory=dict)
    area: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.area = bytearray(self.capacity)
        self.sequences: dict[int, int] = {}
        self.block_bytes = max(4096, self.capacity // 1024)
        self.block_count = self.capacity // self.block_bytes

    @property
    def committed(self) -> int:
        return self.position(len(self.records) + 1)

    def position(self, sequence: int) -> int:
        """Where a record begins, or would begin if it were the next."""
        if sequence <= len(self.records):
            return self.records[sequence - 1].position
        return self.records[-1].position + self.records[-1].padded if self.records else 0

    def kept(self, sequence: int) -> Kept:
        return self.records[sequence - 1]

    def holds(self, position: int) -> bool:
        return self.committed - position <= self.capacity

    def write(self, record: bytes, published_ns: int) -> int | Refused:
        """Write a record and return its sequence, or refuse it."""
        padded = (len(record) + 7) // 8 * 8
        kind, instrument = record[4], record[6] | record[7] << 8
        share = self.capacity // 8
        if padded > share:
            return Refused(_needed(padded))
        if kind == SNAPSHOT:
            live = {i: self.kept(s).padded for i, s in self.snapshots.items() if s is not None}
            live[instrument] = padded
            if sum(live.values()) > share:
                return Refused(_needed(sum(live.values())))
        position, sequence = self.committed, len(self.records) + 1
        route = sequence | self.ring_id << 48
        stamped = b"".join(
            (record[:8], struct.pack("<Q", route), record[16:32], struct.pack("<q", published_ns))
        )
        stamped += record[40:]
        self.records.append(Kept(position, kind, instrument, stamped))
        self.sequences[position] = sequence
        offset, whole = position % self.capacity, stamped.ljust(padded, b"\0")
        before, after = whole[: self.capacity - offset], whole[self.capacity - offset :]
        self.area[offset : offset + len(before)] = before
        self.area[: len(after)] = after
        block = position // self.block_bytes
        slot = block % self.block_count
        if slot not in self.index or self.index[slot] // self.block_bytes != block:
            self.index[slot] = position
        self._note(kind, instrument, sequence, record)
        return sequence

    def _note(self, kind: int, instrument: int, sequence: int, record: bytes) -> None:
        if kind == INSTRUMENT:
            self.snapshots.setdefault(instrument, None)
            self.states.setdefault(instrument, 0)
        elif kind == SNAPSHOT:
            self.snapshots[instrument] = sequence
        elif kind == STATE:
            self.states[instrument] = record[40]
            if record[40] != LIVE:
                self.snapshots[instrument] = None

    def starts(self) -> list[int]:
        """Sequences of the records that the block index knows, ascending."""
        return sorted(self.sequences[position] for position in self.index.values())

    def first_from(self, position: int) -> int:
        """Sequence of the first indexed record at or after a position, else the next one's."""
        blocks = position // self.block_bytes
        for sequence in self.starts():
            found = self.position(sequence)
            if found >= position and found // self.block_bytes >= blocks:
                return sequence
        return len(self.records) + 1

    def oldest_snapshot(self) -> int | None:
        """Sequence of the oldest of the live books' latest snapshots that the ring still holds."""
        live = [s for s in self.snapshots.values() if s is not None]
        return min((s for s in live if self.holds(self.position(s))), default=None)


class ReferenceReader:
    """A reader."""

    def __init__(self, ring: ReferenceRing) -> None:
        self.ring = ring
        self.told: set[int] = set()
        """Sequences of which it was said that they aren't given."""
        self.place(1, 0, False)

    def place(self, sequence: int, filter_until: int, history: bool) -> None:
        """Go on at a sequence; below `filter_until` drop what a newcomer can't use."""
        self.wanted = sequence
        self.filter_until = filter_until
        self.drop_history = history
        self.synced: set[int] = set()
        self.lapped = False

    @property
    def sequence(self) -> int:
        return self.wanted

    def seek_latest(self) -> None:
        self.told = set()
        after = len(self.ring.records) + 1
        self.place(self.ring.oldest_snapshot() or after, after, True)

    def seek_oldest(self) -> None:
        self.told = set()
        ring = self.ring
        first = 1
        if ring.committed > ring.capacity:
            first = ring.first_from(ring.committed - ring.capacity)
        self.place(first, len(ring.records) + 1, False)

    def seek(self, sequence: int) -> None:
        if not 1 <= sequence <= len(self.ring.records) + 1:
            raise ValueError(sequence)
        self.told = set()
        self.place(sequence, 0, False)
        if sequence <= len(self.ring.records):
            known = [s for s in self.ring.starts() if self.ring.holds(self.ring.position(s))]
            snapshot = self.ring.oldest_snapshot()
            known += [] if snapshot is None else [snapshot]
            self.lapped = not any(s <= sequence for s in known)

    def dropped(self, sequence: int, history: bool) -> bool:
        kept = self.ring.kept(sequence)
        if kept.kind == SNAPSHOT:
            self.synced.add(kept.instrument)
        if kept.kind == DELTA:
            return kept.instrument not in self.synced
        return history and kept.kind in (TRADE, GAP, HEARTBEAT)

    def next(self, limit: int) -> list[int] | tuple[int, int, int] | None:
        ring = self.ring
        self.lapped = self.lapped or not ring.holds(ring.position(self.wanted))
        if self.lapped:
            return self._recover()
        found: list[int] = []
        while self.wanted <= len(ring.records) and len(found) < limit:
            filtered = self.wanted < self.filter_until
            if not filtered or not self.dropped(self.wanted, self.drop_history):
                found.append(self.wanted)
            self.wanted += 1
        return found or None

    def _recover(self) -> tuple[int, int, int]:
        ring, first = self.ring, self.wanted
        start = ring.oldest_snapshot()
        if start is None:
            start = ring.first_from(ring.committed - min(ring.committed, ring.capacity // 2))
        after = len(ring.records) + 1
        self.place(start, after, False)
        lost = {*range(first, start)}
        lost |= {s for s in range(start, after) if self.dropped(s, False)}
        self.place(start, after, False)
        news = len(lost - self.told)
        self.told |= lost
        return first, start - 1, news


def _needed(padded: int) -> int:
    capacity = 16 << 10
    while capacity // 8 < padded:
        capacity *= 2
    return capacity
