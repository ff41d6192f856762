from libc.stdint cimport int64_t, uint16_t, uint64_t

from alphapulse._core.book cimport Book
from alphapulse._core.encoder cimport Encoder
from alphapulse._core.levels cimport LevelStage
from alphapulse._core.names cimport NameTable


cdef class TrackedBook:
    cdef public Book book
    cdef public uint64_t version
    cdef public bint ready
    cdef public bint live
    cdef public int64_t last_id
    cdef public int64_t exchange_ns
    cdef readonly LevelStage stage
    cdef readonly Encoder encoder
    cdef uint16_t instrument_id
    cdef int price_exponent
    cdef int size_exponent
    cdef bint checked
    cdef int price_shift
    cdef int size_shift


cdef class ConnectionState:
    cdef public int64_t last_message
    cdef NameTable renamed
