from libc.stdint cimport uint8_t, uint32_t, uint64_t

from alphapulse._core.records cimport Chunk, Records
from alphapulse._core.ring cimport ap_slot
from alphapulse._core.segment cimport ReadersPage, Segment


cdef class Consumer:
    cdef readonly Segment segment
    cdef ReadersPage readers
    cdef ap_slot *slot
    cdef object kind
    cdef object origin
    cdef Chunk chunk
    cdef Chunk spare
    cdef uint64_t usual
    # Accepted of `chunk` by the present call.
    cdef Py_ssize_t end
    cdef Py_ssize_t count
    cdef uint64_t position
    cdef uint64_t expected
    cdef uint64_t filter_until
    cdef bint drop_history
    cdef bint lapped
    cdef uint64_t told
    cdef uint8_t *synced
    # How many instruments of the directory whoever reads has taken over.
    cdef public uint32_t known

    cdef void tell(self) noexcept
    cdef bint has_more(self) noexcept
    cdef object advance(self, Py_ssize_t limit)
    cdef uint64_t before_sequence(self, uint64_t sequence, uint64_t committed) noexcept nogil
    cdef void place(self, uint64_t position, uint64_t sequence, uint64_t filter_until,
                    bint drop_history) noexcept nogil
    cdef uint64_t oldest_snapshot(self) noexcept nogil
    cdef int fill(self, Py_ssize_t limit) except -1
    cdef int contradict(self, uint64_t committed) except -1
    cdef int reserve(self, uint64_t more) except -1
    cdef uint64_t accept(self, uint64_t bytes, Py_ssize_t limit) except? 1
    cdef Records take(self)
    cdef object recover(self)
