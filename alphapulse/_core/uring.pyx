# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Waits for a ring without a thread: the kernel itself tells by an eventfd.

Source: io_uring_setup(2), io_uring_enter(2); its waits for futexes came with Linux 6.7.
"""

import os

from libc.errno cimport EBADF
from libc.stdint cimport int64_t, uint32_t, uint64_t

from alphapulse._core.consumer cimport Consumer
from alphapulse._core.eventfd cimport eventfd_read, eventfd_t, eventfd_write
from alphapulse._core.ring cimport (
    CLOCK_MONOTONIC,
    ap_get_up,
    ap_header,
    ap_lie_down,
    ap_now,
    ap_readers,
    ap_wake_word,
)


cdef class UringVigil:
    """One event loop's wait for one ring at a time; all of it belongs to the thread that made it.

    Parameters
    ----------
    event : eventfd, written to whenever a wait is over

    Raises
    ------
    OSError
        Where the kernel, or a container's rules, offer no such wait.
    """

    def __cinit__(self):
        self.uring.fd = -1

    def __init__(self, int event):
        cdef int error = ap_uring_open(&self.uring, event)
        if not error:
            error = ap_uring_probe(&self.uring)
        if error:
            ap_uring_close(&self.uring)
            raise OSError(error, f"io_uring can't wait for a futex: {os.strerror(error)}")
        self.event = event

    def arm(self, Consumer consumer not None, int64_t timeout_ns, uint32_t ended):
        """Tell when `Consumer.wait` would return; now and then earlier.

        A wait for something else that it was armed for before is given up.
        """
        cdef const ap_header *header = consumer.segment.ring.header
        cdef ap_readers *readers = NULL if consumer.readers is None else consumer.readers.readers
        cdef uint32_t word
        if self.uring.fd < 0:
            fail(EBADF)  # another thread closed it
        if self.uring.waiting:
            self.settle()
        if self.uring.waiting and self.consumer is not consumer:
            ap_uring_cancel(&self.uring)
        self.get_up()
        self.consumer = consumer
        self.page = consumer.readers
        self.slot = consumer.slot
        if consumer.lapped or not ap_lie_down(header, readers, self.slot, consumer.position, ended,
                                              &word):
            self.get_up()
            eventfd_write(self.event, 1)
        else:
            if not self.uring.waiting:
                ap_uring_wait(&self.uring, ap_wake_word(header), word)
            ap_uring_limit(&self.uring, ap_now(CLOCK_MONOTONIC), timeout_ns)
        if self.uring.queued:
            fail(ap_uring_enter(&self.uring))

    def hear(self):
        """Take what was told; the eventfd, which doesn't block, is silent then until more is."""
        cdef eventfd_t value
        self.settle()
        eventfd_read(self.event, &value)

    def close(self):
        """Wait no more. The eventfd stays open."""
        self.get_up()
        ap_uring_close(&self.uring)

    def __dealloc__(self):
        ap_uring_close(&self.uring)

    cdef int settle(self) except -1:
        """Have the kernel process what is over."""
        fail(ap_uring_enter(&self.uring))
        fail(-ap_uring_reap(&self.uring))
        if not self.uring.waiting:
            self.get_up()
        return 0

    cdef void get_up(self) noexcept:
        if self.page is not None:
            ap_get_up(self.page.readers, self.slot)


cdef int fail(int error) except -1:
    if error:
        raise OSError(error, f"io_uring: {os.strerror(error)}")
    return 0
