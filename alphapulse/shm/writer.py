"""The writing end of a venue's ring: takes the name, follows a dead predecessor, cleans up."""

from __future__ import annotations

import grp
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from alphapulse._core.producer import Producer
from alphapulse._core.segment import (
    CLOSED,
    MIN_CAPACITY,
    OPEN,
    SUPERSEDED,
    ReadersPage,
    Segment,
    initialise,
    segment_bytes,
)
from alphapulse.clock import wall_ns
from alphapulse.errors import RingBusy, RingCorrupt, RingNotFound, RingSpaceError
from alphapulse.shm import liveness, slots
from alphapulse.shm.names import (
    DEFAULT_PREFIX,
    FOLDER,
    retired_epochs,
    retired_name,
    ring_id,
    ring_name,
)
from alphapulse.shm.segment import Mapping, create_segment, open_segment, view

RETIRED_KEPT_NS = 60_000_000_000
"""How long a replaced segment stays for readers that come back to a position in it."""

_HANDOVER_SECONDS = 0.2
"""How long a starting writer watches a locked name before it takes its owner for alive."""

_last_epoch = 0


class Predecessor(NamedTuple):
    """The ring that this one follows: what was committed last in it."""

    epoch: int
    sequence: int
    published_ns: int


class RingWriter(Producer):
    """The one writer of a venue's ring.

    Parameters
    ----------
    venue : lower-case name of the exchange
    prefix : first part of the segment's name
    size_bytes : of the data area; rounded up to a power of two of at least 16 KiB
    max_instruments : entries of the directory, up to 65535
    group : name or number of a group that may read the ring (mode 0640), else only this user (0600)
    clock : gives the ring's epoch, and `published_ns` of records written without one

    Raises
    ------
    RingBusy
        the name has a live writer
    RingSpaceError
        the machine has too little shared memory left
    ValueError
        a name or size that can't be
    """

    def __init__(
        self,
        venue: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        size_bytes: int = 64 << 20,
        max_instruments: int = 4096,
        group: str | int | None = None,
        clock: Callable[[], int] = wall_ns,
    ) -> None:
        self.venue = venue
        self.name = ring_name(prefix, venue)
        self._path = FOLDER / self.name
        self._max_instruments = max_instruments
        self._clock = clock
        self._gid = grp.getgrnam(group).gr_gid if isinstance(group, str) else group
        self._retired: list[tuple[Path, int]] = []
        self.predecessor: Predecessor | None = None
        capacity = round_up(size_bytes)
        segment_bytes(capacity, max_instruments)
        segment: Segment | None = None
        while segment is None:
            old = _take_over(self.name, self._path)
            self.predecessor = _last_of(old)
            try:
                segment = self._replace(old, capacity)
            except BaseException:
                if old is not None:
                    old.close()
                raise
        self._page = self._open_page()
        super().__init__(segment, self._page, clock)
        self._collect_retired()

    def _open_page(self) -> ReadersPage:
        return slots.open_page(self.name, 0o600 if self._gid is None else 0o660, self._gid)

    def _replace(self, old: Mapping | None, capacity: int) -> Segment | None:
        """Put a new segment in the old one's place; None if another writer was faster."""
        total = segment_bytes(capacity, self._max_instruments)
        mode = 0o600 if self._gid is None else 0o640
        new = create_segment(self.name, total, mode, self._gid)
        try:
            return self._begin(new, old, capacity)
        except BaseException:
            new.path.unlink(missing_ok=True)
            new.close()
            raise

    def _begin(self, new: Mapping, old: Mapping | None, capacity: int) -> Segment | None:
        """Write a new segment's header and give it the name."""
        global _last_epoch
        now_ns = self._clock()
        before = self.predecessor.epoch if self.predecessor else 0
        self.epoch = _last_epoch = max(now_ns // 1_000_000, _last_epoch + 1, before + 1)
        initialise(
            new.memory,
            capacity=capacity,
            max_instruments=self._max_instruments,
            epoch=self.epoch,
            ring_id=ring_id(self.venue),
            pid=os.getpid(),
            created_ns=now_ns,
            venue=self.venue,
            predecessor=self.predecessor,
        )
        if not _publish(old, new, self._path, before):
            return None
        new.path = self._path
        self._mapping = new
        return view(new, writable=True)

    def _collect_retired(self) -> None:
        """Remove what earlier writers left; what is young is removed later, by `beat`."""
        for epoch in retired_epochs(self.name):
            path = FOLDER / retired_name(self.name, epoch)
            self._retired.append((path, _mark_ended(path) + RETIRED_KEPT_NS))
        remove_unfinished(self.name)
        self._drop_retired(wall_ns())

    def _drop_retired(self, now_ns: int) -> None:
        for path, until_ns in self._retired:
            if until_ns <= now_ns:
                path.unlink(missing_ok=True)
        self._retired = [(path, until) for path, until in self._retired if until > now_ns]

    def beat(self) -> None:
        """Say that the writer is at work; to be called about once a second."""
        now_ns = wall_ns()
        self.heartbeat(now_ns)
        if self._retired:
            self._drop_retired(now_ns)
        if not self.closed and not slots.readers_path(self.name).exists():
            # Without it readers would have to look by themselves from now on.
            with suppress(RingSpaceError):
                self._page = self._open_page()
                self.use_readers(self._page)

    def enlarge(self, size_bytes: int) -> None:
        """Go on in a larger, empty segment under the same name, with a new epoch.

        Readers drain the old one and move on. Instruments and snapshots are to be written anew.

        Raises
        ------
        RingSpaceError
            the machine has too little shared memory left; the writer goes on as it was
        ValueError
            the size is no larger than the present one
        """
        segment = self.segment
        if segment is None:
            raise ValueError(f"{self.name}: the writer is closed")
        capacity = round_up(size_bytes)
        if capacity <= segment.capacity:
            raise ValueError(f"{self.name} has {segment.capacity} bytes, {size_bytes} are no more")
        segment_bytes(capacity, self._max_instruments)
        old, epoch, before = self._mapping, self.epoch, self.predecessor
        self.predecessor = Predecessor(epoch, self.sequence, self.published_ns)
        try:
            replaced = self._replace(old, capacity)
        except BaseException:
            self.epoch, self.predecessor = epoch, before
            raise
        assert replaced is not None, "the name's owner replaces its own segment"
        self.start_segment(replaced, self._page)
        self._retired.append((FOLDER / retired_name(self.name, epoch), wall_ns() + RETIRED_KEPT_NS))

    def close(self) -> None:
        """End the ring: readers drain what is there; the segments are removed."""
        segment = self.segment
        if segment is None:
            return
        segment.end(CLOSED, wall_ns())
        self.stop_segment()
        for path, _until in self._retired:
            path.unlink(missing_ok=True)
        self._retired = []
        # The name goes last: until then nobody else can take it, nor make a readers' segment.
        if self._mapping.is_at(self._path):
            slots.readers_path(self.name).unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        self._mapping.close()

    def __enter__(self) -> RingWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def round_up(size_bytes: int) -> int:
    """The capacity of a ring that was asked for with this size."""
    return max(1 << (size_bytes - 1).bit_length(), MIN_CAPACITY) if size_bytes > 0 else 0


def remove_unowned(path: Path) -> bool:
    """Unlink a segment unless someone holds its lock; whether it was removed.

    Its content isn't looked at: one that is being made is empty, and locked.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    held = liveness.Held(fd)
    try:
        if not liveness.lock(fd) or not os.fstat(fd).st_nlink:
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        held.close()


def remove_unfinished(name: str) -> list[str]:
    """Remove what writers left that were killed before they had the name; names removed."""
    found = [*FOLDER.glob(f"{name}~new-*"), *FOLDER.glob(f"{name}.readers~new-*")]
    return [path.name for path in found if remove_unowned(path)]


def _take_over(name: str, path: Path) -> Mapping | None:
    """The dead segment of that name, locked; None if there is none.

    Raises
    ------
    RingBusy
        it isn't dead
    """
    patience = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            old = open_segment(path, writable=True)
        except RingNotFound:
            return None
        if liveness.lock(old.held.fd) and old.is_at(path):
            return old
        pid = _pid_of(old)
        current = old.is_at(path)
        old.close()
        # Another writer may be taking a dead one's place at this moment: see whom it becomes.
        if current and time.monotonic() > patience:
            raise RingBusy(name, pid)
        time.sleep(0.005)


def _pid_of(mapping: Mapping) -> int:
    try:
        return view(mapping).pid
    except RingCorrupt:
        return 0


def _last_of(old: Mapping | None) -> Predecessor | None:
    if old is None:
        return None
    try:
        segment = view(old)
        _position, sequence, published_ns = segment.tail()
        return Predecessor(segment.epoch, sequence, published_ns)
    except RingCorrupt:
        return None  # nothing that could be followed: its readers end there


def _publish(old: Mapping | None, new: Mapping, path: Path, old_epoch: int) -> bool:
    """Give the new segment the name; False if someone else has it. The name is never free."""
    if old is None:
        try:
            path.hardlink_to(new.path)
        except FileExistsError:
            new.close()
            return False
        finally:
            new.path.unlink()
        return True
    if old_epoch:
        retired = FOLDER / retired_name(path.name, old_epoch)
        retired.unlink(missing_ok=True)
        retired.hardlink_to(path)
    new.path.replace(path)
    if old_epoch:
        view(old, writable=True).end(SUPERSEDED, wall_ns())
    old.close()
    return True


def _mark_ended(path: Path) -> int:
    """When that segment was replaced; 0 if it is none.

    A successor that was killed just after it had taken the name didn't come to write that down.
    """
    try:
        mapping = open_segment(path, writable=True)
    except (RingNotFound, RingCorrupt, PermissionError):
        return 0
    try:
        segment = view(mapping, writable=True)
    except RingCorrupt:
        return 0
    else:
        if segment.ended == OPEN:
            segment.end(SUPERSEDED, wall_ns())
        return segment.ended_ns
    finally:
        mapping.close()
