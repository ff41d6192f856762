from alphapulse._core.fields cimport Prefix
from alphapulse._core.levels cimport LevelLayout

cdef enum:
    MAX_RULES = 12
    # The frame, an object in it, an object in that one.
    MAX_OBJECTS = 3
    MAX_PARTS = 2

cdef enum FrameKind:
    IDLE = 0
    UPDATE
    TRADES
    MARK

cdef enum Role:
    # The field must have a certain text.
    FIXED = 0
    # An object, a list of exactly one, a list of one or more.
    OBJECT
    ONLY_ONE
    SOME
    # Levels of a side; the second list of them is PART + 1.
    PART
    OTHER_PART
    # From here on those of `Field`.
    SYMBOL
    ISO_TIME
    EPOCH_TIME
    MESSAGE_ID
    CHECKSUM
    FIRST_ID
    LAST_ID
    TRADE_ID
    QUOTED_TRADE_ID
    PRICE
    SIZE
    SIDE
    FIRST_MATCH
    LAST_MATCH
    LAST_TRADE_ID


cdef struct Rule:
    # With its quotes and its colon.
    Prefix key
    int role
    # Of a FIXED field, with its quotes.
    Prefix text


cdef struct Rules:
    Rule items[MAX_RULES]
    int count


cdef class FrameLayout:
    # Owns the bytes that names point into.
    cdef list texts
    cdef readonly int kind
    cdef Rules[MAX_OBJECTS] objects
    # Roles that occur, a bit each.
    cdef unsigned int roles
    cdef LevelLayout first_levels
    cdef LevelLayout second_levels
    cdef int[MAX_PARTS] sides
    cdef Prefix buy
    cdef Prefix sell
    cdef bint bare_numbers
    cdef int id_kind
    cdef bint contiguous
    cdef bint by_id
    cdef int compile(self, fields, int depth) except -1
    cdef int add(self, str key, value, int depth) except -1
    cdef int add_part(self, levels) except -1
    cdef Prefix keep(self, str text) except *
    cdef bint has(self, int role) noexcept
    cdef int classify(self) except -1
