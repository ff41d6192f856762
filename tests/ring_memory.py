"""Small rings on exact-size blocks of the heap, for tests of the native ring."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from alphapulse._core.consumer import Consumer
from alphapulse._core.producer import Producer
from alphapulse._core.records import RawRecord, Records
from alphapulse._core.segment import MIN_CAPACITY, Segment, initialise, segment_bytes

CAPACITY = MIN_CAPACITY
INSTRUMENTS = 4
RING_ID = 2
SECOND = 1_000_000_000
"""In nanoseconds."""


def heap(size: int) -> ctypes.Array[ctypes.c_ubyte]:
    """Zeroed memory of exactly this size, so that a sanitizer sees the byte beyond."""
    return (ctypes.c_ubyte * size)()


def filled(content: bytes, size: int | None = None) -> ctypes.Array[ctypes.c_ubyte]:
    """The same, beginning with this content."""
    memory = heap(len(content) if size is None else size)
    ctypes.memmove(memory, content, len(content))
    return memory


def new_ring(capacity: int = CAPACITY) -> ctypes.Array[ctypes.c_ubyte]:
    """An empty ring that follows another one."""
    memory = heap(segment_bytes(capacity, INSTRUMENTS))
    initialise(
        memory,
        capacity=capacity,
        max_instruments=INSTRUMENTS,
        epoch=1_795_000_000_000,
        ring_id=RING_ID,
        pid=77,
        created_ns=5,
        venue="kraken",
        predecessor=(1_794_000_000_000, 9, 8),
    )
    return memory


def producer(memory: ctypes.Array[ctypes.c_ubyte]) -> Producer:
    """Its writer, whose clock stands at 123."""
    return Producer(Segment(memory, writable=True), clock=lambda: 123)


def given_by(consumer: Consumer, limit: int = 1000) -> Iterator[RawRecord]:
    """What the consumer gives until there is nothing or something was lost."""
    while isinstance(found := consumer.next(limit), Records):
        yield from found
