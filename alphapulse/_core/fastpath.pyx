# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Everyday frames from their bytes to records in the ring, without Python in between."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.string cimport memcmp

from alphapulse._core.fields cimport (
    is_plain_text,
    read_epoch_time,
    read_integer,
    read_iso_time,
    read_quoted_integer,
    read_string,
    read_value,
    skip_character,
    skip_prefix,
)
from alphapulse._core.layouts cimport (
    CHECKSUM,
    EPOCH_TIME,
    FIRST_ID,
    FIRST_MATCH,
    FIXED,
    ISO_TIME,
    LAST_ID,
    LAST_MATCH,
    LAST_TRADE_ID,
    MARK,
    MESSAGE_ID,
    OBJECT,
    ONLY_ONE,
    OTHER_PART,
    PART,
    PRICE,
    QUOTED_TRADE_ID,
    SIZE,
    SOME,
    SYMBOL,
    TRADE_ID,
    TRADES,
    UPDATE,
    Rule,
    Rules,
)
from alphapulse._core.levels cimport stage_list
from alphapulse._core.scan cimport NUMBER, OK, Span, skip_space
from alphapulse._core.tracker cimport ConnectionState
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
    MAX_PLAIN_BYTES = 1 << 20
    LARGEST_SPAN = 10_000_000
    BUY = 1
    SELL = 2


cdef int find_rule(Scan* scan, const Rules* rules) noexcept nogil:
    """Read a key and its colon; the place of its rule, their count where it has none, or -1."""
    cdef Span key
    cdef const Rule* rule
    cdef int i
    if not read_string(scan, &key) or not skip_character(scan, c":"):
        return -1
    for i in range(rules.count):
        rule = &rules.items[i]
        # The rule's text has quotes and a colon.
        if rule.key.length == key.length + 3 and (
            memcmp(rule.key.text + 1, key.start, <size_t>key.length) == 0
        ):
            return i
    return rules.count


cdef inline int next_field(Scan* scan) noexcept nogil:
    """Behind a field: 1 if another one follows, 0 at the object's end, -1 for anything else."""
    cdef unsigned char mark
    if scan.at == scan.end or (scan.at[0] != c"," and scan.at[0] != c"}"):
        skip_space(scan)
        if scan.at == scan.end:
            return -1
    mark = scan.at[0]
    scan.at += 1
    return 1 if mark == c"," else 0 if mark == c"}" else -1


