# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The writing side of a ring: stamps records, keeps the directory, says what is to be repeated."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from alphapulse._core.ring cimport (
    AP_ENTRY_RECORD,
    AP_MAX_SEQUENCE,
    AP_MIN_CAPACITY,
    AP_NO_POSITION,
    AP_RECORD_HEADER,
    AP_SHARE,
    CLOCK_REALTIME,
    NAMES_AT,
    ap_announce,
    ap_commit,
    ap_committed,
    ap_entry,
    ap_instrument_count,
    ap_now,
    ap_padded,
    ap_put,
    ap_ring,
    ap_set_heartbeat_ns,
    ap_set_instrument_count,
    ap_set_snapshot,
    ap_set_state,
    ap_store,
    ap_wake_sleepers,
)
from alphapulse._core.segment cimport ReadersPage, Segment
from alphapulse._core.wire cimport INSTRUMENT, SNAPSHOT, STATE, get_u16, get_u32

import time

from alphapulse.errors import RecordError, RingError, RingTooSmall

cdef enum:
    # Of the states and of the reasons of `alphapulse.model`.
    LIVE = 1
    STALE = 2
    RESCALED = 4

# Age from which a snapshot is repeated, one at a time, and the time over which all are spread.
cdef int64_t REPEAT_AFTER_NS = 15_000_000_000
cdef double REPEAT_SPREAD_NS = 10_000_000_000
# Age at which it is repeated whatever else there is: the promise is 30 s.
cdef int64_t REPEAT_URGENT_NS = 28_000_000_000


