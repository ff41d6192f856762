"""The ring's memory layout and the loops in which two processes meet, as ring.h has them."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "ring.h" nogil:
    enum:
        AP_MAGIC
        AP_READERS_MAGIC
        AP_VERSION
        AP_HEADER_BYTES
        AP_PAGE
        AP_RECORD_HEADER
        AP_SHARE
        AP_SLOTS
        AP_READERS_BYTES
        AP_ENTRY_RECORD
    const uint64_t AP_MIN_CAPACITY
    const uint64_t AP_MAX_CAPACITY
    const uint64_t AP_NO_POSITION
    const uint64_t AP_MAX_SEQUENCE
    const int CLOCK_MONOTONIC
    const int CLOCK_REALTIME

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
        uint32_t block_bits

    ctypedef struct ap_ring:
        ap_header *header
        ap_entry *directory
        ap_geometry at

    ctypedef struct ap_readers:
        uint64_t magic

    ctypedef struct ap_slot:
        pass

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
    void ap_announce(ap_ring *ring, uint64_t until)
    void ap_store(ap_ring *ring, uint64_t position, uint64_t sequence, int64_t published_ns,
                  const uint8_t *record, uint64_t length)
    void ap_commit(ap_ring *ring, uint64_t until, uint64_t sequence)
    void ap_put(ap_ring *ring, uint64_t position, uint64_t sequence, int64_t published_ns,
                const uint8_t *record, uint64_t length)
    void ap_copy(const ap_ring *ring, uint64_t position, uint64_t bytes, uint8_t *to)
    uint64_t ap_announced_since(const ap_ring *ring)
    bint ap_torn(const ap_ring *ring, uint64_t position)
    void ap_set_snapshot(ap_entry *entry, uint64_t position, uint64_t sequence)
    uint64_t ap_snapshot_position(const ap_entry *entry)
    uint64_t ap_snapshot_sequence(const ap_entry *entry)
    void ap_set_state(ap_entry *entry, uint32_t state)
    uint32_t ap_state(const ap_entry *entry)
    const void *ap_wake_word(const ap_header *header)
    void ap_wake_all(const ap_header *header)
    void ap_rouse(ap_header *header)
    int ap_wake_sleepers(ap_header *header, ap_readers *readers)
    bint ap_news(const ap_header *header, uint64_t position, uint32_t ended)
    int64_t ap_now(int clock)
    bint ap_spin(const ap_header *header, uint64_t position, uint32_t ended, int64_t spin_ns)
    bint ap_lie_down(const ap_header *header, ap_readers *readers, ap_slot *slot, uint64_t position,
                     uint32_t ended, uint32_t *word)
    void ap_get_up(ap_readers *readers, ap_slot *slot)
    bint ap_wait(const ap_header *header, ap_readers *readers, ap_slot *slot, uint64_t position,
                 uint32_t ended, int64_t timeout_ns)
    void ap_set_slot(ap_slot *slot, uint64_t epoch, uint64_t sequence)
    void ap_set_slot_pid(ap_slot *slot, uint32_t pid)

cdef enum:
    # Where the names of an instrument record begin.
    NAMES_AT = 64
