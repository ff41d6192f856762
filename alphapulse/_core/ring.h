/* The ring's memory layout and the loops in which two processes meet.
 *
 * Segment: header page | directory (max_instruments entries) | block index | data area.
 * Positions count bytes since the epoch began and never wrap; a position's place in the data area
 * is position % capacity. Records start at multiples of 8 and may wrap; 8-byte words never do.
 *
 * The writer announces how far it is going to write (release fence) before the first byte and
 * commits (release store) after the last. A reader loads the committed position (acquire), copies,
 * and then (acquire fence) looks at the announced one: if that is more than a capacity beyond the
 * first byte copied, the copy may be torn. All words are moved by relaxed atomic loads and stores,
 * so that overlapping access is defined behaviour.
 */
#ifndef ALPHAPULSE_RING_H
#define ALPHAPULSE_RING_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define AP_MAGIC 0x31474e4952504c41ull /* "ALPRING1" */
#define AP_READERS_MAGIC 0x3152444552504c41ull /* "ALPREDR1" */
#define AP_VERSION 1u
#define AP_HEADER_BYTES 4096u
#define AP_PAGE 4096u
#define AP_RECORD_HEADER 40u
#define AP_MIN_CAPACITY (16ull << 10)
#define AP_MAX_CAPACITY (1ull << 40)
#define AP_MAX_INSTRUMENTS 65535u
#define AP_BLOCKS 1024u
#define AP_MIN_BLOCK 4096u
#define AP_NO_POSITION UINT64_MAX
#define AP_MAX_SEQUENCE ((1ull << 48) - 1)
#define AP_ENTRY_RECORD 448u /* the longest instrument record */
#define AP_SHARE 8u /* a record, and all live snapshots together, take at most capacity / 8 */
#define AP_SLOTS 255u

enum { AP_OPEN = 0, AP_CLOSED = 1, AP_SUPERSEDED = 2 };

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t max_instruments;
    uint64_t segment_bytes;
    uint64_t capacity;
    uint64_t epoch;
    uint32_t ring_id;
    uint32_t pid;
    int64_t created_ns;
    uint64_t predecessor_epoch; /* 0: none known */
    uint64_t predecessor_sequence;
    int64_t predecessor_published_ns;
    char venue[64]; /* zero-terminated */
    uint8_t to_256[112];
    /* From here on each cache line has one purpose, so that polling one doesn't slow another. */
    _Atomic uint64_t announced;
    uint8_t to_320[56];
    _Atomic uint64_t committed;
    _Atomic uint64_t sequence; /* of the last record; stored just before `committed` */
    uint8_t to_384[48];
    _Atomic int64_t heartbeat_ns;
    uint8_t to_448[56];
    _Atomic uint32_t wake; /* futex word */
    uint8_t to_512[60];
    _Atomic uint32_t ended; /* AP_OPEN, AP_CLOSED, AP_SUPERSEDED */
    uint32_t unused;
    _Atomic int64_t ended_ns;
    uint8_t to_576[48];
    _Atomic uint32_t instrument_count;
} ap_header;

_Static_assert(sizeof(ap_header) <= AP_HEADER_BYTES, "header page");
_Static_assert(offsetof(ap_header, announced) == 256, "announced");
_Static_assert(offsetof(ap_header, committed) == 320, "committed");
_Static_assert(offsetof(ap_header, heartbeat_ns) == 384, "heartbeat_ns");
_Static_assert(offsetof(ap_header, wake) == 448, "wake");
_Static_assert(offsetof(ap_header, ended) == 512, "ended");
_Static_assert(offsetof(ap_header, instrument_count) == 576, "instrument_count");

/* One instrument. `record` is its instrument record as it was written, immutable once the entry is
 * counted; the snapshot's position is AP_NO_POSITION while the book can't be shown. */
typedef struct {
    uint32_t id;
    uint32_t record_length;
    _Atomic uint32_t state; /* book state | reason << 8 */
    uint32_t unused;
    _Atomic uint64_t snapshot_position;
    _Atomic uint64_t snapshot_sequence;
    uint8_t to_64[32];
    uint8_t record[AP_ENTRY_RECORD];
} ap_entry;

_Static_assert(sizeof(ap_entry) == 512, "directory entry");

/* What readers write, in a segment of its own. The writer reads `waiting` and nothing else. */
typedef struct {
    uint64_t magic;
    _Atomic uint32_t waiting;
    uint8_t to_64[52];
} ap_readers;

