# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The shared-memory ring: one producer, any number of consumers, over any buffer.

The layout and the atomic operations are in ring.h; files, locks and names in `alphapulse.shm`.
A `Segment` checks its memory's geometry once against the buffer's size and keeps private copies;
whatever else is read from it later (lengths, positions, counts) is checked before it is used.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport Py_REFCNT
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

cimport cython

import time

from alphapulse.errors import RecordError, RingCorrupt, RingError, RingTooSmall

cdef extern from "ring.h" nogil:
    enum:
        AP_MAGIC
        AP_READERS_MAGIC
        AP_VERSION
        AP_HEADER_BYTES
        AP_RECORD_HEADER
        AP_SHARE
        AP_SLOTS
        AP_READERS_BYTES
    const uint64_t AP_MIN_CAPACITY
    const uint64_t AP_MAX_CAPACITY
    const uint64_t AP_NO_POSITION
    const int CLOCK_REALTIME
    const int CLOCK_MONOTONIC
    int ap_lay_out(uint64_t capacity, uint64_t max_instruments, ap_geometry *out)
    void ap_attach(ap_ring *ring, void *memory, const ap_geometry *at)
    uint64_t ap_announced(const ap_header *header)
    uint64_t ap_committed(const ap_header *header)
    uint64_t ap_sequence(const ap_header *header)
    int64_t ap_heartbeat_ns(const ap_header *header)
    uint32_t ap_ended(const ap_header *header)
    int64_t ap_ended_ns(const ap_header *header)
    uint32_t ap_instrument_count(const ap_header *header)
    void ap_set_heartbeat_ns(ap_header *header, int64_t value)
    void ap_set_ended(ap_header *header, uint32_t value)
    void ap_set_ended_ns(ap_header *header, int64_t value)
    void ap_set_instrument_count(ap_header *header, uint32_t value)
    uint64_t ap_block(const ap_ring *ring, uint64_t block)
    uint64_t ap_word(const ap_ring *ring, uint64_t position)
    uint64_t ap_padded(uint64_t length)
    void ap_put(ap_ring *ring, uint64_t position, uint64_t sequence, int64_t published_ns,
                const uint8_t *record, uint64_t length)
    void ap_copy(const ap_ring *ring, uint64_t position, uint64_t bytes, uint8_t *to)
    bint ap_torn(const ap_ring *ring, uint64_t position)
    void ap_set_snapshot(ap_entry *entry, uint64_t position, uint64_t sequence)
    uint64_t ap_snapshot_position(const ap_entry *entry)
    uint64_t ap_snapshot_sequence(const ap_entry *entry)
    void ap_set_state(ap_entry *entry, uint32_t state)
    uint32_t ap_state(const ap_entry *entry)
    void ap_wake_all(const ap_header *header)
    int ap_wake_sleepers(ap_header *header, ap_readers *readers)
    bint ap_news(const ap_header *header, uint64_t position, uint32_t ended)
    int64_t ap_now(int clock)
    bint ap_spin(const ap_header *header, uint64_t position, uint32_t ended, int64_t spin_ns)
    bint ap_wait(const ap_header *header, ap_readers *readers, ap_slot *slot, uint64_t position,
                 uint32_t ended, int64_t timeout_ns)
    void ap_set_slot(ap_slot *slot, uint64_t epoch, uint64_t sequence)
    void ap_set_slot_pid(ap_slot *slot, uint32_t pid)

OPEN = 0
CLOSED = 1
SUPERSEDED = 2
READERS_BYTES = <int>AP_READERS_BYTES
READERS_SLOTS = <int>AP_SLOTS
MIN_CAPACITY = AP_MIN_CAPACITY
MAX_CAPACITY = AP_MAX_CAPACITY
SHARE = <int>AP_SHARE

REPEAT_AFTER_NS = 15_000_000_000
"""Age from which a snapshot is repeated, one at a time, spread over `REPEAT_SPREAD_NS`."""
REPEAT_SPREAD_NS = 10_000_000_000
REPEAT_URGENT_NS = 28_000_000_000
"""Age at which it is repeated whatever else there is: the promise is 30 s."""

cdef int64_t _REPEAT_AFTER_NS = REPEAT_AFTER_NS
cdef double _REPEAT_SPREAD_NS = REPEAT_SPREAD_NS
cdef int64_t _REPEAT_URGENT_NS = REPEAT_URGENT_NS

