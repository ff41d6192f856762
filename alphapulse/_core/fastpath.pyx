# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Plain book updates from a frame's bytes to a record in the ring, without Python in between."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy

from alphapulse._core.levels cimport stage_list
from alphapulse._core.scan cimport (
    BAD_STRUCTURE,
    NUMBER,
    OK,
    STRING,
    Problem,
    Span,
    expect,
    scan_value,
    skip_space,
)
from alphapulse._core.wire cimport NO_TIME

from alphapulse.errors import BookError

NOT_PLAIN = 0
TAKEN = 1
BAD_CHECKSUM = 2
CROSSED = 3

cdef enum:
    WAS_NOT_PLAIN = 0
    WAS_TAKEN = 1
    WAS_BAD_CHECKSUM = 2
    WAS_CROSSED = 3
    # A frame with more levels isn't an everyday one.
    MAX_PLAIN_BYTES = 1 << 20
    MAX_INTEGER_DIGITS = 18
    LARGEST_SPAN = 10_000_000

cdef int64_t MICROSECONDS_FROM = 100_000_000_000_000
cdef int64_t LARGEST_MICROSECONDS = 9_223_372_036_854_775


cdef Name name_of(bytes text):
    cdef Name name
    name.text = <const unsigned char*>PyBytes_AS_STRING(text)
    name.length = PyBytes_GET_SIZE(text)
    return name


cdef inline bint is_text(const Span* span, const Name* name) noexcept nogil:
    return (
        span.length == name.length and span.start[0] == name.text[0]
        and memcmp(span.start, name.text, name.length) == 0
    )


cdef inline uint64_t odd_bytes(uint64_t word) noexcept nogil:
    """Nonzero where a byte is above 0x7f, below 0x20, or a backslash."""
    cdef uint64_t slashed = word ^ <uint64_t>0x5C5C5C5C5C5C5C5CU
    return (
        word | ((word - <uint64_t>0x2020202020202020U) & ~word)
        | ((slashed - <uint64_t>0x0101010101010101U) & ~slashed)
    ) & <uint64_t>0x8080808080808080U


cdef inline bint is_plain_text(const unsigned char* at, Py_ssize_t length) noexcept nogil:
    """Whether the bytes are printable ASCII without escapes: a string then ends at a quote."""
    cdef uint64_t word, odd = 0
    while length >= 8:
        memcpy(&word, at, 8)
        odd |= odd_bytes(word)
        at += 8
        length -= 8
    # Filled up with spaces.
    word = <uint64_t>0x2020202020202020U
    memcpy(&word, at, <size_t>length)
    return (odd | odd_bytes(word)) == 0


cdef inline bint read_string(Scan* scan, Span* span) noexcept nogil:
    """A string of plain text, from its opening quote; the span leaves the quotes out."""
    cdef const unsigned char* end
    skip_space(scan)
    if scan.at == scan.end or scan.at[0] != c'"':
        return False
    scan.at += 1
    end = <const unsigned char*>memchr(scan.at, c'"', <size_t>(scan.end - scan.at))
    if end is NULL:
        return False
    span.start = scan.at
    span.length = end - scan.at
    span.kind = STRING
    scan.at = end + 1
    return True


cdef inline bint read_value(Scan* scan, Span* span) noexcept nogil:
    """Any JSON value of plain text."""
    skip_space(scan)
    if scan.at < scan.end and scan.at[0] == c'"':
        return read_string(scan, span)
    return scan_value(scan, span, 1) == OK


cdef inline uint64_t hash_of(const unsigned char* at, Py_ssize_t length) noexcept nogil:
    cdef uint64_t value = 0xCBF29CE484222325U
    cdef Py_ssize_t i
    for i in range(length):
        value = (value ^ at[i]) * <uint64_t>0x100000001B3U
    return value ^ (value >> 29)


cdef inline bint read_integer(const Span* span, int64_t* value) noexcept nogil:
    """A JSON integer without sign, of at most 18 digits."""
    cdef Py_ssize_t i
    cdef int64_t result = 0
    cdef unsigned char digit
    if span.kind != NUMBER or span.length > MAX_INTEGER_DIGITS:
        return False
    for i in range(span.length):
        digit = span.start[i] - c"0"
        if digit > 9:
            return False
        result = result * 10 + digit
    value[0] = result
    return True


