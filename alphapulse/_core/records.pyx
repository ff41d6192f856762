# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Records that were copied out of a ring."""

cimport cython
from cpython.buffer cimport (
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from alphapulse._core.ring cimport AP_MAX_SEQUENCE, ap_padded
from alphapulse._core.wire cimport (
    HEADER_BYTES,
    ID_TEXT,
    NO_TIME,
    TRADE,
    TRADE_BODY,
    get_u32,
    get_u64,
    put_u64,
)

from alphapulse.model import IdKind, Side

cdef list _KINDS = list(IdKind)
cdef list _SIDES = [None, Side.BUY, Side.SELL]

# Types beyond 63, which no version of the format has as yet, included.
cdef uint64_t EVERY_TYPE = 0xFFFFFFFFFFFFFFFF


@cython.no_gc
cdef class Chunk:
    """Private memory that records were copied to; lives as long as a view of it."""

    def __dealloc__(self):
        free(self.data)


@cython.freelist(256)
@cython.no_gc
cdef class RawRecord:
    """One record as it lies in the ring; itself a read-only buffer of its bytes.

    Its bytes are a copy of the ring's and stay valid as long as this object or a view of it lives.
    """

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.length, True, flags)

    def __len__(self):
        return self.length

    @property
    def data(self):
        """The record's bytes, without padding."""
        return PyMemoryView_FromObject(self)

    @property
    def type(self):
        return self.start[4]

    @property
    def flags(self):
        return self.start[5]

    @property
    def instrument(self):
        """Id of the instrument, 0 where none is meant."""
        return self.start[6] | self.start[7] << 8

    @property
    def sequence(self):
        return get_u64(self.start + 8) & AP_MAX_SEQUENCE

    @property
    def exchange_ns(self):
        return <int64_t>get_u64(self.start + 16)

    @property
    def received_ns(self):
        return <int64_t>get_u64(self.start + 24)

    @property
    def published_ns(self):
        return <int64_t>get_u64(self.start + 32)


