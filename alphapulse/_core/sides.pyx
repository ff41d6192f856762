# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""What a side of a book seldom does: growing, splitting and joining its blocks.

Blocks come from spares that all books of the process share: they are counted before a message is
applied, so that nothing can fail while it is.
"""

from libc.stdint cimport INT64_MIN
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

cdef enum:
    # 256 KiB.
    KEPT_SPARES = 64

cdef struct Spare:
    Spare* next

cdef Spare* spares = NULL
cdef Py_ssize_t spare_count = 0


cdef int stock(Py_ssize_t count) except -1:
    """Have so many spare blocks."""
    global spares, spare_count
    cdef Spare* spare
    while spare_count < count:
        spare = <Spare*>malloc(BLOCK_LEVELS * sizeof(Level))
        if spare is NULL:
            raise MemoryError
        spare.next = spares
        spares = spare
        spare_count += 1
    return 0


cdef Level* take_spare() noexcept nogil:
    """A spare block; there must be one."""
    global spares, spare_count
    cdef Spare* spare = spares
    spares = spare.next
    spare_count -= 1
    return <Level*>spare


cdef void give_back(Level* levels) noexcept nogil:
    global spares, spare_count
    cdef Spare* spare = <Spare*>levels
    if spare_count >= KEPT_SPARES:
        free(levels)
        return
    spare.next = spares
    spares = spare
    spare_count += 1


cdef void release_spares() noexcept nogil:
    """Free what a large message needed and others don't."""
    while spare_count > KEPT_SPARES:
        free(take_spare())


cdef void recentre(Block* block) noexcept nogil:
    """Move the levels to the middle of their block."""
    cdef int32_t head = (block.capacity - block.count) // 2
    memmove(
        block.levels + head, block.levels + block.head, <size_t>block.count * sizeof(Level)
    )
    block.head = head


