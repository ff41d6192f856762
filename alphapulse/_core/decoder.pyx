# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Reads records of the wire format (docs/wire-format.md).

What is read is taken as hostile: every field is checked against the bytes that are there, and
memory is only reserved for what these bytes can hold.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint64_t

from alphapulse._core.book cimport Book
from alphapulse._core.changes cimport ChangeSet
from alphapulse._core.levels cimport ASK, BID, LevelStage
from alphapulse._core.scan cimport INT64_LARGEST
from alphapulse._core.wire cimport (
    DELTA,
    GAP,
    GAP_BODY,
    HEADER_BYTES,
    HEARTBEAT,
    ID_TEXT,
    INSTRUMENT,
    INSTRUMENT_BODY,
    MAX_EXPONENT,
    SNAPSHOT,
    STATE,
    STATE_BODY,
    TRADE,
    TRADE_BODY,
    TRUSTED_ASK,
    TRUSTED_BID,
    Header,
    Reader,
    all_zero,
    get_byte,
    get_header,
    get_svarint,
    get_u32,
    get_u64,
    get_uvarint,
)

from alphapulse.errors import BookError, RecordError

HEADER_SIZE = HEADER_BYTES


cdef int open_record(const Py_buffer* view, Header* header, Reader* body) except -1:
    """Header of exactly one record; `body` is what follows it."""
    if view.len < HEADER_BYTES:
        raise RecordError(f"{view.len} bytes are no record")
    get_header(<const uint8_t*>view.buf, header)
    if header.length != view.len:
        raise RecordError(f"a record of {header.length} bytes in {view.len}")
    body.at = <const uint8_t*>view.buf + HEADER_BYTES
    body.end = <const uint8_t*>view.buf + view.len
    return 0


cdef tuple header_fields(const Header* header):
    return (
        header.length, header.type, header.flags, header.instrument, header.sequence,
        header.ring_id, header.exchange_ns, header.received_ns, header.published_ns,
    )


cdef str get_text(Reader* body):
    cdef uint8_t length
    cdef const char* start = <const char*>body.at + 1
    if not get_byte(body, &length) or body.end - body.at < length:
        raise RecordError("a text is cut off")
    body.at += length
    try:
        return start[:length].decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"a text is no UTF-8: {error}") from None


cdef int expect_end(const Reader* body, str what) except -1:
    if body.at != body.end:
        raise RecordError(f"{body.end - body.at} bytes follow the {what}")
    return 0


cdef tuple read_instrument(Reader* body):
    cdef const uint8_t* at = body.at
    if body.end - at < INSTRUMENT_BODY or not all_zero(at + 2, 6):
        raise RecordError("an instrument is cut off or malformed")
    if at[0] > MAX_EXPONENT or at[1] > MAX_EXPONENT:
        raise RecordError(f"exponents {at[0]}, {at[1]} exceed {MAX_EXPONENT}")
    body.at += INSTRUMENT_BODY
    texts = (get_text(body), get_text(body), get_text(body), get_text(body), get_text(body))
    expect_end(body, "instrument")
    return (at[0], at[1], <int64_t>get_u64(at + 8), <int64_t>get_u64(at + 16), *texts)


cdef tuple read_trade(Reader* body):
    cdef const uint8_t* at = body.at
    if body.end - at < TRADE_BODY or not all_zero(at + 30, 2):
        raise RecordError("a trade is cut off or malformed")
    if not (1 <= at[28] <= 2 and at[29] <= ID_TEXT):
        raise RecordError(f"a trade of side {at[28]} and id kind {at[29]}")
    body.at += TRADE_BODY
    cdef uint64_t number = get_u64(at + 16)
    cdef str trade_id
    if at[29] == ID_TEXT:
        if number:
            raise RecordError("a trade has a number and a text for its id")
        trade_id = get_text(body)
    else:
        trade_id = str(number)
    expect_end(body, "trade")
    return (
        <int64_t>get_u64(at), <int64_t>get_u64(at + 8), at[28], trade_id, at[29],
        get_u32(at + 24),
    )


cdef tuple read_state(Reader* body):
    cdef const uint8_t* at = body.at
    if body.end - at != STATE_BODY or not all_zero(at + 2, 6):
        raise RecordError("a state is cut off or malformed")
    return (at[0], at[1])