cdef class Producer:
    """The writing side.

    Parameters
    ----------
    segment : writable and empty
    readers : the readers' segment; None where nobody is ever to be woken
    clock : callable giving wall nanoseconds, for records written without a time
    """

    def __cinit__(self, *args, **kwargs):
        self.entry_of = <int32_t *>PyMem_Calloc(65536, sizeof(int32_t))
        if self.entry_of == NULL:
            raise MemoryError

    def __init__(self, Segment segment, ReadersPage readers=None, clock=time.time_ns):
        self.clock = clock
        self.native_clock = clock is time.time_ns
        self.start_segment(segment, readers)

    def __dealloc__(self):
        PyMem_Free(self.entry_of)
        PyMem_Free(self.live)

    def start_segment(self, Segment segment not None, ReadersPage readers):
        """Begin with this segment; what was known of another is forgotten."""
        if not segment.writable:
            raise RingError(f"{segment.name} is mapped read-only")
        if ap_committed(segment.ring.header) or ap_instrument_count(segment.ring.header):
            raise RingError(f"{segment.name} has been written to already")
        cdef Live *live = <Live *>PyMem_Calloc(segment.ring.at.max_instruments + 1, sizeof(Live))
        if live == NULL:
            raise MemoryError
        PyMem_Free(self.live)
        self.live = live
        memset(self.entry_of, 0xFF, 65536 * sizeof(int32_t))
        self.segment = segment
        self.readers = readers
        self.ring = &segment.ring
        self.sentinel = segment.ring.at.max_instruments
        live[self.sentinel].before = live[self.sentinel].after = self.sentinel
        self.live_bytes = self.live_count = 0
        self.next_position = self.last_sequence = 0
        self.last_published_ns = self.due_ns = 0
        self.due_credit = 0

    def use_readers(self, ReadersPage readers not None):
        """Wake the sleepers of this readers' segment from now on."""
        self.readers = readers

    def stop_segment(self):
        """Let go of the segment; every later write raises RingError."""
        self.ring = NULL
        self.segment = None
        self.readers = None

    @property
    def closed(self):
        return self.ring == NULL

    @property
    def sequence(self):
        """Of the record written last, 0 for none."""
        return self.last_sequence

    @property
    def position(self):
        """Bytes written since the epoch began, padding included."""
        return self.next_position

    @property
    def published_ns(self):
        """Of the record written last, 0 for none."""
        return self.last_published_ns

    @property
    def snapshot_bytes(self):
        """What the latest snapshots of all live books take together."""
        return self.live_bytes

    def write(self, record, published_ns=None):
        """Write one record (docs/wire-format.md) and return its sequence.

        Its sequence, ring id and published_ns are stamped on the way. Instruments, snapshots and
        states are also noted in the directory.

        Raises
        ------
        RecordError
            the bytes are no record, or its instrument was never announced
        RingTooSmall
            with this record the ring could no longer keep its promise that the latest snapshot
            of every live book lies in its newer half; nothing was written
        RingError
            the writer is closed, or the directory full
        """
        cdef Py_buffer view
        cdef int64_t now_ns = self.now() if published_ns is None else published_ns
        if type(record) is bytes:
            return self.put(<const uint8_t *>PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record), now_ns)
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            return self.put(<const uint8_t *>view.buf, view.len, now_ns)
        finally:
            PyBuffer_Release(&view)

    def write_run(self, run, published_ns=None):
        """Write records that lie one after the other, each padded to a multiple of 8 bytes.

        They are committed together: readers see all of them or none. Returns the sequence of the
        last one.

        Raises
        ------
        RecordError
            the bytes are no run of records, or one is an instrument, a snapshot or a state, which
            are noted in the directory and have to be written alone; nothing was written
        RingTooSmall
            the run takes more than an eighth of the ring; nothing was written
        RingError
            the writer is closed
        """
        cdef Py_buffer view
        cdef uint64_t count
        cdef int64_t now_ns
        PyObject_GetBuffer(run, &view, PyBUF_SIMPLE)
        try:
            count = check_run(self, <const uint8_t *>view.buf, view.len)
            now_ns = self.now() if published_ns is None else published_ns
            store_run(self.ring, self.next_position, self.last_sequence, now_ns,
                      <const uint8_t *>view.buf, view.len)
            self.next_position += view.len
            self.last_sequence += count
            self.last_published_ns = now_ns
            return self.last_sequence
        finally:
            PyBuffer_Release(&view)

    cdef int64_t now(self) except? -1:
        if self.native_clock:
            return ap_now(CLOCK_REALTIME)
        return self.clock()

    cdef uint64_t put(self, const uint8_t *record, uint64_t length,
                      int64_t published_ns) except 0:
        cdef ap_ring *ring = self.ring
        cdef uint64_t position = self.next_position, padded = ap_padded(length)
        cdef int kind, instrument
        cdef int32_t entry = -1
        if ring == NULL or length < AP_RECORD_HEADER or get_u32(record) != length or \
                padded > ring.at.capacity // AP_SHARE or self.last_sequence == AP_MAX_SEQUENCE:
            self.refuse(record, length)
        kind = record[4]
        instrument = get_u16(record + 6)
        if kind == INSTRUMENT:
            self.announce(record, length, instrument)
        elif kind == SNAPSHOT or kind == STATE:
            entry = self.check_book(kind, instrument, padded)
        self.last_sequence += 1
        ap_put(ring, position, self.last_sequence, published_ns, record, length)
        self.next_position = position + padded
        self.last_published_ns = published_ns
        if entry >= 0:
            if kind == SNAPSHOT:
                ap_set_snapshot(&ring.directory[entry], position, self.last_sequence)
                self.link(entry, position, padded, published_ns)
            else:
                ap_set_state(&ring.directory[entry], get_u16(record + 40))
                if record[40] != LIVE:
                    self.unlink(entry)
        return self.last_sequence

    cdef int refuse(self, const uint8_t *record, uint64_t length) except -1:
        """Say why this can't be written; apart from `put`, whose path stays short that way."""
        cdef uint32_t stated = 0
        if self.ring == NULL:
            raise RingError("the ring's writer is closed")
        if length >= AP_RECORD_HEADER:
            stated = get_u32(record)
        if stated != length or length < AP_RECORD_HEADER:
            raise RecordError(f"{length} bytes given for a record whose header says {stated}")
        if ap_padded(length) > self.ring.at.capacity // AP_SHARE:
            raise RingTooSmall(self.segment.name, self.ring.at.capacity,
                               needed_capacity(ap_padded(length)))
        raise RingError(f"{self.segment.name}: sequences are exhausted; start a new epoch")

    cdef int32_t check_book(self, int kind, int instrument, uint64_t padded) except -2:
        """Directory entry of a snapshot's or state's instrument, if it may be written."""
        cdef int32_t entry = self.entry_of[instrument]
        cdef uint64_t total
        if entry < 0:
            raise RecordError(f"instrument {instrument} has not been announced in "
                              f"{self.segment.name}")
        if kind == STATE:
            if padded < 48:
                raise RecordError("a state record of fewer than 42 bytes")
            return entry
        total = self.live_bytes - self.live[entry].bytes + padded
        if total > self.ring.at.capacity // AP_SHARE:
            raise RingTooSmall(self.segment.name, self.ring.at.capacity, needed_capacity(total))
        return entry

    cdef int32_t announce(self, const uint8_t *record, uint64_t length,
                          int instrument) except -2:
        """Add an instrument to the directory; one that bears the same symbol is retired."""
        cdef uint64_t names, other
        cdef int32_t count = ap_instrument_count(self.ring.header), i = self.entry_of[instrument]
        cdef ap_entry *entry
        if not NAMES_AT + 2 <= length <= AP_ENTRY_RECORD or instrument == 0:
            raise RecordError(f"an instrument record of {length} bytes with id {instrument}: "
                              f"ids begin at 1, {AP_ENTRY_RECORD} bytes are the most")
        if i >= 0:
            entry = &self.ring.directory[i]
            if entry.record_length != length or memcmp(
                    entry.record + AP_RECORD_HEADER, record + AP_RECORD_HEADER,
                    length - AP_RECORD_HEADER):
                raise RecordError(f"instrument {instrument} is already another one's id")
            return i
        if count >= self.sentinel:
            raise RingError(f"{self.segment.name} has room for {count} instruments; "
                            "raise ring.max_instruments")
        # exchange and symbol, the first two names, are what identifies a book
        names = NAMES_AT + 1 + record[NAMES_AT]
        if names < length:
            names += 1 + record[names]
        if names > length:
            raise RecordError(f"instrument {instrument}: its names end beyond the record")
        for i in range(count):
            entry = &self.ring.directory[i]
            other = NAMES_AT + 1 + entry.record[NAMES_AT]
            other += 1 + entry.record[other]
            if other == names and not memcmp(entry.record + NAMES_AT, record + NAMES_AT,
                                             names - NAMES_AT):
                self.unlink(i)
                ap_set_state(entry, STALE | RESCALED << 8)
        entry = &self.ring.directory[count]
        entry.id = instrument
        entry.record_length = length
        memcpy(entry.record, record, length)
        ap_set_state(entry, 0)
        ap_set_snapshot(entry, AP_NO_POSITION, 0)
        self.entry_of[instrument] = count
        ap_set_instrument_count(self.ring.header, count + 1)
        return count

    cdef void link(self, int32_t entry, uint64_t position, uint64_t padded,
                   int64_t written_ns) noexcept nogil:
        """Move the entry to the young end of the live snapshots."""
        cdef Live *live = self.live
        cdef Live *one = &live[entry]
        if one.linked:
            live[one.before].after = one.after
            live[one.after].before = one.before
        else:
            one.linked = True
            self.live_count += 1
        self.live_bytes += padded - one.bytes
        one.bytes = padded
        one.position = position
        one.written_ns = written_ns
        one.after = self.sentinel
        one.before = live[self.sentinel].before
        live[one.before].after = entry
        live[self.sentinel].before = entry

    cdef void unlink(self, int32_t entry) noexcept nogil:
        """Forget the entry's snapshot: its book can't be shown any more."""
        cdef Live *live = self.live
        cdef Live *one = &live[entry]
        ap_set_snapshot(&self.ring.directory[entry], AP_NO_POSITION, 0)
        if one.linked:
            live[one.before].after = one.after
            live[one.after].before = one.before
            one.linked = False
            self.live_count -= 1
            self.live_bytes -= one.bytes
            one.bytes = 0

    def due(self, int64_t now_ns):
        """Ids of the instruments whose snapshot should be repeated now, oldest first.

        Each is to be answered, before the next call, by a snapshot or by a state that isn't live.
        Called once per frame, and at least once a second: what is older than a quarter of the
        ring comes one at a time, what is older than 15 s spread over 10 s; all at once only what
        would otherwise break the promise of the newer half or of 30 s.

        Parameters
        ----------
        now_ns : time on the clock of `published_ns`
        """
        cdef Live *live = self.live
        cdef Live *one
        cdef int32_t entry
        cdef uint64_t age, quarter
        cdef int64_t age_ns, elapsed = now_ns - self.due_ns if self.due_ns else 0
        cdef bint paced = False
        if self.ring == NULL:
            raise RingError("the ring's writer is closed")
        entry = live[self.sentinel].after
        self.due_ns = now_ns
        if entry == self.sentinel:
            return ()
        quarter = self.ring.at.capacity // 4
        if self.next_position - live[entry].position <= quarter and \
                now_ns - live[entry].written_ns <= REPEAT_AFTER_NS:
            self.due_credit = 0
            return ()
        if elapsed > 0:
            self.due_credit = min(self.due_credit + self.live_count * elapsed / REPEAT_SPREAD_NS,
                                  max(1.0, self.live_count / 10.0))
        found = []
        while entry != self.sentinel:
            one = &live[entry]
            age = self.next_position - one.position
            age_ns = now_ns - one.written_ns
            # Beyond 5/16 of the ring: a frame of 1/16 and all the snapshots, 1/8, still fit.
            if age > quarter + quarter // 4 or age_ns >= REPEAT_URGENT_NS:
                pass
            elif age > quarter and not paced:
                paced = True
            elif age_ns > REPEAT_AFTER_NS and self.due_credit >= 1:
                self.due_credit -= 1
            else:
                break
            found.append(self.ring.directory[entry].id)
            entry = one.after
        return found

    def wake(self):
        """Wake the readers that sleep; to be called once after a burst of records."""
        if self.ring != NULL and self.readers is not None:
            self.wakes += ap_wake_sleepers(self.ring.header, self.readers.readers)

    def heartbeat(self, int64_t now_ns):
        """Say in the header that the writer is at work."""
        if self.ring != NULL:
            ap_set_heartbeat_ns(self.ring.header, now_ns)