typedef struct {
    _Atomic uint32_t pid; /* 0: free */
    _Atomic uint32_t sleeping;
    _Atomic uint64_t epoch;
    _Atomic uint64_t sequence; /* last one handed to the consumer */
    uint8_t to_64[40];
} ap_slot;

_Static_assert(sizeof(ap_readers) == 64 && sizeof(ap_slot) == 64, "readers' segment");
#define AP_READERS_BYTES ((AP_SLOTS + 1u) * 64u)

typedef struct {
    uint64_t directory, index, data, total; /* offsets in the segment */
    uint64_t capacity, block_bytes, block_count; /* powers of two */
    uint32_t max_instruments;
    uint32_t block_bits; /* block_bytes = 1 << block_bits */
} ap_geometry;

/* Lays a segment out; 0 if the two numbers are out of range. */
static inline int ap_lay_out(uint64_t capacity, uint64_t max_instruments, ap_geometry *out) {
    if (capacity < AP_MIN_CAPACITY || capacity > AP_MAX_CAPACITY || (capacity & (capacity - 1)) ||
        max_instruments < 1 || max_instruments > AP_MAX_INSTRUMENTS)
        return 0;
    out->capacity = capacity;
    out->max_instruments = (uint32_t)max_instruments;
    out->block_bytes = capacity / AP_BLOCKS < AP_MIN_BLOCK ? AP_MIN_BLOCK : capacity / AP_BLOCKS;
    out->block_count = capacity / out->block_bytes;
    out->block_bits = (uint32_t)__builtin_ctzll(out->block_bytes);
    out->directory = AP_HEADER_BYTES;
    out->index = out->directory + max_instruments * sizeof(ap_entry);
    out->data = (out->index + out->block_count * 8 + AP_PAGE - 1) / AP_PAGE * AP_PAGE;
    out->total = out->data + capacity;
    return 1;
}

/* A segment as one process maps it: pointers and numbers checked once against its size. */
typedef struct {
    ap_header *header;
    ap_entry *directory;
    _Atomic uint64_t *index;
    _Atomic uint64_t *data;
    ap_geometry at;
} ap_ring;

static inline void ap_attach(ap_ring *ring, void *memory, const ap_geometry *at) {
    uint8_t *base = memory;
    ring->header = memory;
    ring->directory = (ap_entry *)(base + at->directory);
    ring->index = (_Atomic uint64_t *)(base + at->index);
    ring->data = (_Atomic uint64_t *)(base + at->data);
    ring->at = *at;
}

/* Plain names for Cython, which knows no _Atomic. */
#define AP_GETTER(field, type) \
    static inline type ap_##field(const ap_header *header) { \
        return atomic_load_explicit(&header->field, memory_order_acquire); \
    }
#define AP_SETTER(field, type) \
    static inline void ap_set_##field(ap_header *header, type value) { \
        atomic_store_explicit(&header->field, value, memory_order_release); \
    }
AP_GETTER(announced, uint64_t)
AP_GETTER(committed, uint64_t)
AP_GETTER(sequence, uint64_t)
AP_GETTER(heartbeat_ns, int64_t)
AP_GETTER(wake, uint32_t)
AP_GETTER(ended, uint32_t)
AP_GETTER(ended_ns, int64_t)
AP_GETTER(instrument_count, uint32_t)
AP_SETTER(heartbeat_ns, int64_t)
AP_SETTER(ended, uint32_t)
AP_SETTER(ended_ns, int64_t)
AP_SETTER(instrument_count, uint32_t)

static inline uint64_t ap_block(const ap_ring *ring, uint64_t block) {
    return atomic_load_explicit(&ring->index[block & (ring->at.block_count - 1)],
                                memory_order_relaxed);
}

static inline uint64_t ap_word(const ap_ring *ring, uint64_t position) {
    uint64_t offset = position & (ring->at.capacity - 1);
    return atomic_load_explicit(&ring->data[offset / 8], memory_order_relaxed);
}

static inline void ap_store_word(_Atomic uint64_t *to, const uint8_t *from) {
    uint64_t word;
    memcpy(&word, from, 8);
    atomic_store_explicit(to, word, memory_order_relaxed);
}

