"""The reading side of a ring: what it gives, when, and what it refuses."""

from __future__ import annotations

import random
import struct

import pytest

from alphapulse._core.consumer import Consumer
from alphapulse._core.records import Records
from alphapulse._core.segment import (
    CLOSED,
    OPEN,
    READERS_BYTES,
    READERS_SLOTS,
    ReadersPage,
    Segment,
)
from alphapulse.errors import RingCorrupt
from tests.ring_memory import CAPACITY, RING_ID, SECOND, given_by, heap, new_ring, producer
from tests.ring_records import UNKNOWN, record


def test_only_a_commit_gives_a_record() -> None:
    """A writer killed between its announcement and its commit has written nothing."""
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    writer.write(record(UNKNOWN, 0, b"done"))
    committed = struct.unpack_from("<Q", memory, 320)[0]
    writer.write(record(UNKNOWN, 0, b"half"))
    struct.pack_into("<Q", memory, 320, committed)
    assert [bytes(r)[40:] for r in given_by(consumer)] == [b"done"]
    assert Segment(memory).tail() == (committed, 1, 123)


def test_announced_position_decides_what_is_torn() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    while writer.position < CAPACITY:
        writer.write(record(UNKNOWN, 0, bytes(24)))
    struct.pack_into("<Q", memory, 256, writer.position + 8)
    found = consumer.next(10)
    assert isinstance(found, tuple)
    assert found[:2] == (1, 128)


def test_record_of_another_ring_or_order_is_corrupt() -> None:
    memory = new_ring()
    writer = producer(memory)
    writer.write(record(UNKNOWN, 0, b"1"))
    struct.pack_into("<Q", memory, len(memory) - CAPACITY + 8, RING_ID << 48 | 2)
    with pytest.raises(RingCorrupt, match="not 1 of ring 2"):
        Consumer(Segment(memory)).next(1)


def test_records_given_out_stay_as_they_were_while_others_follow() -> None:
    """Memory is used again only when nothing of what it was given out as is left."""
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    choose = random.Random(7)
    held: list[tuple[memoryview, bytes]] = []
    written = 0
    for _ in range(2000):
        for _ in range(choose.randrange(4)):
            writer.write(record(UNKNOWN, 0, b"%d" % written + bytes(choose.randrange(200))))
            written += 1
        found = consumer.next(choose.randrange(1, 5))
        if isinstance(found, Records) and choose.random() < 0.3:
            held += [(each.data, bytes(each)) for each in found if choose.random() < 0.5]
        while len(held) > 20:
            held.pop(choose.randrange(len(held)))
        assert all(bytes(data) == before for data, before in held)
    assert writer.position > 4 * CAPACITY


def test_batches_are_of_the_kind_and_origin_asked_for() -> None:
    class Kind(Records):
        __slots__ = ()

    memory, origin = new_ring(), object()
    producer(memory).write(record(UNKNOWN, 0, b""))
    found = Consumer(Segment(memory), kind=Kind, origin=origin).next(1)
    assert isinstance(found, Kind)
    assert found
    assert found.origin is origin
    assert found.overrun is None
    assert not Kind()
    with pytest.raises(TypeError):
        Consumer(Segment(memory), kind=dict)  # type: ignore[arg-type]


def test_wait_returns_at_once_when_there_is_news() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    assert not consumer.wait(1000, 1000, OPEN)
    writer.write(record(UNKNOWN, 0, b""))
    assert consumer.wait(0, 3600 * SECOND, OPEN)
    consumer.next(1)
    Segment(memory, writable=True).end(CLOSED, 5)
    assert consumer.wait(0, 3600 * SECOND, OPEN)
    assert not consumer.wait(0, 1000, CLOSED)


def test_slot_outside_the_readers_page_is_refused() -> None:
    page = ReadersPage(heap(READERS_BYTES), create=True)
    for slot in (-1, READERS_SLOTS):
        with pytest.raises(IndexError):
            Consumer(Segment(new_ring()), page, slot)


def test_batches_of_every_size_follow_each_other_without_gap() -> None:
    """Whatever the limit and the lengths, those beyond what is copied at once included."""
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    choose = random.Random(11)
    wanted: list[bytes] = []
    for _ in range(500):
        while writer.position < CAPACITY // 2 or choose.random() < 0.7:
            if writer.sequence - consumer.sequence > 5:
                break
            body = choose.randbytes(choose.choice([0, 1, 7, 60, 400, CAPACITY // 8 - 40]))
            writer.write(record(UNKNOWN, 0, body))
            wanted.append(body)
        found = consumer.next(choose.choice([1, 2, 3, 1000]))
        assert isinstance(found, Records | None)
        for raw in found or ():
            assert bytes(raw)[40:] == wanted.pop(0)
    assert writer.position > 4 * CAPACITY
