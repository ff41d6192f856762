"""Which rings there are, and in what shape; what the dead left is removed."""

from __future__ import annotations

import os
from typing import NamedTuple

from alphapulse._core.segment import CLOSED
from alphapulse.clock import wall_ns
from alphapulse.errors import RingCorrupt, RingNotFound
from alphapulse.shm import liveness, slots
from alphapulse.shm.names import (
    DEFAULT_PREFIX,
    FOLDER,
    prefixes,
    readers_name,
    retired_epochs,
    retired_name,
    ring_name,
    venues,
)
from alphapulse.shm.segment import Mapping, open_segment, view
from alphapulse.shm.slots import ReaderInfo
from alphapulse.shm.writer import remove_unfinished

STUCK_AFTER_NS = 5_000_000_000
"""Age of a live writer's heartbeat from which it counts as stuck; it beats once a second."""


class RingInfo(NamedTuple):
    """One ring; times are nanoseconds since the epoch."""

    venue: str
    name: str
    """Of the segment."""
    epoch: int
    pid: int
    """The writer's, as it wrote it down (of its own pid namespace)."""
    alive: bool
    """Whether the writer holds its lock."""
    stuck: bool
    """Alive, but without a heartbeat for 5 s."""
    size_bytes: int
    """Of the data area."""
    position: int
    """Bytes written since the epoch began."""
    sequence: int
    """Of the last record."""
    instruments: int
    heartbeat_ns: int
    created_ns: int
    memory_bytes: int
    """Reserved for all segments of this ring, readers' and retired ones included."""
    readers: tuple[ReaderInfo, ...]
    problem: str = ""
    """Why the segment can't be read; then the numbers above are 0."""


def list_rings(*, prefix: str = DEFAULT_PREFIX) -> list[RingInfo]:
    """All rings under a prefix, dead ones included, in order of their venues."""
    found = []
    for venue in venues(prefix):
        name = ring_name(prefix, venue)
        try:
            mapping = open_segment(FOLDER / name)
        except RingNotFound:
            continue  # closed since the names were listed
        except (RingCorrupt, PermissionError) as error:
            found.append(_unreadable(venue, name, False, str(error)))
            continue
        try:
            found.append(_describe(venue, name, mapping))
        except RingCorrupt as error:
            found.append(_unreadable(venue, name, mapping.owned(), str(error)))
        finally:
            mapping.close()
    return found


def list_prefixes() -> list[str]:
    """Prefixes under which there is a ring that can be read, in alphabetical order."""
    return [
        prefix
        for prefix in prefixes()
        if any(not ring.problem for ring in list_rings(prefix=prefix))
    ]


def _describe(venue: str, name: str, mapping: Mapping) -> RingInfo:
    segment = view(mapping)
    alive = mapping.owned()
    sequence = segment.sequence
    return RingInfo(
        venue=venue,
        name=name,
        epoch=segment.epoch,
        pid=segment.pid,
        alive=alive,
        stuck=alive and wall_ns() - segment.heartbeat_ns > STUCK_AFTER_NS,
        size_bytes=segment.capacity,
        position=segment.committed,
        sequence=sequence,
        instruments=segment.instrument_count,
        heartbeat_ns=segment.heartbeat_ns,
        created_ns=segment.created_ns,
        memory_bytes=_memory(name),
        readers=tuple(slots.list_readers(name, segment.epoch, sequence)),
    )


def _unreadable(venue: str, name: str, alive: bool, problem: str) -> RingInfo:
    return RingInfo(venue, name, 0, 0, alive, False, 0, 0, 0, 0, 0, 0, _memory(name), (), problem)


def _memory(name: str) -> int:
    names = [name, readers_name(name)]
    names += [retired_name(name, epoch) for epoch in retired_epochs(name)]
    total = 0
    for each in names:
        try:
            total += os.stat(FOLDER / each).st_blocks * 512
        except FileNotFoundError:
            continue  # retired ones go, and not every ring has readers
    return total


def remove_dead(*, prefix: str = DEFAULT_PREFIX) -> list[str]:
    """Remove the segments of writers that are dead; the names of what was removed.

    Readers that have one open drain it. A ring whose writer lives isn't touched.
    """
    removed: list[str] = []
    names = {path.name for path in FOLDER.glob(f"{prefix}.*")}
    rings = {name.partition("~")[0].removesuffix(".readers") for name in names}
    for venue in sorted(ring.removeprefix(f"{prefix}.") for ring in rings):
        try:
            name = ring_name(prefix, venue)
        except ValueError:
            continue  # nothing of ours
        if _remove_ring(name, removed):
            removed += remove_unfinished(name)
    return removed


def remove_dead_under(beginning: str) -> list[str]:
    """`remove_dead` for every prefix that begins so: what programs of a run's own prefix left."""
    prefixes = {path.name.partition(".")[0] for path in FOLDER.glob(f"{beginning}*")}
    return [name for prefix in sorted(prefixes) for name in remove_dead(prefix=prefix)]


def _remove_ring(name: str, removed: list[str]) -> bool:
    """Remove a dead ring with what belongs to it; whether it was dead, or wasn't there."""
    path = FOLDER / name
    try:
        mapping = open_segment(path, writable=True)
    except RingNotFound:
        mapping = None
    except (RingCorrupt, PermissionError):
        return False
    if mapping is not None and not (liveness.lock(mapping.held.fd) and mapping.is_at(path)):
        mapping.close()
        return False
    try:
        for epoch in retired_epochs(name):
            # Nobody can be at work on it: that takes the lock which is held here.
            retired = FOLDER / retired_name(name, epoch)
            retired.unlink(missing_ok=True)
            removed.append(retired.name)
        readers = slots.readers_path(name)
        if readers.exists():
            readers.unlink(missing_ok=True)
            removed.append(readers.name)
        if mapping is not None:
            _end(mapping)
            path.unlink(missing_ok=True)
            removed.append(name)
    finally:
        if mapping is not None:
            mapping.close()
    return True


def _end(mapping: Mapping) -> None:
    """Tell the readers of a dead segment that nothing more comes."""
    try:
        view(mapping, writable=True).end(CLOSED, wall_ns())
    except RingCorrupt:
        return  # no ring: nobody reads it
