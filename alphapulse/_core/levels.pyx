# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Price levels straight from a venue's JSON into a native array, without an object per level."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from alphapulse._core.scan cimport (
    ABSENT,
    BAD_DECIMAL,
    BAD_STRUCTURE,
    NEGATIVE,
    NO_MEMORY,
    NOT_POSITIVE,
    NUMBER,
    OK,
    STRING,
    TOO_MANY,
    TOO_PRECISE,
    Problem,
    Scan,
    Span,
    expect,
    malformed,
    read_decimal,
    scan_key,
    scan_value,
    skip_space,
    take_plain_number,
)

from alphapulse.errors import DecimalSyntaxError, LevelSyntaxError, PrecisionError, RangeError

MAX_LEVELS = 2_000_000

cdef enum:
    STAGE_LIMIT = 2_000_000
    # More than a level with names of `PLAIN_NAMES` bytes in all and two plain numbers has.
    PLAIN_BYTES = 160
    PLAIN_NAMES = 48
    # A stage with room for more levels than this (96 KiB) gives its memory back when cleared.
    KEPT_LEVELS = 4_096


cdef struct LevelSpans:
    Span side
    Span price
    Span size


cdef const char* PRICE_FIELD = b"price"
cdef const char* SIZE_FIELD = b"size"


cdef Problem read_number(Scan* scan, Span* span, int exponent, const char* field,
                         int64_t* value) noexcept nogil:
    """Value of a price or a size. One with too many decimal places is noted, and 1 meanwhile."""
    cdef Problem problem = BAD_DECIMAL
    cdef int needed = 0
    if span.kind == STRING or span.kind == NUMBER:
        problem = read_decimal(span.start, span.length, exponent, value, &needed)
    if problem == TOO_PRECISE:
        value[0] = 1
        if scan.precise_field is NULL or (
            scan.precise_field == field and needed > scan.needed
        ):
            scan.precise = span[0]
            scan.precise_field = field
            scan.precise_allowed = exponent
            scan.needed = needed
        return OK
    if problem != OK:
        scan.culprit = span[0]
        scan.field = field
        scan.allowed = exponent
    return problem


cdef inline bint matches(const Span* span, const Name* name) noexcept nogil:
    return span.length == name.length and memcmp(span.start, name.text, name.length) == 0


cdef Problem scan_list_level(Scan* scan, bint sided, LevelSpans* level) noexcept nogil:
    """``["buy", "29430.2", "0.5", ...]``, with or without the side."""
    cdef Span ignored
    cdef Span* into
    cdef Problem problem
    cdef int element = 0 if sided else 1
    if expect(scan, c"[", b"expected a level as a list") != OK:
        return BAD_STRUCTURE
    while True:
        into = &ignored
        if element == 0:
            into = &level.side
        elif element == 1:
            into = &level.price
        elif element == 2:
            into = &level.size
        problem = scan_value(scan, into, 2)
        if problem != OK:
            return problem
        element = min(element + 1, 3)
        skip_space(scan)
        if scan.at < scan.end and scan.at[0] == c"]" and element == 3:
            scan.at += 1
            return OK
        if expect(scan, c",", b"expected a comma in a level") != OK:
            return BAD_STRUCTURE


cdef Problem scan_object_level(Scan* scan, LevelLayout layout, LevelSpans* level) noexcept nogil:
    """``{"price": 29430.2, "qty": 0.5, ...}``; of a key that comes twice the last one counts."""
    cdef Span key, ignored
    cdef Span* into
    cdef Problem problem
    if expect(scan, c"{", b"expected a level as an object") != OK:
        return BAD_STRUCTURE
    while True:
        problem = scan_key(scan, &key)
        if problem != OK:
            return problem
        into = &ignored
        if matches(&key, &layout.price_key):
            into = &level.price
        elif matches(&key, &layout.size_key):
            into = &level.size
        elif layout.side_key.length and matches(&key, &layout.side_key):
            into = &level.side
        problem = scan_value(scan, into, 2)
        if problem != OK:
            return problem
        skip_space(scan)
        if scan.at < scan.end and scan.at[0] == c"}":
            scan.at += 1
            return OK
        if expect(scan, c",", b"expected a comma in a level") != OK:
            return BAD_STRUCTURE


