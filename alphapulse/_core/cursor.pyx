# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The part of a reader that is at work while records keep coming."""

from libc.stdint cimport int64_t, uint32_t

from alphapulse._core.consumer cimport Consumer
from alphapulse._core.records cimport Records
from alphapulse._core.ring cimport ap_ended, ap_header, ap_instrument_count, ap_spin

cdef enum:
    OPEN = 0

# The longest spin before a look at what else there is to do.
cdef int64_t SPIN_NS = 100_000_000


cdef class Cursor:
    """Reads and waits as long as nothing but records is to be expected.

    What is rare is a subclass's: ``_read_on(limit, found)`` is called for all that isn't just a
    batch of records, with what `Consumer.next` gave if it was asked, and ``_wait_on(timeout,
    spun_ns)`` when nothing came within the first spin, which took `spun_ns`.
    """

    @classmethod
    def __class_getitem__(cls, item):
        return cls

    def _follow(self, Consumer consumer, int64_t spin_ns):
        """Read from this consumer; from none if something else comes first."""
        self.consumer = consumer
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
        found = None
        if consumer is not None:
            found = consumer.advance(limit)
            if isinstance(found, Records) and \
                    ap_instrument_count(consumer.segment.ring.header) == consumer.known:
                return found
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
            if consumer.has_more():
                return True
            header = consumer.segment.ring.header
            if self.spin_ns > 0 and ap_ended(header) == OPEN:
                spin_ns = self.spin_ns
                if timeout is not None:
                    spin_ns = max(min(spin_ns, <int64_t>(<double>timeout * 1e9)), 0)
                with nogil:
                    ap_spin(header, consumer.position, OPEN, spin_ns)
                if consumer.has_more():
                    return True
        return self._wait_on(timeout, spin_ns)
