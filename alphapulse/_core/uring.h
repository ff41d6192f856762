/* One io_uring that waits for one futex at a time, and says so by an eventfd.
 *
 * The kernel completes the wait in the waker's own call, which so wakes whoever polls the eventfd:
 * no thread is needed in between. Completions are processed only when the thread that owns this asks
 * for them (IORING_SETUP_DEFER_TASKRUN), so that none of its system calls is interrupted.
 */
#ifndef AP_URING_H
#define AP_URING_H

#include <errno.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Of the kernel's interface, but newer than some of its headers. */
#define AP_URING_FUTEX_WAIT 51
#define AP_URING_FUTEX_U32 0x02
#define AP_URING_SINGLE_ISSUER (1U << 12)
#define AP_URING_DEFER_TASKRUN (1U << 13)

enum { AP_URING_ENTRIES = 8 };
/* What completions bear, besides the number of a wait. */
enum { AP_URING_NONE, AP_URING_TIMER, AP_URING_OTHER };

typedef struct {
    int fd;
    char *rings;
    size_t rings_bytes;
    struct io_uring_sqe *sqes;
    size_t sqes_bytes;
    uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
    uint32_t sq_mask, cq_mask;
    struct io_uring_cqe *cqes;
    struct __kernel_timespec timeout;
    int64_t timer_ns; /* when the timer goes off, by the monotonic clock; 0 when there is none */
    uint32_t queued;
    uint64_t waiting; /* number of the wait under way; AP_URING_NONE when there is none */
    uint64_t waits;
} ap_uring;

static inline void ap_uring_close(ap_uring *uring) {
    if (uring->sqes)
        munmap(uring->sqes, uring->sqes_bytes);
    if (uring->rings)
        munmap(uring->rings, uring->rings_bytes);
    if (uring->fd >= 0)
        close(uring->fd);
    memset(uring, 0, sizeof *uring);
    uring->fd = -1;
}

/* 0, or the error's number; nothing is left open then. */
static inline int ap_uring_open(ap_uring *uring, int event) {
    struct io_uring_params params = {.flags = AP_URING_SINGLE_ISSUER | AP_URING_DEFER_TASKRUN};
    memset(uring, 0, sizeof *uring);
    uring->fd = (int)syscall(SYS_io_uring_setup, AP_URING_ENTRIES, &params);
    if (uring->fd < 0)
        return errno;
    if (!(params.features & IORING_FEAT_SINGLE_MMAP)) {
        ap_uring_close(uring);
        return ENOSYS;
    }
    const size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    const size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    uring->rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    uring->sqes_bytes = params.sq_entries * sizeof(struct io_uring_sqe);
    void *rings = mmap(NULL, uring->rings_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, uring->fd,
                       IORING_OFF_SQ_RING);
    void *sqes = mmap(NULL, uring->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, uring->fd,
                      IORING_OFF_SQES);
    uring->rings = rings == MAP_FAILED ? NULL : rings;
    uring->sqes = sqes == MAP_FAILED ? NULL : sqes;
    if (!uring->rings || !uring->sqes ||
        syscall(SYS_io_uring_register, uring->fd, IORING_REGISTER_EVENTFD, &event, 1) < 0) {
        const int error = errno;
        ap_uring_close(uring);
        return error;
    }
    uring->sq_tail = (uint32_t *)(uring->rings + params.sq_off.tail);
    uring->sq_array = (uint32_t *)(uring->rings + params.sq_off.array);
    uring->sq_mask = *(uint32_t *)(uring->rings + params.sq_off.ring_mask);
    uring->cq_head = (uint32_t *)(uring->rings + params.cq_off.head);
    uring->cq_tail = (uint32_t *)(uring->rings + params.cq_off.tail);
    uring->cq_mask = *(uint32_t *)(uring->rings + params.cq_off.ring_mask);
    uring->cqes = (struct io_uring_cqe *)(uring->rings + params.cq_off.cqes);
    return 0;
}

static inline struct io_uring_sqe *ap_uring_next(ap_uring *uring, uint8_t opcode, uint64_t data) {
    const uint32_t tail = *uring->sq_tail, index = tail & uring->sq_mask;
    struct io_uring_sqe *sqe = &uring->sqes[index];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->fd = -1;
    sqe->user_data = data;
    uring->sq_array[index] = index;
    __atomic_store_n(uring->sq_tail, tail + 1, __ATOMIC_RELEASE);
    uring->queued++;
    return sqe;
}

