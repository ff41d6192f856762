/* The limit that the ring is measured against: 100-byte messages from one process to others over
 * shared memory and C11 atomics, with no interpreter and none of a ring's duties (no directory, no
 * sequences, no recovery; the sender waits for the slowest reader instead of overtaking it).
 *
 * ring_limit throughput COUNT JOINED READERS        COUNT messages, JOINED of them per commit
 * ring_limit latency spin|futex COUNT RATE READERS  COUNT messages at RATE a second
 *
 * Prints one line: messages/s; or p50, p99, p99.9 and the longest one-way time in nanoseconds over
 * all readers, and the system calls that woke them. The sender has the first CPU, the readers the
 * others. Ends by itself after a minute whatever happens.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 13, STAMP = 5, SLOTS = 8192, MOST_READERS = 16, WARM_UP = 500, SECONDS = 60 };

typedef struct {
    _Alignas(64) _Atomic uint64_t committed;
    _Alignas(64) _Atomic uint32_t waiting;
    _Alignas(64) _Atomic uint32_t wake;
    _Alignas(64) _Atomic uint32_t ready;
    struct {
        _Alignas(64) _Atomic uint64_t read;
        int64_t ended_ns;
    } reader[MOST_READERS];
    _Alignas(64) _Atomic uint64_t data[SLOTS][WORDS];
} shared;

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* The n-th of the CPUs that this process may use; with one only, everyone shares it. */
static void pin(int n) {
    cpu_set_t all, one;
    int found[CPU_SETSIZE], count = 0;
    sched_getaffinity(0, sizeof all, &all);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all))
            found[count++] = cpu;
    if (count < 2)
        return;
    CPU_ZERO(&one);
    CPU_SET(n == 0 ? found[0] : found[1 + (n - 1) % (count - 1)], &one);
    sched_setaffinity(0, sizeof one, &one);
}

static void put(shared *ring, uint64_t position, int64_t stamp) {
    _Atomic uint64_t *to = ring->data[position % SLOTS];
    for (int i = 0; i < WORDS; i++)
        atomic_store_explicit(&to[i], i == STAMP ? (uint64_t)stamp : position,
                              memory_order_relaxed);
}

/* Copies a message out, as a reader has to that keeps it; its stamp. */
static int64_t take(shared *ring, uint64_t position, uint64_t *into) {
    const _Atomic uint64_t *from = ring->data[position % SLOTS];
    for (int i = 0; i < WORDS; i++)
        into[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
    __asm__ __volatile__("" : : "r"(into) : "memory");
    return (int64_t)into[STAMP];
}

static uint64_t await_news(shared *ring, uint64_t position, int futex) {
    for (;;) {
        uint64_t committed = atomic_load_explicit(&ring->committed, memory_order_acquire);
        if (committed != position)
            return committed;
        if (!futex) {
            relax();
            continue;
        }
        const uint32_t word = atomic_load_explicit(&ring->wake, memory_order_acquire);
        atomic_store_explicit(&ring->waiting, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load_explicit(&ring->committed, memory_order_acquire) == position)
            syscall(SYS_futex, &ring->wake, FUTEX_WAIT, word, NULL, NULL, 0);
    }
}

static int wake_sleepers(shared *ring) {
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&ring->waiting, memory_order_relaxed))
        return 0;
    atomic_exchange_explicit(&ring->waiting, 0, memory_order_acq_rel);
    atomic_fetch_add_explicit(&ring->wake, 1, memory_order_acq_rel);
    syscall(SYS_futex, &ring->wake, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
    return 1;
}

static void read_all(shared *ring, int me, uint64_t count, int futex, int64_t *taken) {
    uint64_t position = 0, into[WORDS];
    atomic_fetch_add(&ring->ready, 1);
    while (position < count) {
        const uint64_t committed = await_news(ring, position, futex);
        for (; position < committed; position++) {
            const int64_t stamp = take(ring, position, into);
            if (taken)
                taken[position] = now_ns() - stamp;
        }
        atomic_store_explicit(&ring->reader[me].read, position, memory_order_release);
    }
    ring->reader[me].ended_ns = now_ns();
}

