from libc.stdint cimport int32_t, int64_t

from alphapulse._core.scan cimport Problem, Scan

cdef enum:
    BID = 1
    ASK = 2

cdef enum LayoutKind:
    PAIRS = 1
    SIDED = 2
    OBJECTS = 3


cdef struct StagedLevel:
    int64_t price
    int64_t size
    int32_t side
    # Set by a delta record's "the level is new"; unused for what a venue sent.
    int32_t added


cdef struct Name:
    const unsigned char* text
    Py_ssize_t length


cdef class LevelLayout:
    cdef readonly int kind
    # Owns the bytes that the names point into.
    cdef tuple _texts
    cdef Name price_key
    cdef Name size_key
    cdef Name side_key
    cdef Name bids[4]
    cdef Name asks[4]
    cdef int bid_names
    cdef int ask_names
    # Whether there is a form of which one can tell at once that a level has it.
    cdef bint plain


cdef class LevelStage:
    cdef StagedLevel* items
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef int reserve(self, Py_ssize_t extra) except -1
    cdef int push(self, int side, int64_t price, int64_t size, int added) noexcept nogil
    cpdef void clear(self) noexcept


cdef Problem stage_list(Scan* scan, LevelStage stage, LevelLayout layout, int side,
                        int price_exponent, int size_exponent) noexcept nogil
