# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Clients that get the same frames: a frame is delivered by one loop over an array."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from alphapulse.stream._fanout cimport Item, Outbox
from alphapulse.stream._seats cimport Seat, find_seat, leave_seat, take_seat

cdef enum:
    DELTA = 1


cdef class Group:
    """Clients that get the same frames."""

    def __dealloc__(self):
        cdef PyObject* group = <PyObject*>self
        cdef Outbox outbox
        while self._count:
            self._count -= 1
            outbox = <Outbox>self._members[self._count]
            leave_seat(&outbox.seats, find_seat(&outbox.seats, group))
            Py_DECREF(outbox)
        PyMem_Free(self._members)

    def __len__(self):
        return self._count

    def __contains__(self, Outbox outbox not None):
        return find_seat(&outbox.seats, <PyObject*>self) != NULL

    def __iter__(self):
        cdef Py_ssize_t i
        return iter([<object>self._members[i] for i in range(self._count)])

    def add(self, Outbox outbox not None):
        """Make a client a member, if it isn't one."""
        cdef PyObject* group = <PyObject*>self
        if find_seat(&outbox.seats, group) != NULL:
            return
        if self._count == self._room:
            self._resize(max(2 * self._room, 4))
        take_seat(&outbox.seats, group, self._count)
        Py_INCREF(outbox)
        self._members[self._count] = <PyObject*>outbox
        self._count += 1

    def discard(self, Outbox outbox not None):
        """Take a client out, if it is a member; the order of the others may change."""
        cdef PyObject* group = <PyObject*>self
        cdef Seat* seat = find_seat(&outbox.seats, group)
        cdef Py_ssize_t place
        cdef Outbox last
        if seat == NULL:
            return
        place = seat.place
        leave_seat(&outbox.seats, seat)
        self._count -= 1
        if place != self._count:
            last = <Outbox>self._members[self._count]
            self._members[place] = <PyObject*>last
            find_seat(&last.seats, group).place = place
        Py_DECREF(outbox)
        if self._room > 8 and 4 * self._count < self._room:
            self._resize(self._room // 2)

    def deliver(self, Item item not None):
        """Queue a frame for each member; a delta not for those whom a snapshot is owed."""
        cdef Py_ssize_t i = self._count
        cdef bint delta = item.kind == DELTA
        cdef Outbox outbox
        while i > 0:
            i -= 1
            outbox = <Outbox>self._members[i]
            if delta and outbox._owed is not None and item.view in outbox._owed:
                continue
            outbox._push(item)

    def owe(self, view, reason):
        """Owe each member a snapshot."""
        cdef Py_ssize_t i
        for i in range(self._count):
            (<Outbox>self._members[i]).owe(view, reason)

    def present(self, list items not None, view, reason):
        """Send each member a book's snapshot, as `Outbox.present` does."""
        cdef Py_ssize_t i
        for i in range(self._count):
            (<Outbox>self._members[i]).present(items, view, reason)

    def tell(self, Item item not None, view, bint live):
        """Queue a book's new state for each member of its view, as `Outbox.send_state` does."""
        cdef Py_ssize_t i = self._count
        while i > 0:
            i -= 1
            (<Outbox>self._members[i]).send_state(item, view, live)

    cdef int _resize(self, Py_ssize_t room) except -1:
        cdef PyObject** moved = <PyObject**>PyMem_Realloc(self._members, room * sizeof(PyObject*))
        if moved == NULL:
            raise MemoryError
        self._members, self._room = moved, room
        return 0
