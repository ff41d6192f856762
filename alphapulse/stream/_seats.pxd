"""Where in its groups a client is: a hash table by group, with linear probing.

It makes leaving a group take the same time however many clients it has, at 16 bytes a place.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t
from libc.string cimport memset


cdef struct Seat:
    PyObject* group  # not owned: a group takes its members' seats along when it ends
    Py_ssize_t place  # in the group's array


cdef struct Seats:
    Seat* table  # freed by whoever has it
    Py_ssize_t used, room


cdef inline Py_ssize_t seat_hash(PyObject* group) noexcept:
    return <Py_ssize_t>((<uintptr_t>group >> 4) * <uintptr_t>0x9E3779B97F4A7C15 >> 20)


cdef inline Seat* find_seat(Seats* seats, PyObject* group) noexcept:
    """A group's entry, or NULL."""
    cdef Py_ssize_t mask = seats.room - 1, at
    if seats.room == 0:
        return NULL
    at = seat_hash(group) & mask
    while seats.table[at].group != NULL:
        if seats.table[at].group == group:
            return &seats.table[at]
        at = (at + 1) & mask
    return NULL


cdef inline void put_seat(Seats* seats, Seat seat) noexcept:
    """Enter what isn't there, where there is room."""
    cdef Py_ssize_t mask = seats.room - 1
    cdef Py_ssize_t at = seat_hash(seat.group) & mask
    while seats.table[at].group != NULL:
        at = (at + 1) & mask
    seats.table[at] = seat


cdef inline int take_seat(Seats* seats, PyObject* group, Py_ssize_t place) except -1:
    """Remember a place in a group where there was none."""
    cdef Seat* before = seats.table
    cdef Seat* larger
    cdef Py_ssize_t room = seats.room, i
    if 4 * (seats.used + 1) > 3 * room:
        larger = <Seat*>PyMem_Malloc(max(2 * room, 8) * sizeof(Seat))
        if larger == NULL:
            raise MemoryError
        seats.room = max(2 * room, 8)
        memset(larger, 0, seats.room * sizeof(Seat))
        seats.table = larger
        for i in range(room):
            if before[i].group != NULL:
                put_seat(seats, before[i])
        PyMem_Free(before)
    put_seat(seats, Seat(group, place))
    seats.used += 1
    return 0


cdef inline void leave_seat(Seats* seats, Seat* seat) noexcept:
    """Forget an entry; those that it has pushed on move up."""
    cdef Py_ssize_t mask = seats.room - 1, hole = seat - seats.table, at = hole, wanted
    while True:
        at = (at + 1) & mask
        if seats.table[at].group == NULL:
            break
        wanted = seat_hash(seats.table[at].group) & mask
        if ((at - wanted) & mask) >= ((at - hole) & mask):
            seats.table[hole] = seats.table[at]
            hole = at
    seats.table[hole].group = NULL
    seats.used -= 1