cdef int side_of(LevelLayout layout, const Span* span) noexcept nogil:
    """BID, ASK, or 0 where the text is no side."""
    cdef int i
    if span.kind != STRING:
        return 0
    for i in range(layout.bid_names):
        if matches(span, &layout.bids[i]):
            return BID
    for i in range(layout.ask_names):
        if matches(span, &layout.asks[i]):
            return ASK
    return 0


cdef inline bint take_word(const unsigned char** at, const Name* name) noexcept nogil:
    """Step over ``"name":`` or ``"name",`` in just this form."""
    cdef const unsigned char* text = at[0]
    if text[0] != c'"' or memcmp(text + 1, name.text, <size_t>name.length) != 0:
        return False
    text += name.length + 1
    if text[0] != c'"' or (text[1] != c":" and text[1] != c","):
        return False
    at[0] = text + 2
    return True


cdef const unsigned char* read_plain_level(const unsigned char* at, LevelLayout layout,
                                           StagedLevel* level, int price_exponent,
                                           int size_exponent) noexcept nogil:
    """Read a level in the form in which venues write it, without white space.

    Where it ends; NULL where it has another form, of which `scan_list_level` and
    `scan_object_level` know. Looks at less than `PLAIN_BYTES`.
    """
    if layout.kind == OBJECTS:
        if at[0] != c"{":
            return NULL
        at += 1
        if not take_word(&at, &layout.price_key):
            return NULL
    else:
        if at[0] != c"[":
            return NULL
        at += 1
        if layout.kind == SIDED:
            if take_word(&at, &layout.bids[0]):
                level.side = BID
            elif take_word(&at, &layout.asks[0]):
                level.side = ASK
            else:
                return NULL
    if not take_plain_number(&at, price_exponent, &level.price) or level.price == 0:
        return NULL
    if at[0] != c",":
        return NULL
    at += 1
    if layout.kind == OBJECTS and not take_word(&at, &layout.size_key):
        return NULL
    if not take_plain_number(&at, size_exponent, &level.size):
        return NULL
    return at + 1 if at[0] == (c"}" if layout.kind == OBJECTS else c"]") else NULL


cdef inline bint take_plain_level(Scan* scan, LevelLayout layout, StagedLevel* level,
                                  int price_exponent, int size_exponent) noexcept nogil:
    """Read a level in the form in which venues write it, or nothing."""
    cdef unsigned char[PLAIN_BYTES] text
    cdef const unsigned char* at = scan.at
    cdef const unsigned char* after
    cdef Py_ssize_t left = scan.end - at
    if left < PLAIN_BYTES:
        # A frame's end is read from a copy, with zeros behind it that no number goes over.
        memset(text, 0, PLAIN_BYTES)
        memcpy(text, at, <size_t>left)
        at = text
    after = read_plain_level(at, layout, level, price_exponent, size_exponent)
    if after is NULL:
        return False
    scan.at += after - at
    return True


cdef Problem stage_level(Scan* scan, LevelStage stage, LevelLayout layout, int side,
                         int price_exponent, int size_exponent) noexcept nogil:
    """Read one level and put it on the stage. `side` is 0 where the level tells it."""
    cdef LevelSpans level
    cdef StagedLevel plain
    cdef int64_t price = 0, size = 0
    cdef Problem problem
    cdef const unsigned char* start
    if stage.count >= STAGE_LIMIT:
        return TOO_MANY
    plain.side = side
    if layout.plain and take_plain_level(scan, layout, &plain, price_exponent, size_exponent):
        if stage.push(plain.side, plain.price, plain.size, 0) < 0:
            return NO_MEMORY
        return OK
    level.side.kind = level.price.kind = level.size.kind = ABSENT
    skip_space(scan)
    start = scan.at
    if layout.kind == OBJECTS:
        problem = scan_object_level(scan, layout, &level)
    else:
        problem = scan_list_level(scan, layout.kind == SIDED, &level)
    if problem != OK:
        return problem
    if level.price.kind == ABSENT or level.size.kind == ABSENT:
        scan.at = start
        return malformed(scan, b"a level has no price or no size")
    if side == 0:
        side = side_of(layout, &level.side)
        if side == 0:
            scan.at = start
            return malformed(scan, b"a level's side is missing or unknown")
    problem = read_number(scan, &level.price, price_exponent, PRICE_FIELD, &price)
    if problem != OK:
        return problem
    if price == 0:
        scan.culprit = level.price
        return NOT_POSITIVE
    problem = read_number(scan, &level.size, size_exponent, SIZE_FIELD, &size)
    if problem != OK:
        return problem
    if stage.push(side, price, size, 0) < 0:
        return NO_MEMORY
    return OK


