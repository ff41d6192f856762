from libc.stdint cimport int64_t, uint64_t

from alphapulse._core.levels cimport LevelLayout, Name
from alphapulse._core.producer cimport Producer
from alphapulse._core.scan cimport Scan, Span
from alphapulse._core.tracker cimport TrackedBook

cdef enum:
    MAX_RULES = 8
    MAX_PARTS = 2

cdef enum Role:
    # The field must have a given text.
    MUST_BE = 1
    # The field is the object, or the list with one object, that has the update's fields.
    BODY
    SYMBOL
    # Levels: PART and PART + 1.
    PART
    SECOND_PART
    TIME
    CHECKSUM
    FIRST_ID
    LAST_ID


cdef struct Rule:
    Name key
    int role
    # For MUST_BE.
    Name text


cdef struct Rules:
    Rule items[MAX_RULES]
    int count


cdef class UpdateLayout:
    cdef list _texts
    cdef Rules outer
    cdef Rules inner
    cdef bint nested
    cdef bint in_list
    cdef bint iso_time
    cdef LevelLayout levels[MAX_PARTS]
    cdef int sides[MAX_PARTS]
    cdef int parts
    cdef bint numbered
    # Roles that a frame must have filled, a bit each.
    cdef unsigned int needed


cdef struct Found:
    unsigned int seen
    int64_t exchange_ns
    int64_t checksum
    int64_t first_id
    int64_t last_id


cdef class Lane:
    cdef readonly UpdateLayout layout
    cdef Producer producer
    cdef dict trackers
    cdef readonly TrackedBook culprit
    cdef readonly uint64_t frames
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t records
    cdef readonly uint64_t bytes_out
    cdef readonly uint64_t checksums_ok
    cdef int read(self, Scan* scan, Found* found, TrackedBook* tracker) except -1
    cdef int apply(self, TrackedBook tracker, Found* found, int64_t received_ns) except -1
