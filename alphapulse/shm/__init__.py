"""The shared-memory ring: one writer a venue, any number of readers, and who is there."""

from alphapulse._core.records import RawRecord
from alphapulse.shm.batch import TRADE_ROW, Batch, bits_of
from alphapulse.shm.names import DEFAULT_PREFIX, ring_id
from alphapulse.shm.reader import Position, RingReader
from alphapulse.shm.registry import (
    RingInfo,
    list_prefixes,
    list_rings,
    remove_dead,
    remove_dead_under,
)
from alphapulse.shm.slots import ReaderInfo
from alphapulse.shm.writer import Predecessor, RingWriter

__all__ = [
    "DEFAULT_PREFIX",
    "TRADE_ROW",
    "Batch",
    "Position",
    "Predecessor",
    "RawRecord",
    "ReaderInfo",
    "RingInfo",
    "RingReader",
    "RingWriter",
    "bits_of",
    "list_prefixes",
    "list_rings",
    "remove_dead",
    "remove_dead_under",
    "ring_id",
]
