from cpython.object cimport PyObject

from alphapulse._core.fields cimport Words
from alphapulse._core.scan cimport Span


cdef struct Slot:
    Words words
    const unsigned char* text
    Py_ssize_t length
    PyObject* value


cdef class NameTable:
    # Owns the names and values that the slots point to.
    cdef dict entries
    cdef Slot* slots
    cdef Py_ssize_t size
    cdef int put(self, bytes name, object value) except -1
    cdef int lay_out(self, Py_ssize_t size) except -1
    cdef void enter(self, const unsigned char* text, Py_ssize_t length, PyObject* value) noexcept
    cdef Slot* slot_of(self, const Words* words, const unsigned char* text,
                       Py_ssize_t length) noexcept
    cdef PyObject* find(self, const Span* name, const unsigned char* end) noexcept
