# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A growing JSON text: what native code writes that would be dear to write in Python.

Numbers are written by the rule of `alphapulse.fixed.format_decimal`: exact digits, no trailing
zeros, no bare point.
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from alphapulse.clock import NO_TIME

cdef int64_t _NO_TIME = NO_TIME


cdef class TextWriter:
    """A growing text, for one call at a time."""

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef char* larger
        if self.size + more > self.room:
            larger = <char*>PyMem_Realloc(self.data, 2 * (self.size + more))
            if larger == NULL:
                raise MemoryError
            self.data, self.room = larger, 2 * (self.size + more)
        return 0

    cdef void put(self, const char* text, Py_ssize_t size) noexcept:
        memcpy(self.data + self.size, text, size)
        self.size += size

    cdef void number(self, int64_t value, int places) noexcept:
        """A scaled integer; there is room for `NUMBER_BYTES`."""
        cdef char digits[24]
        cdef int first = 24, count, point
        cdef uint64_t rest = <uint64_t>value
        if value < 0:
            rest = 0 - rest
            self.put("-", 1)
        while places > 0 and rest % 10 == 0 and rest:
            rest //= 10
            places -= 1
        if rest == 0:
            places = 0
        while rest or first == 24:
            first -= 1
            digits[first] = <char>(48 + rest % 10)
            rest //= 10
        count = 24 - first
        if places == 0:
            self.put(digits + first, count)
            return
        point = count - places
        if point > 0:
            self.put(digits + first, point)
            self.put(".", 1)
            self.put(digits + first + point, places)
            return
        self.put("0.", 2)
        memset(self.data + self.size, 48, -point)
        self.size -= point
        self.put(digits + first, count)

    cdef void time(self, int64_t time_ns, int places) noexcept:
        if time_ns == _NO_TIME:
            self.put("null", 4)
        else:
            self.number(time_ns, places)

    cdef str text(self, Py_ssize_t start):
        return self.data[start : self.size].decode("ascii")


cdef int check_places(int places) except -1:
    if not 0 <= places <= MOST_PLACES:
        raise ValueError(f"{places} decimal places; 0 to {MOST_PLACES} can be written")
    return 0
