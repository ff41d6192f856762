"""Reading and writing the fields of records (docs/wire-format.md): bounds are always checked."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "<endian.h>" nogil:
    uint16_t htole16(uint16_t value)
    uint32_t htole32(uint32_t value)
    uint64_t htole64(uint64_t value)
    uint16_t le16toh(uint16_t value)
    uint32_t le32toh(uint32_t value)
    uint64_t le64toh(uint64_t value)


cdef extern from *:
    const int64_t NO_TIME "INT64_MIN"


cdef enum:
    HEADER_BYTES = 40
    MAX_VARINT = 10
    MAX_EXPONENT = 18
    # Bytes of a body, or of its fixed part.
    INSTRUMENT_BODY = 24
    TRADE_BODY = 32
    STATE_BODY = 8
    GAP_BODY = 40
    # `id_kind` of a trade whose id is text.
    ID_TEXT = 2
    # Bits of a snapshot's `bounds` and of a gap's `known`.
    TRUSTED_BID = 1
    TRUSTED_ASK = 2
    FIRST_KNOWN = 1
    LAST_KNOWN = 2
    COUNT_KNOWN = 4

cdef enum RecordType:
    INSTRUMENT = 1
    SNAPSHOT = 2
    DELTA = 3
    TRADE = 4
    STATE = 5
    GAP = 6
    HEARTBEAT = 7


cdef struct Header:
    uint32_t length
    uint8_t type
    uint8_t flags
    uint16_t instrument
    uint64_t sequence
    uint16_t ring_id
    int64_t exchange_ns
    int64_t received_ns
    int64_t published_ns


cdef struct Reader:
    const uint8_t* at
    const uint8_t* end


cdef inline void put_u16(uint8_t* at, uint16_t value) noexcept nogil:
    value = htole16(value)
    memcpy(at, &value, 2)


cdef inline void put_u32(uint8_t* at, uint32_t value) noexcept nogil:
    value = htole32(value)
    memcpy(at, &value, 4)


cdef inline void put_u64(uint8_t* at, uint64_t value) noexcept nogil:
    value = htole64(value)
    memcpy(at, &value, 8)


cdef inline uint16_t get_u16(const uint8_t* at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return le16toh(value)


cdef inline uint32_t get_u32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return le32toh(value)


cdef inline uint64_t get_u64(const uint8_t* at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return le64toh(value)


cdef inline uint8_t* put_uvarint(uint8_t* at, uint64_t value) noexcept nogil:
    """Write at most `MAX_VARINT` bytes; returns where the next field goes."""
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        at += 1
        value >>= 7
    at[0] = <uint8_t>value
    return at + 1


cdef inline uint8_t* put_svarint(uint8_t* at, int64_t value) noexcept nogil:
    return put_uvarint(at, (<uint64_t>value << 1) ^ (<uint64_t>0 - (value < 0)))


cdef inline uint8_t* put_trade(uint8_t* at, int64_t price, int64_t size, uint64_t trade_id,
                               uint32_t matches, int side, int id_kind) noexcept nogil:
    """Write a trade's body; where its id is text, that goes behind it."""
    put_u64(at, <uint64_t>price)
    put_u64(at + 8, <uint64_t>size)
    put_u64(at + 16, trade_id)
    put_u32(at + 24, matches)
    at[28] = <uint8_t>side
    at[29] = <uint8_t>id_kind
    put_u16(at + 30, 0)
    return at + TRADE_BODY


cdef inline bint get_uvarint(Reader* reader, uint64_t* value) noexcept nogil:
    """False where the varint is cut off, exceeds 64 bits or is longer than needed."""
    cdef uint64_t result = 0
    cdef int shift = 0
    cdef uint8_t byte
    while reader.at < reader.end:
        byte = reader.at[0]
        reader.at += 1
        if shift == 63 and byte > 1:
            return False
        result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = result
            return byte != 0 or shift == 0
        shift += 7
    return False


cdef inline bint get_svarint(Reader* reader, int64_t* value) noexcept nogil:
    cdef uint64_t raw
    if not get_uvarint(reader, &raw):
        return False
    value[0] = <int64_t>((raw >> 1) ^ (<uint64_t>0 - (raw & 1)))
    return True


cdef inline bint get_byte(Reader* reader, uint8_t* value) noexcept nogil:
    if reader.at == reader.end:
        return False
    value[0] = reader.at[0]
    reader.at += 1
    return True


cdef inline bint all_zero(const uint8_t* at, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        if at[i]:
            return False
    return True


cdef inline void get_header(const uint8_t* at, Header* header) noexcept nogil:
    """Read the header from at least `HEADER_BYTES` bytes."""
    cdef uint64_t route = get_u64(at + 8)
    header.length = get_u32(at)
    header.type = at[4]
    header.flags = at[5]
    header.instrument = get_u16(at + 6)
    header.sequence = route << 16 >> 16
    header.ring_id = <uint16_t>(route >> 48)
    header.exchange_ns = <int64_t>get_u64(at + 16)
    header.received_ns = <int64_t>get_u64(at + 24)
    header.published_ns = <int64_t>get_u64(at + 32)
