from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from alphapulse._core.layouts cimport FrameLayout
from alphapulse._core.producer cimport Producer
from alphapulse._core.scan cimport Span
from alphapulse._core.tracker cimport TrackedBook


cdef struct FoundTrade:
    # The symbol's TradeState, borrowed.
    PyObject* state
    Span price_text
    Span size_text
    int64_t price
    int64_t size
    int64_t id
    int64_t first_match
    int64_t last_match
    int64_t exchange_ns
    int side
    # Whether it is of the other kind of ids, and so not to be published.
    bint dropped


cdef class TradeState:
    cdef TrackedBook tracked
    cdef public int kind
    cdef public int64_t last_id
    cdef public int64_t last_ns
    cdef public int64_t last_exchange_ns
    cdef public int64_t promised_id
    cdef public bint resumed
    cdef public bint bridged
    cdef public bint heard
    cdef public unsigned long long published
    cdef bint accepts(self, FrameLayout layout, FoundTrade* trade, int64_t last_id,
                      bint bridged) noexcept
    cdef int publish(self, FrameLayout layout, const FoundTrade* trade,
                     int64_t received_ns, Producer producer) except -1
    cdef bint promise(self, int64_t last_trade_id) noexcept
