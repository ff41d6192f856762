"""Names of segments, and where they lie.

A venue's ring is ``<prefix>.<venue>``; beside it are ``<prefix>.<venue>.readers`` and, for a
while, what a successor replaced: ``<prefix>.<venue>~<epoch>``.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from zlib import crc32

FOLDER = Path("/dev/shm")
"""Where POSIX shared memory lies on Linux: `shm_open` does nothing else."""

DEFAULT_PREFIX = "alphapulse"

_RING_IDS = {"coinbase": 1, "kraken": 2, "binance_us": 3}
RESERVED = "all"
"""No venue is called so."""

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VENUE = re.compile(r"[a-z0-9_]{1,63}")


def ring_id(venue: str) -> int:
    """The number that stands for a venue in the records' headers (docs/wire-format.md)."""
    known = _RING_IDS.get(venue)
    return known if known is not None else 32768 + (crc32(venue.encode()) & 0x7FFF)


def ring_name(prefix: str, venue: str) -> str:
    """Name of a venue's segment.

    Raises
    ------
    ValueError
        the prefix or the venue has characters that names of segments can't have, or the venue is
        called ``all``, which stands for all of them
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"ring prefix {prefix!r}: letters, digits, - and _ only, 64 at most")
    if not _VENUE.fullmatch(venue):
        raise ValueError(f"venue {venue!r}: lower-case letters, digits and _ only, 63 at most")
    if venue == RESERVED:
        raise ValueError(f"venue {venue!r}: the name stands for all venues together")
    return f"{prefix}.{venue}"


def readers_name(name: str) -> str:
    """Name of the segment in which the readers of ring `name` write."""
    return f"{name}.readers"


def retired_name(name: str, epoch: int) -> str:
    """Name that the ring keeps for a while after a successor took its own."""
    return f"{name}~{epoch}"


def temporary_name(name: str) -> str:
    """Name of a segment that isn't ready yet."""
    return f"{name}~new-{secrets.token_hex(6)}"


def retired_epochs(name: str) -> list[int]:
    """Epochs of the ring's predecessors that are still there, ascending."""
    found = []
    for path in FOLDER.glob(f"{name}~*"):
        text = path.name[len(name) + 1 :]
        if text.isascii() and text.isdigit():
            found.append(int(text))
    return sorted(found)


def prefixes() -> list[str]:
    """Prefixes of what has the name of a ring, in alphabetical order."""
    starts = {path.name.partition(".")[0] for path in FOLDER.glob("*.*")}
    return sorted(start for start in starts if _PREFIX.fullmatch(start) and venues(start))


def venues(prefix: str) -> list[str]:
    """Venues that have a ring under this prefix, dead or alive, in alphabetical order."""
    start = f"{prefix}."
    tails = (path.name.removeprefix(start) for path in FOLDER.glob(f"{start}*"))
    return sorted(tail for tail in tails if _VENUE.fullmatch(tail) and tail != RESERVED)