/* Hands over what is queued and has completions processed; 0, or the error's number. */
static inline int ap_uring_enter(ap_uring *uring) {
    long taken;
    do
        taken = syscall(SYS_io_uring_enter, uring->fd, uring->queued, 0, IORING_ENTER_GETEVENTS,
                        NULL, 0);
    while (taken < 0 && errno == EINTR);
    if (taken < 0)
        return errno;
    uring->queued -= (uint32_t)taken;
    return uring->queued ? EAGAIN : 0;
}

/* Takes completions; 0, or the negative number of what is wrong with the wait. */
static inline int ap_uring_reap(ap_uring *uring) {
    uint32_t head = *uring->cq_head;
    int result = 0;
    for (; head != __atomic_load_n(uring->cq_tail, __ATOMIC_ACQUIRE); head++) {
        const struct io_uring_cqe *cqe = &uring->cqes[head & uring->cq_mask];
        if (cqe->user_data == AP_URING_TIMER)
            uring->timer_ns = 0;
        if (cqe->user_data == AP_URING_TIMER || cqe->user_data != uring->waiting)
            continue;
        uring->waiting = AP_URING_NONE;
        /* EAGAIN: the word had changed already. */
        if (cqe->res < 0 && cqe->res != -EAGAIN && cqe->res != -ECANCELED && cqe->res != -EINTR)
            result = cqe->res;
    }
    __atomic_store_n(uring->cq_head, head, __ATOMIC_RELEASE);
    return result;
}

/* Queues a wait for a word that had this value. */
static inline void ap_uring_wait(ap_uring *uring, const void *word, uint32_t value) {
    uring->waiting = AP_URING_OTHER + ++uring->waits;
    struct io_uring_sqe *wait = ap_uring_next(uring, AP_URING_FUTEX_WAIT, uring->waiting);
    wait->fd = AP_URING_FUTEX_U32;
    wait->addr = (uint64_t)(uintptr_t)word;
    wait->addr2 = value;
    *(uint64_t *)((char *)wait + 48) = FUTEX_BITSET_MATCH_ANY; /* addr3 */
}

/* Queues that there is a completion so much later at the latest. The timer outlives waits: to set
 * one for each of them, and to cancel it, would be a completion more for each. The kernel takes an
 * absolute time for one of the host's clock, whatever time namespace this is in. */
static inline void ap_uring_limit(ap_uring *uring, int64_t now_ns, int64_t timeout_ns) {
    int64_t until_ns;
    if (timeout_ns < 0)
        timeout_ns = 0;
    if (__builtin_add_overflow(now_ns, timeout_ns, &until_ns))
        until_ns = INT64_MAX;
    if (uring->timer_ns && uring->timer_ns <= until_ns)
        return;
    struct io_uring_sqe *limit;
    uring->timeout.tv_sec = timeout_ns / 1000000000;
    uring->timeout.tv_nsec = timeout_ns % 1000000000;
    if (uring->timer_ns) {
        limit = ap_uring_next(uring, IORING_OP_TIMEOUT_REMOVE, AP_URING_OTHER);
        limit->addr = AP_URING_TIMER;
        limit->addr2 = (uint64_t)(uintptr_t)&uring->timeout;
        limit->timeout_flags = IORING_TIMEOUT_UPDATE;
    } else {
        limit = ap_uring_next(uring, IORING_OP_TIMEOUT, AP_URING_TIMER);
        limit->addr = (uint64_t)(uintptr_t)&uring->timeout;
        limit->len = 1;
    }
    uring->timer_ns = until_ns;
}

/* Queues the end of the wait under way. */
static inline void ap_uring_cancel(ap_uring *uring) {
    struct io_uring_sqe *cancel = ap_uring_next(uring, IORING_OP_ASYNC_CANCEL, AP_URING_OTHER);
    cancel->addr = uring->waiting;
    uring->waiting = AP_URING_NONE;
}

/* 0 if futexes can be waited for, or the error's number that says why not. */
static inline int ap_uring_probe(ap_uring *uring) {
    static uint32_t word = 1;
    ap_uring_wait(uring, &word, word + 1);
    const int error = ap_uring_enter(uring);
    return error ? error : -ap_uring_reap(uring);
}

#endif