static uint64_t slowest(shared *ring, int readers) {
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < readers; i++) {
        uint64_t read = atomic_load_explicit(&ring->reader[i].read, memory_order_acquire);
        least = read < least ? read : least;
    }
    return least;
}

static void send_all(shared *ring, uint64_t count, uint64_t joined, int readers) {
    uint64_t room = SLOTS;
    for (uint64_t position = 0; position < count;) {
        const uint64_t until = position + joined < count ? position + joined : count;
        while (until > room) {
            room = slowest(ring, readers) + SLOTS;
            if (until > room)
                relax();
        }
        for (; position < until; position++)
            put(ring, position, 0);
        atomic_store_explicit(&ring->committed, position, memory_order_release);
    }
}

static int send_paced(shared *ring, uint64_t count, double rate, int futex) {
    const int64_t start = now_ns() + 20000000;
    int wakes = 0;
    for (uint64_t position = 0; position < count; position++) {
        const int64_t due = start + (int64_t)((double)position * 1e9 / rate);
        int64_t now;
        while ((now = now_ns()) < due)
            ;
        put(ring, position, now);
        atomic_store_explicit(&ring->committed, position + 1, memory_order_release);
        if (futex)
            wakes += wake_sleepers(ring);
    }
    return wakes;
}

static int compare(const void *a, const void *b) {
    const int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

static void *share(size_t bytes) {
    void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
                       -1, 0);
    if (found == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return found;
}

int main(int argc, char **argv) {
    const int latency = argc == 6 && !strcmp(argv[1], "latency");
    if (!latency && !(argc == 5 && !strcmp(argv[1], "throughput"))) {
        fprintf(stderr, "see the head of ring_limit.c\n");
        return 2;
    }
    const uint64_t count = strtoull(argv[latency ? 3 : 2], NULL, 10);
    const int futex = latency && !strcmp(argv[2], "futex");
    const int readers = atoi(argv[latency ? 5 : 4]);
    const double pace = atof(argv[latency ? 4 : 3]);
    if (readers < 1 || readers > MOST_READERS || pace < 1 || pace > 1e9 || count <= WARM_UP ||
        (!latency && pace > SLOTS) || (latency && count > SLOTS * 64)) {
        fprintf(stderr, "out of range\n");
        return 2;
    }
    shared *ring = share(sizeof *ring);
    int64_t *taken = latency ? share((size_t)readers * count * sizeof *taken) : NULL;
    int wakes = 0, status;
    alarm(SECONDS);
    for (int i = 0; i < readers; i++) {
        const pid_t child = fork();
        if (child < 0) {
            perror("fork");
            return 1;
        }
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pin(1 + i);
            read_all(ring, i, count, futex, latency ? taken + (uint64_t)i * count : NULL);
            return 0;
        }
    }
    pin(0);
    while (atomic_load(&ring->ready) < (uint32_t)readers)
        relax();
    const int64_t start = now_ns();
    if (latency)
        wakes = send_paced(ring, count, pace, futex);
    else
        send_all(ring, count, (uint64_t)pace, readers);
    while (wait(&status) > 0)
        if (status)
            return 1;
    if (!latency) {
        int64_t end = 0;
        for (int i = 0; i < readers; i++)
            end = ring->reader[i].ended_ns > end ? ring->reader[i].ended_ns : end;
        printf("%.0f\n", (double)count * 1e9 / (double)(end - start));
        return 0;
    }
    uint64_t kept = 0;
    for (int i = 0; i < readers; i++)
        for (uint64_t k = WARM_UP; k < count; k++)
            taken[kept++] = taken[(uint64_t)i * count + k];
    qsort(taken, kept, sizeof *taken, compare);
    printf("%lld %lld %lld %lld %d\n", (long long)taken[kept / 2],
           (long long)taken[kept * 99 / 100], (long long)taken[kept * 999 / 1000],
           (long long)taken[kept - 1], wakes);
    return 0;
}
