from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from alphapulse._core.sides cimport SideArray

cdef enum:
    LEVELS_SUMMED = 10
    # Two numbers of at most 19 digits, each with up to 18 zeros added.
    LINE_BYTES = 2 * 37


cdef struct Line:
    # A level of the book, its digits, and the CRC of all lines up to and with this one.
    int64_t key
    int64_t size
    uint32_t crc
    int length
    uint8_t[LINE_BYTES] text


cdef class BookChecksum:
    # Asks, then bids; what was computed last, and room for the next.
    cdef Line[2][2 * LEVELS_SUMMED] lines
    cdef int[2] counts
    cdef int latest
    cdef int price_shift
    cdef int size_shift
    cdef uint32_t compute(self, const SideArray* asks, const SideArray* bids, int price_shift,
                          int size_shift) noexcept nogil
    cdef const Line* known(self, int place, int64_t key, int64_t size) noexcept nogil
