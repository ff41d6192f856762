from libc.stdint cimport int64_t, uint32_t

from alphapulse._core.changes cimport ChangeSet
from alphapulse._core.checksum cimport BookChecksum
from alphapulse._core.levels cimport LevelStage
from alphapulse._core.sides cimport SideArray

cdef enum:
    SIDE_LIMIT = 4_000_000


cdef class Book:
    cdef readonly Py_ssize_t depth
    cdef readonly ChangeSet changes
    # Bids, then asks.
    cdef SideArray sides[2]
    # Made when a checksum is first asked for.
    cdef BookChecksum summed
    # Made when levels are first given as rows.
    cdef LevelStage rows
    cdef void truncate(self, int side) noexcept nogil
    cdef int fill(self, SideArray* fresh, ChangeSet levels) except -1
    cdef int apply_one(self, int side, int64_t price, int64_t size) except -1
    cdef int apply_stage(self, LevelStage stage) except -1
    cdef int load_stage(self, LevelStage stage) except -1
    cdef LevelStage staged(self, object levels)
    cdef bint is_crossed(self) noexcept nogil
    cdef uint32_t checksum(self, int price_shift, int size_shift) except? 0
