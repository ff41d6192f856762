"""Declarations of the wait for a ring that needs no thread."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from alphapulse._core.consumer cimport Consumer
from alphapulse._core.ring cimport ap_slot
from alphapulse._core.segment cimport ReadersPage


cdef extern from "uring.h" nogil:
    ctypedef struct ap_uring:
        int fd
        uint64_t waiting
        uint32_t queued

    int ap_uring_open(ap_uring *uring, int event)
    int ap_uring_probe(ap_uring *uring)
    int ap_uring_enter(ap_uring *uring)
    int ap_uring_reap(ap_uring *uring)
    void ap_uring_wait(ap_uring *uring, const void *word, uint32_t value)
    void ap_uring_limit(ap_uring *uring, int64_t now_ns, int64_t timeout_ns)
    void ap_uring_cancel(ap_uring *uring)
    void ap_uring_close(ap_uring *uring)


cdef class UringVigil:
    cdef int event
    cdef ap_uring uring
    cdef Consumer consumer
    cdef ReadersPage page
    cdef ap_slot *slot

    cdef int settle(self) except -1
    cdef void get_up(self) noexcept
