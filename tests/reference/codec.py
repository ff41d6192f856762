"""Plain-Python twin of the native encoder and decoder, written from docs/wire-format.md alone."""

from __future__ import annotations

import struct
from collections.abc import Callable

from alphapulse.errors import RecordError

NO_TIME = -(2**63)
HEADER = struct.Struct("<IBBHQqqq")
INSTRUMENT, SNAPSHOT, DELTA, TRADE, STATE, GAP, HEARTBEAT = range(1, 8)
BID, ASK = 1, 2
INT64_MAX = 2**63 - 1

HeaderFields = tuple[int, int, int, int, int, int, int, int, int]
Levels = tuple[tuple[int, int], ...]
Changes = tuple[tuple[int, int, int, int], ...]


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def svarint(value: int) -> bytes:
    return uvarint((value << 1) ^ (value >> 63))


def text8(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def record(
    kind: int,
    instrument: int,
    body: bytes,
    *,
    flags: int = 0,
    sequence: int = 0,
    ring_id: int = 0,
    exchange_ns: int = NO_TIME,
    received_ns: int = NO_TIME,
    published_ns: int = 0,
) -> bytes:
    header = HEADER.pack(
        HEADER.size + len(body),
        kind,
        flags,
        instrument,
        ring_id << 48 | sequence,
        exchange_ns,
        received_ns,
        published_ns,
    )
    return header + body


def instrument_body(
    price_exponent: int,
    size_exponent: int,
    price_increment: int,
    size_increment: int,
    *texts: str,
) -> bytes:
    fixed = struct.pack("<BB6xqq", price_exponent, size_exponent, price_increment, size_increment)
    return fixed + b"".join(map(text8, texts))


def snapshot_body(
    version: int,
    reason: int,
    depth: int,
    trusted_bid: int | None,
    trusted_ask: int | None,
    bids: Levels,
    asks: Levels,
) -> bytes:
    body = uvarint(version) + bytes([reason]) + uvarint(depth)
    body += bytes([(trusted_bid is not None) | (trusted_ask is not None) << 1])
    for bound in (trusted_bid, trusted_ask):
        if bound is not None:
            body += svarint(bound)
    body += uvarint(len(bids)) + uvarint(len(asks))
    for levels in (bids, asks):
        last = None
        for price, size in levels:
            body += svarint(price) if last is None else uvarint(abs(price - last))
            body += uvarint(size)
            last = price
    return body


def delta_body(version: int, prev_version: int, changes: Changes) -> bytes:
    bids = sum(side == BID for side, _, _, _ in changes)
    body = uvarint(version) + uvarint(version - prev_version)
    body += uvarint(bids) + uvarint(len(changes) - bids)
    last = 0
    for _, price, size, action in changes:
        body += svarint(price - last) + uvarint(size << 1 | (action == 1))
        last = price
    return body


def trade_body(
    price: int, size: int, side: int, trade_id: str, id_kind: int, matches: int
) -> bytes:
    number = 0 if id_kind == 2 else int(trade_id)
    body = struct.pack("<qqQIBBxx", price, size, number, matches, side, id_kind)
    return body + (text8(trade_id) if id_kind == 2 else b"")


def state_body(state: int, reason: int) -> bytes:
    return struct.pack("<BB6x", state, reason)


def gap_body(
    channel: int,
    reason: int,
    first: int | None,
    last: int | None,
    count: int | None,
    since_ns: int,
) -> bytes:
    values = (first, last, count)
    known = sum(1 << bit for bit, value in enumerate(values) if value is not None)
    return struct.pack(
        "<BBB5xqqqq", channel, reason, known, *(value or 0 for value in values), since_ns
    )


class Cursor:
    """Takes fields off a body; anything that isn't there is a `RecordError`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if len(self.data) - self.at < count:
            raise RecordError("cut off")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            require(shift < 70)
        require(value < 2**64 and (byte != 0 or shift == 7))
        return value

    def signed(self) -> int:
        raw = self.unsigned()
        return (raw >> 1) ^ -(raw & 1)

    def text(self) -> str:
        try:
            return self.take(self.byte()).decode()
        except UnicodeDecodeError as error:
            raise RecordError(str(error)) from None


def require(condition: bool) -> None:
    if not condition:
        raise RecordError("malformed")


def decode(data: bytes) -> tuple[HeaderFields, tuple[object, ...] | None]:
    """Header and body of exactly one record, as the native decoder gives them."""
    require(len(data) >= HEADER.size)
    length, kind, flags, instrument, route, *times = HEADER.unpack_from(data)
    require(length == len(data))
    header = (length, kind, flags, instrument, route % 2**48, route >> 48, *times)
    reader = READERS.get(kind)
    if reader is None:
        return header, None
    cursor = Cursor(data[HEADER.size :])
    body = reader(cursor)
    require(cursor.at == len(cursor.data))
    return header, body


def read_instrument(cursor: Cursor) -> tuple[object, ...]:
    fixed = cursor.take(24)
    price_exponent, size_exponent, zero, price_increment, size_increment = struct.unpack(
        "<BB6sqq", fixed
    )
    require(zero == bytes(6) and price_exponent <= 18 and size_exponent <= 18)
    texts = [cursor.text() for _ in range(5)]
    return (price_exponent, size_exponent, price_increment, size_increment, *texts)


def read_snapshot(cursor: Cursor) -> tuple[object, ...]:
    version, reason, depth, bounds = (
        cursor.unsigned(),
        cursor.byte(),
        cursor.unsigned(),
        cursor.byte(),
    )
    require(bounds <= 3)
    trusted_bid = cursor.signed() if bounds & 1 else None
    trusted_ask = cursor.signed() if bounds & 2 else None
    counts = cursor.unsigned(), cursor.unsigned()
    sides = []
    for count, direction in zip(counts, (-1, 1), strict=True):
        levels: list[tuple[int, int]] = []
        while len(levels) < count:
            if levels:
                distance = cursor.unsigned()
                require(distance >= 1)
                price = levels[-1][0] + direction * distance
            else:
                price = cursor.signed()
            size = cursor.unsigned()
            require(1 <= price <= INT64_MAX and 1 <= size <= INT64_MAX)
            levels.append((price, size))
        sides.append(tuple(levels))
    return (version, reason, depth, trusted_bid, trusted_ask, *sides)


def read_delta(cursor: Cursor) -> tuple[object, ...]:
    version, back = cursor.unsigned(), cursor.unsigned()
    require(0 < back <= version)
    bids, asks = cursor.unsigned(), cursor.unsigned()
    changes: list[tuple[int, int, int, int]] = []
    price = 0
    while len(changes) < bids + asks:
        side = BID if len(changes) < bids else ASK
        last = price
        price = (last + cursor.signed() + 2**63) % 2**64 - 2**63
        amount = cursor.unsigned()
        require(price >= 1 and amount != 1)
        if changes and changes[-1][0] == side:
            require(price < last if side == BID else price > last)
        action = 1 if amount & 1 else 2 if amount else 3
        changes.append((side, price, amount >> 1, action))
    return (version, version - back, tuple(changes))


def read_trade(cursor: Cursor) -> tuple[object, ...]:
    price, size, number, matches, side, id_kind, zero = struct.unpack("<qqQIBB2s", cursor.take(32))
    require(zero == bytes(2) and 1 <= side <= 2 and id_kind <= 2)
    require(id_kind != 2 or number == 0)
    trade_id = cursor.text() if id_kind == 2 else str(number)
    return (price, size, side, trade_id, id_kind, matches)


def read_state(cursor: Cursor) -> tuple[object, ...]:
    state, reason, zero = struct.unpack("<BB6s", cursor.take(8))
    require(zero == bytes(6))
    return (state, reason)


def read_gap(cursor: Cursor) -> tuple[object, ...]:
    channel, reason, known, zero, *values, since_ns = struct.unpack("<BBB5sqqqq", cursor.take(40))
    require(zero == bytes(5) and known <= 7)
    for bit, value in enumerate(values):
        require(bool(known >> bit & 1) or value == 0)
    told = [value if known >> bit & 1 else None for bit, value in enumerate(values)]
    return (channel, reason, *told, since_ns)


READERS: dict[int, Callable[[Cursor], tuple[object, ...]]] = {
    INSTRUMENT: read_instrument,
    SNAPSHOT: read_snapshot,
    DELTA: read_delta,
    TRADE: read_trade,
    STATE: read_state,
    GAP: read_gap,
    HEARTBEAT: lambda _: (),
}
