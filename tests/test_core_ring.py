"""The native ring against its plain-Python twin, on exact-size blocks of the heap."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core import ring as core
from alphapulse.errors import RecordError, RingCorrupt, RingError, RingTooSmall
from tests.reference.ring import (
    DELTA,
    GAP,
    INSTRUMENT,
    LIVE,
    SNAPSHOT,
    STATE,
    TRADE,
    ReferenceReader,
    ReferenceRing,
    Refused,
)
from tests.ring_records import UNKNOWN, instrument_record, record, state_record

CAPACITY = core.MIN_CAPACITY
INSTRUMENTS = 4
RING_ID = 2
SECOND = 1_000_000_000


def heap(size: int) -> ctypes.Array[ctypes.c_ubyte]:
    """Zeroed memory of exactly this size, so that a sanitizer sees the byte beyond."""
    return (ctypes.c_ubyte * size)()


def filled(content: bytes, size: int | None = None) -> ctypes.Array[ctypes.c_ubyte]:
    """The same, beginning with this content."""
    memory = heap(len(content) if size is None else size)
    ctypes.memmove(memory, content, len(content))
    return memory


def new_ring(capacity: int = CAPACITY) -> ctypes.Array[ctypes.c_ubyte]:
    memory = heap(core.segment_bytes(capacity, INSTRUMENTS))
    core.initialise(
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


def producer(memory: ctypes.Array[ctypes.c_ubyte]) -> core.Producer:
    return core.Producer(core.Segment(memory, writable=True), clock=lambda: 123)


def given_by(consumer: core.Consumer, limit: int = 1000) -> Iterator[core.RawRecord]:
    while isinstance(found := consumer.next(limit), core.Records):
        yield from found


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
        self.consumers = [core.Consumer(core.Segment(self.memory)) for _ in range(3)]
        self.readers = [ReferenceReader(self.twin) for _ in range(3)]
        self.accounts: list[set[int]] = [set(), set(), set()]
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
        if isinstance(found, core.Records):
            assert isinstance(wanted, list)
            assert [bytes(r.data) for r in found] == [self.twin.kept(s).data for s in wanted]
            assert [r.sequence for r in found] == wanted
            assert [r.type for r in found] == [self.twin.kept(s).kind for s in wanted]
        else:
            assert found == wanted
        assert self.consumers[which].sequence == self.readers[which].sequence

    def compare(self) -> None:
        area = core.layout()
        assert bytes(self.memory)[-CAPACITY:] == self.twin.area
        segment = core.Segment(self.memory)
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
    writer, consumer = producer(memory), core.Consumer(core.Segment(memory))
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
        if isinstance(found, core.Records):
            given += len(found)
        elif found is not None:
            lost += found[2]
    while (found := consumer.next(50)) is not None:
        if isinstance(found, core.Records):
            given += len(found)
        else:
            lost += found[2]
    assert given + lost == writer.sequence
    assert consumer.drained


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
    assert core.layout() == {
        "epoch": 32,
        "ring_id": 40,
        "pid": 44,
        "venue": 80,
        "directory": 4096,
        "index": 4096 + 512,
        "data": 8192,
    }


def test_header_can_be_read_back() -> None:
    segment = core.Segment(new_ring())
    assert (segment.capacity, segment.max_instruments) == (CAPACITY, INSTRUMENTS)
    assert (segment.epoch, segment.ring_id, segment.pid) == (1_795_000_000_000, RING_ID, 77)
    assert (segment.venue, segment.created_ns) == ("kraken", 5)
    assert segment.predecessor == (1_794_000_000_000, 9, 8)
    assert (segment.ended, segment.tail()) == (core.OPEN, (0, 0, 0))


@pytest.mark.parametrize(
    ("capacity", "instruments"),
    [(0, 1), (CAPACITY - 8, 1), (3 << 16, 1), (2**41, 1), (2**80, 1), (CAPACITY, 0),
     (CAPACITY, 65536)],
)  # fmt: skip
def test_impossible_geometry_is_refused(capacity: int, instruments: int) -> None:
    with pytest.raises(ValueError, match="can't be laid out"):
        core.segment_bytes(capacity, instruments)


def test_write_stamps_route_and_time() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), core.Consumer(core.Segment(memory))
    assert writer.write(record(UNKNOWN, 3, b"first")) == 1
    assert writer.write(record(UNKNOWN, 3, b"second"), 456) == 2
    first, second = given_by(consumer)
    assert struct.unpack_from("<Q", first.data, 8)[0] == RING_ID << 48 | 1
    assert [r.published_ns for r in (first, second)] == [123, 456]
    assert (first.exchange_ns, first.received_ns, first.instrument) == (-7, 8, 3)
    assert bytes(second)[40:] == b"second"
    assert (writer.sequence, writer.position, writer.published_ns) == (2, 96, 456)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x28\0\0\0", bytes(39), bytes(40), record(UNKNOWN, 0, b"x")[:-1],
     record(UNKNOWN, 0, b"x") + b"y", record(SNAPSHOT, 9, b"no such"), state_record(9, LIVE),
     record(INSTRUMENT, 1, b"short"), instrument_record(0),
     record(INSTRUMENT, 1, bytes(24) + b"\xff\xff"), record(INSTRUMENT, 1, bytes(420))],
)  # fmt: skip
def test_what_is_no_record_is_refused_and_leaves_no_trace(data: bytes) -> None:
    memory = new_ring()
    writer = producer(memory)
    before = bytes(memory)
    with pytest.raises(RecordError):
        writer.write(data)
    assert bytes(memory) == before


def test_state_without_a_body_is_refused() -> None:
    writer = producer(new_ring())
    writer.write(instrument_record(1))
    with pytest.raises(RecordError, match="state"):
        writer.write(record(STATE, 1, b""))


def test_an_id_has_one_meaning() -> None:
    writer = producer(new_ring())
    writer.write(instrument_record(1))
    writer.write(instrument_record(1))
    other = bytearray(instrument_record(1))
    other[40] = 3
    with pytest.raises(RecordError, match="already"):
        writer.write(other)


def test_full_directory_is_an_error() -> None:
    writer = producer(new_ring())
    for number in range(1, INSTRUMENTS + 1):
        writer.write(instrument_record(number))
    with pytest.raises(RingError, match="max_instruments"):
        writer.write(instrument_record(INSTRUMENTS + 1))


def test_new_id_for_a_symbol_retires_the_old_one() -> None:
    memory = new_ring()
    writer, segment = producer(memory), core.Segment(memory)
    writer.write(instrument_record(1))
    writer.write(record(SNAPSHOT, 1, b"book"))
    rescaled = bytearray(instrument_record(1))
    rescaled[6], rescaled[40] = 2, 3
    writer.write(rescaled)
    assert segment.entry(0)[2:5] == (2, 4, None)
    assert segment.entry(1)[0] == 2
    assert writer.snapshot_bytes == 0


def test_snapshots_too_large_for_the_ring_are_refused_before_writing() -> None:
    memory = new_ring()
    writer = producer(memory)
    for number in (1, 2):
        writer.write(instrument_record(number))
    writer.write(record(SNAPSHOT, 1, bytes(1200)))
    before = bytes(memory)
    with pytest.raises(RingTooSmall) as caught:
        writer.write(record(SNAPSHOT, 2, bytes(1200)))
    assert (caught.value.size_bytes, caught.value.needed_bytes) == (CAPACITY, 2 * CAPACITY)
    assert bytes(memory) == before
    with pytest.raises(RingTooSmall) as caught:
        writer.write(record(UNKNOWN, 0, bytes(100_000)))
    assert caught.value.needed_bytes == 1 << 20
    writer.write(state_record(1, 2))
    writer.write(record(SNAPSHOT, 2, bytes(1200)))


def test_closed_writer_refuses() -> None:
    writer = producer(new_ring())
    writer.stop_segment()
    assert writer.closed
    with pytest.raises(RingError, match="closed"):
        writer.write(record(UNKNOWN, 0, b""))
    with pytest.raises(RingError, match="closed"):
        writer.due(1)
    writer.wake()


def test_producer_needs_fresh_writable_memory() -> None:
    memory = new_ring()
    with pytest.raises(RingError, match="read-only"):
        core.Producer(core.Segment(memory))
    producer(memory).write(record(UNKNOWN, 0, b""))
    with pytest.raises(RingError, match="already"):
        producer(memory)
    with pytest.raises(BufferError):
        core.Segment(bytes(memory), writable=True)


def test_snapshot_comes_due_at_a_quarter_of_the_ring_one_at_a_time() -> None:
    writer = producer(new_ring())
    for number in (1, 2, 3):
        writer.write(instrument_record(number), 1)
        writer.write(record(SNAPSHOT, number, b""), 1)
    assert list(writer.due(2)) == []
    while not (found := writer.due(2)):
        writer.write(record(UNKNOWN, 0, bytes(24)), 2)
    assert list(found) == [1]
    assert CAPACITY // 4 < writer.position < CAPACITY // 4 + 600
    writer.write(record(SNAPSHOT, 1, b""), 2)
    assert len(writer.due(2)) <= 1


def test_all_old_snapshots_come_due_before_the_newer_half_is_left() -> None:
    writer = producer(new_ring())
    for number in (1, 2, 3):
        writer.write(instrument_record(number), 1)
        writer.write(record(SNAPSHOT, number, b""), 1)
    while writer.position < CAPACITY * 3 // 8:
        writer.write(record(UNKNOWN, 0, bytes(24)), 2)
    assert list(writer.due(2)) == [1, 2, 3]


def test_snapshots_are_repeated_within_30_seconds_and_spread() -> None:
    memory = new_ring(1 << 20)
    writer = producer(memory)
    written: dict[int, int] = {}
    for number in (1, 2, 3, 4):
        writer.write(instrument_record(number), SECOND)
        writer.write(record(SNAPSHOT, number, b""), SECOND)
        written[number] = SECOND
    most = 0
    for now in range(SECOND, 200 * SECOND, SECOND // 4):
        found = writer.due(now)
        most = max(most, len(found))
        for number in found:
            assert now - written[number] <= 30 * SECOND
            writer.write(record(SNAPSHOT, number, b""), now)
            written[number] = now
        assert all(now - then <= 30 * SECOND for then in written.values())
    assert most == 1


def test_books_that_are_not_live_are_not_due() -> None:
    writer = producer(new_ring())
    writer.write(instrument_record(1), 1)
    writer.write(record(SNAPSHOT, 1, b""), 1)
    writer.write(state_record(1, 2), 1)
    assert list(writer.due(100 * SECOND)) == []


def test_records_outlive_what_the_consumer_does_next() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), core.Consumer(core.Segment(memory))
    writer.write(record(UNKNOWN, 0, b"kept"))
    kept = list(given_by(consumer))
    views = [r.data for r in kept]
    for i in range(1000):
        writer.write(record(UNKNOWN, 0, bytes([i % 256]) * 50))
        consumer.next(1)
    assert bytes(views[0])[40:] == b"kept"
    assert views[0].readonly


def test_only_a_commit_gives_a_record() -> None:
    """A writer killed between its announcement and its commit has written nothing."""
    memory = new_ring()
    writer, consumer = producer(memory), core.Consumer(core.Segment(memory))
    writer.write(record(UNKNOWN, 0, b"done"))
    committed = struct.unpack_from("<Q", memory, 320)[0]
    writer.write(record(UNKNOWN, 0, b"half"))
    struct.pack_into("<Q", memory, 320, committed)
    assert [bytes(r)[40:] for r in given_by(consumer)] == [b"done"]
    assert core.Segment(memory).tail() == (committed, 1, 123)


def test_announced_position_decides_what_is_torn() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), core.Consumer(core.Segment(memory))
    while writer.position < CAPACITY:
        writer.write(record(UNKNOWN, 0, bytes(24)))
    struct.pack_into("<Q", memory, 256, writer.position + 8)
    found = consumer.next(10)
    assert isinstance(found, tuple)
    assert found[:2] == (1, 128)


def test_trades_fill_rows() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), core.Consumer(core.Segment(memory))
    writer.write(record(UNKNOWN, 0, bytes(80)))
    writer.write(record(TRADE, 7, struct.pack("<qqQIBB2x", -5, 6, 2**64 - 1, 3, 2, 0)), 99)
    writer.write(record(TRADE, 7, b"too short"))
    found = consumer.next(10)
    assert isinstance(found, core.Records)
    assert found.count_type(TRADE, 72) == 1
    rows = bytearray(64)
    assert found.trades_into(rows) == 1
    assert struct.unpack("<QqqqqqQIBBH", rows) == (2, -7, 8, 99, -5, 6, 2**64 - 1, 3, 2, 0, 7)
    assert found.trades_into(bytearray(63)) == 0


def test_wait_returns_at_once_when_there_is_news() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), core.Consumer(core.Segment(memory))
    assert not consumer.wait(1000, 1000, core.OPEN)
    writer.write(record(UNKNOWN, 0, b""))
    assert consumer.wait(0, 3600 * SECOND, core.OPEN)
    consumer.next(1)
    core.Segment(memory, writable=True).end(core.CLOSED, 5)
    assert consumer.wait(0, 3600 * SECOND, core.OPEN)
    assert not consumer.wait(0, 1000, core.CLOSED)


def test_writer_wakes_only_who_sleeps() -> None:
    memory, page = new_ring(), heap(core.READERS_BYTES)
    writer = core.Producer(
        core.Segment(memory, writable=True), core.ReadersPage(page, create=True), lambda: 1
    )
    consumer = core.Consumer(core.Segment(memory), core.ReadersPage(page), 254)
    writer.write(record(UNKNOWN, 0, b""))
    writer.wake()
    assert writer.wakes == 0
    consumer.next(10)
    assert not consumer.wait(0, 1000, core.OPEN)
    writer.wake()
    writer.wake()
    assert writer.wakes == 1
    assert struct.unpack_from("<IIQQ", page, 255 * 64) == (0, 0, 1_795_000_000_000, 1)


words = st.sampled_from(
    [0, 1, 7, 8, 39, 40, 4096, CAPACITY, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 8]
)
header_offsets = st.integers(0, 80).map(lambda i: i * 8)
places = st.one_of(
    header_offsets,
    st.sampled_from([256, 320, 328, 512, 576]),
    st.integers(0, (core.segment_bytes(CAPACITY, INSTRUMENTS) - 8) // 4).map(lambda i: i * 4),
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
    segment = core.Segment(memory)
    _ = (segment.venue, segment.predecessor, segment.sequence)
    for i in range(segment.instrument_count):
        segment.entry(i)
    segment.tail()
    consumer = core.Consumer(segment)
    for seek in (consumer.seek_latest, consumer.seek_oldest, lambda: consumer.seek(300)):
        seek()
        for limit in (1, 1000):
            for _ in range(3):
                found = consumer.next(limit)
                if isinstance(found, core.Records):
                    assert sum(len(bytes(r)) for r in found) <= len(memory)
                    found.trades_into(bytearray(64 * found.count_type(TRADE, 72)))


@given(
    st.lists(st.tuples(places, words | st.integers(0, 2**64 - 1)), min_size=1, max_size=6),
    st.booleans(),
)
def test_hostile_memory_is_survived(changes: list[tuple[int, int]], follow: bool) -> None:
    memory = filled(FILLED)
    early = core.Consumer(core.Segment(memory))
    if follow:
        early.next(5)
    for offset, word in changes:
        struct.pack_into("<Q", memory, min(offset, len(FILLED) - 8), word)
    with contextlib.suppress(RingCorrupt, ValueError):
        use_all(memory)
    with contextlib.suppress(RingCorrupt):
        for _ in range(4):
            early.next(1000)


@given(st.binary(max_size=200), st.integers(0, 12000))
def test_memory_that_is_no_ring_is_refused(head: bytes, size: int) -> None:
    memory = filled(head, max(size, len(head)))
    with pytest.raises(RingCorrupt):
        core.Segment(memory)


@pytest.mark.parametrize(
    ("offset", "word"),
    [(0, 0), (8, 2 | INSTRUMENTS << 32), (8, 1), (8, 1 | 70000 << 32), (16, 0), (24, 0),
     (24, CAPACITY * 2), (24, 2**63), (24, CAPACITY + 8), (32, 0), (32, 2**53), (40, 65536)],
)  # fmt: skip
def test_impossible_headers_are_refused(offset: int, word: int) -> None:
    memory = new_ring()
    struct.pack_into("<Q", memory, offset, word)
    with pytest.raises(RingCorrupt):
        core.Segment(memory)


@pytest.mark.parametrize("size", [0, 4095, core.segment_bytes(CAPACITY, INSTRUMENTS) - 8])
def test_short_segment_is_refused(size: int) -> None:
    memory = filled(bytes(new_ring())[:size])
    with pytest.raises(RingCorrupt):
        core.Segment(memory)


def test_record_of_another_ring_or_order_is_corrupt() -> None:
    memory = new_ring()
    writer = producer(memory)
    writer.write(record(UNKNOWN, 0, b"1"))
    struct.pack_into("<Q", memory, len(memory) - CAPACITY + 8, RING_ID << 48 | 2)
    with pytest.raises(RingCorrupt, match="not 1 of ring 2"):
        core.Consumer(core.Segment(memory)).next(1)


def test_readers_page_of_another_size_or_kind_is_refused() -> None:
    for memory in (heap(64), heap(core.READERS_BYTES)):
        with pytest.raises(RingCorrupt):
            core.ReadersPage(memory)
    page = core.ReadersPage(heap(core.READERS_BYTES), create=True)
    with pytest.raises(IndexError):
        page.set_pid(core.READERS_SLOTS, 1)
    with pytest.raises(IndexError):
        core.Consumer(core.Segment(new_ring()), page, -1)
