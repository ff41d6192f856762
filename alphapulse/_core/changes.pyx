# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Net changes of a book."""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcpy

from alphapulse._core.levels cimport ASK, BID
from alphapulse._core.sides cimport key_of, price_of

cdef enum:
    INSERTION_SORT_LIMIT = 40
    ADD = 1
    UPDATE = 2
    REMOVE = 3


cdef inline bint comes_before(const Change* a, const Change* b) noexcept nogil:
    """Bids, then asks, best first; within a price the order of the message."""
    if a.side != b.side:
        return a.side < b.side
    if a.key != b.key:
        return a.key > b.key
    return a.order < b.order


cdef int compare_changes(const void* a, const void* b) noexcept nogil:
    if comes_before(<const Change*>a, <const Change*>b):
        return -1
    return 1 if comes_before(<const Change*>b, <const Change*>a) else 0


cdef bint are_sorted(const Change* items, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(1, count):
        if not comes_before(&items[i - 1], &items[i]):
            return False
    return True


cdef void sort_few(Change* items, Py_ssize_t count) noexcept nogil:
    """Sort by insertion: of each side the keys alone, and the changes once in the end."""
    cdef Change[INSERTION_SORT_LIMIT] sorted_items
    cdef int64_t[INSERTION_SORT_LIMIT] keys
    cdef int32_t[INSERTION_SORT_LIMIT] places
    cdef Py_ssize_t i, j, first = 0, placed = 0
    cdef int64_t key
    cdef int side
    for side in range(BID, ASK + 1):
        first = placed
        for i in range(count):
            if items[i].side != side:
                continue
            key = items[i].key
            j = placed
            while j > first and keys[j - 1] < key:
                keys[j] = keys[j - 1]
                places[j] = places[j - 1]
                j -= 1
            keys[j] = key
            places[j] = <int32_t>i
            placed += 1
    for i in range(count):
        sorted_items[i] = items[places[i]]
    memcpy(items, sorted_items, <size_t>count * sizeof(Change))


cdef void sort_changes(Change* items, Py_ssize_t count) noexcept nogil:
    if are_sorted(items, count):
        return
    if count > INSERTION_SORT_LIMIT:
        qsort(items, <size_t>count, sizeof(Change), &compare_changes)
    else:
        sort_few(items, count)


cdef class ChangeSet:
    def __dealloc__(self):
        free(self.items)

    cdef int reserve(self, Py_ssize_t capacity) except -1:
        """Room for so many changes in all."""
        cdef void* block
        capacity = max(capacity, 16)
        if capacity <= self.capacity:
            return 0
        block = realloc(self.items, <size_t>capacity * sizeof(Change))
        if block is NULL:
            raise MemoryError
        self.items = <Change*>block
        self.capacity = capacity
        return 0

    cdef void settle(self) noexcept nogil:
        """Make net changes of all touches: sorted, one per price, none where nothing changed."""
        cdef Py_ssize_t i, kept = 0
        cdef Change* last = NULL
        sort_changes(self.items, self.count)
        for i in range(self.count):
            if last is not NULL and last.key == self.items[i].key and (
                last.side == self.items[i].side
            ):
                last.after = self.items[i].after
                continue
            if last is not NULL and last.before == last.after:
                kept -= 1
            last = &self.items[kept]
            last[0] = self.items[i]
            kept += 1
        if last is not NULL and last.before == last.after:
            kept -= 1
        self.count = kept

    def __len__(self):
        return self.count

    def __iter__(self):
        cdef Py_ssize_t i
        cdef Change* change
        cdef list changes = []
        for i in range(self.count):
            change = &self.items[i]
            changes.append((
                change.side,
                price_of(change.side, change.key),
                change.after,
                ADD if change.before == 0 else UPDATE if change.after else REMOVE,
            ))
        return iter(changes)

    def assign(self, changes):
        cdef list given = list(changes)
        cdef Py_ssize_t i
        cdef int side, action
        cdef int64_t price, size
        self.count = 0
        self.reserve(len(given))
        for i in range(len(given)):
            side, price, size, action = given[i]
            if not (BID <= side <= ASK and price >= 1 and size >= 0 and ADD <= action <= REMOVE):
                raise ValueError(f"{given[i]} is no change")
            if (size == 0) != (action == REMOVE):
                raise ValueError(f"{given[i]}: size and action contradict each other")
            self.items[i].side = side
            self.items[i].key = key_of(side, price)
            self.items[i].before = 0 if action == ADD else 1
            self.items[i].after = size
            self.items[i].order = 0
            if i and not comes_before(&self.items[i - 1], &self.items[i]):
                raise ValueError(f"{given[i]} isn't in a change set's order")
        self.count = len(given)
