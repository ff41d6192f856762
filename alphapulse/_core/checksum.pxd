from libc.stdint cimport uint8_t, uint16_t, uint32_t

from alphapulse._core.sides cimport Level, SideArray

cdef enum:
    LEVELS_SUMMED = 10
    # Two numbers of at most 19 digits, each with up to 18 zeros added.
    LINE_BYTES = 74
    # A side's ten lines; what is copied in steps of 16 bytes may go beyond them.
    TEXT_BYTES = 768


cdef struct SummedSide:
    # The levels of last time, in a book's order: the best is the last of the array.
    Level[LEVELS_SUMMED] levels
    int count
    # Their digits, one line after the other, best first, and where each line starts.
    uint16_t[LEVELS_SUMMED + 1] starts
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
