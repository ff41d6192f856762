"""Declarations of the growing text."""

from libc.stdint cimport int64_t

cdef enum:
    # A number: sign, digits or zeros, point.
    MOST_PLACES = 64
    NUMBER_BYTES = MOST_PLACES + 24
    SECOND_PLACES = 9


cdef class TextWriter:
    """One text at a time: `size` is set to 0 first, and each `put` has room reserved."""

    cdef char* data
    cdef Py_ssize_t size, room

    cdef int reserve(self, Py_ssize_t more) except -1
    cdef void put(self, const char* text, Py_ssize_t size) noexcept
    cdef void number(self, int64_t value, int places) noexcept
    cdef void time(self, int64_t time_ns, int places) noexcept
    cdef str text(self, Py_ssize_t start)


cdef int check_places(int places) except -1
