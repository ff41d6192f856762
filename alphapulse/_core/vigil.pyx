# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Waits for a ring in a thread that doesn't need the interpreter, and tells by an eventfd.

When it has told of news, the thread goes on sleeping on the ring, and whoever arms it again before
more comes needn't wake it for that. More that comes sooner sends it to rest until it is armed.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from alphapulse._core.consumer cimport Consumer
from alphapulse._core.eventfd cimport eventfd_read, eventfd_t, eventfd_write
from alphapulse._core.ring cimport (
    ap_committed,
    ap_header,
    ap_news,
    ap_readers,
    ap_spin,
    ap_wait,
    ap_wake_all,
)

cdef extern from *:
    """
    #include <linux/futex.h>
    #include <stdatomic.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    enum { VIGIL_IDLE, VIGIL_WATCHING, VIGIL_ARMED, VIGIL_LEAVING, VIGIL_OVER };

    static void vigil_set(uint32_t *state, uint32_t value) {
        atomic_store_explicit((_Atomic uint32_t *)state, value, memory_order_release);
        syscall(SYS_futex, state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }

    static uint32_t vigil_get(uint32_t *state) {
        return atomic_load_explicit((_Atomic uint32_t *)state, memory_order_acquire);
    }

    /* Sleeps while idle; what it was set to. */
    static uint32_t vigil_next(uint32_t *state) {
        uint32_t now;
        while ((now = vigil_get(state)) == VIGIL_IDLE)
            syscall(SYS_futex, state, FUTEX_WAIT_PRIVATE, VIGIL_IDLE, NULL, NULL, 0);
        return now;
    }

    /* From one state to another, if it is in that; whether it was. */
    static int vigil_move(uint32_t *state, uint32_t from, uint32_t to) {
        return atomic_compare_exchange_strong_explicit((_Atomic uint32_t *)state, &from, to,
                                                       memory_order_acq_rel, memory_order_relaxed);
    }
    """
    enum:
        VIGIL_IDLE, VIGIL_WATCHING, VIGIL_ARMED, VIGIL_LEAVING, VIGIL_OVER
    void vigil_set(uint32_t *state, uint32_t value) nogil
    uint32_t vigil_get(uint32_t *state) nogil
    uint32_t vigil_next(uint32_t *state) nogil
    bint vigil_move(uint32_t *state, uint32_t origin, uint32_t to) nogil


cdef class Vigil:
    """One thread's wait for one ring at a time.

    Parameters
    ----------
    event : eventfd, written to whenever a wait is over
    """

    def __init__(self, int event):
        self.event = event
        self.state = VIGIL_IDLE

    def arm(self, Consumer consumer not None, int64_t spin_ns, int64_t timeout_ns, uint32_t ended):
        """Wait as `Consumer.wait` does, in the thread; now and then that is over earlier.

        If it still waits for something else that it was armed for before, that wait is over soon
        instead.
        """
        if consumer.lapped:
            eventfd_write(self.event, 1)
            return
        if self.consumer is consumer and self.page is consumer.readers and \
                self.slot == consumer.slot and self.ended == ended and spin_ns == 0:
            self.timeout_ns = timeout_ns
            if vigil_move(&self.state, VIGIL_WATCHING, VIGIL_ARMED):
                return
        if vigil_get(&self.state) != VIGIL_IDLE:
            if not vigil_move(&self.state, VIGIL_ARMED, VIGIL_LEAVING):
                vigil_move(&self.state, VIGIL_WATCHING, VIGIL_LEAVING)
            if vigil_get(&self.state) != VIGIL_IDLE:
                ap_wake_all(self.consumer.segment.ring.header)
                return
        self.consumer = consumer
        self.page = consumer.readers
        self.slot = consumer.slot
        self.position = consumer.position
        self.ended = ended
        self.spin_ns = spin_ns
        self.timeout_ns = timeout_ns
        vigil_set(&self.state, VIGIL_ARMED)

    def hear(self):
        """Take what was told; the eventfd, which doesn't block, is silent then until more is."""
        cdef eventfd_t value
        eventfd_read(self.event, &value)

    def run(self):
        """Be the thread; returns after `end`."""
        with nogil:
            while vigil_next(&self.state) != VIGIL_OVER:
                self.watch()

    cdef void watch(self) noexcept nogil:
        """Wait, tell and wait again, until there is news that nobody waits for."""
        cdef const ap_header *header = self.consumer.segment.ring.header
        cdef ap_readers *readers = NULL if self.page is None else self.page.readers
        cdef uint64_t position = self.position
        cdef bint news
        while True:
            news = ap_news(header, position, self.ended)
            if not news and self.spin_ns > 0:
                news = ap_spin(header, position, self.ended, self.spin_ns)
            if not news and self.timeout_ns > 0:
                ap_wait(header, readers, self.slot, position, self.ended, self.timeout_ns)
            position = ap_committed(header)
            if self.spin_ns == 0 and vigil_move(&self.state, VIGIL_ARMED, VIGIL_WATCHING):
                eventfd_write(self.event, 1)
                continue
            if vigil_move(&self.state, VIGIL_WATCHING, VIGIL_IDLE):
                return
            if vigil_move(&self.state, VIGIL_LEAVING, VIGIL_IDLE) or \
                    vigil_move(&self.state, VIGIL_ARMED, VIGIL_IDLE):
                eventfd_write(self.event, 1)
                return
            if vigil_get(&self.state) == VIGIL_OVER:
                return

    def end(self):
        """Have `run` return, soon; may be called again."""
        vigil_set(&self.state, VIGIL_OVER)
        if self.consumer is not None:
            ap_wake_all(self.consumer.segment.ring.header)