cdef class FastPath:
    def __init__(self, layouts, Producer producer not None):
        cdef FrameLayout layout
        self.layouts = tuple(layouts)
        if len(self.layouts) > MAX_LAYOUTS:
            raise ValueError(f"at most {MAX_LAYOUTS} layouts, not {len(self.layouts)}")
        self.producer = producer
        self.symbols = NameTable()
        for layout in self.layouts:
            self.each_layout[self.layout_count] = <PyObject*>layout
            self.layout_count += 1

    def follow(self, str venue_symbol not None, TrackedBook book not None,
               TradeState trades not None):
        cdef Followed followed = Followed()
        followed.book = book
        followed.trades = trades
        self.symbols.put(venue_symbol.encode(), followed)

    def take(self, data, int64_t received_ns, ConnectionState connection=None):
        cdef Py_buffer view
        cdef PyObject* counted = NULL if connection is None else <PyObject*>connection
        if PyBytes_CheckExact(data):
            return self.take_bytes(
                <const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
                received_ns, counted,
            )
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.take_bytes(
                <const unsigned char*>view.buf, view.len, received_ns, counted
            )
        finally:
            PyBuffer_Release(&view)

    @property
    def culprit(self):
        return None if self.followed is None else self.followed.book

    cdef int take_bytes(self, const unsigned char* at, Py_ssize_t length, int64_t received_ns,
                        PyObject* connection) except -1:
        """See `take`."""
        cdef Scan scan
        cdef Found found
        cdef FrameLayout layout
        cdef int i, outcome
        if length > MAX_PLAIN_BYTES or not is_plain_text(at, <size_t>length):
            return WAS_NOT_PLAIN
        scan.end = at + length
        found.connection = connection
        for i in range(self.layout_count):
            layout = <FrameLayout>self.each_layout[i]
            scan.at = at
            scan.precise_field = NULL
            found.exchange_ns = NO_TIME
            found.trades = 0
            self.followed = None
            self.begin_trade(&found)
            if not self.read_object(&scan, layout, 0, &found):
                continue
            skip_space(&scan)
            if scan.at != scan.end or scan.precise_field is not NULL:
                return WAS_NOT_PLAIN
            if self.timed:
                self.read_ns = self.producer.now()
                self.exchange_ns = found.exchange_ns
            # Counted first: where the ring turns out to be too small it has been taken all the same.
            self.frames += 1
            self.bytes_in += <uint64_t>length
            outcome = self.apply(layout, &found, received_ns)
            if outcome == WAS_NOT_PLAIN:
                self.frames -= 1
                self.bytes_in -= <uint64_t>length
            return outcome
        return WAS_NOT_PLAIN

    cdef bint read_object(self, Scan* scan, FrameLayout layout, int depth, Found* found) noexcept:
        """An object that has each field of its rules once; False sends the frame the long way."""
        cdef const Rules* rules = &layout.objects[depth]
        cdef unsigned int met = 0
        cdef int i, more, likely = 0
        cdef Span ignored
        if not skip_character(scan, c"{"):
            return False
        while True:
            # The rules are in the order in which the venue writes its fields, mostly.
            i = likely
            if i == rules.count or not skip_prefix(scan, &rules.items[i].key):
                i = find_rule(scan, rules)
                if i < 0:
                    return False
            if i == rules.count:
                if not read_value(scan, &ignored):
                    return False
            else:
                if met >> i & 1:
                    return False
                met |= 1U << i
                likely = i + 1
                if rules.items[i].role == FIXED:
                    skip_space(scan)
                    if not skip_prefix(scan, &rules.items[i].text):
                        return False
                elif not self.read_field(scan, layout, rules.items[i].role, depth, found):
                    return False
            more = next_field(scan)
            if more <= 0:
                return more == 0 and met == (1U << rules.count) - 1

    cdef bint read_field(self, Scan* scan, FrameLayout layout, int role, int depth,
                         Found* found) noexcept:
        """A field's value, by its role."""
        if role == PART or role == OTHER_PART:
            return self.read_levels(scan, layout, role - PART)
        if role == SYMBOL:
            return self.read_symbol(scan, layout, found)
        if role == ISO_TIME:
            return read_iso_time(scan, &self.minute, &found.exchange_ns)
        if role == EPOCH_TIME:
            return read_epoch_time(scan, &found.exchange_ns)
        if role == CHECKSUM:
            return read_integer(scan, &found.checksum)
        if role == FIRST_ID:
            return read_integer(scan, &found.first_id)
        if role == LAST_ID:
            return read_integer(scan, &found.last_id)
        if role == MESSAGE_ID:
            return read_integer(scan, &found.message_id)
        if role == LAST_TRADE_ID:
            return read_integer(scan, &found.last_trade_id)
        if role == OBJECT:
            return self.read_object(scan, layout, depth + 1, found)
        if role == ONLY_ONE or role == SOME:
            return self.read_list(scan, layout, depth + 1, role == SOME, found)
        return self.read_trade_field(scan, layout, role, found)

    cdef bint read_trade_field(self, Scan* scan, FrameLayout layout, int role,
                               Found* found) noexcept:
        """A field of a trade; digits are looked at when the trade is known as a whole."""
        cdef FoundTrade* trade = &self.trades[found.trades]
        cdef Span* amount = &trade.price_text if role == PRICE else &trade.size_text
        if role == PRICE or role == SIZE:
            if not layout.bare_numbers:
                return read_string(scan, amount)
            return read_value(scan, amount) and amount.kind == NUMBER
        if role == TRADE_ID:
            return read_integer(scan, &trade.id)
        if role == QUOTED_TRADE_ID:
            return read_quoted_integer(scan, &trade.id)
        if role == FIRST_MATCH:
            return read_integer(scan, &trade.first_match)
        if role == LAST_MATCH:
            return read_integer(scan, &trade.last_match)
        skip_space(scan)
        if skip_prefix(scan, &layout.buy):
            trade.side = BUY
            return True
        trade.side = SELL
        return skip_prefix(scan, &layout.sell)

    cdef bint read_list(self, Scan* scan, FrameLayout layout, int depth, bint several,
                        Found* found) noexcept:
        """A list of exactly one object, or of several trades."""
        if not skip_character(scan, c"[") or not self.read_object(scan, layout, depth, found):
            return False
        while several and skip_character(scan, c","):
            if not self.end_trade(found):
                return False
            self.begin_trade(found)
            if not self.read_object(scan, layout, depth, found):
                return False
        return skip_character(scan, c"]")

    cdef bint read_levels(self, Scan* scan, FrameLayout layout, int part) noexcept:
        cdef TrackedBook book
        if self.followed is None:
            return False
        book = self.followed.book
        return stage_list(
            scan, book.stage, layout.second_levels if part else layout.first_levels,
            layout.sides[part], book.price_exponent, book.size_exponent,
        ) == OK

    cdef bint read_symbol(self, Scan* scan, FrameLayout layout, Found* found) noexcept:
        """Look up what the frame is about; whether it is something that plain frames may go to."""
        cdef Span name
        cdef const unsigned char* end = scan.end
        cdef ConnectionState connection
        cdef PyObject* known
        if not read_string(scan, &name):
            return False
        if found.connection is not NULL:
            connection = <ConnectionState>found.connection
            if connection.renamed is not None:
                known = connection.renamed.find(&name, end)
                if known is not NULL:
                    name.start = <const unsigned char*>PyBytes_AS_STRING(<bytes>known)
                    name.length = PyBytes_GET_SIZE(<bytes>known)
                    end = name.start + name.length
        known = self.symbols.find(&name, end)
        if known is NULL:
            return False
        self.followed = <Followed>known
        if layout.kind != UPDATE:
            self.trades[found.trades].state = <PyObject*>self.followed.trades
            return True
        if not (self.followed.book.live and self.followed.book.ready):
            return False
        self.followed.book.stage.clear()
        return True

    cdef void begin_trade(self, Found* found) noexcept:
        cdef FoundTrade* trade = &self.trades[found.trades]
        trade.first_match = trade.last_match = 0

    cdef bint end_trade(self, Found* found) noexcept:
        """Put the trade that has been read with the frame's others; whether there is room left."""
        self.trades[found.trades].exchange_ns = found.exchange_ns
        found.trades += 1
        return found.trades < MAX_TRADES

    cdef int apply(self, FrameLayout layout, Found* found, int64_t received_ns) except -1:
        """Do what a frame calls for, if there is no question about it."""
        cdef ConnectionState connection = None
        cdef int outcome = WAS_TAKEN
        if layout.has(MESSAGE_ID):
            if found.connection is NULL:
                return WAS_NOT_PLAIN
            connection = <ConnectionState>found.connection
            if connection.last_message < 0 or found.message_id != connection.last_message + 1:
                return WAS_NOT_PLAIN
            # At once: what is raised below comes after the message has been taken.
            connection.last_message = found.message_id
        if layout.kind == UPDATE:
            outcome = self.apply_update(layout, found, received_ns)
        elif layout.kind == TRADES:
            self.end_trade(found)
            outcome = self.apply_trades(layout, found, received_ns)
        elif layout.kind == MARK:
            outcome = self.followed.trades.promise(found.last_trade_id)
        if outcome == WAS_NOT_PLAIN and connection is not None:
            connection.last_message -= 1
        return outcome

    cdef int apply_update(self, FrameLayout layout, const Found* found,
                          int64_t received_ns) except -1:
        """Change the book by what is staged, prove it, and publish the difference."""
        cdef TrackedBook book = self.followed.book
        cdef bint numbered = layout.has(FIRST_ID)
        cdef uint64_t before
        if layout.has(CHECKSUM) != book.checked:
            return WAS_NOT_PLAIN
        if numbered and not (
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
        if numbered:
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
        self.count_written(before, 1)
        return WAS_TAKEN

    cdef int apply_trades(self, FrameLayout layout, const Found* found,
                          int64_t received_ns) except -1:
        """Publish a frame's trades, all of them or none."""
        cdef TradeState state
        cdef int i
        cdef uint64_t before = self.producer.next_position, records = 0
        if layout.by_id:
            sort_by_id(self.trades, found.trades)
        if not self.accept_trades(layout, found):
            return WAS_NOT_PLAIN
        for i in range(found.trades):
            state = <TradeState>self.trades[i].state
            state.heard = True
            if not self.trades[i].dropped:
                state.publish(layout, &self.trades[i], received_ns, self.producer)
                records += 1
        self.count_written(before, records)
        return WAS_TAKEN

    cdef bint accept_trades(self, FrameLayout layout, const Found* found) noexcept:
        """Whether there is no question about any of the trades, each seen after those before."""
        cdef TradeState state
        cdef int i, j
        cdef int64_t last_id
        cdef bint bridged
        for i in range(found.trades):
            state = <TradeState>self.trades[i].state
            last_id = state.last_id
            bridged = state.bridged
            for j in range(i):
                if self.trades[j].state is self.trades[i].state:
                    last_id = self.trades[j].id
                    bridged = True
            if not state.accepts(layout, &self.trades[i], last_id, bridged):
                return False
        return True

    cdef int count_written(self, uint64_t before, uint64_t records) except -1:
        self.records += records
        self.bytes_out += self.producer.next_position - before
        return 0


cdef void sort_by_id(FoundTrade* trades, int count) noexcept nogil:
    """Sort by id; trades with the same one stay as they came."""
    cdef FoundTrade moved
    cdef int i, j
    for i in range(1, count):
        moved = trades[i]
        j = i
        while j > 0 and trades[j - 1].id > moved.id:
            trades[j] = trades[j - 1]
            j -= 1
        trades[j] = moved