cdef inline bint read_digits(const unsigned char* at, int count, int* value) noexcept nogil:
    cdef int i, result = 0
    cdef unsigned char digit
    for i in range(count):
        digit = at[i] - c"0"
        if digit > 9:
            return False
        result = result * 10 + digit
    value[0] = result
    return True


cdef inline int days_in(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


cdef inline int64_t days_since_epoch(int year, int month, int day) noexcept nogil:
    """Days from 1970-01-01, by the Gregorian calendar with years that begin in March."""
    cdef int shifted = year - (month <= 2)
    cdef int of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return (
        <int64_t>shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400
        + of_year - 719468
    )


cdef bint read_iso_time(const Span* span, int64_t* value) noexcept nogil:
    """``2021-04-17T16:49:23.327760Z`` of the years 1971 to 2261; other forms go the long way."""
    cdef const unsigned char* at = span.start
    cdef int year, month, day, hour, minute, second, digits, i
    cdef int64_t fraction = 0
    if span.kind != STRING or span.length < 20 or at[span.length - 1] != c"Z":
        return False
    if (
        at[4] != c"-" or at[7] != c"-" or at[10] != c"T" or at[13] != c":" or at[16] != c":"
        or not read_digits(at, 4, &year) or not read_digits(at + 5, 2, &month)
        or not read_digits(at + 8, 2, &day) or not read_digits(at + 11, 2, &hour)
        or not read_digits(at + 14, 2, &minute) or not read_digits(at + 17, 2, &second)
    ):
        return False
    if not (
        1971 <= year <= 2261 and 1 <= month <= 12 and 1 <= day <= days_in(year, month)
        and hour <= 23 and minute <= 59 and second <= 59
    ):
        return False
    digits = <int>span.length - 21
    if digits >= 0:
        if at[19] != c"." or not 1 <= digits <= 9:
            return False
        for i in range(9):
            fraction *= 10
            if i < digits:
                if not c"0" <= at[20 + i] <= c"9":
                    return False
                fraction += at[20 + i] - c"0"
    value[0] = (
        ((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    ) * 1_000_000_000 + fraction
    return True


cdef bint read_epoch_time(const Span* span, int64_t* value) noexcept nogil:
    """Milliseconds, or microseconds, told by their size."""
    cdef int64_t number
    if not read_integer(span, &number) or number == 0:
        return False
    if number < MICROSECONDS_FROM:
        if number > LARGEST_MICROSECONDS // 1000:
            return False
        value[0] = number * 1_000_000
    else:
        if number > LARGEST_MICROSECONDS:
            return False
        value[0] = number * 1_000
    return True


cdef class UpdateLayout:
    def __init__(self, *, str symbol, parts, fixed=None, body=None, bint in_list=False,
                 body_fixed=None, time=None, bint iso_time=True, checksum=None, first_id=None,
                 last_id=None):
        cdef Rules* own = &self.inner
        self.texts = []
        self.nested = body is not None
        self.in_list = in_list
        self.iso_time = iso_time
        self.timed = time is not None
        self.checksummed = checksum is not None
        self.numbered = first_id is not None
        if (first_id is None) != (last_id is None):
            raise ValueError("first_id and last_id go together")
        if not 1 <= len(parts) <= MAX_PARTS:
            raise ValueError(f"one or two lists of levels, not {len(parts)}")
        for key, text in (fixed or {}).items():
            self.add(&self.outer, key, FIXED, text)
        if self.nested:
            self.add(&self.outer, body, BODY, "")
        else:
            own = &self.outer
        for key, text in (body_fixed or {}).items():
            self.add(own, key, FIXED, text)
        # In the order in which venues write them, mostly: the search goes by it.
        self.add(own, symbol, SYMBOL, "")
        self.add_if(own, first_id, FIRST_ID)
        self.add_if(own, last_id, LAST_ID)
        self.parts = <int>len(parts)
        for i, (key, levels, side) in enumerate(parts):
            self.add(own, key, PART + i, "")
            self.sides[i] = 0 if side is None else side
            if i == 0:
                self.first_levels = levels
            else:
                self.second_levels = levels
        self.add_if(own, checksum, CHECKSUM)
        self.add_if(own, time, TIME)

    cdef int add_if(self, Rules* rules, key, int role) except -1:
        return 0 if key is None else self.add(rules, key, role, "")

    cdef int add(self, Rules* rules, str key, int role, str text) except -1:
        cdef Rule* rule
        cdef bytes key_text = key.encode(), fixed_text = text.encode()
        if rules.count == MAX_RULES:
            raise ValueError(f"a layout names at most {MAX_RULES} fields")
        self.texts += [key_text, fixed_text]
        rule = &rules.items[rules.count]
        rule.key = name_of(key_text)
        rule.text = name_of(fixed_text)
        rule.role = role
        rules.count += 1
        return 0


cdef class FastPath:
    def __init__(self, UpdateLayout layout not None, Producer producer not None):
        self.layout = layout
        self.producer = producer
        self.books = {}
        self.fill(16)

    def __dealloc__(self):
        free(self.table)

    def follow(self, str venue_symbol, TrackedBook book not None):
        self.books[venue_symbol.encode()] = book
        self.fill(max(self.slots, 4 * <Py_ssize_t>len(self.books)))

    cdef int fill(self, Py_ssize_t slots) except -1:
        """Make the table anew, of a power of two of slots, at least half of them empty."""
        cdef Py_ssize_t size = 16, at
        cdef Slot* table
        cdef bytes name
        cdef Name text
        cdef TrackedBook book
        while size < slots:
            size *= 2
        table = <Slot*>calloc(<size_t>size, sizeof(Slot))
        if table is NULL:
            raise MemoryError
        for name, book in self.books.items():
            text = name_of(name)
            at = <Py_ssize_t>(hash_of(text.text, text.length) & <uint64_t>(size - 1))
            while table[at].book is not NULL:
                at = (at + 1) & (size - 1)
            table[at].name = text
            table[at].book = <PyObject*>book
        free(self.table)
        self.table = table
        self.slots = size
        return 0

    def take(self, data, int64_t received_ns):
        cdef Py_buffer view
        cdef int outcome
        if PyBytes_CheckExact(data):
            return self.take_bytes(
                <const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), received_ns
            )
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            outcome = self.take_bytes(<const unsigned char*>view.buf, view.len, received_ns)
        finally:
            PyBuffer_Release(&view)
        return outcome

    cdef int take_bytes(self, const unsigned char* at, Py_ssize_t length,
                        int64_t received_ns) except -1:
        """See `take`."""
        cdef Scan scan
        cdef Found found
        cdef int outcome
        scan.at = at
        scan.end = at + length
        scan.precise_field = NULL
        found.met = 0
        found.exchange_ns = NO_TIME
        if length > MAX_PLAIN_BYTES or not is_plain_text(at, length):
            return WAS_NOT_PLAIN
        if not self.read(&scan, &found):
            return WAS_NOT_PLAIN
        outcome = self.apply(&found, received_ns)
        if outcome != WAS_NOT_PLAIN:
            self.frames += 1
            self.bytes_in += <uint64_t>length
        return outcome

    @property
    def culprit(self):
        return self.book

    cdef bint read(self, Scan* scan, Found* found) except -1:
        """Stage a plain update's levels, with its book in `book`; whether the frame is one."""
        cdef UpdateLayout layout = self.layout
        cdef unsigned int all_met = (1U << layout.outer.count) - 1
        if layout.nested:
            all_met |= ((1U << layout.inner.count) - 1) << MAX_RULES
        self.book = None
        if self.read_object(scan, &layout.outer, 0, found) != OK:
            return False
        skip_space(scan)
        return scan.at == scan.end and found.met == all_met and scan.precise_field is NULL

    cdef Problem read_object(self, Scan* scan, const Rules* rules, int base, Found* found):
        """An object whose fields the rules name; one that comes twice is no plain frame's."""
        cdef Span key, ignored
        cdef unsigned int bit
        cdef int i, likely = 0
        if expect(scan, c"{", NULL) != OK:
            return BAD_STRUCTURE
        while True:
            if not read_string(scan, &key) or expect(scan, c":", NULL) != OK:
                return BAD_STRUCTURE
            # The rules are in the order that the venue writes its fields in, mostly.
            i = likely
            if i == rules.count or not is_text(&key, &rules.items[i].key):
                i = 0
                while i < rules.count and not is_text(&key, &rules.items[i].key):
                    i += 1
            if i < rules.count:
                likely = i + 1
                bit = 1U << (base + i)
                if found.met & bit:
                    return BAD_STRUCTURE
                found.met |= bit
                if self.read_field(scan, &rules.items[i], found) != OK:
                    return BAD_STRUCTURE
            elif not read_value(scan, &ignored):
                return BAD_STRUCTURE
            skip_space(scan)
            if scan.at < scan.end and scan.at[0] == c"}":
                scan.at += 1
                return OK
            if expect(scan, c",", NULL) != OK:
                return BAD_STRUCTURE

    cdef Problem read_field(self, Scan* scan, const Rule* rule, Found* found):
        """A field's value, by its role; anything but `OK` sends the frame the long way."""
        cdef Span value
        cdef bint good
        if rule.role >= PART:
            return self.read_levels(scan, rule.role - PART)
        if rule.role == BODY:
            return self.read_body(scan, found)
        if not read_value(scan, &value):
            return BAD_STRUCTURE
        if rule.role == FIXED:
            good = value.kind == STRING and is_text(&value, &rule.text)
        elif rule.role == SYMBOL:
            good = value.kind == STRING and self.find(&value)
        elif rule.role == TIME:
            if self.layout.iso_time:
                good = read_iso_time(&value, &found.exchange_ns)
            else:
                good = read_epoch_time(&value, &found.exchange_ns)
        elif rule.role == CHECKSUM:
            good = read_integer(&value, &found.checksum)
        elif rule.role == FIRST_ID:
            good = read_integer(&value, &found.first_id)
        else:
            good = read_integer(&value, &found.last_id)
        return OK if good else BAD_STRUCTURE

    cdef Problem read_body(self, Scan* scan, Found* found):
        if not self.layout.in_list:
            return self.read_object(scan, &self.layout.inner, MAX_RULES, found)
        if expect(scan, c"[", NULL) != OK:
            return BAD_STRUCTURE
        if self.read_object(scan, &self.layout.inner, MAX_RULES, found) != OK:
            return BAD_STRUCTURE
        return expect(scan, c"]", NULL)

    cdef Problem read_levels(self, Scan* scan, int part):
        cdef TrackedBook book = self.book
        if book is None:
            return BAD_STRUCTURE
        return stage_list(
            scan, book.stage,
            self.layout.second_levels if part else self.layout.first_levels,
            self.layout.sides[part], book.price_exponent, book.size_exponent,
        )

    cdef bint find(self, const Span* symbol) except -1:
        """Look up the symbol's book; whether it is one that plain updates may go to."""
        cdef Py_ssize_t mask = self.slots - 1
        cdef Py_ssize_t at
        at = <Py_ssize_t>(hash_of(symbol.start, symbol.length) & <uint64_t>mask)
        while self.table[at].book is not NULL and not (
            symbol.length and is_text(symbol, &self.table[at].name)
        ):
            at = (at + 1) & mask
        if self.table[at].book is NULL:
            return False
        self.book = <TrackedBook>self.table[at].book
        if not (self.book.live and self.book.ready):
            return False
        self.book.stage.clear()
        return True

    cdef int apply(self, const Found* found, int64_t received_ns) except -1:
        """Change the book by what is staged, prove it, and publish the difference."""
        cdef TrackedBook book = self.book
        cdef UpdateLayout layout = self.layout
        cdef uint64_t before
        if layout.checksummed != book.checked:
            return WAS_NOT_PLAIN
        if layout.numbered and not (
            found.first_id <= book.last_id + 1 and book.last_id < found.last_id
            and found.first_id <= found.last_id <= found.first_id + LARGEST_SPAN
        ):
            return WAS_NOT_PLAIN
        try:
            book.book.apply_stage(book.stage)
        except BookError:
            # Before anything was changed; the long way tells what is wrong.
            return WAS_NOT_PLAIN
        if book.checked:
            if <int64_t>book.book.checksum(book.price_shift, book.size_shift) != found.checksum:
                book.ready = False
                return WAS_BAD_CHECKSUM
            self.checksums_ok += 1
        if book.book.is_crossed():
            book.ready = False
            return WAS_CROSSED
        if layout.numbered:
            book.last_id = found.last_id
        if book.book.changes.count == 0:
            return WAS_TAKEN
        book.version += 1
        book.exchange_ns = found.exchange_ns
        book.encoder.write_delta(
            book.book.changes, book.instrument_id, book.version, 1, found.exchange_ns,
            received_ns, 0,
        )
        before = self.producer.next_position
        self.producer.put(book.encoder.data, <uint64_t>book.encoder.size, self.producer.now())
        self.records += 1
        self.bytes_out += self.producer.next_position - before
        return WAS_TAKEN
