# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Waits for a ring in a thread that doesn't need the interpreter, and tells by an eventfd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from alphapulse._core.consumer cimport Consumer
from alphapulse._core.ring cimport ap_header, ap_news, ap_readers, ap_spin, ap_wait, ap_wake_all

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_write(int fd, uint64_t value)

cdef extern from *:
    """
    #include <linux/futex.h>
    #include <stdatomic.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    enum { VIGIL_IDLE, VIGIL_ARMED, VIGIL_OVER };

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

    /* Back to idle, unless it was told to end. */
    static void vigil_rest(uint32_t *state) {
        uint32_t armed = VIGIL_ARMED;
        atomic_compare_exchange_strong_explicit((_Atomic uint32_t *)state, &armed, VIGIL_IDLE,
                                                memory_order_acq_rel, memory_order_relaxed);
    }
    """
    enum:
        VIGIL_IDLE, VIGIL_ARMED, VIGIL_OVER
    void vigil_set(uint32_t *state, uint32_t value) nogil
    uint32_t vigil_get(uint32_t *state) nogil
    uint32_t vigil_next(uint32_t *state) nogil
    void vigil_rest(uint32_t *state) nogil


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
        """Wait as `Consumer.wait` does, in the thread.

        If it still waits for what it was armed for before, that wait is over soon instead.
        """
        if vigil_get(&self.state) != VIGIL_IDLE:
            ap_wake_all(self.consumer.segment.ring.header)
            return
        self.consumer = consumer
        if consumer.lapped:
            eventfd_write(self.event, 1)
            return
        self.page = consumer.readers
        self.slot = consumer.slot
        self.position = consumer.position
        self.ended = ended
        self.spin_ns = spin_ns
        self.timeout_ns = timeout_ns
        vigil_set(&self.state, VIGIL_ARMED)

    def run(self):
        """Be the thread; returns after `end`."""
        cdef const ap_header *header
        cdef ap_readers *readers
        cdef bint news
        with nogil:
            while vigil_next(&self.state) == VIGIL_ARMED:
                header = self.consumer.segment.ring.header
                readers = NULL if self.page is None else self.page.readers
                news = ap_news(header, self.position, self.ended)
                if not news and self.spin_ns > 0:
                    news = ap_spin(header, self.position, self.ended, self.spin_ns)
                if not news and self.timeout_ns > 0:
                    ap_wait(
                        header, readers, self.slot, self.position, self.ended, self.timeout_ns
                    )
                vigil_rest(&self.state)
                eventfd_write(self.event, 1)

    def end(self):
        """Have `run` return, soon; may be called again."""
        vigil_set(&self.state, VIGIL_OVER)
        if self.consumer is not None:
            ap_wake_all(self.consumer.segment.ring.header)
