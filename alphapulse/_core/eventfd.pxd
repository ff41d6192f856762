"""The kernel's counters that a thread, or the kernel, tells an event loop by: eventfd(2)."""

from libc.stdint cimport uint64_t


cdef extern from "<sys/eventfd.h>" nogil:
    ctypedef uint64_t eventfd_t
    int eventfd_read(int fd, eventfd_t *value)
    int eventfd_write(int fd, uint64_t value)
