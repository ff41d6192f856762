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
