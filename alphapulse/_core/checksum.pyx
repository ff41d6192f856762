# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Kraken's checksum: CRC-32 over the digits of the ten best asks, then the ten best bids.

A message changes one or two of the twenty levels, mostly: the digits of the others are kept.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy

from alphapulse._core.sides cimport best_of, price_of

cdef extern from "crc32.h" nogil:
    enum:
        CRC_ROOM
    void crc_prepare()
    uint32_t crc_of(uint8_t* data, size_t length)
    uint32_t crc_by_tables(const uint8_t* data, size_t length)

cdef enum:
    BID_SIDE = 1
    ASK_SIDE = 2
    COPY_STEP = 16
    # Both sides' lines, with room before and behind.
    SUMMED_BYTES = 1568

cdef uint8_t[200] DIGIT_PAIRS


cdef void fill_tables() noexcept:
    """The texts ``00`` to ``99``, and what the CRC needs."""
    cdef int i
    for i in range(100):
        DIGIT_PAIRS[2 * i] = <uint8_t>(c"0" + i // 10)
        DIGIT_PAIRS[2 * i + 1] = <uint8_t>(c"0" + i % 10)
    crc_prepare()


fill_tables()


def crc32(bytes text not None, *, bint by_tables=False):
    cdef bytearray padded = bytearray(CRC_ROOM) + text
    cdef uint8_t* data = <uint8_t*>PyByteArray_AS_STRING(padded) + CRC_ROOM
    if by_tables:
        return crc_by_tables(data, <size_t>len(text))
    return crc_of(data, <size_t>len(text))


cdef inline uint8_t* copy_text(uint8_t* at, const uint8_t* text, int length) noexcept nogil:
    """Copy in steps, beyond the end; returns where the copy ends."""
    cdef int done = 0
    while done < length:
        memcpy(at + done, text + done, COPY_STEP)
        done += COPY_STEP
    return at + length


cdef inline const Level* best_known(const SummedSide* side) noexcept nogil:
    return &side.levels[LEVELS_SUMMED - 1]


cdef inline bint is_same(const Level* one, const Level* other) noexcept nogil:
    return one.key == other.key and one.size == other.size


cdef inline uint8_t* write_digits(uint8_t* at, int64_t value, int shift) noexcept nogil:
    """Digits of a positive integer with `shift` zeros added, or taken away as far as there are."""
    cdef uint8_t[20 + COPY_STEP] digits
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
    at = copy_text(at, &digits[start], 20 - start)
    while shift > 0:
        at[0] = c"0"
        at += 1
        shift -= 1
    return at


cdef class BookChecksum:
    cdef uint32_t compute(self, const SideArray* asks, const SideArray* bids, int price_shift,
                          int size_shift) noexcept nogil:
        cdef uint8_t[SUMMED_BYTES] text
        cdef uint8_t* at = &text[CRC_ROOM]
        if price_shift != self.price_shift or size_shift != self.size_shift:
            self.asks.count = self.bids.count = 0
            self.asks.length = self.bids.length = 0
            self.price_shift = price_shift
            self.size_shift = size_shift
        self.follow(&self.asks, ASK_SIDE, asks)
        self.follow(&self.bids, BID_SIDE, bids)
        at = copy_text(at, self.asks.text, self.asks.length)
        at = copy_text(at, self.bids.text, self.bids.length)
        for i in range(CRC_ROOM):
            text[i] = 0
        return crc_of(&text[CRC_ROOM], <size_t>(at - &text[CRC_ROOM]))

    cdef void follow(self, SummedSide* known, int side, const SideArray* levels) noexcept nogil:
        """Bring a side's lines up to date; a level that was there before has its digits already."""
        cdef int count = <int>min(levels.count, <Py_ssize_t>LEVELS_SUMMED)
        cdef int both = min(count, known.count)
        cdef int i = 0, old, first, begin, end, shift
        cdef SummedSide before
        cdef const Level* level = best_of(levels) if count else NULL
        cdef const Level* was = best_known(known)
        cdef uint8_t* at
        if count == known.count and (
            count == 0
            or memcmp(level - count + 1, was - count + 1, <size_t>count * sizeof(Level)) == 0
        ):
            return
        while i < both and is_same(level - i, was - i):
            i += 1
        # What follows the first difference is put aside, and made again from there.
        begin = known.starts[i] if i < known.count else known.length
        memcpy(before.levels, known.levels, sizeof(known.levels))
        memcpy(before.starts, known.starts, sizeof(known.starts))
        copy_text(&before.text[begin], &known.text[begin], known.length - begin)
        was = best_known(&before)
        old = i
        at = &known.text[begin]
        while i < count:
            while old < known.count and was[-old].key > level[-i].key:
                old += 1
            first = old
            shift = <int>(at - known.text) - before.starts[old]
            while i < count and old < known.count and is_same(level - i, was - old):
                known.starts[i] = <uint16_t>(before.starts[old] + shift)
                i += 1
                old += 1
            if old > first:
                begin = before.starts[first]
                end = before.starts[old] if old < known.count else known.length
                at = copy_text(at, &before.text[begin], end - begin)
            else:
                known.starts[i] = <uint16_t>(at - known.text)
                at = write_digits(at, price_of(side, level[-i].key), self.price_shift)
                at = write_digits(at, level[-i].size, self.size_shift)
                i += 1
        if count:
            memcpy(
                known.levels + LEVELS_SUMMED - count, level - count + 1,
                <size_t>count * sizeof(Level),
            )
        known.count = count
        known.length = <int>(at - known.text)
