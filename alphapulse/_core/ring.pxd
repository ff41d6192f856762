"""The ring's native core, for other native modules: `Producer.put` writes without the interpreter."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "ring.h" nogil:
    ctypedef struct ap_header:
        uint64_t magic
        uint32_t version
        uint32_t max_instruments
        uint64_t segment_bytes
        uint64_t capacity
        uint64_t epoch
        uint32_t ring_id
        uint32_t pid
        int64_t created_ns
        uint64_t predecessor_epoch
        uint64_t predecessor_sequence
        int64_t predecessor_published_ns
        char venue[64]

    ctypedef struct ap_entry:
        uint32_t id
        uint32_t record_length
        uint8_t record[448]

    ctypedef struct ap_geometry:
        uint64_t directory
        uint64_t index
        uint64_t data
        uint64_t total
        uint64_t capacity
        uint64_t block_bytes
        uint64_t block_count
        uint32_t max_instruments

    ctypedef struct ap_ring:
        ap_header *header
        ap_entry *directory
        ap_geometry at

    ctypedef struct ap_readers:
        uint64_t magic

    ctypedef struct ap_slot:
        pass


cdef class Segment:
    cdef Py_buffer view
    cdef bint held
    cdef ap_ring ring
    cdef readonly bint writable
    cdef readonly str name


cdef class ReadersPage:
    cdef Py_buffer view
    cdef bint held
    cdef ap_readers *readers
    cdef ap_slot *slots


cdef struct Live:
    int32_t before
    int32_t after
    bint linked
    uint64_t bytes
    uint64_t position
    int64_t written_ns


cdef class Producer:
    cdef readonly Segment segment
    cdef ReadersPage readers
    cdef ap_ring *ring
    cdef object clock
    cdef bint native_clock
    cdef Live *live
    cdef int32_t *entry_of
    cdef int32_t sentinel
    cdef uint64_t live_bytes
    cdef uint64_t live_count
    cdef uint64_t next_position
    cdef uint64_t last_sequence
    cdef int64_t last_published_ns
    cdef int64_t due_ns
    cdef double due_credit
    cdef readonly uint64_t wakes

    cdef uint64_t put(self, const uint8_t *record, uint64_t length,
                      int64_t published_ns) except 0
    cdef int64_t now(self) except? -1
    cdef int32_t check_book(self, int kind, int instrument, uint64_t padded) except -2
    cdef int32_t announce(self, const uint8_t *record, uint64_t length, int instrument) except -2
    cdef void link(self, int32_t entry, uint64_t position, uint64_t padded,
                   int64_t written_ns) noexcept nogil
    cdef void unlink(self, int32_t entry) noexcept nogil


cdef struct Trace:
    uint64_t position
    uint64_t first
    uint64_t after
    uint64_t last
    uint64_t dropped


cdef class Chunk:
    cdef uint8_t *data
    cdef Py_ssize_t size


cdef class RawRecord:
    cdef Chunk chunk
    cdef uint8_t *start
    cdef Py_ssize_t length


cdef class Records:
    cdef Chunk chunk
    cdef Py_ssize_t begin
    cdef Py_ssize_t end
    cdef Py_ssize_t count


cdef class Consumer:
    cdef readonly Segment segment
    cdef ReadersPage readers
    cdef ap_slot *slot
    cdef Chunk chunk
    cdef Py_ssize_t begin
    cdef Py_ssize_t end
    cdef Py_ssize_t staged
    cdef uint64_t position
    cdef uint64_t expected
    cdef uint64_t filter_until
    cdef bint drop_history
    cdef bint lapped
    cdef uint64_t told
    cdef uint8_t *synced

    cdef void tell(self) noexcept
    cdef uint64_t before_sequence(self, uint64_t sequence, uint64_t committed) noexcept nogil
    cdef void place(self, uint64_t position, uint64_t sequence, uint64_t filter_until,
                    bint drop_history) noexcept nogil
    cdef uint64_t oldest_snapshot(self) noexcept nogil
    cdef int fill(self, Py_ssize_t limit) except -1
    cdef int reserve(self, uint64_t room) except -1
    cdef uint64_t accept(self, uint64_t room) except? 1
    cdef Records take(self, Py_ssize_t limit)
    cdef object recover(self)
