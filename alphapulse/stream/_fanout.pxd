"""Declarations of the fan-out's native core."""

from cpython.object cimport PyObject

from alphapulse.stream._seats cimport Seats


cdef class Item:
    cdef readonly bytes frame
    cdef readonly int kind
    cdef readonly object view
    cdef readonly long long at_ns
    cdef readonly object lapse
    cdef bytes _deflated  # made when the first client wants it
    cdef bytes _deflate(self)


cdef class Ready:
    cdef PyObject** _listed  # owned references
    cdef PyObject** _spare
    cdef Py_ssize_t _count, _room, _spare_room
    cdef char* _scratch
    cdef readonly long long messages

    cdef int _add(self, Outbox outbox) except -1


cdef class Outbox:
    cdef readonly object sink
    cdef object _transport
    cdef public bint closed
    cdef object __weakref__
    cdef Ready _ready
    cdef PyObject** _items  # circular, owned references
    cdef Py_ssize_t _first, _count, _room
    cdef Py_ssize_t _bytes, _limit, _paid_bytes
    cdef Py_ssize_t _deltas
    cdef long long _behind_ns, _moved_ns
    cdef int _fd, _conflations
    cdef bint _is_listed, _compressed
    cdef dict _owed, _held  # None while empty
    cdef Seats seats  # its places in groups

    cdef int _push(self, Item item) except -1
    cdef int _append(self, Item item) except -1
    cdef bytes _frame(self, Py_ssize_t place)
    cdef int _pop(self) except -1
    cdef int _clear(self) except -1
    cdef int _list(self) except -1
    cdef int _drain(self, long long now_ns) except -1
    cdef int _write(self, long long now_ns) except -1
    cdef int _transmit(self, long long now_ns) except -1
    cdef int _relieve(self, long long now_ns) except -1
    cdef int _hold(self, view, Item item) except -1
    cdef int _conflate(self) except -1
    cdef int _owe_lapsed(self, view) except -1
    cdef int _turn(self, long long now_ns) except -1
    cdef bint _pay(self) except -1
    cdef long long _oldest_ns(self, long long now_ns) except? -1
