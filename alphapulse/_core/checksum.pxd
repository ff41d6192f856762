from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from alphapulse._core.sides cimport Level, SideArray

cdef enum:
    LEVELS_SUMMED = 10
    # Two numbers of at most 19 digits, each with up to 18 zeros added.
    LINE_BYTES = 74
    # A side's ten lines; what is copied in steps of 16 bytes may go beyond them.
    TEXT_BYTES = 768


cdef struct SummedSide:
    # The levels of last time, best first, and their digits, one line after the other.
    Level[LEVELS_SUMMED] levels
    int count
    uint16_t[LEVELS_SUMMED] starts
    int length
    uint8_t[TEXT_BYTES] text


cdef class BookChecksum:
    cdef SummedSide asks
    cdef SummedSide bids
    cdef int price_shift
    cdef int size_shift
    cdef uint32_t compute(self, const SideArray* asks, const SideArray* bids, int price_shift,
                          int size_shift) noexcept nogil
    cdef void follow(self, SummedSide* known, int side, const SideArray* levels) noexcept nogil
