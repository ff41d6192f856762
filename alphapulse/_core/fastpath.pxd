from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from alphapulse._core.levels cimport LevelLayout, Name
from alphapulse._core.producer cimport Producer
from alphapulse._core.scan cimport Problem, Scan, Span
from alphapulse._core.tracker cimport TrackedBook

cdef enum:
    MAX_RULES = 10
    MAX_PARTS = 2

cdef enum Role:
    # The field must have a certain text.
    FIXED = 0
    # The object, or the list with one object, that has the update's own fields.
    BODY
    SYMBOL
    TIME
    CHECKSUM
    FIRST_ID
    LAST_ID
    # Levels; the second list of them is PART + 1.
    PART


cdef struct Rule:
    Name key
    int role
    # Of a FIXED field.
    Name text


cdef struct Rules:
    Rule items[MAX_RULES]
    int count


cdef struct Found:
    # Which rules were met, a bit each; those of the body from MAX_RULES on.
    unsigned int met
    int64_t exchange_ns
    int64_t checksum
    int64_t first_id
    int64_t last_id


cdef struct Slot:
    Name name
    PyObject* book


cdef class UpdateLayout:
    # Owns the bytes that names point into.
    cdef list texts
    cdef Rules outer
    cdef Rules inner
    cdef bint nested
    cdef bint in_list
    cdef bint iso_time
    cdef bint timed
    cdef bint numbered
    cdef readonly bint checksummed
    cdef LevelLayout first_levels
    cdef LevelLayout second_levels
    cdef int[MAX_PARTS] sides
    cdef int parts
    cdef int add(self, Rules* rules, str key, int role, str text) except -1
    cdef int add_if(self, Rules* rules, key, int role) except -1


cdef class FastPath:
    cdef readonly UpdateLayout layout
    cdef Producer producer
    # Owns the names and books that the table points to.
    cdef dict books
    cdef Slot* table
    cdef Py_ssize_t slots
    # Of the latest frame, as far as it named one.
    cdef TrackedBook book
    cdef readonly uint64_t frames
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t records
    cdef readonly uint64_t bytes_out
    cdef readonly uint64_t checksums_ok
    cdef int fill(self, Py_ssize_t slots) except -1
    cdef int take_bytes(self, const unsigned char* at, Py_ssize_t length,
                        int64_t received_ns) except -1
    cdef bint read(self, Scan* scan, Found* found) except -1
    cdef Problem read_object(self, Scan* scan, const Rules* rules, int base, Found* found)
    cdef Problem read_field(self, Scan* scan, const Rule* rule, Found* found)
    cdef Problem read_body(self, Scan* scan, Found* found)
    cdef Problem read_levels(self, Scan* scan, int part)
    cdef bint find(self, const Span* symbol) except -1
    cdef int apply(self, const Found* found, int64_t received_ns) except -1
