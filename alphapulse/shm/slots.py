"""The readers' segment: who reads a ring, how far each has come, who sleeps.

Each reader holds a lock on one byte of the file: slot ``i`` is taken as long as byte ``i`` is
locked, whatever the memory says, so that the slots of dead readers are free by themselves. The
writer reads a hint that someone sleeps, and trusts nothing else in it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from alphapulse._core.segment import READERS_BYTES, READERS_SLOTS, ReadersPage
from alphapulse.errors import RingCorrupt, RingNotFound
from alphapulse.shm import liveness
from alphapulse.shm.names import FOLDER, readers_name
from alphapulse.shm.segment import Mapping, create_segment, open_segment

# pid, sleeping, epoch, sequence of the last record given
_SLOT = struct.Struct("<IIQQ")
_SLOT_BYTES = 64


class ReaderInfo(NamedTuple):
    """A reader as it describes itself: a statistic, not to be relied on."""

    pid: int
    epoch: int
    sequence: int
    """Of the last record that it was given."""
    lag: int
    """Records that it hasn't been given yet."""
    sleeping: bool


def readers_path(name: str) -> Path:
    """File of ring `name`'s readers."""
    return FOLDER / readers_name(name)


def open_page(name: str, mode: int, gid: int | None) -> ReadersPage:
    """The writer's side: the page that is there, or a new one if that is of no use.

    Raises
    ------
    RingSpaceError
        the machine has too little shared memory left
    """
    path = readers_path(name)
    try:
        mapping = open_segment(path, writable=True)
        if os.fstat(mapping.held.fd).st_uid == os.geteuid():
            page = ReadersPage(mapping.memory)
            mapping.close()
            return page
        mapping.close()
    except (RingNotFound, RingCorrupt, PermissionError):
        pass  # nothing there, or nothing of ours: it is replaced
    mapping = create_segment(readers_name(name), READERS_BYTES, mode, gid)
    page = ReadersPage(mapping.memory, create=True)
    mapping.path.replace(path)
    mapping.close()
    return page


class Slot:
    """A slot of the readers' segment that this process holds."""

    def __init__(self, mapping: Mapping, index: int) -> None:
        self._mapping = mapping
        self.index = index
        self.page = ReadersPage(mapping.memory)
        self.page.set_pid(index, os.getpid())

    def is_at(self, path: Path) -> bool:
        """Whether the writer still looks at this file."""
        return self._mapping.is_at(path)

    def close(self) -> None:
        """Free the slot."""
        if self._mapping.held.fd >= 0:
            self.page.set_pid(self.index, 0)
            self._mapping.close()


def claim(name: str) -> Slot | None:
    """The first free slot; None where there is none, or no segment that this user may write to.

    A reader without a slot is not woken: it has to look by itself.
    """
    try:
        mapping = open_segment(readers_path(name), writable=True)
    except (RingNotFound, RingCorrupt, PermissionError):
        return None
    for index in range(READERS_SLOTS):
        if liveness.lock(mapping.held.fd, index, 1):
            try:
                return Slot(mapping, index)
            except RingCorrupt:
                break
    mapping.close()
    return None


def list_readers(name: str, epoch: int, sequence: int) -> list[ReaderInfo]:
    """The ring's readers that are alive.

    Parameters
    ----------
    epoch, sequence : of the ring's last record, from which the lags are counted
    """
    try:
        mapping = open_segment(readers_path(name))
    except (RingNotFound, RingCorrupt, PermissionError):
        return []
    found = []
    try:
        for index in range(min(READERS_SLOTS, len(mapping.memory) // _SLOT_BYTES - 1)):
            fields = _SLOT.unpack_from(mapping.memory, (index + 1) * _SLOT_BYTES)
            if fields[0] and liveness.locked(mapping.held.fd, index, 1):
                pid, sleeping, reads, given = fields
                # A reader that still drains the ring before has all of this one ahead.
                lag = max(sequence - (given if reads == epoch else 0), 0)
                found.append(ReaderInfo(pid, reads, given, lag, bool(sleeping)))
    finally:
        mapping.close()
    return found