static inline void ap_load_words(uint8_t *to, const _Atomic uint64_t *from, uint64_t count) {
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint64_t words[8];
        for (int k = 0; k < 8; k++)
            words[k] = atomic_load_explicit(&from[i + k], memory_order_relaxed);
        memcpy(to + i * 8, words, sizeof words);
    }
    for (; i < count; i++) {
        uint64_t word = atomic_load_explicit(&from[i], memory_order_relaxed);
        memcpy(to + i * 8, &word, 8);
    }
}

static inline uint64_t ap_padded(uint64_t length) { return (length + 7) & ~7ull; }

/* Says that the words before position `until` are about to be overwritten, before they are. */
static inline void ap_announce(ap_ring *ring, uint64_t until) {
    atomic_store_explicit(&ring->header->announced, until, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

/* Stores one record of at least 40 and at most capacity / 8 bytes at `position`, announced. */
static inline void ap_store(ap_ring *ring, uint64_t position, uint64_t sequence,
                            int64_t published_ns, const uint8_t *record, uint64_t length) {
    const uint64_t mask = ring->at.capacity / 8 - 1, first = position / 8, whole = length / 8;
    const uint64_t route = sequence | (uint64_t)ring->header->ring_id << 48;
    const uint64_t block = position >> ring->at.block_bits;
    _Atomic uint64_t *index = &ring->index[block & (ring->at.block_count - 1)];
    uint64_t last;

    /* The index holds the first record that starts in each block; an entry of an earlier lap, or
     * none (AP_NO_POSITION), lies in another block. */
    if (atomic_load_explicit(index, memory_order_relaxed) >> ring->at.block_bits != block)
        atomic_store_explicit(index, position, memory_order_relaxed);

    memcpy(&last, record + length - 8, 8);
    last >>= (8 - length % 8) % 8 * 8; /* what is behind the last whole word, and zeros */
    if ((first & mask) + whole <= mask) { /* no wrap within the record */
        _Atomic uint64_t *to = ring->data + (first & mask);
        ap_store_word(to, record);
        atomic_store_explicit(to + 1, route, memory_order_relaxed);
        ap_store_word(to + 2, record + 16);
        ap_store_word(to + 3, record + 24);
        atomic_store_explicit(to + 4, (uint64_t)published_ns, memory_order_relaxed);
        for (uint64_t i = AP_RECORD_HEADER / 8; i < whole; i++)
            ap_store_word(to + i, record + i * 8);
        if (length & 7)
            atomic_store_explicit(to + whole, last, memory_order_relaxed);
        return;
    }
    for (uint64_t i = 0; i < whole; i++)
        ap_store_word(ring->data + ((first + i) & mask), record + i * 8);
    atomic_store_explicit(ring->data + ((first + 1) & mask), route, memory_order_relaxed);
    atomic_store_explicit(ring->data + ((first + 4) & mask), (uint64_t)published_ns,
                          memory_order_relaxed);
    if (length & 7)
        atomic_store_explicit(ring->data + ((first + whole) & mask), last, memory_order_relaxed);
}

/* Shows readers all that was stored before position `until`, the last of it being `sequence`. */
static inline void ap_commit(ap_ring *ring, uint64_t until, uint64_t sequence) {
    atomic_store_explicit(&ring->header->sequence, sequence, memory_order_relaxed);
    atomic_store_explicit(&ring->header->committed, until, memory_order_release);
}

/* Writes one record of at least 40 and at most capacity / 8 bytes at `position` and commits it. */
static inline void ap_put(ap_ring *ring, uint64_t position, uint64_t sequence, int64_t published_ns,
                          const uint8_t *record, uint64_t length) {
    const uint64_t until = position + ap_padded(length);
    ap_announce(ring, until);
    ap_store(ring, position, sequence, published_ns, record, length);
    ap_commit(ring, until, sequence);
}

/* Copies `bytes` (a multiple of 8, at most a capacity) from `position` on. */
static inline void ap_copy(const ap_ring *ring, uint64_t position, uint64_t bytes, uint8_t *to) {
    const uint64_t offset = position & (ring->at.capacity - 1);
    const uint64_t room = ring->at.capacity - offset;
    const uint64_t first = bytes < room ? bytes : room;
    ap_load_words(to, ring->data + offset / 8, first / 8);
    ap_load_words(to + first, ring->data, (bytes - first) / 8);
}

/* After copying: how far the writer had announced to write. */
static inline uint64_t ap_announced_since(const ap_ring *ring) {
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&ring->header->announced, memory_order_relaxed);
}

/* After copying: whether anything from `position` on may have been overwritten meanwhile. */
static inline int ap_torn(const ap_ring *ring, uint64_t position) {
    return ap_announced_since(ring) - position > ring->at.capacity;
}

static inline void ap_set_snapshot(ap_entry *entry, uint64_t position, uint64_t sequence) {
    atomic_store_explicit(&entry->snapshot_sequence, sequence, memory_order_relaxed);
    atomic_store_explicit(&entry->snapshot_position, position, memory_order_release);
}

static inline uint64_t ap_snapshot_position(const ap_entry *entry) {
    return atomic_load_explicit(&entry->snapshot_position, memory_order_acquire);
}

static inline uint64_t ap_snapshot_sequence(const ap_entry *entry) {
    return atomic_load_explicit(&entry->snapshot_sequence, memory_order_acquire);
}

static inline void ap_set_state(ap_entry *entry, uint32_t state) {
    atomic_store_explicit(&entry->state, state, memory_order_release);
}

static inline uint32_t ap_state(const ap_entry *entry) {
    return atomic_load_explicit(&entry->state, memory_order_acquire);
}

/* The futex word, for system calls. */
static inline const void *ap_wake_word(const ap_header *header) {
    return &header->wake;
}

static inline void ap_wake_all(const ap_header *header) {
    syscall(SYS_futex, &header->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Wakes those who sleep, and those who are about to: the word is no longer what they saw. */
static inline void ap_rouse(ap_header *header) {
    atomic_fetch_add_explicit(&header->wake, 1, memory_order_acq_rel);
    ap_wake_all(header);
}

/* Wakes the readers if any said that it sleeps; 1 if that took a system call. */
static inline int ap_wake_sleepers(ap_header *header, ap_readers *readers) {
    /* Pairs with the fence in ap_lie_down: either we see `waiting`, or that reader sees our commit. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&readers->waiting, memory_order_relaxed))
        return 0;
    atomic_exchange_explicit(&readers->waiting, 0, memory_order_acq_rel);
    ap_rouse(header);
    return 1;
}

static inline int ap_news(const ap_header *header, uint64_t position, uint32_t ended) {
    return ap_committed(header) != position || ap_ended(header) != ended;
}

static inline int64_t ap_now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Spins until there is news or `spin_ns` have passed. */
static inline int ap_spin(const ap_header *header, uint64_t position, uint32_t ended,
                          int64_t spin_ns) {
    const int64_t until = ap_now(CLOCK_MONOTONIC) + spin_ns;
    do {
        for (int i = 0; i < 64; i++) {
            if (ap_news(header, position, ended))
                return 1;
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            __asm__ __volatile__("yield");
#endif
        }
    } while (ap_now(CLOCK_MONOTONIC) < until);
    return 0;
}

/* Says that a reader is about to sleep until the futex word is no longer `*word`; 0 if there is news
 * that it must not sleep through. */
static inline int ap_lie_down(const ap_header *header, ap_readers *readers, ap_slot *slot,
                              uint64_t position, uint32_t ended, uint32_t *word) {
    *word = ap_wake(header);
    if (readers) {
        atomic_store_explicit(&slot->sleeping, 1, memory_order_relaxed);
        atomic_store_explicit(&readers->waiting, 1, memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_seq_cst);
    return !ap_news(header, position, ended);
}

/* Says that it sleeps no longer. */
static inline void ap_get_up(ap_readers *readers, ap_slot *slot) {
    if (readers)
        atomic_store_explicit(&slot->sleeping, 0, memory_order_relaxed);
}

/* Sleeps until there is news, a wake-up, a signal or `timeout_ns` have passed. */
static inline int ap_wait(const ap_header *header, ap_readers *readers, ap_slot *slot,
                          uint64_t position, uint32_t ended, int64_t timeout_ns) {
    uint32_t word;
    if (ap_lie_down(header, readers, slot, position, ended, &word)) {
        struct timespec time = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        syscall(SYS_futex, &header->wake, FUTEX_WAIT, word, &time, NULL, 0);
    }
    ap_get_up(readers, slot);
    return ap_news(header, position, ended);
}

static inline void ap_set_slot(ap_slot *slot, uint64_t epoch, uint64_t sequence) {
    atomic_store_explicit(&slot->epoch, epoch, memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence, memory_order_relaxed);
}

static inline void ap_set_slot_pid(ap_slot *slot, uint32_t pid) {
    atomic_store_explicit(&slot->pid, pid, memory_order_relaxed);
}

#endif