cdef tuple read_gap(Reader* body):
    cdef const uint8_t* at = body.at
    cdef int i
    cdef list values = []
    if body.end - at != GAP_BODY or not all_zero(at + 3, 5) or at[2] > 7:
        raise RecordError("a gap is cut off or malformed")
    for i in range(3):
        if at[2] >> i & 1:
            values.append(<int64_t>get_u64(at + 8 + 8 * i))
        elif get_u64(at + 8 + 8 * i):
            raise RecordError("a gap has a value that it calls unknown")
        else:
            values.append(None)
    return (at[0], at[1], *values, <int64_t>get_u64(at + 32))


cdef bint stage_side(Reader* body, LevelStage stage, int side, uint64_t count) noexcept nogil:
    """Put one side of a snapshot on the stage; False where the bytes are no such levels."""
    cdef int64_t price = 0
    cdef uint64_t i, distance, size
    for i in range(count):
        if i == 0:
            if not get_svarint(body, &price) or price < 1:
                return False
        else:
            if not get_uvarint(body, &distance) or distance == 0:
                return False
            if side == BID:
                if distance >= <uint64_t>price:
                    return False
                price -= <int64_t>distance
            else:
                if distance > <uint64_t>(INT64_LARGEST - price):
                    return False
                price += <int64_t>distance
        if not get_uvarint(body, &size) or size == 0 or size > <uint64_t>INT64_LARGEST:
            return False
        if stage.push(side, price, <int64_t>size, 1) < 0:
            return False
    return True


cdef int reserve_levels(Reader* body, LevelStage stage, uint64_t bids, uint64_t asks) except -1:
    """Memory for what the bytes can hold: a level or a change takes at least two of them."""
    cdef uint64_t possible = <uint64_t>(body.end - body.at) // 2
    if bids > possible or asks > possible - bids:
        raise RecordError(f"{bids} bids and {asks} asks in {body.end - body.at} bytes")
    stage.clear()
    stage.reserve(<Py_ssize_t>(bids + asks))
    return 0


cdef tuple stage_snapshot(Reader* body, LevelStage stage):
    """Put a snapshot's levels on the stage.

    Gives (version, reason, depth, trusted bid, trusted ask, number of bids).
    """
    cdef uint64_t version, depth, bids, asks
    cdef int64_t bid = 0, ask = 0
    cdef uint8_t reason, bounds
    if not (get_uvarint(body, &version) and get_byte(body, &reason)
            and get_uvarint(body, &depth) and get_byte(body, &bounds)):
        raise RecordError("a snapshot is cut off or malformed")
    if bounds > (TRUSTED_BID | TRUSTED_ASK):
        raise RecordError(f"a snapshot has bounds {bounds}")
    if bounds & TRUSTED_BID and not get_svarint(body, &bid):
        raise RecordError("a snapshot is cut off or malformed")
    if bounds & TRUSTED_ASK and not get_svarint(body, &ask):
        raise RecordError("a snapshot is cut off or malformed")
    if not (get_uvarint(body, &bids) and get_uvarint(body, &asks)):
        raise RecordError("a snapshot is cut off or malformed")
    reserve_levels(body, stage, bids, asks)
    if not (stage_side(body, stage, BID, bids) and stage_side(body, stage, ASK, asks)):
        stage.clear()
        raise RecordError("a snapshot's levels are cut off or malformed")
    expect_end(body, "snapshot")
    return (
        version, reason, depth, bid if bounds & TRUSTED_BID else None,
        ask if bounds & TRUSTED_ASK else None, bids,
    )


cdef bint stage_changes(Reader* body, LevelStage stage, uint64_t bids,
                        uint64_t asks) noexcept nogil:
    """Put a delta's changes on the stage; False where the bytes are no such changes."""
    cdef uint64_t i, amount
    cdef int64_t difference, price = 0, last
    cdef int side
    for i in range(bids + asks):
        side = BID if i < bids else ASK
        last = price
        if not (get_svarint(body, &difference) and get_uvarint(body, &amount)):
            return False
        price = <int64_t>(<uint64_t>last + <uint64_t>difference)
        # Size 0 removes a level, so it can't be a new one.
        if price < 1 or amount == 1:
            return False
        if i != 0 and i != bids and (price >= last if side == BID else price <= last):
            return False
        if stage.push(side, price, <int64_t>(amount >> 1), <int>(amount & 1)) < 0:
            return False
    return True


