# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Writes records of the wire format (docs/wire-format.md)."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from alphapulse._core.book cimport Book
from alphapulse._core.changes cimport Change, ChangeSet
from alphapulse._core.levels cimport BID
from alphapulse._core.sides cimport Cursor, Level, SideArray, cursor_of, next_level, price_of
from alphapulse._core.wire cimport (
    COUNT_KNOWN,
    DELTA,
    FIRST_KNOWN,
    GAP,
    GAP_BODY,
    HEADER_BYTES,
    HEARTBEAT,
    ID_TEXT,
    INSTRUMENT,
    INSTRUMENT_BODY,
    LAST_KNOWN,
    MAX_EXPONENT,
    MAX_VARINT,
    NO_TIME,
    SNAPSHOT,
    STATE,
    STATE_BODY,
    TRADE,
    TRADE_BODY,
    TRUSTED_ASK,
    TRUSTED_BID,
    put_svarint,
    put_trade,
    put_u16,
    put_u32,
    put_u64,
    put_uvarint,
)

cdef enum:
    # A block larger than this is given back with the next small record.
    KEPT_BYTES = 65_536

cdef uint32_t LARGEST_RECORD = 0xFFFFFFF8U


cdef class Encoder:
    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.exports -= 1

    cdef int begin(self, int kind, int flags, uint16_t instrument, int64_t exchange_ns,
                   int64_t received_ns, Py_ssize_t room) except -1:
        """Start a record whose body takes at most `room` bytes."""
        cdef Py_ssize_t needed = HEADER_BYTES + room + 8
        cdef void* block
        if self.exports:
            raise BufferError("the encoder's record is still in use")
        if not 0 <= flags <= 255:
            raise ValueError(f"flags are one byte, not {flags}")
        if needed > self.capacity or self.capacity > KEPT_BYTES >= needed:
            needed = max(needed, 256)
            block = realloc(self.data, <size_t>needed)
            if block is NULL:
                raise MemoryError
            self.data = <uint8_t*>block
            self.capacity = needed
        self.size = 0
        self.data[4] = <uint8_t>kind
        self.data[5] = <uint8_t>flags
        put_u16(self.data + 6, instrument)
        put_u64(self.data + 8, 0)
        put_u64(self.data + 16, <uint64_t>exchange_ns)
        put_u64(self.data + 24, <uint64_t>received_ns)
        put_u64(self.data + 32, 0)
        return 0

    cdef int finish(self, const uint8_t* end) except -1:
        """Set the length and clear the padding."""
        cdef Py_ssize_t size = end - self.data
        if size > LARGEST_RECORD:
            raise ValueError(f"a record of {size} bytes is too long")
        memset(self.data + size, 0, 8)
        put_u32(self.data, <uint32_t>size)
        self.size = size
        return 0

    cdef int write_delta(self, ChangeSet changes, uint16_t instrument, uint64_t version,
                         uint64_t back, int64_t exchange_ns, int64_t received_ns,
                         int flags) except -1:
        """See `delta`."""
        cdef Py_ssize_t i, bids = 0
        cdef uint64_t price = 0, next_price
        cdef Change* change
        cdef uint8_t* at
        self.begin(
            DELTA, flags, instrument, exchange_ns, received_ns,
            4 * MAX_VARINT + changes.count * 2 * MAX_VARINT,
        )
        while bids < changes.count and changes.items[bids].side == BID:
            bids += 1
        at = put_uvarint(self.data + HEADER_BYTES, version)
        at = put_uvarint(at, back)
        at = put_uvarint(at, <uint64_t>bids)
        at = put_uvarint(at, <uint64_t>(changes.count - bids))
        for i in range(changes.count):
            change = &changes.items[i]
            next_price = <uint64_t>price_of(change.side, change.key)
            at = put_svarint(at, <int64_t>(next_price - price))
            at = put_uvarint(
                at,
                <uint64_t>change.after << 1 | (change.before == 0 and change.after != 0),
            )
            price = next_price
        return self.finish(at)

    cdef int write_snapshot(self, Book book, Py_ssize_t limit, uint16_t instrument,
                            uint64_t version, int reason, uint64_t depth, object trusted_bid,
                            object trusted_ask, int64_t exchange_ns, int64_t received_ns,
                            int flags) except -1:
        """See `snapshot`."""
        cdef Py_ssize_t[2] counts
        cdef Py_ssize_t i, levels = 0
        cdef int64_t bid = 0, ask = 0
        cdef uint8_t bounds = 0
        cdef uint8_t* at
        for i in range(2):
            counts[i] = book.sides[i].count
            if 0 < limit < counts[i]:
                counts[i] = limit
            levels += counts[i]
        if trusted_bid is not None:
            bid = trusted_bid
            bounds |= TRUSTED_BID
        if trusted_ask is not None:
            ask = trusted_ask
            bounds |= TRUSTED_ASK
        self.begin(
            SNAPSHOT, flags, instrument, exchange_ns, received_ns,
            8 * MAX_VARINT + levels * 2 * MAX_VARINT,
        )
        at = put_uvarint(self.data + HEADER_BYTES, version)
        at[0] = byte_of(reason)
        at = put_uvarint(at + 1, depth)
        at[0] = bounds
        at += 1
        if bounds & TRUSTED_BID:
            at = put_svarint(at, bid)
        if bounds & TRUSTED_ASK:
            at = put_svarint(at, ask)
        at = put_uvarint(at, <uint64_t>counts[0])
        at = put_uvarint(at, <uint64_t>counts[1])
        for i in range(2):
            at = put_levels(at, BID + <int>i, &book.sides[i], counts[i])
        return self.finish(at)

    def stamp(self, uint64_t sequence, uint16_t ring_id, int64_t published_ns):
        if self.size == 0:
            raise ValueError("there is no record to stamp")
        if self.exports:
            raise BufferError("the encoder's record is still in use")
        if sequence >> 48:
            raise ValueError(f"sequence {sequence} exceeds 48 bits")
        put_u64(self.data + 8, sequence | <uint64_t>ring_id << 48)
        put_u64(self.data + 32, <uint64_t>published_ns)
        return self

    def instrument(self, uint16_t instrument_id, int price_exponent, int size_exponent,
                   int64_t price_increment, int64_t size_increment, str exchange, str symbol,
                   str venue_symbol, str base, str quote, *, int64_t exchange_ns=NO_TIME,
                   int64_t received_ns=NO_TIME, int flags=0):
        cdef tuple texts = (exchange, symbol, venue_symbol, base, quote)
        cdef uint8_t* at
        if not (0 <= price_exponent <= MAX_EXPONENT and 0 <= size_exponent <= MAX_EXPONENT):
            raise ValueError(f"exponents are 0 to 18, not {price_exponent}, {size_exponent}")
        self.begin(
            INSTRUMENT, flags, instrument_id, exchange_ns, received_ns, INSTRUMENT_BODY + 5 * 256
        )
        at = self.data + HEADER_BYTES
        memset(at, 0, 8)
        at[0] = <uint8_t>price_exponent
        at[1] = <uint8_t>size_exponent
        put_u64(at + 8, <uint64_t>price_increment)
        put_u64(at + 16, <uint64_t>size_increment)
        at += INSTRUMENT_BODY
        for text in texts:
            at = put_text(at, text)
        self.finish(at)
        return self

    def snapshot(self, Book book not None, uint16_t instrument_id, uint64_t version, int reason,
                 uint64_t depth=0, trusted_bid=None, trusted_ask=None, *,
                 int64_t exchange_ns=NO_TIME, int64_t received_ns=NO_TIME, int flags=0,
                 Py_ssize_t limit=0):
        self.write_snapshot(
            book, limit, instrument_id, version, reason, depth, trusted_bid, trusted_ask,
            exchange_ns, received_ns, flags,
        )
        return self

    def delta(self, ChangeSet changes not None, uint16_t instrument_id, uint64_t version,
              uint64_t prev_version, *, int64_t exchange_ns=NO_TIME,
              int64_t received_ns=NO_TIME, int flags=0):
        if prev_version >= version:
            raise ValueError(f"version {version} doesn't follow {prev_version}")
        self.write_delta(
            changes, instrument_id, version, version - prev_version, exchange_ns, received_ns,
            flags,
        )
        return self

    def trade(self, uint16_t instrument_id, int64_t price, int64_t size, int side, trade_id,
              int id_kind=0, uint32_t matches=1, *, int64_t exchange_ns=NO_TIME,
              int64_t received_ns=NO_TIME, int flags=0):
        cdef uint64_t number = 0
        cdef uint8_t* at
        if not (1 <= side <= 2 and 0 <= id_kind <= ID_TEXT):
            raise ValueError(f"side {side} or id kind {id_kind} isn't known")
        if id_kind != ID_TEXT:
            number = int(trade_id)
            if str(number) != str(trade_id):
                raise ValueError(f"trade id {trade_id!r} is no plain integer; use id kind 2")
        self.begin(TRADE, flags, instrument_id, exchange_ns, received_ns, TRADE_BODY + 256)
        at = put_trade(
            self.data + HEADER_BYTES, price, size, number, matches, side, id_kind
        )
        if id_kind == ID_TEXT:
            at = put_text(at, trade_id)
        self.finish(at)
        return self

    def state(self, uint16_t instrument_id, int state, int reason, *,
              int64_t exchange_ns=NO_TIME, int64_t received_ns=NO_TIME, int flags=0):
        cdef uint8_t* at
        self.begin(STATE, flags, instrument_id, exchange_ns, received_ns, STATE_BODY)
        at = self.data + HEADER_BYTES
        memset(at, 0, STATE_BODY)
        at[0] = byte_of(state)
        at[1] = byte_of(reason)
        self.finish(at + STATE_BODY)
        return self

    def gap(self, uint16_t instrument_id, int channel, int reason, first=None, last=None,
            count=None, int64_t since_ns=NO_TIME, *, int64_t exchange_ns=NO_TIME,
            int64_t received_ns=NO_TIME, int flags=0):
        cdef int64_t first_value = 0 if first is None else first
        cdef int64_t last_value = 0 if last is None else last
        cdef int64_t count_value = 0 if count is None else count
        cdef uint8_t* at
        self.begin(GAP, flags, instrument_id, exchange_ns, received_ns, GAP_BODY)
        at = self.data + HEADER_BYTES
        memset(at, 0, 8)
        at[0] = byte_of(channel)
        at[1] = byte_of(reason)
        at[2] = (
            FIRST_KNOWN * (first is not None)
            | LAST_KNOWN * (last is not None)
            | COUNT_KNOWN * (count is not None)
        )
        put_u64(at + 8, <uint64_t>first_value)
        put_u64(at + 16, <uint64_t>last_value)
        put_u64(at + 24, <uint64_t>count_value)
        put_u64(at + 32, <uint64_t>since_ns)
        self.finish(at + GAP_BODY)
        return self

    def heartbeat(self, *, int64_t exchange_ns=NO_TIME, int64_t received_ns=NO_TIME,
                  int flags=0):
        self.begin(HEARTBEAT, flags, 0, exchange_ns, received_ns, 0)
        self.finish(self.data + HEADER_BYTES)
        return self


cdef int byte_of(int value) except -1:
    if not 0 <= value <= 255:
        raise ValueError(f"{value} is no byte")
    return value


cdef uint8_t* put_levels(uint8_t* at, int which, const SideArray* side,
                         Py_ssize_t count) noexcept nogil:
    """The best levels of a side, as price or distance and size."""
    cdef Py_ssize_t i
    cdef Cursor cursor = cursor_of(side)
    cdef const Level* level
    cdef int64_t better = 0
    for i in range(count):
        level = next_level(&cursor)
        if i == 0:
            at = put_svarint(at, price_of(which, level.key))
        else:
            # Keys fall from level to level on both sides.
            at = put_uvarint(at, <uint64_t>(better - level.key))
        better = level.key
        at = put_uvarint(at, <uint64_t>level.size)
    return at


cdef uint8_t* put_text(uint8_t* at, str text) except NULL:
    cdef bytes encoded = text.encode()
    cdef Py_ssize_t length = PyBytes_GET_SIZE(encoded)
    if length > 255:
        raise ValueError(f"{text[:40]!r}... exceeds 255 bytes")
    at[0] = <uint8_t>length
    memcpy(at + 1, PyBytes_AS_STRING(encoded), <size_t>length)
    return at + 1 + length
