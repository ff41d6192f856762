"""Files in shared memory: create, open, map, lock.

Nothing here goes through `multiprocessing`, whose resource tracker unlinks at exit whatever a
process has opened. Another program that opens a ring with `multiprocessing.shared_memory` should
pass ``track=False`` (Python 3.13) or unregister it, for that reason.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from pathlib import Path

from alphapulse._core.segment import Segment
from alphapulse.errors import RingCorrupt, RingNotFound, RingSpaceError
from alphapulse.shm import liveness
from alphapulse.shm.names import FOLDER, temporary_name

_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
"""How the kernel refuses to open a link, a folder or a socket."""


class Mapping:
    """A segment of shared memory, open and mapped.

    Parameters
    ----------
    path : the file
    memory : its mapping; it lives as long as a view of it
    held : the descriptor, for locks
    """

    def __init__(self, path: Path, memory: mmap.mmap, held: liveness.Held) -> None:
        self.path = path
        self.memory = memory
        self.held = held

    def identity(self) -> tuple[int, int]:
        """What tells this file from another of the same name: device and inode."""
        status = os.fstat(self.held.fd)
        return status.st_dev, status.st_ino

    def is_at(self, path: Path) -> bool:
        """Whether that name still means this file."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self.identity()

    def owned(self) -> bool:
        """Whether another opening of the file holds its lock."""
        return liveness.locked(self.held.fd)

    def close(self) -> None:
        """Give up the lock; the memory goes with its last view."""
        self.held.close()


def open_segment(path: Path, *, writable: bool = False) -> Mapping:
    """Open and map an existing file.

    Raises
    ------
    RingNotFound
        there is none
    RingCorrupt
        it is no regular file, or empty
    PermissionError
        this user may not
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise RingNotFound(path.name) from None
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _no_file(path) from None
        raise
    held = liveness.Held(fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        held.close()
        raise _no_file(path)
    return Mapping(path, _map(path, held, status.st_size, writable), held)


def _no_file(path: Path) -> RingCorrupt:
    return RingCorrupt(f"{path.name} is no file of shared memory with something in it")


def create_segment(name: str, size: int, mode: int, gid: int | None) -> Mapping:
    """A new, zeroed, locked file of `size` bytes under a temporary name, its pages reserved.

    Raises
    ------
    RingSpaceError
        the machine has too little shared memory left
    """
    while True:
        path = FOLDER / temporary_name(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        held = liveness.Held(fd)
        # Whoever cleans up may have come between the creation and the lock.
        if liveness.lock(fd) and os.fstat(fd).st_nlink:
            break
        held.close()
    try:
        os.posix_fallocate(fd, 0, size)
        if gid is not None:
            os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
        return Mapping(path, _map(path, held, size, True), held)
    except OSError as error:
        path.unlink(missing_ok=True)
        held.close()
        free = os.statvfs(FOLDER)
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise RingSpaceError(name, size, free.f_bavail * free.f_frsize) from None
        raise


def _map(path: Path, held: liveness.Held, size: int, writable: bool) -> mmap.mmap:
    # mmap duplicates its descriptor: give it an opening of its own, so that no lock hangs on it,
    # and of the very file that is open, whatever its name means by now.
    fd = os.open(
        f"/proc/self/fd/{held.fd}", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
    )
    try:
        if writable:
            return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except ValueError:
        raise RingCorrupt(f"{path.name} shrank while it was opened") from None
    finally:
        os.close(fd)


def view(mapping: Mapping, *, writable: bool = False) -> Segment:
    """The ring in a mapping, its geometry checked.

    Raises
    ------
    RingCorrupt
        the header doesn't describe a ring of this size
    """
    return Segment(mapping.memory, mapping.path.name, writable=writable)
