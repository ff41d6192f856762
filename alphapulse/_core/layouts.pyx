# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""What venues' everyday frames look like, compiled for the native path."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from collections import namedtuple
from enum import IntEnum
from json import dumps

from alphapulse._core.fields cimport prefix_of


Field = IntEnum("Field", {
    "SYMBOL": SYMBOL,
    "ISO_TIME": ISO_TIME,
    "EPOCH_TIME": EPOCH_TIME,
    "MESSAGE_ID": MESSAGE_ID,
    "CHECKSUM": CHECKSUM,
    "FIRST_ID": FIRST_ID,
    "LAST_ID": LAST_ID,
    "TRADE_ID": TRADE_ID,
    "QUOTED_TRADE_ID": QUOTED_TRADE_ID,
    "PRICE": PRICE,
    "SIZE": SIZE,
    "SIDE": SIDE,
    "FIRST_MATCH": FIRST_MATCH,
    "LAST_MATCH": LAST_MATCH,
    "LAST_TRADE_ID": LAST_TRADE_ID,
}, module=__name__)

Levels = namedtuple("Levels", ("layout", "side"), defaults=(None,))


cdef class FrameLayout:
    def __init__(self, fields, *, buy=None, sell=None, bint bare_numbers=False, int id_kind=0,
                 bint contiguous=True, bint by_id=False):
        self.texts = []
        self.bare_numbers = bare_numbers
        self.id_kind = id_kind
        self.contiguous = contiguous
        self.by_id = by_id
        self.compile(fields, 0)
        if (buy is None) != (sell is None) or (buy is not None) != self.has(SIDE):
            raise ValueError("a field SIDE goes with its texts of `buy` and `sell`")
        if buy is not None:
            self.buy = self.keep(dumps(buy))
            self.sell = self.keep(dumps(sell))
        self.classify()

    cdef int compile(self, fields, int depth) except -1:
        """Make the rules of one object, and of the one in it."""
        if depth == MAX_OBJECTS or self.objects[depth].count:
            raise ValueError(f"a layout is {MAX_OBJECTS} objects, each in the one before")
        for key, value in fields.items():
            self.add(key, value, depth)
        return 0

    cdef int add(self, str key, value, int depth) except -1:
        """Add a field's rule."""
        cdef Rules* rules = &self.objects[depth]
        cdef Rule* rule
        if rules.count == MAX_RULES:
            raise ValueError(f"a layout names at most {MAX_RULES} fields of an object")
        rule = &rules.items[rules.count]
        rule.key = self.keep(dumps(key) + ":")
        rules.count += 1
        if isinstance(value, str):
            rule.role = FIXED
            rule.text = self.keep(dumps(value))
        elif isinstance(value, Levels):
            rule.role = PART + self.has(PART)
            self.add_part(value)
        elif isinstance(value, Field):
            rule.role = value
        elif isinstance(value, list):
            rule.role = SOME if value[1:] == [...] else ONLY_ONE
            self.compile(value[0], depth + 1)
        else:
            rule.role = OBJECT
            self.compile(value, depth + 1)
        if rule.role > ONLY_ONE and self.has(rule.role):
            raise ValueError(f"{key} is the second field of its kind")
        self.roles |= 1U << rule.role
        return 0

    cdef int add_part(self, levels) except -1:
        """Note a list of levels."""
        cdef int side = 0 if levels.side is None else levels.side
        if self.has(OTHER_PART):
            raise ValueError("a layout has one or two lists of levels")
        if self.has(PART):
            self.second_levels = levels.layout
            self.sides[1] = side
        else:
            self.first_levels = levels.layout
            self.sides[0] = side
        return 0

    cdef Prefix keep(self, str text) except *:
        cdef bytes encoded = text.encode()
        self.texts.append(encoded)
        return prefix_of(
            <const unsigned char*>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded)
        )

    cdef bint has(self, int role) noexcept:
        return self.roles >> role & 1

    cdef int classify(self) except -1:
        """Find out what the frames are, and whether they have all that such a frame needs."""
        cdef bint timed = self.has(ISO_TIME) or self.has(EPOCH_TIME)
        cdef bint numbered = self.has(TRADE_ID) or self.has(QUOTED_TRADE_ID)
        if self.has(FIRST_ID) != self.has(LAST_ID):
            raise ValueError("FIRST_ID and LAST_ID go together")
        if self.has(FIRST_MATCH) != self.has(LAST_MATCH):
            raise ValueError("FIRST_MATCH and LAST_MATCH go together")
        if self.has(PART):
            self.kind = UPDATE
        elif numbered:
            self.kind = TRADES
            if not (self.has(PRICE) and self.has(SIZE) and self.has(SIDE) and timed):
                raise ValueError("a trade has a price, a size, a side, an id and a time")
        elif self.has(LAST_TRADE_ID):
            self.kind = MARK
        else:
            self.kind = IDLE
        if self.has(SOME) and self.kind != TRADES:
            raise ValueError("only trades come several in a frame")
        if self.has(SYMBOL) != (self.kind != IDLE):
            raise ValueError("what concerns a symbol names it, and nothing else does")
        return 0
