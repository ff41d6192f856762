# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The part of a reader that is at work while records keep coming."""

from libc.stdint cimport int64_t

from alphapulse._core.consumer cimport Consumer
from alphapulse._core.records cimport Records
from alphapulse._core.ring cimport (
    CLOCK_MONOTONIC,
    ap_ended,
    ap_header,
    ap_instrument_count,
    ap_now,
    ap_spin,
)

cdef enum:
    OPEN = 0

# The longest spin before a look at what else there is to do.
cdef int64_t SPIN_NS = 100_000_000


cdef class Cursor:
    """Reads and waits as long as nothing but records is to be expected.

    What is rare is a subclass's: ``_read_on(limit, found)`` is called for all that isn't just a
    batch of records, and every now and then where there is nothing, with what `Consumer.next` gave
    if it was asked; ``_wait_on(timeout, spun_ns)`` when nothing came within the first spin, which
    took `spun_ns`.
    """

    @classmethod
    def __class_getitem__(cls, item):
        return cls

    def _follow(self, Consumer consumer, nothing, int64_t spin_ns):
        """Read from this consumer; from none if something else comes first.

        Parameters
        ----------
        nothing : what `read` gives where there is nothing
        spin_ns : how long `wait` polls
        """
        self.consumer = consumer
        self.nothing = nothing
        self.spin_ns = min(spin_ns, SPIN_NS)

    def read(self, Py_ssize_t limit=1024):
        """What comes next: at most `limit` records, or an `Overrun`; empty if there is nothing.

        Never waits.

        Raises
        ------
        RingCorrupt
            the segment contradicts itself
        RingError
            the reader is closed
        """
        cdef Consumer consumer = self.consumer
        cdef const ap_header *header
        found = None
        if consumer is not None:
            header = consumer.segment.ring.header
            found = consumer.advance(limit)
            if isinstance(found, Records):
                if ap_instrument_count(header) == consumer.known:
                    return found
            elif found is None and ap_ended(header) == OPEN and \
                    ap_now(CLOCK_MONOTONIC) < self.look_at_ns:
                return self.nothing
        return self._read_on(limit, found)

    def wait(self, timeout=None):
        """Wait until `read` would give something; whether it would.

        Parameters
        ----------
        timeout : seconds; None for no limit
        """
        cdef Consumer consumer = self.consumer
        cdef const ap_header *header
        cdef int64_t spin_ns = 0
        if consumer is not None:
            header = consumer.segment.ring.header
            if consumer.has_more():
                return True
            if self.spin_ns > 0 and ap_ended(header) == OPEN:
                spin_ns = self.spin_ns
                if timeout is not None:
                    spin_ns = max(min(spin_ns, <int64_t>(<double>timeout * 1e9)), 0)
                with nogil:
                    ap_spin(header, consumer.position, OPEN, spin_ns)
                if consumer.has_more():
                    return True
        return self._wait_on(timeout, spin_ns)
