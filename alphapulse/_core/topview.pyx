# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The best levels of a book as somebody was last told of them."""

from libc.stdlib cimport free, realloc

from alphapulse._core.book cimport SIDE_LIMIT
from alphapulse._core.sides cimport Cursor, cursor_of, next_level, price_of


cdef int fit(ShownSide* side, Py_ssize_t count) except -1:
    """Room for so many levels, and not for many more."""
    cdef Py_ssize_t capacity
    cdef void* levels
    if count <= side.capacity <= 4 * count + 64:
        return 0
    capacity = count + count // 4 + 8
    levels = realloc(side.levels, <size_t>capacity * sizeof(Level))
    if levels is NULL:
        raise MemoryError
    side.levels = <Level*>levels
    side.capacity = capacity
    return 0


cdef tuple levels_of(const ShownSide* side, int which):
    cdef Py_ssize_t i
    return tuple([
        (price_of(which, side.levels[i].key), side.levels[i].size) for i in range(side.count)
    ])


cdef class TopView:
    def __cinit__(self, Py_ssize_t depth=0):
        if not 0 <= depth <= SIDE_LIMIT:
            raise ValueError(f"depth is 0 (all) to {SIDE_LIMIT}, not {depth}")
        self.depth = depth
        self.changes = ChangeSet()

    def __dealloc__(self):
        free(self.sides[0].levels)
        free(self.sides[1].levels)

    cdef Py_ssize_t shown(self, const SideArray* side) noexcept nogil:
        return min(side.count, self.depth) if self.depth else side.count

    cdef int compare(self, int which, const SideArray* source) except -1:
        """Note the differences between what was shown and what is there now, best first."""
        cdef const ShownSide* told = &self.sides[which - 1]
        cdef const Level* old = told.levels
        cdef Py_ssize_t old_left = told.count, new_left = self.shown(source)
        cdef Cursor cursor = cursor_of(source)
        cdef const Level* new = next_level(&cursor)
        while old_left or new_left:
            if self.changes.count == self.changes.capacity:
                self.changes.reserve(2 * self.changes.count)
            if old_left == 0 or (new_left and new.key > old.key):
                self.changes.note(which, new.key, 0, new.size)
                new = next_level(&cursor)
                new_left -= 1
            elif new_left == 0 or old.key > new.key:
                self.changes.note(which, old.key, old.size, 0)
                old += 1
                old_left -= 1
            else:
                if old.size != new.size:
                    self.changes.note(which, old.key, old.size, new.size)
                old += 1
                new = next_level(&cursor)
                old_left -= 1
                new_left -= 1
        return 0

    cdef int advance_to(self, Book book) except -1:
        """See `advance`."""
        cdef Py_ssize_t i, j, shown
        cdef ShownSide* told
        cdef Cursor cursor
        self.changes.clear()
        for i in range(2):
            self.compare(<int>i + 1, &book.sides[i])
        for i in range(2):
            fit(&self.sides[i], max(self.shown(&book.sides[i]), self.sides[i].count))
        for i in range(2):
            told = &self.sides[i]
            told.count = self.shown(&book.sides[i])
            cursor = cursor_of(&book.sides[i])
            for j in range(told.count):
                told.levels[j] = next_level(&cursor)[0]
        return 0

    def load(self, Book book not None):
        self.advance_to(book)
        self.changes.clear()

    def advance(self, Book book not None):
        self.advance_to(book)
        return self.changes.count

    def bids(self):
        return levels_of(&self.sides[0], 1)

    def asks(self):
        return levels_of(&self.sides[1], 2)