cdef Py_ssize_t reserve_side(SideArray* side, Py_ssize_t extra) except -1:
    """See `make_room`."""
    cdef Py_ssize_t needed = side.top.count + extra, capacity, splits
    cdef int32_t head
    cdef Level* levels
    if side.top.capacity < BLOCK_LEVELS:
        capacity = min(needed + needed // 2 + 8, <Py_ssize_t>BLOCK_LEVELS)
        levels = <Level*>malloc(<size_t>capacity * sizeof(Level))
        if levels is NULL:
            raise MemoryError
        head = <int32_t>(capacity - side.top.count) // 2
        if side.top.count:
            memcpy(
                levels + head, side.top.levels + side.top.head,
                <size_t>side.top.count * sizeof(Level),
            )
        free(side.top.levels)
        side.top.levels = levels
        side.top.head = head
        side.top.capacity = <int32_t>capacity
        if needed <= capacity:
            return 0
    # Each block may be full now; its parts then have room for at least SPLIT_LEVELS.
    splits = min(extra, side.lower_count + 1) + extra // SPLIT_LEVELS + 1
    reserve_lower(side, side.lower_count + splits)
    return splits


cdef int reserve_lower(SideArray* side, Py_ssize_t count) except -1:
    """Room for so many blocks besides the best one."""
    cdef void* lower
    if count <= side.lower_capacity:
        return 0
    count += count // 4
    lower = realloc(side.lower, <size_t>count * sizeof(Block))
    if lower is NULL:
        raise MemoryError
    side.lower = <Block*>lower
    side.lower_capacity = count
    return 0


cdef Block* split(SideArray* side, Block* block, int64_t key) noexcept nogil:
    """Split a full block; the part that a key belongs to."""
    cdef Py_ssize_t place = side.lower_count if block is &side.top else block - side.lower
    cdef int32_t worse
    cdef Block* added
    # A market that moves leaves full blocks behind, on either end.
    if block is &side.top:
        worse = FILLED_LEVELS
    elif place == 0 and key < block.levels[block.head].key:
        worse = SPLIT_LEVELS
    else:
        worse = BLOCK_LEVELS // 2
    memmove(
        &side.lower[place + 1], &side.lower[place],
        <size_t>(side.lower_count - place) * sizeof(Block),
    )
    if block is not &side.top:
        block = &side.lower[place + 1]
    side.lower_count += 1
    added = &side.lower[place]
    added.levels = take_spare()
    added.capacity = BLOCK_LEVELS
    added.count = worse
    added.head = (BLOCK_LEVELS - worse) // 2
    added.bound = block.bound
    memcpy(
        added.levels + added.head, block.levels + block.head, <size_t>worse * sizeof(Level)
    )
    block.head += worse
    block.count -= worse
    block.bound = block.levels[block.head].key
    return block if key >= block.bound else added


cdef void mend(SideArray* side, Block* block) noexcept nogil:
    """Join or refill a block that has few levels left; there must be others."""
    cdef Py_ssize_t place
    cdef Block* worse
    if block is &side.top:
        if block.count < JOINED_LEVELS:
            worse = &side.lower[side.lower_count - 1]
            if block.count + worse.count <= FILLED_LEVELS:
                move_up(worse, block, worse.count)
                remove_block(side, side.lower_count - 1)
            else:
                move_up(worse, block, SPLIT_LEVELS - block.count)
        return
    place = block - side.lower
    if block.count == 0:
        remove_block(side, place)
    elif place > 0 and block.count + (block - 1).count <= FILLED_LEVELS:
        move_up(block - 1, block, (block - 1).count)
        remove_block(side, place - 1)
    elif place + 1 < side.lower_count and block.count + (block + 1).count <= FILLED_LEVELS:
        move_up(block, block + 1, block.count)
        remove_block(side, place)


cdef void move_up(Block* worse, Block* better, int32_t count) noexcept nogil:
    """Move the best levels of a block into the next better one, which has room for them."""
    if better.head < count:
        memmove(
            better.levels + (better.capacity - better.count),
            better.levels + better.head, <size_t>better.count * sizeof(Level),
        )
        better.head = better.capacity - better.count
    better.head -= count
    better.count += count
    worse.count -= count
    memcpy(
        better.levels + better.head, worse.levels + worse.head + worse.count,
        <size_t>count * sizeof(Level),
    )
    better.bound = better.levels[better.head].key


cdef void remove_block(SideArray* side, Py_ssize_t place) noexcept nogil:
    """Remove an empty block; what it would have had goes to the next worse one."""
    cdef Block* worst
    give_back(side.lower[place].levels)
    side.lower_count -= 1
    memmove(
        &side.lower[place], &side.lower[place + 1],
        <size_t>(side.lower_count - place) * sizeof(Block),
    )
    if place == 0:
        worst = side.lower if side.lower_count else &side.top
        worst.bound = INT64_MIN


cdef int lay_out(SideArray* side, Py_ssize_t count) except -1:
    """Make an empty, zeroed side one of so many levels, to be filled in through a cursor."""
    cdef Py_ssize_t i, blocks = (count + FILLED_LEVELS - 1) // FILLED_LEVELS
    cdef Block* block
    cdef Py_ssize_t left = count
    if count == 0:
        return 0
    if blocks == 1:
        reserve_side(side, count)
        side.top.count = <int32_t>count
        side.top.head = (side.top.capacity - side.top.count) // 2
        side.count = count
        return 0
    reserve_lower(side, blocks - 1)
    stock(blocks)
    side.lower_count = blocks - 1
    side.count = count
    for i in range(blocks - 1, -1, -1):
        block = &side.top if i == blocks - 1 else &side.lower[i]
        block.levels = take_spare()
        block.capacity = BLOCK_LEVELS
        block.count = <int32_t>min(left, <Py_ssize_t>FILLED_LEVELS)
        block.head = (BLOCK_LEVELS - block.count) // 2
        left -= block.count
    return 0


cdef void tighten(SideArray* side) noexcept nogil:
    """Set the blocks' bounds by their levels, after these were filled in or scaled."""
    cdef Py_ssize_t i
    cdef Block* block
    for i in range(side.lower_count + 1):
        block = &side.top if i == side.lower_count else &side.lower[i]
        block.bound = block.levels[block.head].key if i else INT64_MIN


cdef void empty_side(SideArray* side) noexcept nogil:
    """Remove all levels, and give back all memory but a block's."""
    cdef Py_ssize_t i
    for i in range(side.lower_count):
        give_back(side.lower[i].levels)
    free(side.lower)
    side.lower = NULL
    side.lower_count = side.lower_capacity = 0
    side.top.count = 0
    side.top.bound = INT64_MIN
    side.count = 0


cdef void free_side(SideArray* side) noexcept nogil:
    """Give back all memory."""
    empty_side(side)
    free(side.top.levels)
    side.top.levels = NULL
    side.top.head = side.top.capacity = 0


cdef Py_ssize_t bytes_of(const SideArray* side) noexcept nogil:
    """Memory of the levels, the free places among them included."""
    return (
        (side.top.capacity + side.lower_count * BLOCK_LEVELS) * <Py_ssize_t>sizeof(Level)
        + side.lower_capacity * <Py_ssize_t>sizeof(Block)
    )
