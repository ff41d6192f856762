/* Many WebSocket clients in one thread: what a server's deliveries cost, and how late they come.

   fanout_load --port P --clients N [options]; the options are in `options` below. It connects, sends
   each client its subscription, waits until each has been greeted by --greeting messages, prints
   "ready", and from then on counts as deliveries the messages whose stamp (CLOCK_MONOTONIC, nano-
   seconds) is later. Lines on stdin:

       phase NAME    what comes from now on is counted under that name
       stall         the first client stops reading;  `read` lets it go on
       finish COUNT  end when so many deliveries have been counted, or none came for --patience

   It ends with one JSON object, at the end of stdin or of --seconds at the latest. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OPENING = 1, UPGRADING, OPEN, CLOSED };
enum { READ_BYTES = 1 << 18, ROOM_BYTES = 1 << 23, BUCKETS = 59 * 64, PHASES = 16, EVENTS = 512 };
enum { MOST_OPENING = 128, SOURCES = 200, LARGEST_REQUEST = 65536 };

struct client {
    int fd, state, close_code, greeted;
    uint64_t deliveries, apart, ended_ns;
    char *rest; /* of a frame that hasn't come whole */
    size_t rest_size, rest_room;
};

struct phase {
    char name[32];
    uint64_t deliveries, bytes, apart, begun_ns, first_ns, last_ns, most_ns, cpu_ns, reads;
    uint64_t times[BUCKETS];
};

static struct {
    int port, clients, greeting, ramp, stamp_at, receive_buffer;
    double seconds, patience;
    const char *path, *stamp, *apart, *subscriptions, *progress;
} options = {.greeting = 1, .ramp = 2000, .stamp_at = -1, .seconds = 600, .patience = 5, .path = "/ws"};

static struct client *clients;
static struct phase phases[PHASES]; /* the first, nameless, until all are greeted */
static int phase_count = 1, poller, opening, opened, ready, greeted, failed, disconnects, stalled = -1;
static uint64_t begun_ns, expected = UINT64_MAX, total, last_seen_ns, own_total;
static char *room, **texts;
static int text_count;
static volatile uint64_t *progress = &own_total;

static uint64_t clock_ns(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

/* Sixty-four buckets for each power of two: within 1.6 % of the time. */
static int bucket(uint64_t ns) {
    int shift = ns < 128 ? 0 : 57 - __builtin_clzll(ns);
    return shift * 64 + (int)(ns >> shift);
}

static double bucket_ns(int index) {
    int shift = index < 128 ? 0 : index / 64 - 1;
    return ((double)(index - shift * 64) + 0.5) * (double)(1ull << shift);
}

static double percentile(const struct phase *one, double share) {
    uint64_t rank = (uint64_t)((double)one->deliveries * share), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += one->times[i]) > rank) return bucket_ns(i);
    return (double)one->most_ns;
}

static void end(struct client *one) {
    if (one->state == CLOSED) return;
    if (one->state < OPEN) {
        failed++;
        opening--;
    } else {
        disconnects++;
    }
    close(one->fd);
    free(one->rest);
    one->rest = NULL;
    one->rest_size = 0;
    one->state = CLOSED;
    one->ended_ns = clock_ns(CLOCK_MONOTONIC);
}

/* A client's frame, masked; the frames that are sent are few and small. */
static void send_frame(struct client *one, int opcode, const char *payload, size_t size) {
    static char frame[LARGEST_REQUEST + 16];
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t at = 2;
    if (size > LARGEST_REQUEST) size = LARGEST_REQUEST;
    frame[0] = (char)(0x80 | opcode);
    frame[1] = (char)(0x80 | (size < 126 ? size : 126));
    if (size >= 126) {
        frame[at++] = (char)(size >> 8);
        frame[at++] = (char)size;
    }
    memcpy(frame + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < size; i++) frame[at + i] = (char)(payload[i] ^ mask[i % 4]);
    if (send(one->fd, frame, at + size, MSG_NOSIGNAL) != (ssize_t)(at + size)) end(one);
}

