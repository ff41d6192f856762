"""One side of a book: levels in sorted blocks, the best block at hand.

A side of few levels is a single block that grows. A larger one has further blocks of a few hundred
levels each, so that a change anywhere moves little, whatever the side's size. The best levels always
lie together in the best block, and few changes touch another.
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memmove

cdef enum:
    BLOCK_LEVELS = 256
    # What a split leaves in the smaller part at least, and what a new block is filled with.
    SPLIT_LEVELS = 64
    FILLED_LEVELS = 192
    # A worse block with fewer levels is joined with a neighbour where both fit in one.
    SPARSE_LEVELS = 64
    # So many of the best levels always lie together, if the side has as many.
    JOINED_LEVELS = 16


cdef struct Level:
    # The price of a bid, minus the price of an ask: the best level has the largest key.
    int64_t key
    int64_t size


cdef struct Block:
    # Levels lie at levels[head : head + count], ascending by key, so the best one is the last.
    Level* levels
    # At most the block's smallest key, and above all keys of worse blocks; INT64_MIN in the worst.
    int64_t bound
    int32_t head
    int32_t count
    # Less than BLOCK_LEVELS only in a side's single block.
    int32_t capacity


cdef struct SideArray:
    # The best block; empty only where the side is.
    Block top
    # Of all blocks.
    Py_ssize_t count
    # The other blocks, ascending, none of them empty.
    Block* lower
    Py_ssize_t lower_count
    Py_ssize_t lower_capacity


cdef struct Cursor:
    # Walks a side from its best level down.
    Level* level
    Py_ssize_t left
    const Block* lower
    Py_ssize_t lower_left


cdef inline Level* best_in(const Block* block) noexcept nogil:
    """The block's best level; only where it has one."""
    return block.levels + block.head + block.count - 1


cdef inline Level* best_of(const SideArray* side) noexcept nogil:
    """The side's best level, only where it has one; up to `JOINED_LEVELS` lie together there."""
    return best_in(&side.top)


cdef inline int64_t price_of(int side, int64_t key) noexcept nogil:
    return key if side == 1 else -key


cdef inline int64_t key_of(int side, int64_t price) noexcept nogil:
    return price if side == 1 else -price


cdef inline Cursor cursor_of(const SideArray* side) noexcept nogil:
    """A cursor before the best level; it holds until the side changes."""
    cdef Cursor cursor
    cursor.level = side.top.levels + side.top.head + side.top.count
    cursor.left = side.top.count
    cursor.lower = side.lower
    cursor.lower_left = side.lower_count
    return cursor


cdef inline Level* next_level(Cursor* cursor) noexcept nogil:
    """The next worse level, NULL after the last one."""
    if cursor.left == 0:
        if cursor.lower_left == 0:
            return NULL
        cursor.lower_left -= 1
        cursor.level = best_in(&cursor.lower[cursor.lower_left]) + 1
        cursor.left = cursor.lower[cursor.lower_left].count
    cursor.left -= 1
    cursor.level -= 1
    return cursor.level


cdef inline Block* block_of(SideArray* side, int64_t key) noexcept nogil:
    """The block that has a key, or would have it."""
    cdef Py_ssize_t low = 0, high = side.lower_count, middle
    if key >= side.top.bound:
        return &side.top
    # The last block whose bound isn't above the key; the worst one's never is.
    while high - low > 1:
        middle = low + (high - low) // 2
        if side.lower[middle].bound <= key:
            low = middle
        else:
            high = middle
    return &side.lower[low]


cdef inline Py_ssize_t position_in(const Block* block, int64_t key) noexcept nogil:
    """How many of the block's levels have a smaller key: the place of the key, there or not."""
    cdef const Level* levels = block.levels + block.head
    cdef Py_ssize_t low = block.count, high = low, middle, step = 1
    # Most changes are near the touch: gallop down from the best level, then halve.
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


cdef inline int64_t size_of(SideArray* side, int64_t key) noexcept nogil:
    """Size of one level, 0 where there is none."""
    cdef const Block* block = block_of(side, key)
    cdef Py_ssize_t at = position_in(block, key)
    if at < block.count and block.levels[block.head + at].key == key:
        return block.levels[block.head + at].size
    return 0


