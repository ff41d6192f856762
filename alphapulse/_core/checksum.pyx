# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Kraken's checksum: CRC-32 over the digits of the ten best asks, then the ten best bids.

A message changes one or two of the twenty levels, mostly: the digits of the others are kept, and so
is the CRC up to the first level that changed.
"""

from libc.string cimport memcpy

from alphapulse._core.sides cimport Level, best_of, price_of

cdef enum:
    BID_SIDE = 1
    ASK_SIDE = 2

cdef uint32_t[8][256] CRC_TABLES
cdef uint8_t[200] DIGIT_PAIRS


cdef void fill_tables() noexcept:
    """Tables of the reflected polynomial 0xEDB88320 for eight bytes at a time, and ``00..99``."""
    cdef uint32_t value
    cdef int i, j
    for i in range(256):
        value = <uint32_t>i
        for j in range(8):
            value = (value >> 1) ^ (0xEDB88320U if value & 1 else 0)
        CRC_TABLES[0][i] = value
    for i in range(256):
        for j in range(1, 8):
            value = CRC_TABLES[j - 1][i]
            CRC_TABLES[j][i] = (value >> 8) ^ CRC_TABLES[0][value & 0xFF]
    for i in range(100):
        DIGIT_PAIRS[2 * i] = <uint8_t>(c"0" + i // 10)
        DIGIT_PAIRS[2 * i + 1] = <uint8_t>(c"0" + i % 10)


fill_tables()


cdef uint32_t add_to_crc(uint32_t crc, const uint8_t* data, int length) noexcept nogil:
    """Continue a CRC, whose first and last inversion are left to the caller."""
    while length >= 8:
        crc ^= data[0] | <uint32_t>data[1] << 8 | <uint32_t>data[2] << 16 | <uint32_t>data[3] << 24
        crc = (
            CRC_TABLES[7][crc & 0xFF] ^ CRC_TABLES[6][(crc >> 8) & 0xFF]
            ^ CRC_TABLES[5][(crc >> 16) & 0xFF] ^ CRC_TABLES[4][crc >> 24]
            ^ CRC_TABLES[3][data[4]] ^ CRC_TABLES[2][data[5]]
            ^ CRC_TABLES[1][data[6]] ^ CRC_TABLES[0][data[7]]
        )
        data += 8
        length -= 8
    while length > 0:
        crc = (crc >> 8) ^ CRC_TABLES[0][(crc ^ data[0]) & 0xFF]
        data += 1
        length -= 1
    return crc


cdef uint8_t* write_digits(uint8_t* at, int64_t value, int shift) noexcept nogil:
    """Digits of a positive integer with `shift` zeros added, or taken away as far as there are."""
    cdef uint8_t[20] digits
    cdef int start = 20
    cdef uint64_t rest = <uint64_t>value
    while shift < 0 and rest % 10 == 0:
        rest //= 10
        shift += 1
    while rest >= 100:
        start -= 2
        memcpy(&digits[start], &DIGIT_PAIRS[2 * (rest % 100)], 2)
        rest //= 100
    if rest >= 10:
        start -= 2
        memcpy(&digits[start], &DIGIT_PAIRS[2 * rest], 2)
    elif rest:
        start -= 1
        digits[start] = <uint8_t>(c"0" + rest)
    memcpy(at, &digits[start], <size_t>(20 - start))
    at += 20 - start
    while shift > 0:
        at[0] = c"0"
        at += 1
        shift -= 1
    return at


cdef class BookChecksum:
    cdef int slot_of(self, int place, int64_t key, int64_t size) noexcept nogil:
        """Where the line of a level is that was at this place or beside it; -1 where it isn't."""
        cdef int i, slot
        for i in range(max(place - 1, 0), min(place + 2, self.count)):
            slot = self.order[i]
            if self.lines[slot].key == key and self.lines[slot].size == size:
                return slot
        return -1

    cdef int free_slot(self, uint64_t taken) noexcept nogil:
        cdef int slot = 0
        while taken >> slot & 1:
            slot += 1
        return slot

    cdef uint32_t compute(self, const SideArray* asks, const SideArray* bids, int price_shift,
                          int size_shift) noexcept nogil:
        cdef int place = 0, which, slot, i
        cdef int[LINES] order
        cdef uint64_t taken = 0
        cdef uint32_t crc = 0xFFFFFFFFU
        cdef bint same = True
        cdef const SideArray* side
        cdef const Level* level
        cdef Line* line
        cdef uint8_t* end
        if price_shift != self.price_shift or size_shift != self.size_shift:
            self.count = 0
            self.price_shift = price_shift
            self.size_shift = size_shift
        for i in range(self.count):
            taken |= <uint64_t>1 << self.order[i]
        for which in range(ASK_SIDE, BID_SIDE - 1, -1):
            side = asks if which == ASK_SIDE else bids
            if side.count == 0:
                continue
            level = best_of(side)
            for i in range(<int>min(side.count, <Py_ssize_t>LEVELS_SUMMED)):
                slot = self.order[place]
                line = &self.lines[slot]
                if place < self.count and line.key == level.key and line.size == level.size:
                    if same:
                        crc = line.crc
                    else:
                        crc = line.crc = add_to_crc(crc, line.text, line.length)
                else:
                    same = False
                    slot = self.slot_of(place, level.key, level.size)
                    if slot < 0:
                        slot = self.free_slot(taken)
                        taken |= <uint64_t>1 << slot
                        line = &self.lines[slot]
                        end = write_digits(line.text, price_of(which, level.key), price_shift)
                        end = write_digits(end, level.size, size_shift)
                        line.length = <int>(end - line.text)
                        line.key = level.key
                        line.size = level.size
                    line = &self.lines[slot]
                    crc = line.crc = add_to_crc(crc, line.text, line.length)
                order[place] = slot
                place += 1
                level -= 1
        for i in range(place):
            self.order[i] = order[i]
        self.count = place
        return ~crc
