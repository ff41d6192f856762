"""Both sides of the native ring against its plain-Python twin, and against hostile memory."""

from __future__ import annotations

import contextlib
import ctypes
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.consumer import Consumer
from alphapulse._core.records import Records
from alphapulse._core.segment import Segment, layout, segment_bytes
from alphapulse.errors import RingCorrupt, RingTooSmall
from tests.reference.ring import (
    DELTA,
    GAP,
    SNAPSHOT,
    STATE,
    TRADE,
    ReferenceReader,
    ReferenceRing,
    Refused,
)
from tests.ring_memory import CAPACITY, INSTRUMENTS, RING_ID, filled, new_ring, producer
from tests.ring_records import UNKNOWN, instrument_record, record, state_record

bodies = st.integers(0, 2008) | st.sampled_from([0, 1, 7, 8, 2000, 2008])
writes = st.tuples(
    st.just("write"),
    st.sampled_from([SNAPSHOT, DELTA, DELTA, TRADE, STATE, GAP, UNKNOWN]),
    st.integers(1, 3),
    bodies,
    st.integers(1, 12),
)
reads = st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 30))
attaches = st.tuples(
    st.just("attach"), st.integers(0, 2), st.sampled_from(["latest", "oldest", "seek"]),
    st.integers(1, 200),
)  # fmt: skip
operations = st.lists(writes | writes | reads | attaches, max_size=60)


class Pair:
    """The ring and its twin, each with three readers."""

    def __init__(self) -> None:
        self.memory = new_ring()
        self.native = producer(self.memory)
        self.twin = ReferenceRing(CAPACITY, RING_ID)
        self.consumers = [Consumer(Segment(self.memory)) for _ in range(3)]
        self.readers = [ReferenceReader(self.twin) for _ in range(3)]
        for number in (1, 2, 3):
            self.put(instrument_record(number))

    def put(self, data: bytes) -> None:
        time = len(self.twin.records) * 1000
        wanted = self.twin.write(data, time)
        if isinstance(wanted, Refused):
            with pytest.raises(RingTooSmall) as caught:
                self.native.write(data, time)
            assert caught.value.needed_bytes == wanted.needed_bytes
        else:
            assert self.native.write(data, time) == wanted

    def write(self, kind: int, instrument: int, size: int, times: int) -> None:
        for i in range(times):
            if kind == STATE:
                self.put(state_record(instrument, size % 4))
            else:
                self.put(record(kind, instrument, bytes([i + 1]) * size))

    def attach(self, which: int, how: str, sequence: int) -> None:
        consumer, reader = self.consumers[which], self.readers[which]
        if how == "seek":
            try:
                reader.seek(sequence)
            except ValueError:
                with pytest.raises(ValueError, match="beyond"):
                    consumer.seek(sequence)
                return
            consumer.seek(sequence)
        else:
            getattr(reader, f"seek_{how}")()
            getattr(consumer, f"seek_{how}")()
        assert consumer.sequence == reader.sequence

    def read(self, which: int, limit: int) -> None:
        found, wanted = self.consumers[which].next(limit), self.readers[which].next(limit)
        if isinstance(found, Records):
            assert isinstance(wanted, list)
            assert [bytes(r.data) for r in found] == [self.twin.kept(s).data for s in wanted]
            assert [r.sequence for r in found] == wanted
            assert [r.type for r in found] == [self.twin.kept(s).kind for s in wanted]
        else:
            assert found == wanted
        assert self.consumers[which].sequence == self.readers[which].sequence

    def compare(self) -> None:
        area = layout()
        assert bytes(self.memory)[-CAPACITY:] == self.twin.area
        segment = Segment(self.memory)
        assert segment.announced == segment.committed == self.twin.committed
        assert segment.sequence == len(self.twin.records) == self.native.sequence
        assert segment.tail()[:2] == (self.twin.committed, len(self.twin.records))
        assert area["directory"] == 4096
        for i, (number, snapshot) in enumerate(self.twin.snapshots.items()):
            entry = segment.entry(i)
            assert (entry[0], entry[2]) == (number, self.twin.states[number])
            place = None if snapshot is None else self.twin.position(snapshot)
            assert entry[4] == place
            assert place is None or entry[5] == snapshot
        live = [s for s in self.twin.snapshots.values() if s is not None]
        assert self.native.snapshot_bytes == sum(self.twin.kept(s).padded for s in live)


