"""One side of a book: levels in a sorted array with free room at both ends.

A level is found by a galloping search from the best one, and inserting or removing moves the
shorter part.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove


cdef struct Level:
    # The price of a bid, minus the price of an ask: the best level has the largest key.
    int64_t key
    int64_t size


cdef struct SideArray:
    # Levels lie at block[head : head + count], ascending by key, so the best one is the last.
    Level* block
    Py_ssize_t head
    Py_ssize_t count
    Py_ssize_t capacity


cdef inline Level* best_of(const SideArray* side) noexcept nogil:
    """The side's best level; only where it has one."""
    return side.block + side.head + side.count - 1


cdef inline int64_t price_of(int side, int64_t key) noexcept nogil:
    return key if side == 1 else -key


cdef inline int64_t key_of(int side, int64_t price) noexcept nogil:
    return price if side == 1 else -price


cdef inline Py_ssize_t position_of(const SideArray* side, int64_t key) noexcept nogil:
    """How many levels have a smaller key: the place of the key, whether it is there or not."""
    cdef const Level* levels
    cdef Py_ssize_t low, high = side.count, middle, step = 1
    if high == 0:
        return 0
    levels = side.block + side.head
    # Most changes are near the touch: gallop down from the best level, then halve.
    low = high
    while low > 0 and levels[low - 1].key >= key:
        high = low - 1
        low = low - step if low > step else 0
        step *= 2
    while low < high:
        middle = low + (high - low) // 2
        if levels[middle].key < key:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline int make_room(SideArray* side, Py_ssize_t extra) except -1:
    """Room for so many more levels, with enough to spare that blocks seldom move."""
    cdef Py_ssize_t needed = side.count + extra, capacity, head
    cdef Level* block
    if side.block is not NULL and side.capacity >= needed + needed // 4:
        return 0
    capacity = needed + needed // 2 + 16
    block = <Level*>malloc(<size_t>capacity * sizeof(Level))
    if block is NULL:
        raise MemoryError
    head = (capacity - side.count) // 2
    if side.count:
        memcpy(block + head, side.block + side.head, <size_t>side.count * sizeof(Level))
    free(side.block)
    side.block = block
    side.head = head
    side.capacity = capacity
    return 0


cdef inline void recentre(SideArray* side) noexcept nogil:
    """Move the levels to the middle of their block."""
    cdef Py_ssize_t head = (side.capacity - side.count) // 2
    memmove(side.block + head, side.block + side.head, <size_t>side.count * sizeof(Level))
    side.head = head


cdef inline void insert_level(SideArray* side, Py_ssize_t at, int64_t key,
                              int64_t size) noexcept nogil:
    """Insert at a position; the block must have room for one more."""
    cdef bint shift_front = at < side.count - at
    cdef bint blocked = side.head == 0 if shift_front else side.head + side.count == side.capacity
    cdef Level* levels
    if blocked:
        recentre(side)
        # A single free place ends up at the back.
        shift_front = shift_front and side.head > 0
    levels = side.block + side.head
    if shift_front:
        memmove(levels - 1, levels, <size_t>at * sizeof(Level))
        side.head -= 1
        levels -= 1
    else:
        memmove(levels + at + 1, levels + at, <size_t>(side.count - at) * sizeof(Level))
    side.count += 1
    levels[at].key = key
    levels[at].size = size


cdef inline void delete_level(SideArray* side, Py_ssize_t at) noexcept nogil:
    cdef Level* levels = side.block + side.head
    if at < side.count - at:
        memmove(levels + 1, levels, <size_t>at * sizeof(Level))
        side.head += 1
    else:
        memmove(levels + at, levels + at + 1, <size_t>(side.count - at - 1) * sizeof(Level))
    side.count -= 1
