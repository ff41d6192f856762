"""The writing side of a ring: what it stamps, refuses and wants repeated."""

from __future__ import annotations

import struct

import pytest

from alphapulse._core.consumer import Consumer
from alphapulse._core.producer import Producer
from alphapulse._core.segment import OPEN, READERS_BYTES, ReadersPage, Segment, segment_bytes
from alphapulse.errors import RecordError, RingError, RingTooSmall
from tests.reference.ring import INSTRUMENT, LIVE, SNAPSHOT, STATE
from tests.ring_memory import (
    CAPACITY,
    INSTRUMENTS,
    RING_ID,
    SECOND,
    given_by,
    heap,
    new_ring,
    producer,
)
from tests.ring_records import UNKNOWN, instrument_record, record, state_record


def test_write_stamps_route_and_time() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    assert writer.write(record(UNKNOWN, 3, b"first")) == 1
    assert writer.write(record(UNKNOWN, 3, b"second"), 456) == 2
    first, second = given_by(consumer)
    assert struct.unpack_from("<Q", first.data, 8)[0] == RING_ID << 48 | 1
    assert [r.published_ns for r in (first, second)] == [123, 456]
    assert (first.exchange_ns, first.received_ns, first.instrument) == (-7, 8, 3)
    assert bytes(second)[40:] == b"second"
    assert (writer.sequence, writer.position, writer.published_ns) == (2, 96, 456)


def padded(*records: bytes) -> bytes:
    return b"".join(data + bytes(-len(data) % 8) for data in records)


def test_run_is_written_as_its_records_are() -> None:
    one, many = new_ring(), new_ring()
    writer, runs = producer(one), producer(many)
    consumer = Consumer(Segment(many))
    records = [record(UNKNOWN, 3, bytes(range(i))) for i in range(60)]
    for lap in range(10):
        for data in records:
            writer.write(data, lap)
        for first in range(0, len(records), 12):
            run = padded(*records[first : first + 12])
            assert runs.write_run(run, lap) == 60 * lap + first + 12
        assert (runs.position, runs.sequence) == (writer.position, writer.sequence)
        assert runs.published_ns == lap
        assert [r.sequence for r in given_by(consumer)] == list(range(60 * lap + 1, 60 * lap + 61))
    area = segment_bytes(CAPACITY, INSTRUMENTS) - CAPACITY
    assert bytes(many)[area:] == bytes(one)[area:]
    assert Segment(many).tail() == Segment(one).tail()


@pytest.mark.parametrize(
    ("run", "error"),
    [(b"", RecordError), (bytes(40), RecordError), (record(UNKNOWN, 0, b"x"), RecordError),
     (padded(record(UNKNOWN, 0, b"x")) + bytes(8), RecordError),
     (padded(record(UNKNOWN, 0, b"")) + instrument_record(1), RecordError),
     (record(SNAPSHOT, 1, b""), RecordError), (padded(state_record(1, LIVE)), RecordError),
     (record(UNKNOWN, 0, bytes(CAPACITY // 8 - 32)), RingTooSmall)],
)  # fmt: skip
def test_what_is_no_run_is_refused_and_leaves_no_trace(run: bytes, error: type[Exception]) -> None:
    memory = new_ring()
    writer = producer(memory)
    before = bytes(memory)
    with pytest.raises(error):
        writer.write_run(run)
    assert bytes(memory) == before
    assert writer.sequence == 0


def test_run_after_close_is_refused() -> None:
    writer = producer(new_ring())
    writer.stop_segment()
    with pytest.raises(RingError, match="closed"):
        writer.write_run(padded(record(UNKNOWN, 0, b"x")))


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
    writer, segment = producer(memory), Segment(memory)
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
        Producer(Segment(memory))
    producer(memory).write(record(UNKNOWN, 0, b""))
    with pytest.raises(RingError, match="already"):
        producer(memory)
    with pytest.raises(BufferError):
        Segment(bytes(memory), writable=True)


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


def test_writer_wakes_only_who_sleeps() -> None:
    memory, page = new_ring(), heap(READERS_BYTES)
    writer = Producer(Segment(memory, writable=True), ReadersPage(page, create=True), lambda: 1)
    consumer = Consumer(Segment(memory), ReadersPage(page), 254)
    writer.write(record(UNKNOWN, 0, b""))
    writer.wake()
    assert writer.wakes == 0
    consumer.next(10)
    assert not consumer.wait(0, 1000, OPEN)
    writer.wake()
    writer.wake()
    assert writer.wakes == 1
    assert struct.unpack_from("<IIQQ", page, 255 * 64) == (0, 0, 1_795_000_000_000, 1)
