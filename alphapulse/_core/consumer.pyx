# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The reading side of a ring: copies records out, checks them, and finds its place again."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memmove, memset

from alphapulse._core.records cimport Chunk, Records
from alphapulse._core.ring cimport (
    AP_MAX_SEQUENCE,
    AP_NO_POSITION,
    AP_PAGE,
    AP_RECORD_HEADER,
    AP_SHARE,
    AP_SLOTS,
    ap_announced,
    ap_announced_since,
    ap_committed,
    ap_copy,
    ap_entry,
    ap_instrument_count,
    ap_news,
    ap_padded,
    ap_readers,
    ap_ring,
    ap_set_slot,
    ap_slot,
    ap_snapshot_position,
    ap_spin,
    ap_torn,
    ap_wait,
    ap_word,
)
from alphapulse._core.segment cimport ReadersPage, Segment
from alphapulse._core.walk cimport (
    ATTEMPTS,
    CORRUPT,
    FOUND,
    TORN,
    Trace,
    block_start,
    dropped,
    find_from,
    find_tail,
    follow,
    trace_first,
)
from alphapulse._core.wire cimport SNAPSHOT, get_u64

from alphapulse.errors import RingCorrupt

cdef enum:
    # One bit for each possible id of an instrument.
    SYNCED_BYTES = 8192
    # Copied and checked at a time, while it is in the core's first cache.
    PIECE_BYTES = 16384
    # Given out at a time, as soon as there is so much.
    BATCH_BYTES = 4194304
    # A larger chunk isn't kept once it was given out.
    SPARE_BYTES = 1048576
    # Length of records, as long as none has been seen.
    USUAL_BYTES = 128