static uint64_t stamp_of(const char *payload, size_t size) {
    uint64_t value = 0;
    if (options.stamp_at >= 0) {
        if (size >= (size_t)options.stamp_at + 8) memcpy(&value, payload + options.stamp_at, 8);
        return value > INT64_MAX ? 0 : value;
    }
    if (options.stamp == NULL) return UINT64_MAX;
    size_t key = strlen(options.stamp);
    const char *at = memmem(payload, size, options.stamp, key);
    if (at == NULL) return 0;
    for (at += key; at < payload + size && *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

static void message(struct client *one, const char *payload, size_t size, uint64_t now_ns) {
    struct phase *phase = &phases[phase_count - 1];
    if (!ready) {
        if (++one->greeted == options.greeting) greeted++;
        return;
    }
    if (options.apart && size > strlen(options.apart) &&
        memcmp(payload, options.apart, strlen(options.apart)) == 0) {
        one->apart++;
        phase->apart++;
        return;
    }
    uint64_t stamp = stamp_of(payload, size);
    if (stamp < begun_ns) return;
    one->deliveries++;
    last_seen_ns = now_ns;
    if (one == clients + stalled) return;
    total++;
    uint64_t took = now_ns > stamp ? now_ns - stamp : 0;
    if (phase->deliveries++ == 0) phase->first_ns = now_ns;
    phase->last_ns = now_ns;
    if (took > phase->most_ns) phase->most_ns = took;
    phase->times[bucket(took)]++;
}

static void frame(struct client *one, int first, const char *payload, size_t size, uint64_t now) {
    int opcode = first & 15;
    if (opcode == 8) {
        one->close_code = size < 2 ? 1005 : (unsigned char)payload[0] << 8 | (unsigned char)payload[1];
        send_frame(one, 8, payload, size < 2 ? 0 : 2);
        end(one);
    } else if (opcode == 9) {
        send_frame(one, 10, payload, size);
    } else if (opcode < 3 && (first & 0x80)) {
        message(one, payload, size, now);
    }
}

/* All whole frames of some bytes; returns how many bytes they were. */
static size_t frames(struct client *one, const char *data, size_t size, uint64_t now) {
    size_t at = 0;
    while (one->state == OPEN && size - at >= 2) {
        const unsigned char *head = (const unsigned char *)data + at;
        uint64_t length = head[1] & 127;
        size_t header = length == 126 ? 4 : length == 127 ? 10 : 2;
        if (size - at < header) break;
        if (header > 2) {
            length = 0;
            for (size_t i = 2; i < header; i++) length = length << 8 | head[i];
        }
        if (length > size - at - header) break;
        frame(one, head[0], data + at + header, length, now);
        at += header + length;
    }
    return at;
}

/* The answer to the handshake, after which the client subscribes; returns its size, 0 if not whole. */
static size_t upgraded(struct client *one, char *data, size_t size) {
    char *blank = memmem(data, size, "\r\n\r\n", 4);
    if (blank == NULL) return 0;
    if (size < 12 || memcmp(data + 9, "101", 3) != 0) {
        if (failed == 0) fprintf(stderr, "refused: %.*s\n", (int)(blank - data), data);
        end(one);
        return 0;
    }
    one->state = OPEN;
    opening--;
    if (options.greeting == 0) greeted++;
    if (text_count) {
        const char *text = texts[(one - clients) % text_count];
        send_frame(one, 1, text, strlen(text));
    }
    return (size_t)(blank - data) + 4;
}

static void take(struct client *one) {
    size_t size = one->rest_size, used = 0;
    if (size) memcpy(room, one->rest, size);
    ssize_t got = recv(one->fd, room + size, READ_BYTES, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) end(one);
        return;
    }
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    phases[phase_count - 1].bytes += (uint64_t)got;
    phases[phase_count - 1].reads++;
    size += (size_t)got;
    if (one->state == UPGRADING) used = upgraded(one, room, size);
    if (one->state == OPEN) used += frames(one, room + used, size - used, now);
    *progress = total;
    if (one->state == CLOSED) return;
    one->rest_size = size - used;
    if (one->rest_size > one->rest_room) {
        if (one->rest_size + READ_BYTES > ROOM_BYTES) fail("a frame is too large");
        one->rest_room = one->rest_size * 2;
        one->rest = realloc(one->rest, one->rest_room);
        if (one->rest == NULL) fail("memory");
    }
    memcpy(one->rest, room + used, one->rest_size);
}

static void connected(struct client *one) {
    char request[512];
    int problem = 0;
    socklen_t size = sizeof problem;
    getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem) {
        end(one);
        return;
    }
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Key: YmVuY2htYXJrIGNsaWVudA==\r\n"
                          "Sec-WebSocket-Version: 13\r\n\r\n",
                          options.path, options.port);
    one->state = UPGRADING;
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = one};
    epoll_ctl(poller, EPOLL_CTL_MOD, one->fd, &wanted);
    if (send(one->fd, request, (size_t)length, MSG_NOSIGNAL) != length) end(one);
}