cdef Problem stage_list(Scan* scan, LevelStage stage, LevelLayout layout, int side,
                        int price_exponent, int size_exponent) noexcept nogil:
    """Read a list of levels; the scan is behind it then."""
    cdef Problem problem
    if expect(scan, c"[", b"expected a list of levels") != OK:
        return BAD_STRUCTURE
    skip_space(scan)
    if scan.at < scan.end and scan.at[0] == c"]":
        scan.at += 1
        return OK
    while True:
        problem = stage_level(scan, stage, layout, side, price_exponent, size_exponent)
        if problem != OK:
            return problem
        skip_space(scan)
        if scan.at < scan.end and scan.at[0] == c"]":
            scan.at += 1
            return OK
        if expect(scan, c",", b"expected a comma or the end of the levels") != OK:
            return BAD_STRUCTURE


cdef Problem stage_levels(Scan* scan, LevelStage stage, LevelLayout layout, int side,
                          int price_exponent, int size_exponent) noexcept nogil:
    """Read a whole list of levels, and nothing after it."""
    cdef Problem problem = stage_list(
        scan, stage, layout, side, price_exponent, size_exponent
    )
    if problem != OK:
        return problem
    skip_space(scan)
    if scan.at != scan.end:
        return malformed(scan, b"something follows the levels")
    return OK if scan.precise_field is NULL else TOO_PRECISE


cdef str text_of(const Span* span):
    """The culprit's text, cut so that a hostile frame isn't copied into a message."""
    return span.start[:min(span.length, 81)].decode("utf-8", "replace")


cdef int complain(const Scan* scan, Problem problem) except -1:
    """Raise what the problem calls for."""
    if problem == NO_MEMORY:
        raise MemoryError
    if problem == TOO_PRECISE:
        raise PrecisionError(
            text_of(&scan.precise), scan.needed, scan.precise_allowed, scan.precise_field.decode()
        )
    if problem == TOO_MANY:
        raise LevelSyntaxError("", f"more than {MAX_LEVELS} levels")
    cdef str text = text_of(&scan.culprit)
    if problem == BAD_STRUCTURE:
        raise LevelSyntaxError(text, scan.why.decode())
    if problem == BAD_DECIMAL:
        raise DecimalSyntaxError(text, "is no finite decimal number")
    if problem == NOT_POSITIVE:
        raise RangeError(text, "is no price: it must be above 0")
    if problem == NEGATIVE:
        raise RangeError(text, f"is no {scan.field.decode()}: it is negative")
    raise RangeError(text, f"doesn't fit int64 at {scan.allowed} decimal places")


cdef class LevelLayout:
    def __init__(self):
        raise TypeError("use LevelLayout.pairs(), .sided() or .objects()")

    @staticmethod
    def pairs():
        return make_layout(PAIRS, "", "", "", (), ())

    @staticmethod
    def sided(bids=("buy",), asks=("sell",)):
        return make_layout(SIDED, "", "", "", bids, asks)

    @staticmethod
    def objects(price="price", size="qty", side=None, bids=("bid",), asks=("offer", "ask")):
        if side is None:
            return make_layout(OBJECTS, price, size, "", (), ())
        return make_layout(OBJECTS, price, size, side, bids, asks)


