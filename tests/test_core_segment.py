"""A ring's memory: its layout, and the refusal of what is none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.segment import (
    CLOSED,
    OPEN,
    READERS_BYTES,
    READERS_SLOTS,
    ReadersPage,
    Segment,
    layout,
    segment_bytes,
)
from alphapulse.errors import RingCorrupt
from tests.ring_memory import CAPACITY, INSTRUMENTS, RING_ID, filled, heap, new_ring

WAKE_WORD = 448


def test_layout_is_the_documented_one() -> None:
    memory = bytes(new_ring())
    assert memory[:8] == b"ALPRING1"
    assert struct.unpack_from("<IIQQQIIqQQq", memory, 8) == (
        1,
        INSTRUMENTS,
        len(memory),
        CAPACITY,
        1_795_000_000_000,
        RING_ID,
        77,
        5,
        1_794_000_000_000,
        9,
        8,
    )
    assert memory[80:87] == b"kraken\0"
    assert layout() == {
        "epoch": 32,
        "ring_id": 40,
        "pid": 44,
        "venue": 80,
        "directory": 4096,
        "index": 4096 + 512,
        "data": 8192,
    }


def test_header_can_be_read_back() -> None:
    segment = Segment(new_ring())
    assert (segment.capacity, segment.max_instruments) == (CAPACITY, INSTRUMENTS)
    assert (segment.epoch, segment.ring_id, segment.pid) == (1_795_000_000_000, RING_ID, 77)
    assert (segment.venue, segment.created_ns) == ("kraken", 5)
    assert segment.predecessor == (1_794_000_000_000, 9, 8)
    assert (segment.ended, segment.tail()) == (OPEN, (0, 0, 0))


def test_an_end_is_not_slept_through_by_a_reader_about_to_sleep() -> None:
    memory = new_ring()
    (word,) = struct.unpack_from("<I", memory, WAKE_WORD)
    Segment(memory, writable=True).end(CLOSED, 5)
    assert struct.unpack_from("<I", memory, WAKE_WORD) != (word,)


@pytest.mark.parametrize(
    ("capacity", "instruments"),
    [(0, 1), (CAPACITY - 8, 1), (3 << 16, 1), (2**41, 1), (2**80, 1), (CAPACITY, 0),
     (CAPACITY, 65536)],
)  # fmt: skip
def test_impossible_geometry_is_refused(capacity: int, instruments: int) -> None:
    with pytest.raises(ValueError, match="can't be laid out"):
        segment_bytes(capacity, instruments)


@given(st.binary(max_size=200), st.integers(0, 12000))
def test_memory_that_is_no_ring_is_refused(head: bytes, size: int) -> None:
    memory = filled(head, max(size, len(head)))
    with pytest.raises(RingCorrupt):
        Segment(memory)


@pytest.mark.parametrize(
    ("offset", "word"),
    [(0, 0), (8, 2 | INSTRUMENTS << 32), (8, 1), (8, 1 | 70000 << 32), (16, 0), (24, 0),
     (24, CAPACITY * 2), (24, 2**63), (24, CAPACITY + 8), (32, 0), (32, 2**53), (40, 65536)],
)  # fmt: skip
def test_impossible_headers_are_refused(offset: int, word: int) -> None:
    memory = new_ring()
    struct.pack_into("<Q", memory, offset, word)
    with pytest.raises(RingCorrupt):
        Segment(memory)


@pytest.mark.parametrize("size", [0, 4095, segment_bytes(CAPACITY, INSTRUMENTS) - 8])
def test_short_segment_is_refused(size: int) -> None:
    memory = filled(bytes(new_ring())[:size])
    with pytest.raises(RingCorrupt):
        Segment(memory)


def test_readers_page_of_another_size_or_kind_is_refused() -> None:
    for memory in (heap(64), heap(READERS_BYTES)):
        with pytest.raises(RingCorrupt):
            ReadersPage(memory)
    page = ReadersPage(heap(READERS_BYTES), create=True)
    with pytest.raises(IndexError):
        page.set_pid(READERS_SLOTS, 1)
