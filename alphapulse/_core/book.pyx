# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Order book on two sorted arrays, with net changes, truncation and Kraken's checksum.

Memory is reserved before a message is applied, so that it is applied whole or not at all.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from alphapulse._core.changes cimport ChangeSet
from alphapulse._core.checksum cimport BookChecksum
from alphapulse._core.levels cimport ASK, BID, LevelStage
from alphapulse._core.scan cimport INT64_LARGEST, POWERS
from alphapulse._core.sides cimport (
    Level,
    SideArray,
    best_of,
    delete_level,
    insert_level,
    key_of,
    make_room,
    position_of,
    price_of,
)
from alphapulse.errors import BookError, RangeError

MAX_LEVELS_PER_SIDE = 4_000_000

cdef enum:
    SIDE_LIMIT = 4_000_000

cdef tuple levels_of(const SideArray* side, int which, Py_ssize_t limit):
    cdef Py_ssize_t i, count = side.count
    cdef const Level* level
    cdef list levels = []
    if 0 < limit < count:
        count = limit
    for i in range(count):
        level = side.block + side.head + side.count - 1 - i
        levels.append((price_of(which, level.key), level.size))
    return tuple(levels)


cdef class Book:
    def __cinit__(self, Py_ssize_t depth=0):
        if not 0 <= depth <= SIDE_LIMIT:
            raise ValueError(f"depth is 0 (all) to {SIDE_LIMIT}, not {depth}")
        self.depth = depth
        self.changes = ChangeSet()

    def __dealloc__(self):
        free(self.sides[0].block)
        free(self.sides[1].block)

    cdef int apply_stage(self, LevelStage stage) except -1:
        """See `apply`; leaves the net changes in `changes`."""
        cdef Py_ssize_t i
        cdef Py_ssize_t[2] per_side
        per_side[0] = per_side[1] = 0
        self.changes.clear()
        for i in range(stage.count):
            per_side[stage.items[i].side - 1] += 1
        for i in range(2):
            if self.sides[i].count + per_side[i] > SIDE_LIMIT:
                raise BookError(f"more than {SIDE_LIMIT} levels on a side")
        # Each staged level touches one price, and pushes at most one other out of the depth.
        self.changes.reserve(stage.count * 2)
        for i in range(2):
            if per_side[i]:
                make_room(&self.sides[i], per_side[i])
        for i in range(stage.count):
            self.touch(stage.items[i].side, stage.items[i].price, stage.items[i].size)
        if self.depth:
            self.truncate(BID)
            self.truncate(ASK)
        self.changes.settle()
        return 0

    cdef void touch(self, int side, int64_t price, int64_t size) noexcept nogil:
        """Set one level's size and note what it was."""
        cdef SideArray* levels = &self.sides[side - 1]
        cdef int64_t key = key_of(side, price)
        cdef Py_ssize_t at = position_of(levels, key)
        cdef Level* level = levels.block + levels.head + at
        cdef int64_t before = 0
        if at < levels.count and level.key == key:
            before = level.size
            if size:
                level.size = size
            else:
                delete_level(levels, at)
        elif size:
            insert_level(levels, at, key, size)
        self.changes.note(side, key, before, size)

    cdef void truncate(self, int side) noexcept nogil:
        """Drop the worst levels beyond the depth."""
        cdef SideArray* levels = &self.sides[side - 1]
        cdef Level* worst
        while levels.count > self.depth:
            worst = levels.block + levels.head
            self.changes.note(side, worst.key, worst.size, 0)
            levels.head += 1
            levels.count -= 1

    cdef int load_stage(self, LevelStage stage) except -1:
        """See `load`."""
        cdef ChangeSet sorted_levels = self.changes
        cdef SideArray[2] fresh
        cdef Py_ssize_t i
        for i in range(2):
            fresh[i].block = NULL
            fresh[i].head = fresh[i].count = fresh[i].capacity = 0
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
            free(fresh[0].block)
            free(fresh[1].block)
            raise
        finally:
            sorted_levels.clear()
        for i in range(2):
            free(self.sides[i].block)
            self.sides[i] = fresh[i]
        return 0

    cdef int fill(self, SideArray* fresh, ChangeSet levels) except -1:
        """Lay sorted levels, best first, into two empty arrays."""
        cdef Py_ssize_t i, j, first = 0, found, kept
        cdef Level* into
        for i in range(2):
            found = first
            while found < levels.count and levels.items[found].side == i + 1:
                found += 1
            kept = found - first
            if self.depth and kept > self.depth:
                kept = self.depth
            if kept > SIDE_LIMIT:
                raise BookError(f"more than {SIDE_LIMIT} levels on a side")
            make_room(&fresh[i], kept)
            fresh[i].head = (fresh[i].capacity - kept) // 2
            into = fresh[i].block + fresh[i].head + kept
            for j in range(kept):
                into -= 1
                into.key = levels.items[first + j].key
                into.size = levels.items[first + j].after
            fresh[i].count = kept
            first = found
        return 0

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

    def clear(self):
        self.sides[0].count = self.sides[1].count = 0
        self.changes.clear()

    def load(self, LevelStage stage not None):
        self.load_stage(stage)

    def apply(self, LevelStage stage not None):
        self.apply_stage(stage)
        return self.changes.count

    def best(self):
        bids = levels_of(&self.sides[0], BID, 1)
        asks = levels_of(&self.sides[1], ASK, 1)
        return (bids[0] if bids else None, asks[0] if asks else None)

    def bids(self, Py_ssize_t limit=0):
        return levels_of(&self.sides[0], BID, limit)

    def asks(self, Py_ssize_t limit=0):
        return levels_of(&self.sides[1], ASK, limit)

    def size_at(self, int side, int64_t price):
        if not BID <= side <= ASK:
            raise ValueError(f"side is 1 (bid) or 2 (ask), not {side}")
        if price < 1:
            return 0
        cdef SideArray* levels = &self.sides[side - 1]
        cdef int64_t key = key_of(side, price)
        cdef Py_ssize_t at = position_of(levels, key)
        if at < levels.count and levels.block[levels.head + at].key == key:
            return levels.block[levels.head + at].size
        return 0

    def kraken_checksum(self, int price_shift=0, int size_shift=0):
        if not (-18 <= price_shift <= 18 and -18 <= size_shift <= 18):
            raise ValueError(f"shifts are -18 to 18, not {price_shift}, {size_shift}")
        return self.checksum(price_shift, size_shift)

    def digest(self):
        cdef uint64_t value = 0xCBF29CE484222325U
        cdef Py_ssize_t i
        cdef int which
        cdef Level* level
        for which in range(BID, ASK + 1):
            value = mix(value, <uint64_t>self.sides[which - 1].count)
            for i in range(self.sides[which - 1].count):
                level = best_of(&self.sides[which - 1]) - i
                value = mix(value, <uint64_t>price_of(which, level.key))
                value = mix(value, <uint64_t>level.size)
        return value

    def rescale(self, int price_places, int size_places):
        if not (0 <= price_places <= 18 and 0 <= size_places <= 18):
            raise ValueError(f"a rescale is by 0 to 18 places, not {price_places}, {size_places}")
        cdef int64_t price_factor = <int64_t>POWERS[price_places]
        cdef int64_t size_factor = <int64_t>POWERS[size_places]
        cdef Py_ssize_t i
        cdef int which
        cdef Level* level
        for which in range(BID, ASK + 1):
            for i in range(self.sides[which - 1].count):
                level = best_of(&self.sides[which - 1]) - i
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
        for which in range(2):
            for i in range(self.sides[which].count):
                level = best_of(&self.sides[which]) - i
                level.key *= price_factor
                level.size *= size_factor
        self.changes.clear()