static void connect_next(void) {
    struct client *one = clients + opened;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int on = 1;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(opened % SOURCES));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)options.port);
    opened++;
    opening++;
    one->state = OPENING;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (one->fd < 0) fail("socket");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(one->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (options.receive_buffer)
        setsockopt(one->fd, SOL_SOCKET, SO_RCVBUF, &options.receive_buffer, sizeof(int));
    if (bind(one->fd, (struct sockaddr *)&from, sizeof from) < 0) fail("bind");
    struct epoll_event wanted = {.events = EPOLLOUT, .data.ptr = one};
    if (connect(one->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        end(one);
    else if (epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &wanted) < 0)
        fail("epoll_ctl");
}

static void end_phase(void) {
    struct phase *now = &phases[phase_count - 1];
    now->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - now->cpu_ns;
}

static void begin_phase(const char *name) {
    end_phase();
    if (phase_count == PHASES) fail("phases");
    struct phase *next = &phases[phase_count++];
    snprintf(next->name, sizeof next->name, "%s", name);
    next->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    next->begun_ns = clock_ns(CLOCK_MONOTONIC);
}

static int command(char *line) {
    char name[32];
    unsigned long long count;
    if (sscanf(line, "phase %31s", name) == 1) {
        begin_phase(name);
    } else if (sscanf(line, "finish %llu", &count) == 1) {
        expected = count;
        last_seen_ns = clock_ns(CLOCK_MONOTONIC);
    } else if (strncmp(line, "stall", 5) == 0) {
        stalled = 0;
        epoll_ctl(poller, EPOLL_CTL_DEL, clients->fd, NULL);
    } else if (strncmp(line, "read", 4) == 0 && stalled == 0) {
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = clients};
        epoll_ctl(poller, EPOLL_CTL_ADD, clients->fd, &wanted);
    } else {
        fprintf(stderr, "unknown command: %s\n", line);
        return 0;
    }
    printf("done\n");
    fflush(stdout);
    return 1;
}

/* Commands that are there; 0 at the end of them. */
static int commands(void) {
    static char line[128];
    static size_t size;
    char byte;
    ssize_t got;
    while ((got = read(0, &byte, 1)) == 1) {
        if (byte != '\n') {
            if (size < sizeof line - 1) line[size++] = byte;
            continue;
        }
        line[size] = 0;
        size = 0;
        if (!command(line)) return 0;
    }
    return got < 0 && errno == EAGAIN;
}

static void report_phase(const struct phase *one) {
    double us = 1e3, seconds = (double)(one->last_ns - one->first_ns) / 1e9;
    printf("{\"name\":\"%s\",\"deliveries\":%llu,\"apart\":%llu,\"bytes\":%llu,\"reads\":%llu,"
           "\"seconds\":%.6f,\"rate\":%.1f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,"
           "\"most_us\":%.2f,\"cpu_seconds\":%.6f}",
           one->name, (unsigned long long)one->deliveries, (unsigned long long)one->apart,
           (unsigned long long)one->bytes, (unsigned long long)one->reads, seconds,
           seconds > 0 ? (double)one->deliveries / seconds : 0, percentile(one, 0.5) / us,
           percentile(one, 0.99) / us, percentile(one, 0.999) / us, (double)one->most_ns / us,
           (double)one->cpu_ns / 1e9);
}

