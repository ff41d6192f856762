from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from alphapulse._core.fields cimport Minute
from alphapulse._core.layouts cimport FrameLayout
from alphapulse._core.names cimport NameTable
from alphapulse._core.producer cimport Producer
from alphapulse._core.scan cimport Scan
from alphapulse._core.tracker cimport TrackedBook
from alphapulse._core.trades cimport FoundTrade, TradeState

cdef enum:
    MAX_LAYOUTS = 6
    # A frame with more of them isn't an everyday one.
    MAX_TRADES = 32


cdef struct Found:
    # The connection's ConnectionState, borrowed, or NULL.
    PyObject* connection
    int64_t exchange_ns
    int64_t checksum
    int64_t first_id
    int64_t last_id
    int64_t message_id
    int64_t last_trade_id
    int trades


cdef class Followed:
    cdef TrackedBook book
    cdef TradeState trades


cdef class FastPath:
    cdef readonly tuple layouts
    cdef PyObject* each_layout[MAX_LAYOUTS]
    cdef int layout_count
    cdef Producer producer
    # What goes by each of the venue's symbols: Followed.
    cdef NameTable symbols
    # Of the latest frame, as far as it named one.
    cdef Followed followed
    cdef FoundTrade[MAX_TRADES] trades
    cdef Minute minute
    cdef public bint timed
    cdef readonly int64_t read_ns
    cdef readonly int64_t exchange_ns
    cdef readonly uint64_t frames
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t records
    cdef readonly uint64_t bytes_out
    cdef readonly uint64_t checksums_ok
    cdef int take_bytes(self, const unsigned char* at, Py_ssize_t length, int64_t received_ns,
                        PyObject* connection) except -1
    cdef bint read_object(self, Scan* scan, FrameLayout layout, int depth, Found* found) noexcept
    cdef bint read_field(self, Scan* scan, FrameLayout layout, int role, int depth,
                         Found* found) noexcept
    cdef bint read_trade_field(self, Scan* scan, FrameLayout layout, int role,
                               Found* found) noexcept
    cdef bint read_list(self, Scan* scan, FrameLayout layout, int depth, bint several,
                        Found* found) noexcept
    cdef bint read_levels(self, Scan* scan, FrameLayout layout, int part) noexcept
    cdef bint read_symbol(self, Scan* scan, FrameLayout layout, Found* found) noexcept
    cdef void begin_trade(self, Found* found) noexcept
    cdef bint end_trade(self, Found* found) noexcept
    cdef int apply(self, FrameLayout layout, Found* found, int64_t received_ns) except -1
    cdef int apply_update(self, FrameLayout layout, const Found* found,
                          int64_t received_ns) except -1
    cdef int apply_trades(self, FrameLayout layout, const Found* found,
                          int64_t received_ns) except -1
    cdef bint accept_trades(self, FrameLayout layout, const Found* found) noexcept
    cdef int count_written(self, uint64_t before, uint64_t records) except -1
