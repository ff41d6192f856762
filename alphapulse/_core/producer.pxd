"""For other native modules: `Producer.put` writes without the interpreter."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from alphapulse._core.ring cimport ap_ring
from alphapulse._core.segment cimport ReadersPage, Segment


cdef struct Live:
    int32_t before
    int32_t after
    bint linked
    uint64_t bytes
    uint64_t position
    int64_t written_ns


cdef class Producer:
    cdef readonly Segment segment
    cdef ReadersPage readers
    cdef ap_ring *ring
    cdef object clock
    cdef bint native_clock
    cdef Live *live
    cdef int32_t *entry_of
    cdef int32_t sentinel
    cdef uint64_t live_bytes
    cdef uint64_t live_count
    cdef uint64_t next_position
    cdef uint64_t last_sequence
    cdef int64_t last_published_ns
    cdef int64_t due_ns
    cdef double due_credit
    cdef readonly uint64_t wakes

    cdef uint64_t put(self, const uint8_t *record, uint64_t length,
                      int64_t published_ns) except 0
    cdef int64_t now(self) except? -1
    cdef int refuse(self, const uint8_t *record, uint64_t length) except -1
    cdef int32_t check_book(self, int kind, int instrument, uint64_t padded) except -2
    cdef int32_t announce(self, const uint8_t *record, uint64_t length, int instrument) except -2
    cdef void link(self, int32_t entry, uint64_t position, uint64_t padded,
                   int64_t written_ns) noexcept nogil
    cdef void unlink(self, int32_t entry) noexcept nogil
