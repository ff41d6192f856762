from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport free

cdef enum:
    # A set with room for more changes than this (160 KiB) gives its memory back when cleared.
    KEPT_CHANGES = 4_096


cdef struct Change:
    int64_t key
    # Sizes; 0 where the level doesn't exist.
    int64_t before
    int64_t after
    int32_t side
    # Position in the message, while changes are collected.
    uint32_t order


cdef class ChangeSet:
    cdef Change* items
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef int reserve(self, Py_ssize_t capacity) except -1
    cdef inline void note(self, int side, int64_t key, int64_t before,
                          int64_t after) noexcept nogil:
        """Add a change; there must be room."""
        cdef Change* change = &self.items[self.count]
        change.side = side
        change.key = key
        change.before = before
        change.after = after
        change.order = <uint32_t>self.count
        self.count += 1

    cdef inline void clear(self) noexcept nogil:
        """Forget all changes, and give the memory of a large set back."""
        self.count = 0
        if self.capacity > KEPT_CHANGES:
            free(self.items)
            self.items = NULL
            self.capacity = 0

    cdef void settle(self) noexcept nogil
