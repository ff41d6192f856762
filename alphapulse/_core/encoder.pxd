from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from alphapulse._core.book cimport Book
from alphapulse._core.changes cimport ChangeSet


cdef class Encoder:
    # The record is data[:size]; up to the next multiple of 8 zeros follow, within the block.
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity
    cdef int exports
    cdef int begin(self, int kind, int flags, uint16_t instrument, int64_t exchange_ns,
                   int64_t received_ns, Py_ssize_t room) except -1
    cdef int finish(self, const uint8_t* end) except -1
    cdef int write_delta(self, ChangeSet changes, uint16_t instrument, uint64_t version,
                         uint64_t back, int64_t exchange_ns, int64_t received_ns,
                         int flags) except -1
    cdef int write_snapshot(self, Book book, Py_ssize_t limit, uint16_t instrument,
                            uint64_t version, int reason, uint64_t depth, object trusted_bid,
                            object trusted_ask, int64_t exchange_ns, int64_t received_ns,
                            int flags) except -1