cdef inline uint64_t mix(uint64_t value, uint64_t word) noexcept nogil:
    """FNV-1a on whole words, the upper half folded down so that every bit counts."""
    value = (value ^ word) * <uint64_t>0x100000001B3U
    return value ^ (value >> 32)


cdef class TopView:
    def __cinit__(self, Py_ssize_t depth=0):
        if not 0 <= depth <= SIDE_LIMIT:
            raise ValueError(f"depth is 0 (all) to {SIDE_LIMIT}, not {depth}")
        self.depth = depth
        self.changes = ChangeSet()

    def __dealloc__(self):
        free(self.sides[0].block)
        free(self.sides[1].block)

    cdef Py_ssize_t shown(self, const SideArray* side) noexcept nogil:
        return min(side.count, self.depth) if self.depth else side.count

    cdef int compare(self, int which, const SideArray* source) except -1:
        """Note the differences between what was shown and what is there now, best first."""
        cdef SideArray* told = &self.sides[which - 1]
        cdef Py_ssize_t old_left = told.count, new_left = self.shown(source)
        cdef const Level* old = best_of(told) if old_left else NULL
        cdef const Level* new = best_of(source) if new_left else NULL
        while old_left or new_left:
            if self.changes.count == self.changes.capacity:
                self.changes.reserve(2 * self.changes.count)
            if old_left == 0 or (new_left and new.key > old.key):
                self.changes.note(which, new.key, 0, new.size)
                new -= 1
                new_left -= 1
            elif new_left == 0 or old.key > new.key:
                self.changes.note(which, old.key, old.size, 0)
                old -= 1
                old_left -= 1
            else:
                if old.size != new.size:
                    self.changes.note(which, old.key, old.size, new.size)
                old -= 1
                new -= 1
                old_left -= 1
                new_left -= 1
        return 0

    cdef int advance_to(self, Book book) except -1:
        """See `advance`."""
        cdef Py_ssize_t i, shown
        cdef SideArray* told
        self.changes.clear()
        for i in range(2):
            self.compare(<int>i + 1, &book.sides[i])
            make_room(&self.sides[i], max(self.shown(&book.sides[i]) - self.sides[i].count, 0))
        for i in range(2):
            told = &self.sides[i]
            shown = self.shown(&book.sides[i])
            told.head = (told.capacity - shown) // 2
            told.count = shown
            if shown:
                memcpy(
                    told.block + told.head,
                    best_of(&book.sides[i]) - (shown - 1),
                    <size_t>shown * sizeof(Level),
                )
        return 0

    def load(self, Book book not None):
        self.advance_to(book)
        self.changes.clear()

    def advance(self, Book book not None):
        self.advance_to(book)
        return self.changes.count

    def bids(self):
        return levels_of(&self.sides[0], BID, 0)

    def asks(self):
        return levels_of(&self.sides[1], ASK, 0)