cdef enum:
    INSTRUMENT = 1
    SNAPSHOT = 2
    DELTA = 3
    TRADE = 4
    STATE = 5
    GAP = 6
    HEARTBEAT = 7
    LIVE = 1
    STALE = 2
    RESCALED = 4
    NAMES_AT = 64
    ENTRY_RECORD_BYTES = 448
    SYNCED_BYTES = 8192
    PIECE_BYTES = 262144
    BATCH_BYTES = 4194304
    ATTEMPTS = 16

cdef uint64_t MAX_SEQUENCE = (<uint64_t>1 << 48) - 1

cdef enum Found:
    FOUND
    TORN
    CORRUPT


def segment_bytes(capacity, max_instruments):
    """Bytes of a whole segment.

    Raises
    ------
    ValueError
        the capacity is no power of two from 16 KiB to 1 TiB, or the directory too large
    """
    cdef ap_geometry at
    at.total = 0
    if 0 < capacity <= AP_MAX_CAPACITY and 0 < max_instruments <= 65535:
        ap_lay_out(capacity, max_instruments, &at)
    if not at.total:
        raise ValueError(
            f"a ring of {capacity} bytes with {max_instruments} instruments can't be laid out: "
            f"the size is a power of two from {AP_MIN_CAPACITY} to {AP_MAX_CAPACITY}, "
            "instruments are 1 to 65535"
        )
    return at.total


def layout():
    """Offsets of the header's fields that a test compares with the documented layout."""
    cdef ap_header header
    cdef ap_geometry at
    ap_lay_out(AP_MIN_CAPACITY, 1, &at)
    base = <size_t>&header
    return {
        "epoch": <size_t>&header.epoch - base,
        "ring_id": <size_t>&header.ring_id - base,
        "pid": <size_t>&header.pid - base,
        "venue": <size_t>&header.venue - base,
        "directory": at.directory,
        "index": at.index,
        "data": at.data,
    }


def initialise(memory, *, capacity, max_instruments, epoch, ring_id, pid, created_ns, venue,
               predecessor=None):
    """Write the header of a new segment into zeroed memory of `segment_bytes` bytes.

    Parameters
    ----------
    predecessor : ``(epoch, last sequence, last published_ns)`` of the ring that this one follows
    """
    cdef Py_buffer view
    cdef ap_header *header
    total = segment_bytes(capacity, max_instruments)
    text = venue.encode()
    if not 0 < len(text) < 64:
        raise ValueError(f"venue {venue!r} is empty or longer than 63 bytes")
    PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
    try:
        if view.len != total or <size_t>view.buf % 8:
            raise ValueError(f"{view.len} bytes of memory for a segment of {total}")
        header = <ap_header *>view.buf
        header.version = AP_VERSION
        header.max_instruments = max_instruments
        header.segment_bytes = total
        header.capacity = capacity
        header.epoch = epoch
        header.ring_id = ring_id
        header.pid = pid
        header.created_ns = created_ns
        if predecessor is not None:
            header.predecessor_epoch, header.predecessor_sequence = predecessor[:2]
            header.predecessor_published_ns = predecessor[2]
        memcpy(header.venue, <const char *>text, len(text))
        ap_set_heartbeat_ns(header, created_ns)
        header.magic = AP_MAGIC
    finally:
        PyBuffer_Release(&view)


