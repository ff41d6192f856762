# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The memory of a shared-memory ring, as its writer and its readers map it.

The layout and the atomic operations are in ring.h; files, locks and names in `alphapulse.shm`.
A `Segment` checks its memory's geometry once against the buffer's size and keeps private copies;
whatever else is read from it later (lengths, positions, counts) is checked before it is used.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from alphapulse._core.ring cimport (
    AP_ENTRY_RECORD,
    AP_HEADER_BYTES,
    AP_MAGIC,
    AP_MAX_CAPACITY,
    AP_MIN_CAPACITY,
    AP_NO_POSITION,
    AP_READERS_BYTES,
    AP_READERS_MAGIC,
    AP_SLOTS,
    AP_VERSION,
    NAMES_AT,
    ap_announced,
    ap_attach,
    ap_committed,
    ap_ended,
    ap_ended_ns,
    ap_entry,
    ap_geometry,
    ap_header,
    ap_heartbeat_ns,
    ap_instrument_count,
    ap_lay_out,
    ap_readers,
    ap_rouse,
    ap_sequence,
    ap_set_ended,
    ap_set_ended_ns,
    ap_set_heartbeat_ns,
    ap_set_slot_pid,
    ap_slot,
    ap_snapshot_position,
    ap_snapshot_sequence,
    ap_state,
    ap_torn,
    ap_word,
)
from alphapulse._core.walk cimport ATTEMPTS, CORRUPT, FOUND, TORN, Trace, find_tail

from alphapulse.errors import RingCorrupt, RingError

OPEN = 0
CLOSED = 1
SUPERSEDED = 2
READERS_BYTES = <int>AP_READERS_BYTES
READERS_SLOTS = <int>AP_SLOTS
MIN_CAPACITY = AP_MIN_CAPACITY


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
        """Mark the segment `CLOSED` or `SUPERSEDED` and wake whoever sleeps on it, or is about to."""
        if not self.writable:
            raise RingError(f"{self.name} is mapped read-only")
        ap_set_ended_ns(self.ring.header, now_ns)
        ap_set_ended(self.ring.header, how)
        ap_rouse(self.ring.header)

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
        if not NAMES_AT < length <= AP_ENTRY_RECORD or not 0 < entry.id <= 65535:
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
