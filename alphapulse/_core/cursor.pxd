from libc.stdint cimport int64_t

from alphapulse._core.consumer cimport Consumer


cdef class Cursor:
    # None as long as something else comes first.
    cdef Consumer consumer
    cdef int64_t spin_ns
