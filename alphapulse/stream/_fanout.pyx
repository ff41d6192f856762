# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Many clients' queues of shared frames, and the loops over them.

What is due to a client goes out in one ``send``, straight to the socket while its transport holds
nothing back. What waits for a slow client is dropped here too, by the rules of `Outbox`.

Nothing here is safe for use by several threads at a time.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy

from alphapulse.model import Reason
from alphapulse.stream.deflate import Deflater

cdef extern from "<sys/types.h>" nogil:
    ctypedef long ssize_t

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL
    ssize_t socket_send "send"(int fd, const void* data, size_t size, int flags)

cdef enum:
    _WRITE_BYTES = 262144
    _SMALL_ROOM = 16
    _KEPT_ROOM = 256
    _DELTA = 1
    _SNAPSHOT = 2

WRITE_BYTES = _WRITE_BYTES
"""About how much goes out in one write."""

POLICY_VIOLATION = 1008
"""Close code of RFC 6455, section 7.4.1."""

BEHIND = "too far behind"

cdef object _LAPPED = Reason.LAPPED
cdef object _DEFLATER = Deflater()


cdef class Item:
    """A frame, shared by all clients that get it.

    Parameters
    ----------
    frame : a whole WebSocket frame
    kind : what may happen to it while it waits
    view : the book view of a delta or snapshot
    at_ns : monotonic time at which it was made
    lapse : of a delta: what tells a client that it isn't given this; None where nothing has to
    """

    def __init__(
        self, bytes frame not None, int kind, object view, long long at_ns, object lapse=None
    ):
        self.frame = frame
        self.kind = kind
        self.view = view
        self.at_ns = at_ns
        self.lapse = lapse

    cdef bytes _deflate(self):
        """The frame for clients that agreed to compression."""
        if self._deflated is None:
            self._deflated = _DEFLATER(self.frame)
        return self._deflated


cdef class Ready:
    """The clients that have something to send; `messages` counts what was sent to them."""

    def __cinit__(self):
        self._scratch = <char*>PyMem_Malloc(_WRITE_BYTES)
        if self._scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self._count):
            Py_DECREF(<object>self._listed[i])
        PyMem_Free(self._listed)
        PyMem_Free(self._spare)
        PyMem_Free(self._scratch)

    def __len__(self):
        return self._count

    def flush(self, long long now_ns):
        """Give each client its turn, once; those that close in it are returned.

        Clients that become ready meanwhile are so for the next call.
        """
        cdef PyObject** turn = self._listed
        cdef Py_ssize_t room = self._room, count = self._count, i = 0
        cdef Outbox outbox
        cdef list closed = []
        self._listed, self._room, self._count = self._spare, self._spare_room, 0
        self._spare, self._spare_room = NULL, 0
        try:
            while i < count:
                outbox = <Outbox>turn[i]
                i += 1
                Py_DECREF(outbox)
                outbox._turn(now_ns)
                if outbox.closed:
                    closed.append(outbox)
        finally:
            while i < count:
                outbox = <Outbox>turn[i]
                i += 1
                Py_DECREF(outbox)
                self._add(outbox)
            if self._spare == NULL:
                self._spare, self._spare_room = turn, room
            else:
                PyMem_Free(turn)
        return closed

    cdef int _add(self, Outbox outbox) except -1:
        cdef PyObject** larger
        cdef Py_ssize_t room
        if self._count == self._room:
            room = max(2 * self._room, 64)
            larger = <PyObject**>PyMem_Realloc(self._listed, room * sizeof(PyObject*))
            if larger == NULL:
                raise MemoryError
            self._listed, self._room = larger, room
        Py_INCREF(outbox)
        self._listed[self._count] = <PyObject*>outbox
        self._count += 1
        return 0


