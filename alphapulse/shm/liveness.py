"""Locks that tell whether the process at the other end is alive.

A lock of an open file description ends with the last descriptor of it, hence with its process,
however that ends, and is seen across pid namespaces.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref

# struct flock: type, whence, start, length, pid
_FLOCK = struct.Struct("@hhqqi0q")

_held: weakref.WeakSet[Held] = weakref.WeakSet()


class Held:
    """A file descriptor that this process keeps open, and no child of it.

    A child made by `fork` would keep the locks alive after its parent's death.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _held.add(self)

    def close(self) -> None:
        """Close the descriptor, and thereby end its locks. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def _forget_in_child() -> None:
    for held in list(_held):
        held.close()


os.register_at_fork(after_in_child=_forget_in_child)


def lock(fd: int, start: int = 0, length: int = 0) -> bool:
    """Lock bytes of a file for writing; False if someone else holds them.

    Parameters
    ----------
    fd : open for writing
    start, length : which bytes; a length of 0 means all from `start` on
    """
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


def locked(fd: int, start: int = 0, length: int = 0) -> bool:
    """Whether someone other than this descriptor's own opening holds a lock on these bytes."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted)
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK
