# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Order book on two sorted sides, with net changes, truncation and Kraken's checksum.

Memory is reserved before a message is applied, so that it is applied whole or not at all.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from alphapulse._core.changes cimport ChangeSet
from alphapulse._core.checksum cimport BookChecksum
from alphapulse._core.levels cimport ASK, BID, LevelStage
from alphapulse._core.rows cimport stage_rows
from alphapulse._core.scan cimport INT64_LARGEST, POWERS
from alphapulse._core.sides cimport (
    Block,
    Cursor,
    Level,
    SideArray,
    best_of,
    block_of,
    bytes_of,
    cursor_of,
    drop_worst,
    empty_side,
    free_side,
    key_of,
    lay_out,
    make_room,
    next_level,
    price_of,
    release_spares,
    reserve_side,
    set_level,
    size_of,
    stock,
    tighten,
    worst_of,
)
from alphapulse.errors import BookError, RangeError

MAX_LEVELS_PER_SIDE = 4_000_000

cdef enum:
    # Rows beyond this many are staged in memory that isn't kept.
    KEPT_ROWS = 4_096


# A side is empty in this state, not in zeroed memory.
cdef SideArray EMPTY
empty_side(&EMPTY)


cdef tuple levels_of(const SideArray* side, int which, Py_ssize_t limit):
    cdef Py_ssize_t i, count = side.count
    cdef const Level* level
    cdef Cursor cursor = cursor_of(side)
    cdef list levels = []
    if 0 < limit < count:
        count = limit
    for i in range(count):
        level = next_level(&cursor)
        levels.append((price_of(which, level.key), level.size))
    return tuple(levels)


cdef object best_level(const SideArray* side, int which):
    if side.count == 0:
        return None
    return (price_of(which, best_of(side).key), best_of(side).size)


cdef int refuse() except -1:
    raise BookError(f"more than {SIDE_LIMIT} levels on a side")