cdef LevelLayout make_layout(int kind, str price, str size, str side, bids, asks):
    cdef LevelLayout layout = LevelLayout.__new__(LevelLayout)
    cdef int i
    cdef tuple bid_texts = tuple([name.encode() for name in bids])
    cdef tuple ask_texts = tuple([name.encode() for name in asks])
    if len(bid_texts) > 4 or len(ask_texts) > 4:
        raise ValueError("a layout takes at most four words for a side")
    cdef tuple keys = (price.encode(), size.encode(), side.encode())
    layout.kind = kind
    layout._texts = keys + bid_texts + ask_texts
    layout.price_key = name_of(keys[0])
    layout.size_key = name_of(keys[1])
    layout.side_key = name_of(keys[2])
    layout.plain = sum([len(text) for text in layout._texts]) <= PLAIN_NAMES and not (
        kind == OBJECTS and side
    )
    layout.bid_names = <int>len(bid_texts)
    layout.ask_names = <int>len(ask_texts)
    for i in range(layout.bid_names):
        layout.bids[i] = name_of(bid_texts[i])
    for i in range(layout.ask_names):
        layout.asks[i] = name_of(ask_texts[i])
    return layout


cdef Name name_of(bytes text):
    cdef Name name
    name.text = <const unsigned char*>PyBytes_AS_STRING(text)
    name.length = PyBytes_GET_SIZE(text)
    return name


cdef class LevelStage:
    def __dealloc__(self):
        free(self.items)

    cdef int reserve(self, Py_ssize_t extra) except -1:
        """Make room for so many more levels."""
        cdef Py_ssize_t capacity = max(self.count + extra, 16)
        cdef void* block
        if capacity <= self.capacity:
            return 0
        block = realloc(self.items, <size_t>capacity * sizeof(StagedLevel))
        if block is NULL:
            raise MemoryError
        self.items = <StagedLevel*>block
        self.capacity = capacity
        return 0

    cdef int push(self, int side, int64_t price, int64_t size, int added) noexcept nogil:
        """Add a level; -1 where there is no memory."""
        cdef Py_ssize_t capacity
        cdef void* block
        cdef StagedLevel* level
        if self.count == self.capacity:
            capacity = max(16, self.capacity * 2)
            block = realloc(self.items, <size_t>capacity * sizeof(StagedLevel))
            if block is NULL:
                return -1
            self.items = <StagedLevel*>block
            self.capacity = capacity
        level = &self.items[self.count]
        level.side = side
        level.price = price
        level.size = size
        level.added = added
        self.count += 1
        return 0

    def __len__(self):
        return self.count

    def __iter__(self):
        cdef Py_ssize_t i
        return iter([
            (self.items[i].side, self.items[i].price, self.items[i].size)
            for i in range(self.count)
        ])

    cpdef void clear(self) noexcept:
        self.count = 0
        if self.capacity > KEPT_LEVELS:
            free(self.items)
            self.items = NULL
            self.capacity = 0

    def append(self, int side, int64_t price, int64_t size):
        if side != BID and side != ASK:
            raise ValueError(f"side is 1 (bid) or 2 (ask), not {side}")
        if price < 1 or size < 0:
            raise ValueError(f"no level: price {price}, size {size}")
        if self.count >= STAGE_LIMIT:
            raise LevelSyntaxError("", f"more than {MAX_LEVELS} levels")
        if self.push(side, price, size, 0) < 0:
            raise MemoryError

    def parse(self, raw, LevelLayout layout not None, side, int price_exponent,
              int size_exponent):
        cdef int told = 0 if side is None else side
        cdef bint own_side = layout.kind == SIDED or layout.side_key.length > 0
        cdef Py_ssize_t before = self.count
        cdef Py_buffer view
        cdef Scan scan
        cdef Problem problem
        if not (0 <= price_exponent <= 18 and 0 <= size_exponent <= 18):
            raise ValueError(f"exponents are 0 to 18, not {price_exponent}, {size_exponent}")
        if own_side != (side is None) or not 0 <= told <= ASK or (told == 0) != (side is None):
            raise ValueError(f"side {side!r} doesn't go with the layout")
        PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
        scan.at = <const unsigned char*>view.buf
        scan.end = scan.at + view.len
        scan.precise_field = NULL
        try:
            problem = stage_levels(&scan, self, layout, told, price_exponent, size_exponent)
            if problem != OK:
                self.count = before
                complain(&scan, problem)
        finally:
            PyBuffer_Release(&view)
        return self.count - before
