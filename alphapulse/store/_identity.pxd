"""Declarations of what others need of identities."""

from libc.stdint cimport uint64_t

cdef uint64_t number_of(str text) except? 0