cdef class Segment:
    """A ring's memory, checked.

    Parameters
    ----------
    memory : a buffer of the whole segment; it stays exported until this object is gone
    name : the segment's name, for messages
    writable : whether the producer's side is needed

    Raises
    ------
    RingCorrupt
        the header doesn't describe memory of this size
    """

    def __cinit__(self, memory, str name="ring", *, bint writable=False):
        cdef ap_geometry at
        cdef ap_header *header
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.held = True
        self.name = name
        self.writable = writable
        if self.view.len < <Py_ssize_t>AP_HEADER_BYTES or <size_t>self.view.buf % 8:
            raise RingCorrupt(f"{name}: {self.view.len} bytes are no ring segment")
        header = <ap_header *>self.view.buf
        if header.magic != AP_MAGIC or header.version != AP_VERSION:
            raise RingCorrupt(f"{name}: no ring segment of version {AP_VERSION}")
        if not ap_lay_out(header.capacity, header.max_instruments, &at):
            raise RingCorrupt(
                f"{name}: a capacity of {header.capacity} bytes with {header.max_instruments} "
                "instruments is impossible"
            )
        if at.total != <uint64_t>self.view.len or header.segment_bytes != at.total:
            raise RingCorrupt(
                f"{name}: the header describes {at.total} bytes, the segment has {self.view.len}"
            )
        if header.ring_id > 65535 or not 0 < header.epoch < <uint64_t>1 << 53:
            raise RingCorrupt(f"{name}: ring id {header.ring_id} or epoch {header.epoch}")
        ap_attach(&self.ring, self.view.buf, &at)

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    @property
    def capacity(self):
        return self.ring.at.capacity

    @property
    def max_instruments(self):
        return self.ring.at.max_instruments

    @property
    def epoch(self):
        return self.ring.header.epoch

    @property
    def ring_id(self):
        return self.ring.header.ring_id

    @property
    def pid(self):
        return self.ring.header.pid

    @property
    def created_ns(self):
        return self.ring.header.created_ns

    @property
    def venue(self):
        cdef bytes text = PyBytes_FromStringAndSize(self.ring.header.venue, 64)
        return text.split(b"\0", 1)[0].decode("utf-8", "replace")

    @property
    def predecessor(self):
        """``(epoch, last sequence, last published_ns)`` of the ring before, None if unknown."""
        cdef ap_header *header = self.ring.header
        if not header.predecessor_epoch:
            return None
        return (header.predecessor_epoch, header.predecessor_sequence,
                header.predecessor_published_ns)

    @property
    def announced(self):
        return ap_announced(self.ring.header)

    @property
    def committed(self):
        return ap_committed(self.ring.header)

    @property
    def sequence(self):
        """Of the last record; one ahead while that record is being committed."""
        return ap_sequence(self.ring.header)

    @property
    def heartbeat_ns(self):
        return ap_heartbeat_ns(self.ring.header)

    @property
    def ended(self):
        """`OPEN`, `CLOSED` or `SUPERSEDED`."""
        return ap_ended(self.ring.header)

    @property
    def ended_ns(self):
        return ap_ended_ns(self.ring.header)

    @property
    def instrument_count(self):
        return min(ap_instrument_count(self.ring.header), self.ring.at.max_instruments)

    def end(self, int how, int64_t now_ns):
        """Mark the segment `CLOSED` or `SUPERSEDED` and wake whoever sleeps on it."""
        if not self.writable:
            raise RingError(f"{self.name} is mapped read-only")
        ap_set_ended_ns(self.ring.header, now_ns)
        ap_set_ended(self.ring.header, how)
        ap_wake_all(self.ring.header)

    def entry(self, Py_ssize_t index):
        """``(id, record, state, reason, snapshot position or None, snapshot sequence)``.

        Raises
        ------
        IndexError
            there is no such entry
        RingCorrupt
            the entry contradicts itself
        """
        if not 0 <= index < <Py_ssize_t>self.instrument_count:
            raise IndexError(index)
        cdef ap_entry *entry = &self.ring.directory[index]
        cdef uint32_t length = entry.record_length
        cdef uint64_t position = ap_snapshot_position(entry)
        if not NAMES_AT < length <= ENTRY_RECORD_BYTES or not 0 < entry.id <= 65535:
            raise RingCorrupt(f"{self.name}: directory entry {index} has {length} bytes, "
                              f"id {entry.id}")
        state = ap_state(entry)
        record = PyBytes_FromStringAndSize(<const char *>entry.record, length)
        return (entry.id, record, state & 255, state >> 8 & 255,
                None if position == AP_NO_POSITION else position, ap_snapshot_sequence(entry))

    def tail(self):
        """``(position, sequence, published_ns)`` of the end: what was committed last.

        Exact also where the writer was killed between two stores; 0, 0, 0 for an empty ring.

        Raises
        ------
        RingCorrupt
            the segment contradicts itself
        """
        cdef uint64_t committed = 0
        cdef Trace trace
        cdef int found = TORN
        for _ in range(ATTEMPTS):
            committed = ap_committed(self.ring.header)
            if committed == 0:
                return 0, 0, 0
            found = find_tail(&self.ring, committed, &trace)
            if found == FOUND:
                published = <int64_t>ap_word(&self.ring, trace.last + 32)
                if not ap_torn(&self.ring, trace.last):
                    return committed, trace.after - 1, published
                found = TORN
            if found == CORRUPT:
                break
        raise RingCorrupt(f"{self.name}: the end at {committed} can't be found")