cdef class Outbox:
    """What waits for one client, and what becomes of it when the client is slow.

    Parameters
    ----------
    sink : the client's connection
    queue_bytes : events and deltas that may wait; a snapshot, of which one waits at a time, comes
        on top
    behind_ns : how long anything may wait; deltas are dropped after half of it
    ready : this client adds itself when it has something to send
    now_ns : monotonic time
    compressed : whether messages are to be compressed
    """

    def __init__(
        self, sink, Py_ssize_t queue_bytes, long long behind_ns, Ready ready not None,
        long long now_ns, bint compressed=False,
    ):
        self.sink = sink
        self._compressed = compressed
        self._limit = queue_bytes
        self._behind_ns = behind_ns
        self._ready = ready
        self._moved_ns = now_ns
        self._fd = -1

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self._count):
            Py_DECREF(<object>self._items[(self._first + i) & (self._room - 1)])
        PyMem_Free(self._items)
        PyMem_Free(self.seats.table)

    @property
    def waiting_bytes(self):
        """Bytes of events and deltas that wait."""
        return self._bytes

    def use_socket(self, int fd, transport):
        """Write straight to a socket; the sink only gets what the socket doesn't take.

        Parameters
        ----------
        fd : of a stream socket, open until the client is closed or dropped
        transport : the WebSocket's, which the sink writes to; nothing is sent behind its close
            frame
        """
        self._fd = fd
        self._transport = transport

    def send(self, Item item not None):
        """Queue a frame; it goes out with the next flush."""
        self._push(item)

    def send_delta(self, Item item not None, view):
        """Queue a delta, unless a snapshot to come includes it."""
        if self._owed is None or view not in self._owed:
            self._push(item)

    def send_state(self, Item item not None, view, bint live):
        """Queue a book's new state; that it is live waits for the snapshot that makes it so."""
        if view is not None:
            if live and self._owed is not None and view in self._owed:
                self._hold(view, item)
                return
            if not live:
                self.forget(view)
        self._push(item)

    def owe(self, view, reason):
        """Send a snapshot of a live book as soon as the connection takes it."""
        if not self.closed:
            if self._owed is None:
                self._owed = {}
            self._owed.setdefault(view, reason)
            self._list()

    def present(self, list items not None, view, reason):
        """Queue a book's snapshot if nothing waits for the connection, or owe it one."""
        cdef Item item
        if self.closed or (self._owed is not None and view in self._owed):
            return
        if self.sink.paused:
            self.owe(view, reason)
            if view.lapse is not None:
                self._push(view.lapse.stale())
                self._hold(view, view.lapse.live())
            return
        for item in items:
            self._push(item)

    def forget(self, view):
        """Owe no snapshot of a book that isn't live any more or not wanted.

        Returns
        -------
        bool
            whether the client would have been told with it that the book is live
        """
        held = None
        if self._owed is not None:
            self._owed.pop(view, None)
            if not self._owed:
                self._owed = None
        if self._held is not None:
            held = self._held.pop(view, None)
            if not self._held:
                self._held = None
        return held is not None

    def flush(self, long long now_ns):
        """Hand over to the connection as much as it takes.

        Of snapshots that are owed, which take time to make, about one write's worth: the client
        then is ready for another flush, and others have their turn in between.
        """
        self._turn(now_ns)

    def resume(self, long long now_ns):
        """The connection takes data again; what waits goes out with the next flush."""
        self._moved_ns = now_ns
        self._list()

    def check(self, long long now_ns):
        """Conflate or close the client if it has been behind for too long."""
        cdef long long age_ns
        if self.closed or not self.sink.paused:
            return
        age_ns = now_ns - self._oldest_ns(now_ns)
        if self._deltas and age_ns > self._behind_ns // 2:
            self._conflate()
            age_ns = now_ns - self._oldest_ns(now_ns)
        if max(age_ns, now_ns - self._moved_ns) > self._behind_ns:
            self.close(POLICY_VIOLATION, BEHIND)

    def take_conflations(self):
        """Books whose pending deltas were replaced by a snapshot since the last call."""
        count = self._conflations
        self._conflations = 0
        return count

    def close(self, int code, str reason not None):
        """Drop what waits and end the connection."""
        if not self.closed:
            self.drop()
            self.sink.close(code, reason)

    def drop(self):
        """Drop what waits; nothing is sent any more."""
        self.closed = True
        self._fd = -1
        self._transport = None
        self._clear()
        self._owed = None
        self._held = None

    cdef int _push(self, Item item) except -1:
        cdef Py_ssize_t size
        if self.closed or self._bytes > self._limit:
            return 0
        self._append(item)
        if self._bytes > self._limit:
            self._relieve(item.at_ns)
        if not self._is_listed:
            self._list()
        return 0

    cdef int _append(self, Item item) except -1:
        cdef PyObject** larger
        cdef Py_ssize_t room, before
        if self._count == self._room:
            room = max(2 * self._room, _SMALL_ROOM)
            larger = <PyObject**>PyMem_Malloc(room * sizeof(PyObject*))
            if larger == NULL:
                raise MemoryError
            before = self._room - self._first
            if self._count:
                memcpy(larger, self._items + self._first, before * sizeof(PyObject*))
                memcpy(larger + before, self._items, self._first * sizeof(PyObject*))
            PyMem_Free(self._items)
            self._items, self._room, self._first = larger, room, 0
        Py_INCREF(item)
        self._items[(self._first + self._count) & (self._room - 1)] = <PyObject*>item
        self._count += 1
        if item.kind != _SNAPSHOT:
            self._bytes += PyBytes_GET_SIZE(item.frame)
            if item.kind == _DELTA:
                self._deltas += 1
        return 0

    cdef bytes _frame(self, Py_ssize_t place):
        """A waiting frame as the client gets it, by its place in the queue."""
        cdef Item item = <Item>self._items[(self._first + place) & (self._room - 1)]
        return item._deflate() if self._compressed else item.frame

    cdef int _pop(self) except -1:
        """Forget the first of the queue."""
        cdef Item item = <Item>self._items[self._first]
        self._first = (self._first + 1) & (self._room - 1)
        self._count -= 1
        if item.kind != _SNAPSHOT:
            self._bytes -= PyBytes_GET_SIZE(item.frame)
            if item.kind == _DELTA:
                self._deltas -= 1
        Py_DECREF(item)
        return 0

    cdef int _clear(self) except -1:
        while self._count:
            self._pop()
        PyMem_Free(self._items)
        self._items, self._room, self._first = NULL, 0, 0
        return 0

    cdef int _list(self) except -1:
        if not self._is_listed:
            self._ready._add(self)
            self._is_listed = True
        return 0

    cdef int _turn(self, long long now_ns) except -1:
        self._is_listed = False
        if self._bytes > self._limit:
            self.close(POLICY_VIOLATION, BEHIND)
        return self._drain(now_ns)

    cdef int _drain(self, long long now_ns) except -1:
        self._paid_bytes = 0
        while not self.closed and (self._count or self._owed is not None) and not self.sink.paused:
            if self._count == 0 and not self._pay():
                break
            if self._fd >= 0:
                self._transmit(now_ns)
            else:
                self._write(now_ns)
        if self._owed is not None and not self.sink.paused:
            self._list()
        if self._count == 0 and self._room > _KEPT_ROOM:
            self._clear()
        return 0

    cdef int _write(self, long long now_ns) except -1:
        """Hand one write's worth to the sink."""
        cdef Py_ssize_t size = 0
        cdef list frames = []
        cdef bytes frame
        while size < _WRITE_BYTES and (self._count or self._pay()):
            frame = self._frame(0)
            frames.append(frame)
            size += PyBytes_GET_SIZE(frame)
            self._pop()
        self._moved_ns = now_ns
        self._ready.messages += len(frames)
        self.sink.write(frames[0] if len(frames) == 1 else b"".join(frames))
        return 0

    cdef int _transmit(self, long long now_ns) except -1:
        """Send one write's worth; the sink gets the rest of the frame that was begun last.

        Frames that weren't begun stay in the queue, where they can be conflated.
        """
        cdef char* data = self._ready._scratch
        cdef Py_ssize_t used = 0, count = 0, size
        cdef ssize_t sent
        cdef bytes frame
        if self._transport.is_close_frame_sent:
            self.drop()
            return 0
        while count < self._count or self._pay():
            frame = self._frame(count)
            size = PyBytes_GET_SIZE(frame)
            if used + size > _WRITE_BYTES:
                if used == 0:
                    data = PyBytes_AS_STRING(frame)
                    used = size
                break
            memcpy(data + used, PyBytes_AS_STRING(frame), size)
            used += size
            count += 1
        sent = socket_send(self._fd, data, used, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent > 0:
            self._moved_ns = now_ns
        used -= max(sent, 0)
        while self._count:
            frame = self._frame(0)
            size = PyBytes_GET_SIZE(frame)
            if sent < size:
                break
            sent -= size
            self._pop()
            self._ready.messages += 1
        if used:
            # The sink's transport tells when there is room again, or that the socket is dead.
            self._pop()
            self._ready.messages += 1
            self.sink.write(frame[sent:] if sent > 0 else frame)
        return 0

    cdef int _relieve(self, long long now_ns) except -1:
        """Make room; where deltas aren't what fills the queue, the next flush closes the client."""
        if not self.sink.paused:
            self._drain(now_ns)
        if self._bytes > self._limit:
            self._conflate()
        return 0

    cdef bint _pay(self) except -1:
        """Queue the snapshot that has been owed for longest; False if none is, or for this time."""
        cdef Item item
        while self._owed is not None and self._paid_bytes < _WRITE_BYTES:
            view, reason = next(iter(self._owed.items()))
            live = None if self._held is None else self._held.get(view)
            self.forget(view)
            if not view.serves(self):
                continue
            for item in view.snapshot(reason):
                self._paid_bytes += PyBytes_GET_SIZE(item.frame)
                self._append(item)
            if live is not None:
                self._append(<Item?>live)
            return True
        return False

    cdef int _hold(self, view, Item item) except -1:
        """Keep back that a book is live until the snapshot that is owed."""
        if self._held is None:
            self._held = {}
        self._held[view] = item
        return 0

    cdef int _conflate(self) except -1:
        """Drop the pending deltas and owe their books a snapshot each.

        In the place of the first of a book, and of the first after a snapshot, it is told that the
        book is stale, if it has to be: other events that wait may bear later sequences.
        """
        cdef Py_ssize_t i, kept = 0, mask = self._room - 1
        cdef Item item, told
        cdef set stale = set()
        for i in range(self._count):
            item = told = <Item>self._items[(self._first + i) & mask]
            if item.kind == _DELTA:
                told = None
                self._bytes -= PyBytes_GET_SIZE(item.frame)
                self._owe_lapsed(item.view)
                if item.lapse is not None and item.view not in stale:
                    stale.add(item.view)
                    told = <Item?>item.lapse.stale()
                    self._bytes += PyBytes_GET_SIZE(told.frame)
                    Py_INCREF(told)
                Py_DECREF(item)
            elif item.kind == _SNAPSHOT:
                stale.discard(item.view)
            if told is not None:
                self._items[(self._first + kept) & mask] = <PyObject*>told
                kept += 1
        self._count = kept
        self._deltas = 0
        return 0

    cdef int _owe_lapsed(self, view) except -1:
        """Owe a snapshot in the place of a book's deltas."""
        if not view.serves(self):
            return 0
        if self._owed is None:
            self._owed = {}
        if view not in self._owed:
            self._owed[view] = _LAPPED
            self._conflations += 1
        if view.lapse is not None and (self._held is None or view not in self._held):
            self._hold(view, view.lapse.live())
        return 0

    cdef long long _oldest_ns(self, long long now_ns) except? -1:
        """When the oldest of the waiting events and deltas was made."""
        cdef Py_ssize_t i
        cdef Item item
        for i in range(self._count):
            item = <Item>self._items[(self._first + i) & (self._room - 1)]
            if item.kind != _SNAPSHOT:
                return item.at_ns
        return now_ns


def check_all(list clients not None, long long now_ns):
    """Check each client; those that are closed, and how many books were conflated since the last.

    Parameters
    ----------
    clients : all of them
    now_ns : monotonic time
    """
    cdef Outbox outbox
    cdef list closed = []
    cdef Py_ssize_t conflations = 0
    for outbox in clients:
        outbox.check(now_ns)
        conflations += outbox._conflations
        outbox._conflations = 0
        if outbox.closed:
            closed.append(outbox)
    return closed, conflations