cdef class Records:
    """A run of records: `len`, iteration over `RawRecord`.

    What else a reader says of them is kept here too, so that giving some out takes one object:
    `origin`, whatever the consumer was told to put there, and `overrun`, None until set.
    """

    def __len__(self):
        return self.count

    def __bool__(self):
        return self.count > 0 or self.overrun is not None

    def __iter__(self):
        return self.of_types(EVERY_TYPE)

    def of_types(self, uint64_t wanted):
        """Iterate over the records of some types: bit ``1 << type`` of each that is wanted."""
        cdef RecordIterator iterator = RecordIterator.__new__(RecordIterator)
        iterator.chunk = self.chunk
        iterator.begin = self.begin
        iterator.end = self.end
        iterator.wanted = wanted
        return iterator

    @property
    def received_ns(self):
        """Our time of the last record that has one, ``NO_TIME`` if none has."""
        cdef Py_ssize_t at = self.begin
        cdef int64_t found = NO_TIME, received_ns
        while at < self.end:
            received_ns = <int64_t>get_u64(self.chunk.data + at + 24)
            if received_ns != NO_TIME:
                found = received_ns
            at += ap_padded(get_u32(self.chunk.data + at))
        return found

    @property
    def published_ns(self):
        """When the last record was in the ring, ``NO_TIME`` if there is none."""
        cdef Py_ssize_t at = self.begin
        cdef int64_t found = NO_TIME
        while at < self.end:
            found = <int64_t>get_u64(self.chunk.data + at + 32)
            at += ap_padded(get_u32(self.chunk.data + at))
        return found

    def delays(self, int kind):
        """Of each record of a type: its instrument's id, and the time from its frame's arrival
        until it was in the ring, in nanoseconds."""
        cdef Py_ssize_t at = self.begin
        cdef const uint8_t *record
        cdef list found = []
        while at < self.end:
            record = self.chunk.data + at
            at += ap_padded(get_u32(record))
            if record[4] == kind:
                found.append((
                    record[6] | record[7] << 8,
                    <int64_t>(get_u64(record + 32) - get_u64(record + 24)),
                ))
        return found

    @property
    def nbytes(self):
        """Bytes of all records, padding included."""
        return self.end - self.begin

    def count_type(self, int kind, uint64_t length):
        """How many records have this type and at least this length."""
        cdef Py_ssize_t at = self.begin, found = 0
        while at < self.end:
            if self.chunk.data[at + 4] == kind and get_u32(self.chunk.data + at) >= length:
                found += 1
            at += ap_padded(get_u32(self.chunk.data + at))
        return found

    def trade_rows(self, dict instruments not None, str exchange not None, make not None):
        """Rows of everyday trades: ids are numbers, and nothing is wrong with them.

        Parameters
        ----------
        instruments : by id
        exchange : whose records
        make : makes a row of what `alphapulse.history.TradeRow` has, by these names
        """
        cdef Py_ssize_t at = self.begin
        cdef const uint8_t *record
        cdef int64_t exchange_ns, received_ns
        cdef list rows = []
        while at < self.end:
            record = self.chunk.data + at
            at += ap_padded(get_u32(record))
            # One whose id is text is longer.
            if record[4] != TRADE or get_u32(record) != HEADER_BYTES + TRADE_BODY:
                continue
            instrument = instruments.get(record[6] | record[7] << 8)
            if instrument is None or not 1 <= record[68] <= 2 or record[69] >= ID_TEXT:
                continue
            exchange_ns = <int64_t>get_u64(record + 16)
            received_ns = <int64_t>get_u64(record + 24)
            rows.append(
                make(
                    exchange=exchange,
                    symbol=instrument.symbol,
                    trade_id=str(get_u64(record + 56)),
                    id_kind=_KINDS[record[69]],
                    timestamp_ns=received_ns if exchange_ns == NO_TIME else exchange_ns,
                    received_ns=received_ns,
                    price=<int64_t>get_u64(record + 40),
                    price_exponent=instrument.price_exponent,
                    size=<int64_t>get_u64(record + 48),
                    size_exponent=instrument.size_exponent,
                    side=_SIDES[record[68]],
                    matches=get_u32(record + 64),
                )
            )
        return rows

    def trades_into(self, rows):
        """Fill rows of 64 bytes, one per trade record; their layout is `alphapulse.shm.TRADE_ROW`.

        Returns the number of rows filled.
        """
        cdef Py_buffer view
        cdef Py_ssize_t at = self.begin, found = 0
        cdef uint8_t *row
        cdef const uint8_t *record
        PyObject_GetBuffer(rows, &view, PyBUF_WRITABLE)
        try:
            while at < self.end and (found + 1) * 64 <= view.len:
                record = self.chunk.data + at
                at += ap_padded(get_u32(record))
                if record[4] != TRADE or get_u32(record) < HEADER_BYTES + TRADE_BODY:
                    continue
                row = <uint8_t *>view.buf + found * 64
                put_u64(row, get_u64(record + 8) & AP_MAX_SEQUENCE)
                memcpy(row + 8, record + 16, 24)
                memcpy(row + 32, record + 40, 30)
                memcpy(row + 62, record + 6, 2)
                found += 1
        finally:
            PyBuffer_Release(&view)
        return found


@cython.no_gc
cdef class RecordIterator:
    cdef Chunk chunk
    cdef Py_ssize_t begin
    cdef Py_ssize_t end
    cdef uint64_t wanted

    def __iter__(self):
        return self

    def __next__(self):
        cdef RawRecord record
        cdef uint8_t *start
        while self.begin < self.end:
            start = self.chunk.data + self.begin
            self.begin += ap_padded(get_u32(start))
            if start[4] < 64 and self.wanted >> start[4] & 1 or self.wanted == EVERY_TYPE:
                record = RawRecord.__new__(RawRecord)
                record.chunk = self.chunk
                record.start = start
                record.length = get_u32(start)
                return record
        raise StopIteration