cdef class ReadersPage:
    """The readers' segment as both sides map it.

    Raises
    ------
    RingCorrupt
        the memory has another size or no such header
    """

    def __cinit__(self, memory, *, bint create=False):
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.held = True
        if self.view.len != AP_READERS_BYTES or <size_t>self.view.buf % 8:
            raise RingCorrupt(f"{self.view.len} bytes are no readers' segment")
        self.readers = <ap_readers *>self.view.buf
        self.slots = <ap_slot *>(<uint8_t *>self.view.buf + 64)
        if create:
            self.readers.magic = AP_READERS_MAGIC
        elif self.readers.magic != AP_READERS_MAGIC:
            raise RingCorrupt("no readers' segment")

    def set_pid(self, int slot, uint32_t pid):
        """Write down whose slot it is; 0 for nobody's."""
        if not 0 <= slot < <int>AP_SLOTS:
            raise IndexError(slot)
        ap_set_slot_pid(&self.slots[slot], pid)

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef bint dropped(uint64_t word, uint8_t *synced, bint history) noexcept nogil:
    """Whether a reader that begins anew isn't given the record of this first word.

    Deltas of a book whose snapshot it hasn't been given mean nothing to it; nor, on attaching,
    does what happened before.
    """
    cdef unsigned kind = word >> 32 & 255
    cdef unsigned instrument = word >> 48
    if kind == SNAPSHOT:
        synced[instrument >> 3] |= 1 << (instrument & 7)
        return False
    if kind == DELTA:
        return not synced[instrument >> 3] >> (instrument & 7) & 1
    return history and (kind == TRADE or kind == GAP or kind == HEARTBEAT)


cdef int follow(const ap_ring *ring, uint64_t start, uint64_t stop, uint64_t wanted,
                uint8_t *synced, Trace *out) noexcept nogil:
    """Walk the headers from `start` to `stop`, or to the record of sequence `wanted`.

    Counts in ``out.dropped`` the records that `dropped` would drop if `synced` isn't NULL.
    """
    cdef uint64_t most = ring.at.capacity // AP_SHARE
    cdef uint64_t route = <uint64_t>ring.header.ring_id << 48
    cdef uint64_t position = start, word, length
    cdef bint fine = start < stop
    out.dropped = 0
    out.last = start
    out.first = ap_word(ring, start + 8) & MAX_SEQUENCE
    out.after = out.first
    while fine and position < stop and out.after != wanted:
        word = ap_word(ring, position)
        length = <uint32_t>word
        fine = (AP_RECORD_HEADER <= length <= most and ap_padded(length) <= stop - position
                and ap_word(ring, position + 8) == (route | out.after))
        if synced != NULL and dropped(word, synced, False):
            out.dropped += 1
        out.last = position
        position += ap_padded(length)
        out.after += 1
    out.position = position
    if ap_torn(ring, start):
        return TORN
    return FOUND if fine else CORRUPT


cdef inline uint64_t trace_first(const ap_ring *ring, uint64_t position) noexcept nogil:
    return ap_word(ring, position + 8) & MAX_SEQUENCE


cdef uint64_t block_start(const ap_ring *ring, uint64_t block, uint64_t committed) noexcept nogil:
    """Position of the first record that starts in the block, `AP_NO_POSITION` if there is none."""
    cdef uint64_t position = ap_block(ring, block)
    if position // ring.at.block_bytes != block or position >= committed or position & 7:
        return AP_NO_POSITION
    return position


cdef int find_tail(const ap_ring *ring, uint64_t committed, Trace *out) noexcept nogil:
    """Walk the last block's records up to the end."""
    cdef uint64_t block = (committed - 1) // ring.at.block_bytes, position, tried
    for tried in range(ring.at.block_count):
        position = block_start(ring, block, committed)
        if position != AP_NO_POSITION:
            return follow(ring, position, committed, AP_NO_POSITION, NULL, out)
        if block == 0:
            break
        block -= 1
    return TORN if ap_torn(ring, committed) else CORRUPT


