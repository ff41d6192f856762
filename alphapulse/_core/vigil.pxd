"""Declarations of the thread that waits for a ring."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from alphapulse._core.consumer cimport Consumer
from alphapulse._core.ring cimport ap_slot
from alphapulse._core.segment cimport ReadersPage


cdef class Vigil:
    cdef int event
    # Atomic; what follows belongs to the thread unless it is idle, save for the timeout.
    cdef uint32_t state
    cdef Consumer consumer
    cdef ReadersPage page
    cdef ap_slot *slot
    cdef uint64_t position
    cdef uint32_t ended
    cdef int64_t spin_ns
    cdef int64_t timeout_ns

    cdef void watch(self) noexcept nogil
