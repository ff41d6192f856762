# cython: language_level=3
"""Two deliberate errors, to prove that the sanitizers are at work."""

from libc.stdlib cimport free, malloc


def overflow(int size):
    """Read the byte behind a block of the heap."""
    cdef unsigned char *block = <unsigned char *>malloc(size)
    cdef volatile unsigned char *after = block + size
    value = after[0]
    free(block)
    return value


def undefined(int big):
    """Overflow a signed integer."""
    cdef int sum = big + big
    return sum
