from alphapulse._core.book cimport Book
from alphapulse._core.changes cimport ChangeSet
from alphapulse._core.sides cimport Level, SideArray


cdef struct ShownSide:
    # Best first.
    Level* levels
    Py_ssize_t count
    Py_ssize_t capacity


cdef class TopView:
    cdef readonly Py_ssize_t depth
    cdef readonly ChangeSet changes
    # Bids, then asks.
    cdef ShownSide sides[2]
    cdef Py_ssize_t shown(self, const SideArray* side) noexcept nogil
    cdef int compare(self, int which, const SideArray* source) except -1
    cdef int advance_to(self, Book book) except -1
