# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""What is known of a symbol's trades, shared by Python and the native path."""

from libc.stdint cimport uint64_t

from alphapulse._core.encoder cimport Encoder
from alphapulse._core.layouts cimport FIRST_MATCH
from alphapulse._core.scan cimport OK, read_decimal
from alphapulse._core.wire cimport HEADER_BYTES, NO_TIME, TRADE, TRADE_BODY, put_trade

LARGEST_JUMP = 1_000_000_000
MOST_MATCHES = 10_000_000

cdef enum:
    JUMP_LIMIT = 1_000_000_000
    MATCH_LIMIT = 10_000_000


cdef bint read_amount(const Span* text, int exponent, int64_t* value) noexcept nogil:
    """A price or a size of a trade: above 0, and no more digits than the instrument has."""
    cdef int needed = 0
    return read_decimal(text.start, text.length, exponent, value, &needed) == OK and value[0] > 0


cdef class TradeState:
    def __init__(self, TrackedBook tracked not None):
        self.tracked = tracked
        self.kind = self.last_id = self.promised_id = -1
        self.last_ns = self.last_exchange_ns = NO_TIME
        self.bridged = True

    cdef bint accepts(self, FrameLayout layout, FoundTrade* trade, int64_t last_id,
                      bint bridged) noexcept:
        """Whether a trade may be taken without further questions.

        Parameters
        ----------
        last_id, bridged : what they will be once the frame's earlier trades have been taken
        """
        if layout.has(FIRST_MATCH) and not (
            0 <= trade.last_match - trade.first_match < MATCH_LIMIT
        ):
            return False
        trade.dropped = self.kind >= 0 and self.kind != layout.id_kind
        if trade.dropped:
            return True
        if last_id >= 0:
            if trade.id <= last_id or trade.id > last_id + JUMP_LIMIT:
                return False
            if trade.id > last_id + 1 and (layout.contiguous or not bridged):
                return False
        return (
            read_amount(&trade.price_text, self.tracked.price_exponent, &trade.price)
            and read_amount(&trade.size_text, self.tracked.size_exponent, &trade.size)
        )

    cdef int publish(self, FrameLayout layout, const FoundTrade* trade, int64_t received_ns,
                     Producer producer) except -1:
        """Write the record of an accepted trade."""
        cdef Encoder encoder = self.tracked.encoder
        self.kind = layout.id_kind
        self.last_id = trade.id
        self.last_ns = received_ns
        if trade.exchange_ns > self.last_exchange_ns:
            self.last_exchange_ns = trade.exchange_ns
        self.resumed = False
        self.bridged = True
        self.published += 1
        encoder.begin(
            TRADE, 0, self.tracked.instrument_id, trade.exchange_ns, received_ns, TRADE_BODY
        )
        encoder.finish(put_trade(
            encoder.data + HEADER_BYTES, trade.price, trade.size, <uint64_t>trade.id,
            1 + <unsigned int>(trade.last_match - trade.first_match), trade.side, layout.id_kind,
        ))
        producer.put(encoder.data, <uint64_t>encoder.size, producer.now())
        return 0

    cdef bint promise(self, int64_t last_trade_id) noexcept:
        """Note the last trade's id as a heartbeat tells it; False where trades are missing."""
        if self.last_id >= 0:
            if last_trade_id > self.last_id + JUMP_LIMIT or self.promised_id > self.last_id:
                return False
            self.promised_id = last_trade_id
        self.heard = True
        return True
