"""Records of the wire format for tests of the ring, made without the encoder."""

from __future__ import annotations

import struct
from zlib import crc32

from tests.reference.ring import INSTRUMENT, SNAPSHOT, STATE

UNKNOWN = 200
"""A type that the wire format doesn't have: the ring carries it, events leave it out."""


def record(kind: int, instrument: int, body: bytes) -> bytes:
    """A record; what the ring stamps is left at odd values."""
    head = struct.pack("<IBBHQqqq", 40 + len(body), kind, 0, instrument, 2**64 - 1, -7, 8, -1)
    return head + body


def instrument_record(number: int, exchange: bytes = b"kraken") -> bytes:
    """The instrument A<number>-USD with prices of 2 and sizes of 8 decimal places."""
    base = b"A%d" % number
    names = (exchange, base + b"-USD", base + b"/USD", base, b"USD")
    text = b"".join(bytes([len(name)]) + name for name in names)
    return record(INSTRUMENT, number, bytes([2, 8]) + bytes(22) + text)


def state_record(instrument: int, state: int) -> bytes:
    """A change of state, for reason `gap`."""
    return record(STATE, instrument, bytes([state, 5, 0, 0, 0, 0, 0, 0]))


def snapshot_record(instrument: int, version: int = 1) -> bytes:
    """A book of one bid, 1.00, and one ask, 1.05; the version is at most 127."""
    body = bytes([version, 1, 0, 0, 1, 1]) + b"\xc8\x01\x07" + b"\xd2\x01\x09"
    return record(SNAPSHOT, instrument, body)


def checked_body(sequence: int, epoch: int, size: int) -> bytes:
    """A body that tells whether it is whole and where it belongs."""
    body = struct.pack("<QQ", sequence, epoch) + bytes([sequence % 251]) * size
    return body + struct.pack("<I", crc32(body))


def is_whole(data: memoryview, sequence: int, epoch: int) -> bool:
    """Whether a record has the `checked_body` of this sequence and epoch."""
    body = data[40:]
    if len(body) < 20 or struct.unpack_from("<QQ", body) != (sequence, epoch):
        return False
    crc: int = struct.unpack_from("<I", body, len(body) - 4)[0]
    return crc32(body[:-4]) == crc