cdef inline void insert_level(Block* block, Py_ssize_t at, int64_t key,
                              int64_t size) noexcept nogil:
    """Insert at a position; the block must have room for one more."""
    cdef bint shift_front = at < block.count - at
    cdef Level* levels
    cdef Py_ssize_t i
    if block.head == 0 if shift_front else block.head + block.count == block.capacity:
        recentre(block)
        # A single free place ends up at the back.
        shift_front = shift_front and block.head > 0
    levels = block.levels + block.head
    if shift_front:
        memmove(levels - 1, levels, <size_t>at * sizeof(Level))
        block.head -= 1
        levels -= 1
    else:
        # Few levels, mostly: the touch is here.
        i = block.count
        if i - at > 8:
            memmove(levels + at + 1, levels + at, <size_t>(i - at) * sizeof(Level))
        else:
            while i > at:
                levels[i] = levels[i - 1]
                i -= 1
    block.count += 1
    levels[at].key = key
    levels[at].size = size


cdef inline void delete_level(Block* block, Py_ssize_t at) noexcept nogil:
    cdef Level* levels = block.levels + block.head
    cdef Py_ssize_t i, last = block.count - 1
    block.count -= 1
    if at < last - at:
        memmove(levels + 1, levels, <size_t>at * sizeof(Level))
        block.head += 1
    elif last - at > 8:
        memmove(levels + at, levels + at + 1, <size_t>(last - at) * sizeof(Level))
    else:
        for i in range(at, last):
            levels[i] = levels[i + 1]


cdef inline int64_t set_level(SideArray* side, int64_t key, int64_t size) noexcept nogil:
    """Set a level's size, 0 to remove it; what it was. There must be room, see `make_room`."""
    cdef Block* block = block_of(side, key)
    cdef Py_ssize_t at = position_in(block, key)
    cdef Level* level
    cdef int64_t before
    if at < block.count:
        level = block.levels + block.head + at
        if level.key == key:
            before = level.size
            if size:
                level.size = size
            else:
                delete_level(block, at)
                side.count -= 1
                if side.lower_count and block.count < SPARSE_LEVELS:
                    mend(side, block)
            return before
    if size:
        if block.count == BLOCK_LEVELS:
            block = split(side, block, key)
            at = position_in(block, key)
        insert_level(block, at, key, size)
        side.count += 1
    return 0


cdef inline Py_ssize_t make_room(SideArray* side, Py_ssize_t extra) except -1:
    """Prepare for so many more levels; how many spare blocks they may take, see `stock`."""
    if side.lower_count == 0 and side.top.count + extra <= side.top.capacity:
        return 0
    return reserve_side(side, extra)


cdef inline Level* worst_of(SideArray* side) noexcept nogil:
    """The side's worst level; only where it has one."""
    cdef Block* block = side.lower if side.lower_count else &side.top
    return block.levels + block.head


cdef inline void drop_worst(SideArray* side) noexcept nogil:
    """Remove the worst level; only where there is one."""
    cdef Block* block = side.lower if side.lower_count else &side.top
    block.head += 1
    block.count -= 1
    side.count -= 1
    if side.lower_count and block.count < SPARSE_LEVELS:
        mend(side, block)


cdef void recentre(Block* block) noexcept nogil
cdef Py_ssize_t reserve_side(SideArray* side, Py_ssize_t extra) except -1
cdef int stock(Py_ssize_t count) except -1
cdef Block* split(SideArray* side, Block* block, int64_t key) noexcept nogil
cdef void mend(SideArray* side, Block* block) noexcept nogil
cdef int lay_out(SideArray* side, Py_ssize_t count) except -1
cdef void tighten(SideArray* side) noexcept nogil
cdef void empty_side(SideArray* side) noexcept nogil
cdef void free_side(SideArray* side) noexcept nogil
cdef void release_spares() noexcept nogil
cdef Py_ssize_t bytes_of(const SideArray* side) noexcept nogil