cdef uint64_t find_from(const ap_ring *ring, uint64_t position, uint64_t committed) noexcept nogil:
    """Position of the first record known to start at or after `position`, else `committed`."""
    cdef uint64_t block = position // ring.at.block_bytes, found
    cdef uint64_t last = committed // ring.at.block_bytes
    cdef uint64_t tried
    for tried in range(ring.at.block_count + 1):
        if block > last:
            break
        found = block_start(ring, block, committed)
        if found != AP_NO_POSITION and found >= position:
            return found
        block += 1
    return committed


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
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            return self.put(<const uint8_t *>view.buf, view.len,
                            self.now() if published_ns is None else published_ns)
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
        cdef uint32_t stated = 0
        cdef int kind, instrument
        cdef int32_t entry = -1
        if ring == NULL:
            raise RingError("the ring's writer is closed")
        if length >= AP_RECORD_HEADER:
            memcpy(&stated, record, 4)
        if stated != length or length < AP_RECORD_HEADER:
            raise RecordError(f"{length} bytes given for a record whose header says {stated}")
        if padded > ring.at.capacity // AP_SHARE:
            raise RingTooSmall(self.segment.name, ring.at.capacity, needed_capacity(padded))
        if self.last_sequence == MAX_SEQUENCE:
            raise RingError(f"{self.segment.name}: sequences are exhausted; start a new epoch")
        kind = record[4]
        instrument = record[6] | record[7] << 8
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
                ap_set_state(&ring.directory[entry], record[40] | record[41] << 8)
                if record[40] != LIVE:
                    self.unlink(entry)
        return self.last_sequence

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
        if not NAMES_AT + 2 <= length <= ENTRY_RECORD_BYTES or instrument == 0:
            raise RecordError(f"an instrument record of {length} bytes with id {instrument}: "
                              f"ids begin at 1, {ENTRY_RECORD_BYTES} bytes are the most")
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
                now_ns - live[entry].written_ns <= _REPEAT_AFTER_NS:
            self.due_credit = 0
            return ()
        if elapsed > 0:
            self.due_credit = min(self.due_credit + self.live_count * elapsed / _REPEAT_SPREAD_NS,
                                  max(1.0, self.live_count / 10.0))
        found = []
        while entry != self.sentinel:
            one = &live[entry]
            age = self.next_position - one.position
            age_ns = now_ns - one.written_ns
            # Beyond 5/16 of the ring: a frame of 1/16 and all the snapshots, 1/8, still fit.
            if age > quarter + quarter // 4 or age_ns >= _REPEAT_URGENT_NS:
                pass
            elif age > quarter and not paced:
                paced = True
            elif age_ns > _REPEAT_AFTER_NS and self.due_credit >= 1:
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


cdef uint64_t needed_capacity(uint64_t bytes) noexcept:
    """The smallest capacity of which `bytes` are at most the share."""
    cdef uint64_t capacity = AP_MIN_CAPACITY
    while capacity // AP_SHARE < bytes:
        capacity *= 2
    return capacity


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
        cdef uint64_t route
        memcpy(&route, self.start + 8, 8)
        return route & MAX_SEQUENCE

    @property
    def exchange_ns(self):
        return time_at(self.start + 16)

    @property
    def received_ns(self):
        return time_at(self.start + 24)

    @property
    def published_ns(self):
        return time_at(self.start + 32)


cdef int64_t time_at(const uint8_t *where) noexcept:
    cdef int64_t value
    memcpy(&value, where, 8)
    return value


cdef class Records:
    """A run of records: `len`, iteration over `RawRecord`."""

    def __len__(self):
        return self.count

    def __iter__(self):
        cdef RecordIterator iterator = RecordIterator.__new__(RecordIterator)
        iterator.chunk = self.chunk
        iterator.begin = self.begin
        iterator.end = self.end
        return iterator

    @property
    def nbytes(self):
        """Bytes of all records, padding included."""
        return self.end - self.begin

    def count_type(self, int kind, uint64_t length):
        """How many records have this type and at least this length."""
        cdef Py_ssize_t at = self.begin, found = 0
        while at < self.end:
            if self.chunk.data[at + 4] == kind and length_at(self.chunk.data + at) >= length:
                found += 1
            at += ap_padded(length_at(self.chunk.data + at))
        return found

    def trades_into(self, rows):
        """Fill rows of 64 bytes, one per trade record; their layout is `alphapulse.shm.TRADE_ROW`.

        Returns the number of rows filled.
        """
        cdef Py_buffer view
        cdef Py_ssize_t at = self.begin, found = 0
        cdef uint8_t *row
        cdef const uint8_t *record
        cdef uint64_t sequence
        PyObject_GetBuffer(rows, &view, PyBUF_WRITABLE)
        try:
            while at < self.end and (found + 1) * 64 <= view.len:
                record = self.chunk.data + at
                at += ap_padded(length_at(record))
                if record[4] != TRADE or length_at(record) < 72:
                    continue
                row = <uint8_t *>view.buf + found * 64
                memcpy(&sequence, record + 8, 8)
                sequence &= MAX_SEQUENCE
                memcpy(row, &sequence, 8)
                memcpy(row + 8, record + 16, 24)
                memcpy(row + 32, record + 40, 30)
                memcpy(row + 62, record + 6, 2)
                found += 1
        finally:
            PyBuffer_Release(&view)
        return found


cdef inline uint64_t length_at(const uint8_t *record) noexcept nogil:
    cdef uint32_t length
    memcpy(&length, record, 4)
    return length


@cython.no_gc
cdef class RecordIterator:
    cdef Chunk chunk
    cdef Py_ssize_t begin
    cdef Py_ssize_t end

    def __iter__(self):
        return self

    def __next__(self):
        cdef RawRecord record
        if self.begin >= self.end:
            raise StopIteration
        record = RawRecord.__new__(RawRecord)
        record.chunk = self.chunk
        record.start = self.chunk.data + self.begin
        record.length = length_at(record.start)
        self.begin += ap_padded(record.length)
        return record


