from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from alphapulse._core.sides cimport SideArray

cdef enum:
    LEVELS_SUMMED = 10
    LINES = 20
    # Those of last time and those of this time.
    SLOTS = 40
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
    # The lines of last time are lines[order[:count]], asks before bids; the others are free.
    cdef Line[SLOTS] lines
    cdef int[LINES] order
    cdef int count
    cdef int price_shift
    cdef int size_shift
    cdef uint32_t compute(self, const SideArray* asks, const SideArray* bids, int price_shift,
                          int size_shift) noexcept nogil
    cdef int slot_of(self, int place, int64_t key, int64_t size) noexcept nogil
    cdef int free_slot(self, uint64_t taken) noexcept nogil