cdef tuple stage_delta(Reader* body, LevelStage stage):
    """Put a delta's changes on the stage; gives (version, prev_version)."""
    cdef uint64_t version, back, bids, asks
    if not (get_uvarint(body, &version) and get_uvarint(body, &back)
            and get_uvarint(body, &bids) and get_uvarint(body, &asks)):
        raise RecordError("a delta is cut off or malformed")
    if not 0 < back <= version:
        raise RecordError(f"version {version} can't be {back} after another")
    reserve_levels(body, stage, bids, asks)
    if not stage_changes(body, stage, bids, asks):
        stage.clear()
        raise RecordError("a delta's changes are cut off or malformed")
    expect_end(body, "delta")
    return (version, version - back)


cdef tuple staged_levels(LevelStage stage, Py_ssize_t first, Py_ssize_t end):
    cdef Py_ssize_t i
    return tuple([(stage.items[i].price, stage.items[i].size) for i in range(first, end)])


cdef tuple read_snapshot(Reader* body):
    cdef LevelStage stage = LevelStage()
    cdef tuple found = stage_snapshot(body, stage)
    cdef Py_ssize_t bids = found[5]
    return (
        *found[:5], staged_levels(stage, 0, bids), staged_levels(stage, bids, stage.count)
    )


cdef tuple read_delta(Reader* body):
    cdef LevelStage stage = LevelStage()
    cdef tuple versions = stage_delta(body, stage)
    cdef Py_ssize_t i
    cdef list changes = []
    for i in range(stage.count):
        changes.append((
            stage.items[i].side, stage.items[i].price, stage.items[i].size,
            1 if stage.items[i].added else 2 if stage.items[i].size else 3,
        ))
    return (*versions, tuple(changes))


cdef tuple read_body(int kind, Reader* body):
    if kind == DELTA:
        return read_delta(body)
    if kind == TRADE:
        return read_trade(body)
    if kind == SNAPSHOT:
        return read_snapshot(body)
    if kind == INSTRUMENT:
        return read_instrument(body)
    if kind == STATE:
        return read_state(body)
    if kind == GAP:
        return read_gap(body)
    if kind == HEARTBEAT:
        expect_end(body, "heartbeat")
        return ()
    return None


def read_header(data):
    cdef Py_buffer view
    cdef Header header
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len < HEADER_BYTES:
            raise RecordError(f"{view.len} bytes are no record")
        get_header(<const uint8_t*>view.buf, &header)
        if not HEADER_BYTES <= header.length <= view.len:
            raise RecordError(f"a record of {header.length} bytes in {view.len}")
        return header_fields(&header)
    finally:
        PyBuffer_Release(&view)


def decode(data):
    cdef Py_buffer view
    cdef Header header
    cdef Reader body
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        open_record(&view, &header, &body)
        return header_fields(&header), read_body(header.type, &body)
    finally:
        PyBuffer_Release(&view)


def peek_version(data):
    cdef Py_buffer view
    cdef Header header
    cdef Reader body
    cdef uint64_t version
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        open_record(&view, &header, &body)
        if header.type != SNAPSHOT and header.type != DELTA:
            raise RecordError(f"a record of type {header.type} has no version")
        if not get_uvarint(&body, &version):
            raise RecordError("a version is cut off or malformed")
        return version
    finally:
        PyBuffer_Release(&view)


def load_snapshot(data, Book book not None, LevelStage stage not None):
    cdef Py_buffer view
    cdef Header header
    cdef Reader body
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        open_record(&view, &header, &body)
        if header.type != SNAPSHOT:
            raise RecordError(f"a record of type {header.type} is no snapshot")
        found = stage_snapshot(&body, stage)
        book.load_stage(stage)
        return found[:5]
    finally:
        PyBuffer_Release(&view)


def apply_delta(data, Book book not None, LevelStage stage not None, uint64_t version):
    cdef Py_buffer view
    cdef Header header
    cdef Reader body
    cdef uint64_t new_version, prev_version
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        open_record(&view, &header, &body)
        if header.type != DELTA:
            raise RecordError(f"a record of type {header.type} is no delta")
        new_version, prev_version = stage_delta(&body, stage)
        if prev_version != version:
            raise BookError(f"a delta from version {prev_version} for a book at {version}")
        book.apply_stage(stage)
        if not told_right(stage, book.changes):
            raise BookError(f"the delta to version {new_version} contradicts the book")
        return new_version
    finally:
        PyBuffer_Release(&view)


cdef bint told_right(LevelStage stage, ChangeSet changes) noexcept nogil:
    """Whether each staged change was a real one, and new levels were told as new."""
    cdef Py_ssize_t i
    if stage.count != changes.count:
        return False
    for i in range(stage.count):
        if stage.items[i].added != (changes.items[i].before == 0):
            return False
    return True