cdef class Consumer:
    """The reading side: a cursor in one segment.

    Records are copied in pieces into private memory, checked there, and handed out from it; what
    was copied is safe from the writer even if it overtakes.

    Parameters
    ----------
    segment : writable or not, it is only read
    readers, slot : where this reader says how far it has come and that it sleeps; None without
    """

    def __cinit__(self, *args, **kwargs):
        self.synced = <uint8_t *>PyMem_Calloc(SYNCED_BYTES, 1)
        if self.synced == NULL:
            raise MemoryError

    def __init__(self, Segment segment not None, ReadersPage readers=None, int slot=0):
        self.segment = segment
        self.expected = 1
        if readers is not None:
            self.use_slot(readers, slot)

    def __dealloc__(self):
        PyMem_Free(self.synced)

    def use_slot(self, ReadersPage readers not None, int slot):
        """Say in this slot how far the reader has come."""
        if not 0 <= slot < <int>AP_SLOTS:
            raise IndexError(slot)
        self.slot = &readers.slots[slot]
        self.readers = readers
        self.tell()

    cdef void tell(self) noexcept:
        if self.slot != NULL:
            ap_set_slot(self.slot, self.segment.ring.header.epoch,
                        self.expected - <uint64_t>self.staged - 1)

    @property
    def sequence(self):
        """The next sequence wanted; beyond those given, some may be filtered."""
        cdef uint64_t route
        if self.staged:
            memcpy(&route, self.chunk.data + self.begin + 8, 8)
            return route & MAX_SEQUENCE
        return self.expected

    @property
    def drained(self):
        """Whether all that was committed has been given."""
        return not self.staged and not self.lapped and \
            ap_committed(self.segment.ring.header) == self.position

    def seek_latest(self):
        """Begin at the oldest of the live books' latest snapshots, at the end without any."""
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t committed = 0, position
        cdef Trace trace
        for _ in range(ATTEMPTS):
            position = self.oldest_snapshot()
            # Loaded after the directory: every snapshot seen there lies before `committed`.
            committed = ap_committed(ring.header)
            if position != AP_NO_POSITION:
                found = follow(ring, position, committed, trace_first(ring, position) + 1, NULL,
                               &trace)
                if found == FOUND:
                    return self.place(position, trace.first, committed, True)
            elif committed == 0:
                return self.place(0, 1, 0, False)
            else:
                found = find_tail(ring, committed, &trace)
                if found == FOUND:
                    return self.place(committed, trace.after, committed, True)
            if found == CORRUPT:
                break
        raise RingCorrupt(f"{self.segment.name}: no record found to begin with at {committed}")

    def seek_oldest(self):
        """Begin at the oldest record that is surely still there."""
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t committed = 0, announced, position
        cdef Trace trace
        for _ in range(ATTEMPTS):
            committed = ap_committed(ring.header)
            announced = ap_announced(ring.header)
            if committed == 0:
                return self.place(0, 1, 0, False)
            position = 0
            if announced > ring.at.capacity:
                position = find_from(ring, announced - ring.at.capacity, committed)
            if position >= committed:
                found = find_tail(ring, committed, &trace)
                trace.first = trace.after
            else:
                found = follow(ring, position, committed, trace_first(ring, position) + 1, NULL,
                               &trace)
            if found == FOUND:
                return self.place(position, trace.first, committed, False)
            if found == CORRUPT:
                break
        raise RingCorrupt(f"{self.segment.name}: no record found to begin with at {committed}")

    def seek(self, uint64_t sequence):
        """Begin with this sequence; if it is gone, the next call of `next` says what was missed.

        Raises
        ------
        ValueError
            it lies beyond the next record to be written
        """
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t committed = 0, block, position
        cdef Trace trace
        cdef int found = TORN
        for _ in range(ATTEMPTS):
            committed, last, _published = self.segment.tail()
            if not 1 <= sequence <= last + 1:
                raise ValueError(
                    f"{self.segment.name}: sequence {sequence} is beyond the last one, {last}"
                )
            if sequence == last + 1:
                return self.place(committed, sequence, 0, False)
            position = self.before_sequence(sequence, committed)
            if position == AP_NO_POSITION:
                self.place(0, sequence, 0, False)
                self.lapped = True
                return None
            found = follow(ring, position, committed, sequence, NULL, &trace)
            if found == FOUND and trace.after == sequence:
                return self.place(trace.position, sequence, 0, False)
            if found == CORRUPT:
                break
        raise RingCorrupt(f"{self.segment.name}: no record {sequence} found before {committed}")

    cdef uint64_t before_sequence(self, uint64_t sequence, uint64_t committed) noexcept nogil:
        """Start of a record of that sequence or a little before, `AP_NO_POSITION` if it is gone."""
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t block = committed // ring.at.block_bytes, position, first
        cdef uint64_t tried
        for tried in range(ring.at.block_count + 1):
            position = block_start(ring, block, committed)
            if position != AP_NO_POSITION:
                first = trace_first(ring, position)
                if ap_torn(ring, position):
                    break
                if first <= sequence:
                    return position
            if block == 0:
                break
            block -= 1
        return AP_NO_POSITION

    cdef void place(self, uint64_t position, uint64_t sequence, uint64_t filter_until,
                    bint drop_history) noexcept nogil:
        """Go on from this record; before `filter_until` what a newcomer can't use is dropped."""
        self.position = position
        self.expected = sequence
        self.filter_until = filter_until
        self.drop_history = drop_history
        self.lapped = False
        self.told = 0
        self.staged = 0
        self.begin = self.end = 0
        memset(self.synced, 0, SYNCED_BYTES)

    cdef uint64_t oldest_snapshot(self) noexcept nogil:
        """Position of the oldest of the live books' latest snapshots that is still there."""
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t oldest = AP_NO_POSITION, position, word, route
        cdef uint32_t count = ap_instrument_count(ring.header), i
        cdef ap_entry *entry
        if count > ring.at.max_instruments:
            count = ring.at.max_instruments
        for i in range(count):
            entry = &ring.directory[i]
            position = ap_snapshot_position(entry)
            if position & 7 or position >= oldest:
                continue
            word = ap_word(ring, position)
            route = ap_word(ring, position + 8)
            if ap_torn(ring, position):
                continue
            if (word >> 32 & 255) == SNAPSHOT and (word >> 48) == entry.id and \
                    (route >> 48) == ring.header.ring_id:
                oldest = position
        return oldest

    cdef int fill(self, Py_ssize_t limit) except -1:
        """Stage records until there are `limit`, or no more; notes whether the writer overtook."""
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t committed, bytes, piece = PIECE_BYTES, needed
        while self.staged < limit and self.end - self.begin < BATCH_BYTES:
            committed = ap_committed(ring.header)
            if committed == self.position:
                break
            if committed < self.position or committed & 7 or \
                    ap_announced(ring.header) < committed:
                raise RingCorrupt(f"{self.segment.name}: committed position {committed} after "
                                  f"{self.position} was read")
            bytes = min(committed - self.position, piece)
            self.lapped = committed - self.position > ring.at.capacity
            if not self.lapped:
                self.reserve(bytes)
                ap_copy(ring, self.position, bytes, self.chunk.data + self.end)
                self.lapped = ap_torn(ring, self.position)
            if self.lapped:
                break
            needed = self.accept(bytes)
            if needed > committed - self.position:
                raise RingCorrupt(f"{self.segment.name}: a record of {needed} bytes at "
                                  f"{self.position} reaches beyond {committed}")
            piece = max(<uint64_t>PIECE_BYTES, needed)
        return 0

    cdef int reserve(self, uint64_t room) except -1:
        """Make room behind the staged records, out of the way of what was handed out."""
        cdef Py_ssize_t kept = self.end - self.begin, size = kept + room
        cdef Chunk chunk = None
        cdef uint8_t *data
        if self.chunk is not None and Py_REFCNT(self.chunk) == 1:
            if self.end + <Py_ssize_t>room <= self.chunk.size:
                return 0
            if size <= self.chunk.size:
                memmove(self.chunk.data, self.chunk.data + self.begin, kept)
                self.begin, self.end = 0, kept
                return 0
        chunk = Chunk.__new__(Chunk)
        chunk.size = (size + 4095) // 4096 * 4096
        chunk.data = <uint8_t *>malloc(chunk.size)
        if chunk.data == NULL:
            raise MemoryError
        if kept:
            memcpy(chunk.data, self.chunk.data + self.begin, kept)
        self.chunk = chunk
        self.begin, self.end = 0, kept
        return 0

    cdef uint64_t accept(self, uint64_t bytes) except? 1:
        """Check the `bytes` copied behind the staged records and stage them.

        Returns how many bytes the next record takes if it isn't wholly among them, else 0.
        """
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t most = ring.at.capacity // AP_SHARE, left = bytes, length, padded, word, route
        cdef uint64_t ours = <uint64_t>ring.header.ring_id << 48
        cdef uint8_t *read = self.chunk.data + self.end
        cdef uint8_t *keep = read
        cdef str problem = None
        padded = 0
        while left:
            memcpy(&word, read, 8)
            length = <uint32_t>word
            padded = ap_padded(length)
            if not AP_RECORD_HEADER <= length <= most:
                problem = f"a record of {length} bytes"
                break
            if padded > left:
                break
            memcpy(&route, read + 8, 8)
            if route != (ours | self.expected):
                problem = (f"record {route & MAX_SEQUENCE} of ring {route >> 48}, "
                           f"not {self.expected} of ring {ours >> 48}")
                break
            if self.position >= self.filter_until or \
                    not dropped(word, self.synced, self.drop_history):
                if keep != read:
                    memmove(keep, read, padded)
                keep += padded
                self.staged += 1
            elif self.told:
                self.told -= 1
            read += padded
            left -= padded
            self.position += padded
            self.expected += 1
        self.end = keep - self.chunk.data
        if problem is not None:
            raise RingCorrupt(f"{self.segment.name}: {problem} at position {self.position}")
        return padded if left else 0

    cdef Records take(self, Py_ssize_t limit):
        """Hand out staged records."""
        cdef Records records = Records.__new__(Records)
        cdef Py_ssize_t at = self.begin
        records.chunk = self.chunk
        records.begin = at
        if limit >= self.staged:
            records.count = self.staged
            at = self.end
        else:
            records.count = limit
            for _ in range(limit):
                at += ap_padded(length_at(self.chunk.data + at))
        records.end = at
        self.begin = at
        self.staged -= records.count
        return records

    cdef object recover(self):
        """Go on from the live books' latest snapshots; ``(first, last, count)`` of what is lost.

        Without a live book, go on from the beginning of the ring's newer half. None if the writer
        overtook again meanwhile. The count includes records behind `last` that will be dropped
        (`told` of them); if the reader is overtaken before it has passed them, they are no news.
        """
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t position, committed, first = self.expected
        cdef Trace trace
        cdef int found
        for _ in range(ATTEMPTS):
            position = self.oldest_snapshot()
            committed = ap_committed(ring.header)
            if position == AP_NO_POSITION:
                position = find_from(ring, committed - min(committed, ring.at.capacity // 2),
                                     committed)
            memset(self.synced, 0, SYNCED_BYTES)
            with nogil:
                if position < committed:
                    found = follow(ring, position, committed, 0, self.synced, &trace)
                else:
                    found = find_tail(ring, committed, &trace)
                    trace.first = trace.after
                    trace.dropped = 0
            if found == TORN:
                continue
            if found == CORRUPT or trace.first <= first:
                raise RingCorrupt(f"{self.segment.name}: no record to go on with at {position}")
            lost = trace.first - first + trace.dropped - self.told
            self.place(position, trace.first, committed, False)
            self.told = trace.dropped
            self.tell()
            return first, trace.first - 1, lost
        return None

    def next(self, Py_ssize_t limit):
        """What comes next; never waits.

        Returns
        -------
        `Records` (1 to `limit` of them), None if there is nothing, or ``(first, last, count)``:
        the writer overtook, these sequences and ``count`` records in all are not given

        Raises
        ------
        RingCorrupt
            the segment contradicts itself
        """
        cdef Records records
        if limit < 1:
            raise ValueError(f"limit {limit} is no positive number")
        if self.staged < limit and not self.lapped:
            self.fill(limit)
        if self.staged:
            records = self.take(limit)
            self.tell()
            return records
        return self.recover() if self.lapped else None

    def wait(self, int64_t spin_ns, int64_t timeout_ns, uint32_t ended):
        """Whether there is news: records, or an end of the segment other than `ended`.

        Spins for `spin_ns`, then sleeps for at most `timeout_ns`, both without the interpreter.
        May be called by another thread than the one that reads.
        """
        cdef Segment segment = self.segment
        cdef ReadersPage page = self.readers
        cdef ap_slot *slot = self.slot
        cdef uint64_t position = self.position
        cdef ap_readers *readers = NULL if page is None else page.readers
        cdef bint news = self.staged > 0 or self.lapped
        if news:
            return True
        with nogil:
            news = ap_news(segment.ring.header, position, ended)
            if not news and spin_ns > 0:
                news = ap_spin(segment.ring.header, position, ended, spin_ns)
            if not news and timeout_ns > 0:
                news = ap_wait(segment.ring.header, readers, slot, position, ended, timeout_ns)
        return news

    def nudge(self):
        """Wake whoever sleeps on this segment, for a look at something else than the ring."""
        ap_wake_all(self.segment.ring.header)
