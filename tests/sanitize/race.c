/* The ring's two loops in two threads, for ThreadSanitizer and for the machine itself.
 *
 * One thread writes records into a small ring, half of them as fast as it can, the other copies
 * what is committed and checks each record: whatever `ap_torn` lets pass must be whole. Prints how
 * many were read.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring.h"

#define RECORDS 400000u

static ap_ring ring;
static _Atomic uint64_t reader_position;

static uint64_t mixed(uint64_t sequence, uint64_t i) {
    return (sequence * 0x9e3779b97f4a7c15ull) ^ (i * 0xc2b2ae3d27d4eb4full);
}

static void *write_all(void *unused) {
    const uint64_t at_most = AP_MIN_CAPACITY + AP_MIN_CAPACITY / 8;
    uint64_t record[64], position = 0;
    (void)unused;
    for (uint64_t sequence = 1; sequence <= RECORDS; sequence++) {
        const uint64_t words = 5 + sequence % 50;
        for (uint64_t i = 0; i < words; i++)
            record[i] = mixed(sequence, i);
        record[0] = words * 8;
        /* Half of the time keep just about a lap ahead, so that a lot is read and a lot is torn. */
        while (sequence / 1000 % 2 && position > atomic_load(&reader_position) + at_most)
            sched_yield();
        const int64_t published_ns = (int64_t)mixed(sequence, 4);
        ap_put(&ring, position, sequence, published_ns, (const uint8_t *)record, words * 8);
        position += words * 8;
    }
    return NULL;
}

int main(void) {
    ap_geometry at;
    pthread_t writer;
    uint64_t position = 0, sequence = 0, given = 0, laps = 0;
    if (!ap_lay_out(AP_MIN_CAPACITY, 1, &at))
        return 2;
    ap_attach(&ring, calloc(1, at.total), &at);
    uint64_t *copy = malloc(at.capacity);
    pthread_create(&writer, NULL, write_all, NULL);
    while (sequence < RECORDS) {
        const uint64_t committed = ap_committed(ring.header);
        atomic_store(&reader_position, position);
        uint64_t bytes = committed - position, done = 0;
        if (bytes == 0)
            continue;
        if (bytes <= at.capacity)
            ap_copy(&ring, position, bytes, (uint8_t *)copy);
        if (bytes > at.capacity || ap_torn(&ring, position)) {
            position = committed; /* lapped: go on at the end, where a record begins */
            sequence = 0;
            laps++;
            if (committed == ap_committed(ring.header) && ap_sequence(ring.header) == RECORDS)
                break;
            continue;
        }
        while (done < bytes) {
            const uint64_t *record = copy + done / 8;
            const uint64_t words = record[0] / 8;
            if (sequence && record[1] != sequence + 1)
                return fprintf(stderr, "%lu after %lu\n", record[1], sequence), 1;
            sequence = record[1];
            for (uint64_t i = 2; i < words; i++)
                if (words != 5 + sequence % 50 || record[i] != mixed(sequence, i))
                    return fprintf(stderr, "record %lu is torn\n", sequence), 1;
            done += words * 8;
            given++;
        }
        position += bytes;
    }
    pthread_join(writer, NULL);
    printf("%lu of %u records read whole, lapped %lu times\n", given, RECORDS, laps);
    return given == 0;
}
