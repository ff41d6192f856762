# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The kernel's timers as file descriptors."""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/timerfd.h>
    #include <time.h>

    static int alarm_open(void) {
        return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    }

    static int alarm_set(int fd, int64_t nanoseconds) {
        struct itimerspec when = {{0, 0}, {nanoseconds / 1000000000, nanoseconds % 1000000000}};
        return timerfd_settime(fd, 0, &when, NULL);
    }
    """
    int alarm_open() nogil
    int alarm_set(int fd, int64_t nanoseconds) nogil


def open_alarm():
    fd = alarm_open()
    if fd < 0:
        raise OSError("no timer to be had")
    return fd


def set_alarm(int fd, int64_t nanoseconds):
    if nanoseconds < 1 or alarm_set(fd, nanoseconds) < 0:
        raise ValueError(f"no timer of {nanoseconds} ns at {fd}")
