# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Walks along the headers of a ring's records: for the end, and for a place to begin reading."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from alphapulse._core.ring cimport (
    AP_MAX_SEQUENCE,
    AP_NO_POSITION,
    AP_RECORD_HEADER,
    AP_SHARE,
    ap_block,
    ap_padded,
    ap_ring,
    ap_torn,
    ap_word,
)
from alphapulse._core.wire cimport DELTA, GAP, HEARTBEAT, SNAPSHOT, TRADE

cdef enum:
    # How often a walk is begun anew because the writer overtook it.
    ATTEMPTS = 16

cdef enum Found:
    FOUND
    TORN
    CORRUPT


cdef struct Trace:
    # Where the walk ended, and where the last record before that place begins.
    uint64_t position
    uint64_t last
    # Sequences of the first record and of the one that follows the last.
    uint64_t first
    uint64_t after
    uint64_t dropped


cdef inline bint dropped(uint64_t word, uint8_t *synced, bint history) noexcept nogil:
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


cdef inline int follow(const ap_ring *ring, uint64_t start, uint64_t stop, uint64_t wanted,
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
    out.first = ap_word(ring, start + 8) & AP_MAX_SEQUENCE
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
    return ap_word(ring, position + 8) & AP_MAX_SEQUENCE


cdef inline uint64_t block_start(const ap_ring *ring, uint64_t block,
                                 uint64_t committed) noexcept nogil:
    """Position of the first record that starts in the block, `AP_NO_POSITION` if there is none."""
    cdef uint64_t position = ap_block(ring, block)
    if position // ring.at.block_bytes != block or position >= committed or position & 7:
        return AP_NO_POSITION
    return position


cdef inline int find_tail(const ap_ring *ring, uint64_t committed, Trace *out) noexcept nogil:
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


cdef inline uint64_t find_from(const ap_ring *ring, uint64_t position,
                               uint64_t committed) noexcept nogil:
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