cdef uint64_t check_run(Producer writer, const uint8_t *run, uint64_t bytes) except 0:
    """How many records the run is."""
    cdef uint64_t at = 0, count = 0, length
    if writer.ring == NULL:
        raise RingError("the ring's writer is closed")
    if bytes > writer.ring.at.capacity // AP_SHARE:
        raise RingTooSmall(writer.segment.name, writer.ring.at.capacity, needed_capacity(bytes))
    while at + AP_RECORD_HEADER <= bytes:
        length = get_u32(run + at)
        if length < AP_RECORD_HEADER or ap_padded(length) > bytes - at:
            break
        if run[at + 4] == INSTRUMENT or run[at + 4] == SNAPSHOT or run[at + 4] == STATE:
            raise RecordError(f"a record of type {run[at + 4]} is not to be part of a run")
        at += ap_padded(length)
        count += 1
    if at != bytes or not count:
        raise RecordError(f"no record at {at} of a run of {bytes} bytes")
    if count > AP_MAX_SEQUENCE - writer.last_sequence:
        raise RingError(f"{writer.segment.name}: sequences are exhausted; start a new epoch")
    return count


cdef void store_run(ap_ring *ring, uint64_t position, uint64_t sequence, int64_t published_ns,
                    const uint8_t *run, uint64_t bytes) noexcept nogil:
    """Write a checked run behind the record of this position and sequence."""
    cdef uint64_t until = position + bytes, length
    ap_announce(ring, until)
    while position < until:
        length = get_u32(run)
        sequence += 1
        ap_store(ring, position, sequence, published_ns, run, length)
        position += ap_padded(length)
        run += ap_padded(length)
    ap_commit(ring, until, sequence)


cdef uint64_t needed_capacity(uint64_t bytes) noexcept:
    """The smallest capacity of which `bytes` are at most the share."""
    cdef uint64_t capacity = AP_MIN_CAPACITY
    while capacity // AP_SHARE < bytes:
        capacity *= 2
    return capacity
