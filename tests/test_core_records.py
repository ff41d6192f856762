"""Records copied out of a ring."""

from __future__ import annotations

import struct

from alphapulse._core.consumer import Consumer
from alphapulse._core.records import Records
from alphapulse._core.segment import Segment
from tests.reference.ring import TRADE
from tests.ring_memory import given_by, new_ring, producer
from tests.ring_records import UNKNOWN, record


def test_records_outlive_what_the_consumer_does_next() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    writer.write(record(UNKNOWN, 0, b"kept"))
    kept = list(given_by(consumer))
    views = [r.data for r in kept]
    for i in range(1000):
        writer.write(record(UNKNOWN, 0, bytes([i % 256]) * 50))
        consumer.next(1)
    assert bytes(views[0])[40:] == b"kept"
    assert views[0].readonly


def test_trades_fill_rows() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    writer.write(record(UNKNOWN, 0, bytes(80)))
    writer.write(record(TRADE, 7, struct.pack("<qqQIBB2x", -5, 6, 2**64 - 1, 3, 2, 0)), 99)
    writer.write(record(TRADE, 7, b"too short"))
    found = consumer.next(10)
    assert isinstance(found, Records)
    assert found.count_type(TRADE, 72) == 1
    rows = bytearray(64)
    assert found.trades_into(rows) == 1
    assert struct.unpack("<QqqqqqQIBBH", rows) == (2, -7, 8, 99, -5, 6, 2**64 - 1, 3, 2, 0, 7)
    assert found.trades_into(bytearray(63)) == 0


def test_records_of_some_types_are_iterated_over() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    for kind in (UNKNOWN, TRADE, 3, 63, TRADE):
        writer.write(record(kind, 7, b"body"))
    found = consumer.next(10)
    assert isinstance(found, Records)
    assert [r.type for r in found] == [UNKNOWN, TRADE, 3, 63, TRADE]
    assert [r.sequence for r in found.of_types(1 << TRADE)] == [2, 5]
    assert [r.type for r in found.of_types(1 << 3 | 1 << 63)] == [3, 63]
    assert list(found.of_types(0)) == []


def test_the_last_known_time_of_receipt_is_told() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    for received_ns in (5, 7, -(2**63)):
        body = bytearray(record(UNKNOWN, 0, b""))
        struct.pack_into("<q", body, 24, received_ns)
        writer.write(bytes(body))
    found = consumer.next(10)
    assert isinstance(found, Records)
    assert found.received_ns == 7
    assert Records().received_ns == -(2**63)


def test_delays_are_told_by_type() -> None:
    memory = new_ring()
    writer, consumer = producer(memory), Consumer(Segment(memory))
    assert (Records().published_ns, Records().delays(TRADE)) == (-(2**63), [])
    for kind, instrument, published_ns in ((TRADE, 7, 30), (UNKNOWN, 1, 31), (TRADE, 2, 8)):
        writer.write(record(kind, instrument, b"body"), published_ns)
    found = consumer.next(10)
    assert isinstance(found, Records)
    assert found.delays(TRADE) == [(7, 22), (2, 0)]
    assert found.delays(UNKNOWN) == [(1, 23)]
    assert found.published_ns == 8