@given(operations)
def test_ring_does_as_its_twin(steps: list[tuple[str, int, int, int, int]]) -> None:
    pair = Pair()
    for name, *arguments in steps:
        getattr(pair, name)(*arguments)
    pair.compare()
    for which in range(3):
        for _ in range(3):
            pair.read(which, 1000)


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 40), st.integers(1, 50)), max_size=25)
)
def test_every_sequence_is_given_or_counted_as_lost(steps: list[tuple[int, int, int]]) -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    for number in (1, 2):
        writer.write(instrument_record(number))
        writer.write(record(SNAPSHOT, number, b"book"))
    given, lost = 0, 0
    for size, times, limit in steps:
        for i in range(times):
            writer.write(record(DELTA, 1 + i % 2, bytes(size)))
            for due in writer.due(1):
                writer.write(record(SNAPSHOT, due, b"book"))
        found = consumer.next(limit)
        if isinstance(found, Records):
            given += len(found)
        elif found is not None:
            lost += found[2]
    while (found := consumer.next(50)) is not None:
        if isinstance(found, Records):
            given += len(found)
        else:
            lost += found[2]
    assert given + lost == writer.sequence
    assert consumer.drained


words = st.sampled_from(
    [0, 1, 7, 8, 39, 40, 4096, CAPACITY, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 8]
)
header_offsets = st.integers(0, 80).map(lambda i: i * 8)
places = st.one_of(
    header_offsets,
    st.sampled_from([256, 320, 328, 512, 576]),
    st.integers(0, (segment_bytes(CAPACITY, INSTRUMENTS) - 8) // 4).map(lambda i: i * 4),
)


def filled_ring() -> bytes:
    memory = new_ring()
    writer = producer(memory)
    for number in (1, 2, 3):
        writer.write(instrument_record(number))
        writer.write(record(SNAPSHOT, number, b"book" * number))
    for i in range(400):
        writer.write(record((DELTA, TRADE, UNKNOWN)[i % 3], 1 + i % 3, bytes(i % 90)))
        for number in writer.due(1):
            writer.write(record(SNAPSHOT, number, b"book"))
    return bytes(memory)


FILLED = filled_ring()


def use_all(memory: ctypes.Array[ctypes.c_ubyte]) -> None:
    """Do whatever a reader can do, for a bounded time whatever the memory says."""
    segment = Segment(memory)
    _ = (segment.venue, segment.predecessor, segment.sequence)
    for i in range(segment.instrument_count):
        segment.entry(i)
    segment.tail()
    consumer = Consumer(segment)
    for seek in (consumer.seek_latest, consumer.seek_oldest, lambda: consumer.seek(300)):
        seek()
        for limit in (1, 1000):
            for _ in range(3):
                found = consumer.next(limit)
                if isinstance(found, Records):
                    assert sum(len(bytes(r)) for r in found) <= len(memory)
                    found.trades_into(bytearray(64 * found.count_type(TRADE, 72)))


@given(
    st.lists(st.tuples(places, words | st.integers(0, 2**64 - 1)), min_size=1, max_size=6),
    st.booleans(),
)
def test_hostile_memory_is_survived(changes: list[tuple[int, int]], follow: bool) -> None:
    memory = filled(FILLED)
    early = Consumer(Segment(memory))
    if follow:
        early.next(5)
    for offset, word in changes:
        struct.pack_into("<Q", memory, min(offset, len(FILLED) - 8), word)
    with contextlib.suppress(RingCorrupt, ValueError):
        use_all(memory)
    with contextlib.suppress(RingCorrupt):
        for _ in range(4):
            early.next(1000)
