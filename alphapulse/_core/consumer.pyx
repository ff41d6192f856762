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
    ap_wake_all,
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
from alphapulse._core.wire cimport SNAPSHOT, get_u32, get_u64

from alphapulse.errors import RingCorrupt

cdef enum:
    # One bit for each possible id of an instrument.
    SYNCED_BYTES = 8192
    # Copied at a time, and staged at most. Two pieces stay in a core's cache: the one that was
    # given out and the one that is being filled.
    PIECE_BYTES = 131072
    BATCH_BYTES = 4194304
    # Copied beyond what is wanted.
    MARGIN_BYTES = 16384
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
            ap_set_slot(self.slot, self.segment.ring.header.epoch,
                        self.expected - <uint64_t>self.staged - 1)

    @property
    def sequence(self):
        """The next sequence wanted; beyond those given, some may be filtered."""
        if self.staged:
            return get_u64(self.chunk.data + self.begin + 8) & AP_MAX_SEQUENCE
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
        cdef uint64_t committed, bytes, ahead, wanted, needed = 0
        while self.staged < limit and self.end - self.begin < BATCH_BYTES:
            committed = ap_committed(ring.header)
            if committed == self.position:
                break
            if committed < self.position or committed & 7 or \
                    ap_announced(ring.header) < committed:
                raise RingCorrupt(f"{self.segment.name}: committed position {committed} after "
                                  f"{self.position} was read")
            ahead = committed - self.position
            # What is wanted, going by the last records' length, and a bit more: what is copied
            # beyond the limit has to be moved along.
            wanted = min(<uint64_t>(limit - self.staged), <uint64_t>BATCH_BYTES) * self.usual
            wanted = min(ahead, min(wanted + MARGIN_BYTES, <uint64_t>BATCH_BYTES))
            bytes = min(ahead, max(min(wanted, <uint64_t>PIECE_BYTES), needed))
            self.lapped = ahead > ring.at.capacity
            if not self.lapped:
                self.reserve(bytes, max(bytes, wanted))
                ap_copy(ring, self.position, bytes, self.chunk.data + self.end)
                self.lapped = ap_torn(ring, self.position)
            if self.lapped:
                break
            needed = self.accept(bytes)
            if needed > committed - self.position:
                raise RingCorrupt(f"{self.segment.name}: a record of {needed} bytes at "
                                  f"{self.position} reaches beyond {committed}")
        return 0

    cdef int reserve(self, uint64_t room, uint64_t more) except -1:
        """Make room behind the staged records, out of the way of what was handed out.

        New memory gets room for `more` bytes, which are likely to follow.
        """
        cdef Py_ssize_t kept = self.end - self.begin, size = kept + room
        cdef Chunk chunk = None
        cdef uint8_t *data
        if self.chunk is not None and Py_REFCNT(self.chunk) == 1:
            if kept and self.end + <Py_ssize_t>room <= self.chunk.size:
                return 0
            if size <= self.chunk.size:
                memmove(self.chunk.data, self.chunk.data + self.begin, kept)
                self.begin, self.end = 0, kept
                return 0
        if self.spare is not None and Py_REFCNT(self.spare) == 1 and size <= self.spare.size:
            chunk = self.spare
        else:
            chunk = Chunk.__new__(Chunk)
            chunk.size = (kept + more + AP_PAGE - 1) // AP_PAGE * AP_PAGE
            chunk.data = <uint8_t *>malloc(chunk.size)
            if chunk.data == NULL:
                raise MemoryError
        if kept:
            memcpy(chunk.data, self.chunk.data + self.begin, kept)
        if self.chunk is None or self.chunk.size <= SPARE_BYTES:
            self.spare = self.chunk
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
        cdef uint64_t position = self.position, expected = self.expected
        cdef uint8_t *read = self.chunk.data + self.end
        cdef uint8_t *keep = read
        cdef str problem = None
        padded = 0
        while left:
            word = get_u64(read)
            length = <uint32_t>word
            padded = ap_padded(length)
            if not AP_RECORD_HEADER <= length <= most:
                problem = f"a record of {length} bytes"
                break
            if padded > left:
                break
            route = get_u64(read + 8)
            if route != (ours | expected):
                problem = (f"record {route & AP_MAX_SEQUENCE} of ring {route >> 48}, "
                           f"not {expected} of ring {ours >> 48}")
                break
            if position >= self.filter_until or \
                    not dropped(word, self.synced, self.drop_history):
                if keep != read:
                    memmove(keep, read, padded)
                keep += padded
                self.staged += 1
            elif self.told:
                self.told -= 1
            read += padded
            left -= padded
            position += padded
            expected += 1
        if expected != self.expected:
            self.usual = ap_padded((position - self.position) // (expected - self.expected))
        self.position = position
        self.expected = expected
        self.end = keep - self.chunk.data
        if problem is not None:
            raise RingCorrupt(f"{self.segment.name}: {problem} at position {self.position}")
        return padded if left else 0

    cdef Records take(self, Py_ssize_t limit):
        """Hand out staged records."""
        cdef Records records = <Records>(<PyTypeObject *>self.kind).tp_new(
            <type>self.kind, <PyObject *>(), NULL)
        cdef Py_ssize_t at = self.begin
        records.origin = self.origin
        records.chunk = self.chunk
        records.begin = at
        if limit >= self.staged:
            records.count = self.staged
            at = self.end
        else:
            records.count = limit
            for _ in range(limit):
                at += ap_padded(get_u32(self.chunk.data + at))
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