static void report(void) {
    uint64_t least = UINT64_MAX, most = 0;
    int codes[4] = {1000, 1001, 1008, 1011}, counts[5] = {0};
    for (int i = 0; i < options.clients; i++) {
        struct client *one = clients + i;
        if (i != stalled && one->deliveries < least) least = one->deliveries;
        if (i != stalled && one->deliveries > most) most = one->deliveries;
        int known = 0;
        for (int j = 0; j < 4; j++)
            if (one->close_code == codes[j]) counts[j]++, known = 1;
        counts[4] += !known && one->state == CLOSED;
    }
    printf("{\"clients\":%d,\"failed\":%d,\"disconnects\":%d,\"least\":%llu,\"most\":%llu,"
           "\"closed\":{\"1000\":%d,\"1001\":%d,\"1008\":%d,\"1011\":%d,\"otherwise\":%d},"
           "\"cpu_seconds\":%.6f,\"total\":%llu,",
           options.clients, failed, disconnects, (unsigned long long)least,
           (unsigned long long)most, counts[0], counts[1], counts[2], counts[3], counts[4],
           (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9, (unsigned long long)total);
    if (stalled >= 0)
        printf("\"stalled\":{\"deliveries\":%llu,\"apart\":%llu,\"close_code\":%d},",
               (unsigned long long)clients->deliveries, (unsigned long long)clients->apart,
               clients->close_code);
    printf("\"phases\":[");
    for (int i = 1; i < phase_count; i++) {
        if (i > 1) printf(",");
        report_phase(&phases[i]);
    }
    printf("]}\n");
    fflush(stdout);
}

static void read_options(int count, char **words) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},     {"clients", 1, 0, 'n'},  {"path", 1, 0, 'u'},
        {"stamp", 1, 0, 's'},    {"stamp-at", 1, 0, 'o'}, {"greeting", 1, 0, 'g'},
        {"ramp", 1, 0, 'r'},     {"seconds", 1, 0, 't'},  {"patience", 1, 0, 'w'},
        {"progress", 1, 0, 'm'}, {"apart", 1, 0, 'a'},    {"subscriptions", 1, 0, 'f'},
        {"receive-buffer", 1, 0, 'b'}, {0}};
    for (int found; (found = getopt_long(count, words, "", known, NULL)) != -1;) {
        switch (found) {
        case 'p': options.port = atoi(optarg); break;
        case 'n': options.clients = atoi(optarg); break;
        case 'u': options.path = optarg; break;
        case 's': options.stamp = optarg; break;
        case 'o': options.stamp_at = atoi(optarg); break;
        case 'g': options.greeting = atoi(optarg); break;
        case 'r': options.ramp = atoi(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'w': options.patience = atof(optarg); break;
        case 'm': options.progress = optarg; break;
        case 'a': options.apart = optarg; break;
        case 'f': options.subscriptions = optarg; break;
        case 'b': options.receive_buffer = atoi(optarg); break;
        default: exit(2);
        }
    }
    if (options.port < 1 || options.clients < 1) {
        fprintf(stderr, "--port and --clients are needed\n");
        exit(2);
    }
}

/* A subscription a line; client i sends line i, the lines over and over. */
static void read_subscriptions(void) {
    char *line = NULL;
    size_t size = 0;
    FILE *file = fopen(options.subscriptions, "r");
    if (file == NULL) fail(options.subscriptions);
    for (ssize_t length; (length = getline(&line, &size, file)) > 0;) {
        if (line[length - 1] == '\n') line[length - 1] = 0;
        texts = realloc(texts, (size_t)(text_count + 1) * sizeof *texts);
        if (texts == NULL) fail("memory");
        texts[text_count++] = strdup(line);
    }
    free(line);
    fclose(file);
}

static void prepare(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)options.clients + 16) {
        fprintf(stderr, "%d clients need more files than the hard limit of %llu allows\n",
                options.clients, (unsigned long long)files.rlim_max);
        exit(2);
    }
    if (options.subscriptions) read_subscriptions();
    if (options.progress) {
        int fd = open(options.progress, O_RDWR);
        if (fd < 0) fail(options.progress);
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page == MAP_FAILED) fail("mmap");
        progress = page;
        close(fd);
    }
    clients = calloc((size_t)options.clients, sizeof *clients);
    room = malloc(ROOM_BYTES);
    poller = epoll_create1(EPOLL_CLOEXEC);
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = NULL};
    if (clients == NULL || room == NULL || epoll_ctl(poller, EPOLL_CTL_ADD, 0, &wanted) < 0)
        fail("prepare");
}

/* Open connections as fast as --ramp allows; once all are greeted, say so. */
static void ramp(uint64_t since_ns, uint64_t now_ns) {
    double due = (double)(now_ns - since_ns) / 1e9 * options.ramp;
    while (opened < options.clients && opening < MOST_OPENING && opened <= due) connect_next();
    if (ready || greeted < options.clients) return;
    ready = 1;
    begun_ns = last_seen_ns = now_ns;
    begin_phase("first");
    printf("ready\n");
    fflush(stdout);
}

int main(int count, char **words) {
    struct epoll_event events[EVENTS];
    read_options(count, words);
    prepare();
    uint64_t since_ns = clock_ns(CLOCK_MONOTONIC);
    for (int going = 1; going;) {
        int found = epoll_wait(poller, events, EVENTS, ready ? 50 : 1);
        for (int i = 0; i < found; i++) {
            struct client *one = events[i].data.ptr;
            if (one == NULL)
                going = commands();
            else if (one->state == OPENING)
                connected(one);
            else if (one->state != CLOSED)
                take(one);
        }
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        ramp(since_ns, now_ns);
        double idle = (double)(now_ns - last_seen_ns) / 1e9;
        if (expected != UINT64_MAX && (total >= expected || idle > options.patience)) going = 0;
        if ((double)(now_ns - since_ns) / 1e9 > options.seconds) going = 0;
        if (failed && !ready) going = 0;
    }
    end_phase();
    report();
    return 0;
}
