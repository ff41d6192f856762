"""Declarations of groups of clients."""

from cpython.object cimport PyObject


cdef class Group:
    cdef PyObject** _members  # owned references
    cdef Py_ssize_t _count, _room

    cdef int _resize(self, Py_ssize_t room) except -1