cdef class Book:
    def __cinit__(self, Py_ssize_t depth=0):
        empty_side(&self.sides[0])
        empty_side(&self.sides[1])
        if not 0 <= depth <= SIDE_LIMIT:
            raise ValueError(f"depth is 0 (all) to {SIDE_LIMIT}, not {depth}")
        self.depth = depth
        self.changes = ChangeSet()

    def __dealloc__(self):
        free_side(&self.sides[0])
        free_side(&self.sides[1])

    cdef int apply_one(self, int side, int64_t price, int64_t size) except -1:
        """Apply a message of one level: it needs no sorting."""
        cdef SideArray* levels = &self.sides[side - 1]
        cdef int64_t key = key_of(side, price), before
        cdef const Level* worst
        cdef const Block* block
        self.changes.clear()
        if self.changes.capacity < 2:
            self.changes.reserve(2)
        if size:
            if levels.count >= SIDE_LIMIT:
                refuse()
            # Only the block that the level belongs to can have to grow.
            block = block_of(levels, key)
            if block.count == block.capacity:
                stock(reserve_side(levels, 1))
        before = set_level(levels, key, size)
        if before != size:
            self.changes.note(side, key, before, size)
        if self.depth and levels.count > self.depth:
            worst = worst_of(levels)
            if worst.key == key:
                self.changes.clear()
            else:
                self.changes.note(side, worst.key, worst.size, 0)
            drop_worst(levels)
        return 0

    cdef int apply_stage(self, LevelStage stage) except -1:
        """See `apply`; leaves the net changes in `changes`."""
        cdef Py_ssize_t i, spares
        cdef int side
        cdef int64_t key, size, before
        cdef Py_ssize_t[2] per_side
        if stage.count == 1:
            return self.apply_one(
                stage.items[0].side, stage.items[0].price, stage.items[0].size
            )
        self.changes.clear()
        per_side[0] = per_side[1] = 0
        for i in range(stage.count):
            per_side[stage.items[i].side - 1] += 1
        for i in range(2):
            if self.sides[i].count + per_side[i] > SIDE_LIMIT:
                refuse()
        # Each staged level touches one price, and pushes at most one other out of the depth.
        self.changes.reserve(stage.count * 2)
        spares = make_room(&self.sides[0], per_side[0]) + make_room(&self.sides[1], per_side[1])
        if spares:
            stock(spares)
        for i in range(stage.count):
            side = stage.items[i].side
            size = stage.items[i].size
            key = key_of(side, stage.items[i].price)
            before = set_level(&self.sides[side - 1], key, size)
            self.changes.note(side, key, before, size)
        if self.depth:
            self.truncate(BID)
            self.truncate(ASK)
        self.changes.settle()
        if spares:
            release_spares()
        return 0

    cdef void truncate(self, int side) noexcept nogil:
        """Drop the worst levels beyond the depth."""
        cdef SideArray* levels = &self.sides[side - 1]
        cdef const Level* worst
        while levels.count > self.depth:
            worst = worst_of(levels)
            self.changes.note(side, worst.key, worst.size, 0)
            drop_worst(levels)

    cdef int load_stage(self, LevelStage stage) except -1:
        """See `load`."""
        cdef ChangeSet sorted_levels = self.changes
        cdef SideArray[2] fresh
        cdef Py_ssize_t i
        for i in range(2):
            fresh[i] = EMPTY
        sorted_levels.clear()
        sorted_levels.reserve(stage.count)
        for i in range(stage.count):
            self.changes.note(
                stage.items[i].side,
                key_of(stage.items[i].side, stage.items[i].price),
                0,
                stage.items[i].size,
            )
        # Net changes from nothing are the levels: the last size per price, none of them zero.
        sorted_levels.settle()
        try:
            self.fill(fresh, sorted_levels)
        except BaseException:
            free_side(&fresh[0])
            free_side(&fresh[1])
            raise
        finally:
            sorted_levels.clear()
        for i in range(2):
            free_side(&self.sides[i])
            self.sides[i] = fresh[i]
        return 0

    cdef int fill(self, SideArray* fresh, ChangeSet levels) except -1:
        """Lay sorted levels, best first, into two empty sides."""
        cdef Py_ssize_t i, j, first = 0, found, kept
        cdef Cursor cursor
        cdef Level* into
        for i in range(2):
            found = first
            while found < levels.count and levels.items[found].side == i + 1:
                found += 1
            kept = found - first
            if self.depth and kept > self.depth:
                kept = self.depth
            if kept > SIDE_LIMIT:
                refuse()
            lay_out(&fresh[i], kept)
            cursor = cursor_of(&fresh[i])
            for j in range(kept):
                into = next_level(&cursor)
                into.key = levels.items[first + j].key
                into.size = levels.items[first + j].after
            tighten(&fresh[i])
            first = found
        return 0

    cdef LevelStage staged(self, object levels):
        """Levels as a stage: they are one, or rows of integers."""
        if isinstance(levels, LevelStage):
            return <LevelStage>levels
        cdef LevelStage stage = self.rows
        if stage is None:
            stage = LevelStage()
        self.rows = None
        stage_rows(stage, levels)
        if stage.count <= KEPT_ROWS:
            self.rows = stage
        return stage

    cdef bint is_crossed(self) noexcept nogil:
        if self.sides[0].count == 0 or self.sides[1].count == 0:
            return False
        return best_of(&self.sides[0]).key >= -best_of(&self.sides[1]).key

    cdef uint32_t checksum(self, int price_shift, int size_shift) except? 0:
        if self.summed is None:
            self.summed = BookChecksum()
        return self.summed.compute(&self.sides[1], &self.sides[0], price_shift, size_shift)

    @property
    def bid_count(self):
        return self.sides[0].count

    @property
    def ask_count(self):
        return self.sides[1].count

    @property
    def crossed(self):
        return self.is_crossed()

    @property
    def best_bid(self):
        if self.sides[0].count == 0:
            return None
        return price_of(BID, best_of(&self.sides[0]).key)

    @property
    def best_ask(self):
        if self.sides[1].count == 0:
            return None
        return price_of(ASK, best_of(&self.sides[1]).key)

    @property
    def nbytes(self):
        return bytes_of(&self.sides[0]) + bytes_of(&self.sides[1])

    def clear(self):
        empty_side(&self.sides[0])
        empty_side(&self.sides[1])
        self.changes.clear()

    def load(self, levels not None):
        self.load_stage(self.staged(levels))

    def apply(self, levels not None):
        self.apply_stage(self.staged(levels))
        return self.changes.count

    def set_level(self, int side, int64_t price, int64_t size):
        if not BID <= side <= ASK:
            raise ValueError(f"side is 1 (bid) or 2 (ask), not {side}")
        if price < 1 or size < 0:
            raise ValueError(f"no level: price {price}, size {size}")
        self.apply_one(side, price, size)
        return self.changes.count

    def best(self):
        return (best_level(&self.sides[0], BID), best_level(&self.sides[1], ASK))

    def bids(self, Py_ssize_t limit=0):
        return levels_of(&self.sides[0], BID, limit)

    def asks(self, Py_ssize_t limit=0):
        return levels_of(&self.sides[1], ASK, limit)

    def size_at(self, int side, int64_t price):
        if not BID <= side <= ASK:
            raise ValueError(f"side is 1 (bid) or 2 (ask), not {side}")
        if price < 1:
            return 0
        return size_of(&self.sides[side - 1], key_of(side, price))

    def kraken_checksum(self, int price_shift=0, int size_shift=0):
        if not (-18 <= price_shift <= 18 and -18 <= size_shift <= 18):
            raise ValueError(f"shifts are -18 to 18, not {price_shift}, {size_shift}")
        return self.checksum(price_shift, size_shift)

    def digest(self):
        cdef uint64_t value = 0xCBF29CE484222325U
        cdef int which
        cdef const Level* level
        cdef Cursor cursor
        for which in range(BID, ASK + 1):
            value = mix(value, <uint64_t>self.sides[which - 1].count)
            cursor = cursor_of(&self.sides[which - 1])
            level = next_level(&cursor)
            while level is not NULL:
                value = mix(value, <uint64_t>price_of(which, level.key))
                value = mix(value, <uint64_t>level.size)
                level = next_level(&cursor)
        return value

    def rescale(self, int price_places, int size_places):
        if not (0 <= price_places <= 18 and 0 <= size_places <= 18):
            raise ValueError(f"a rescale is by 0 to 18 places, not {price_places}, {size_places}")
        cdef int64_t price_factor = <int64_t>POWERS[price_places]
        cdef int64_t size_factor = <int64_t>POWERS[size_places]
        cdef int which
        cdef Level* level
        cdef Cursor cursor
        for which in range(BID, ASK + 1):
            cursor = cursor_of(&self.sides[which - 1])
            level = next_level(&cursor)
            while level is not NULL:
                if price_of(which, level.key) > INT64_LARGEST // price_factor:
                    raise RangeError(
                        str(price_of(which, level.key)),
                        f"a price doesn't fit int64 with {price_places} more decimal places",
                    )
                if level.size > INT64_LARGEST // size_factor:
                    raise RangeError(
                        str(level.size),
                        f"a size doesn't fit int64 with {size_places} more decimal places",
                    )
                level = next_level(&cursor)
        for which in range(2):
            cursor = cursor_of(&self.sides[which])
            level = next_level(&cursor)
            while level is not NULL:
                level.key *= price_factor
                level.size *= size_factor
                level = next_level(&cursor)
            tighten(&self.sides[which])
        self.changes.clear()


cdef inline uint64_t mix(uint64_t value, uint64_t word) noexcept nogil:
    """FNV-1a on whole words, the upper half folded down so that every bit counts."""
    value = (value ^ word) * <uint64_t>0x100000001B3U
    return value ^ (value >> 32)
