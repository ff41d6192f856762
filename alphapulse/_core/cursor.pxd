from libc.stdint cimport int64_t

from alphapulse._core.consumer cimport Consumer


cdef class Cursor:
    # None as long as something else comes first.
    cdef Consumer consumer
    cdef object nothing
    cdef int64_t spin_ns
    # When it is time to look for another ring, on the monotonic clock.
    cdef public int64_t look_at_ns