cdef class Consumer:
    """The reading side: a cursor in one segment.

    Records are copied in pieces into private memory, checked there, and handed out from it; what
    was copied is safe from the writer even if it overtakes.

    Parameters
    ----------
    segment : writable or not, it is only read
    readers, slot : where this reader says how far it has come and that it sleeps; None without
    kind : subclass of `Records` to give out, without an initialiser of its own
    origin : goes into each of them
    """

    def __cinit__(self, *args, **kwargs):
        self.synced = <uint8_t *>PyMem_Calloc(SYNCED_BYTES, 1)
        if self.synced == NULL:
            raise MemoryError

    def __init__(self, Segment segment not None, ReadersPage readers=None, int slot=0, *,
                 kind=Records, origin=None):
        if not issubclass(kind, Records):
            raise TypeError(f"{kind!r} is no kind of Records")
        self.kind = kind
        self.origin = origin
        self.usual = USUAL_BYTES
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
            ap_set_slot(self.slot, self.segment.ring.header.epoch, self.expected - 1)

    @property
    def sequence(self):
        """The next sequence wanted; beyond those given, some may be filtered."""
        return self.expected

    @property
    def drained(self):
        """Whether all that was committed has been given."""
        return not self.has_more()

    cdef bint has_more(self) noexcept:
        return self.lapped or ap_committed(self.segment.ring.header) != self.position

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
                # The first record of its block is gone; a snapshot behind that may still be there.
                position = self.oldest_snapshot()
            if position == AP_NO_POSITION or trace_first(ring, position) > sequence:
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
        """Copy and check up to `limit` records; notes whether the writer overtook."""
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t committed, announced, ahead, bytes, wanted, needed = 0
        self.count = self.end = 0
        while self.count < limit and self.end < BATCH_BYTES:
            committed = ap_committed(ring.header)
            ahead = committed - self.position
            if ahead == 0:
                break
            if ahead >> 63 or committed & 7:
                self.contradict(committed)
            self.lapped = ahead > ring.at.capacity
            if self.lapped:
                break
            # Going by the last records' length: what is copied beyond the limit is copied again.
            wanted = min(<uint64_t>(limit - self.count), <uint64_t>BATCH_BYTES) * self.usual
            wanted = max(min(ahead, min(wanted, <uint64_t>BATCH_BYTES)), needed)
            bytes = max(min(wanted, <uint64_t>PIECE_BYTES), needed)
            if self.count == 0 or self.end + <Py_ssize_t>bytes > self.chunk.size:
                self.reserve(wanted)
            ap_copy(ring, self.position, bytes, self.chunk.data + self.end)
            announced = ap_announced_since(ring)
            if announced < committed:
                self.contradict(committed)
            self.lapped = announced - self.position > ring.at.capacity
            if self.lapped:
                break
            needed = self.accept(bytes, limit)
            if needed > committed - self.position:
                raise RingCorrupt(f"{self.segment.name}: a record of {needed} bytes at "
                                  f"{self.position} reaches beyond {committed}")
        return 0

    cdef int contradict(self, uint64_t committed) except -1:
        raise RingCorrupt(f"{self.segment.name}: committed position {committed} after "
                          f"{self.position} was read, announced "
                          f"{ap_announced(self.segment.ring.header)}")

    cdef int reserve(self, uint64_t more) except -1:
        """Make room for `more` bytes behind those copied, out of the way of what was given out."""
        cdef Py_ssize_t size = self.end + more
        cdef Chunk chunk = self.chunk
        if chunk is not None and size <= chunk.size and Py_REFCNT(chunk) == 2:
            return 0  # referred to by this object and this function alone
        chunk = self.spare
        if chunk is None or size > chunk.size or Py_REFCNT(chunk) > 2:
            chunk = Chunk.__new__(Chunk)
            chunk.size = (size + AP_PAGE - 1) // AP_PAGE * AP_PAGE
            chunk.data = <uint8_t *>malloc(chunk.size)
            if chunk.data == NULL:
                raise MemoryError
        if self.end:
            memcpy(chunk.data, self.chunk.data, self.end)
        self.spare = self.chunk
        if self.spare is not None and self.spare.size > SPARE_BYTES:
            self.spare = None
        self.chunk = chunk
        return 0

    cdef uint64_t accept(self, uint64_t bytes, Py_ssize_t limit) except? 1:
        """Check the `bytes` copied behind what was accepted; accept until there are `limit`.

        Returns how many bytes the next record takes if it isn't wholly among them, else 0.
        """
        cdef ap_ring *ring = &self.segment.ring
        cdef uint64_t most = ring.at.capacity // AP_SHARE, length, padded = 0, word, left = bytes
        cdef uint64_t route = (<uint64_t>ring.header.ring_id << 48) + self.expected
        cdef uint64_t position = self.position, first = route
        cdef Py_ssize_t room = limit - self.count
        cdef uint8_t *read = self.chunk.data + self.end
        cdef uint8_t *keep = read
        cdef str problem = None
        while left and room:
            word = get_u64(read)
            length = <uint32_t>word
            padded = ap_padded(length)
            if not AP_RECORD_HEADER <= length <= most:
                problem = f"a record of {length} bytes"
                break
            if padded > left:
                break
            if get_u64(read + 8) != route:
                problem = misplaced(get_u64(read + 8), route)
                break
            if position >= self.filter_until or \
                    not dropped(word, self.synced, self.drop_history):
                if keep != read:
                    memmove(keep, read, padded)
                keep += padded
                room -= 1
            elif self.told:
                self.told -= 1
            read += padded
            left -= padded
            position += padded
            route += 1
        if route != first:
            self.usual = ap_padded((position - self.position) // (route - first))
        self.position = position
        self.expected += route - first
        self.count = limit - room
        self.end = keep - self.chunk.data
        if problem is not None:
            raise RingCorrupt(f"{self.segment.name}: {problem} at position {self.position}")
        return padded if left and room else 0

    cdef Records take(self):
        """Give out what was accepted."""
        cdef Records records = <Records>(<PyTypeObject *>self.kind).tp_new(
            <type>self.kind, <PyObject *>(), NULL)
        records.origin = self.origin
        records.chunk = self.chunk
        records.end = self.end
        records.count = self.count
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
        return self.advance(limit)

    cdef object advance(self, Py_ssize_t limit):
        if limit < 1:
            raise ValueError(f"limit {limit} is no positive number")
        if not self.lapped:
            self.fill(limit)
            if self.count:
                self.tell()
                return self.take()
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
        cdef bint news = self.lapped
        if news:
            return True
        with nogil:
            news = ap_news(segment.ring.header, position, ended)
            if not news and spin_ns > 0:
                news = ap_spin(segment.ring.header, position, ended, spin_ns)
            if not news and timeout_ns > 0:
                news = ap_wait(segment.ring.header, readers, slot, position, ended, timeout_ns)
        return news


cdef str misplaced(uint64_t found, uint64_t wanted):
    return (f"record {found & AP_MAX_SEQUENCE} of ring {found >> 48}, "
            f"not {wanted & AP_MAX_SEQUENCE} of ring {wanted >> 48}")
