/* How many LDAP operations a second does a server answer, and how late? The generator: it plays exchanges that are ready to be
 * sent, one after the other on each connection, and judges the answers. It builds no request; bench/ldap_stage.py does.
 *
 * The book is a file of exchanges: two octets that say how many requests there are, then each with two octets of size before it
 * (network order). A request's message id must be the INTEGER 02 02 01 00: it is filled in here. A request goes out when the
 * one before it has its final answer (an Unbind has none), and an exchange ends with the first result that is not success.
 *
 *   keep   every connection stays, has played its exchange of the book --first before the clock runs, and takes one exchange
 *          after the other
 *   fresh  every exchange has a connection of its own, and connecting counts
 *   hold   every connection plays its exchange of the book once, then they are all kept until standard input ends
 *
 * An answer counts when it carries the message id of what was asked and is of the kind that was asked for; with --entries every
 * search must have had that many. Anything else, and a connection that is closed in between, is "broken".
 * The result is one line of JSON. cpu_share is this program's own share of its core: near 1, it was the bottleneck, not the
 * server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ldap_frame.h"

enum { MAX_CONNECTIONS = 8192, EVENTS = 256, BUFFER = 1 << 18, CODES = 128, MAX_BROKEN = 100, MAX_REQUEST = 8192 };
enum { FIRST_ID = 0x0100, LAST_ID = 0x7fff }; /* always two octets */
static const uint64_t NS = 1000000000u;

enum mode { KEEP, FRESH, HOLD };

struct request {
    const uint8_t *data;
    uint16_t size, id_at;
    uint8_t final; /* the tag of its last answer; 0: none */
};

struct exchange {
    struct request *requests;
    unsigned count;
};

struct book {
    struct exchange *exchanges;
    uint64_t count;
};

enum phase { CLOSED, CONNECTING, HANDSHAKE, TALKING, IDLE };

struct lane { /* one connection */
    int fd;
    SSL *tls;
    enum phase phase;
    bool is_first; /* the exchange before the clock runs */
    const struct exchange *exchange;
    unsigned at; /* which request */
    uint16_t id;
    uint64_t began, entries;
    uint8_t *left; /* octets of an answer that is not whole */
    size_t left_size;
};

static struct {
    const char *to, *book, *first;
    enum mode mode;
    unsigned connections;
    uint64_t repeat;
    int64_t entries;
    double seconds;
    bool tls;
    int cpu;
} want = {.mode = KEEP, .connections = 16, .repeat = 1, .entries = -1, .cpu = -1};

static struct {
    uint64_t exchanges, good, entries, octets, broken, results[CODES];
} seen;

static struct book book, first;
static struct lane *lanes;
static uint64_t *latencies; /* ns */
static uint64_t launched, total, room, deadline, last_answer;
static unsigned ready;
static bool is_running;
static struct sockaddr_in to;
static SSL_CTX *context;
static const char *cipher = "";
static int queue;

static void die(const char *what) {
    fprintf(stderr, "ldap_load: %s: %s\n", what, errno ? strerror(errno) : "not usable");
    exit(2);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static double processor_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Books */

static uint8_t final_of(uint8_t tag) {
    switch (tag) {
    case BIND_REQUEST: return BIND_RESPONSE;
    case SEARCH_REQUEST: return SEARCH_DONE;
    case EXTENDED_REQUEST: return EXTENDED_RESPONSE;
    case UNBIND_REQUEST: return 0;
    default: die("a request of the book is of no kind that is known here");
    }
    return 0;
}

static struct request request_of(const uint8_t *data, size_t size, const char *path) {
    struct frame frame;
    errno = 0;
    if (size > MAX_REQUEST || read_frame(data, size, &frame) != WHOLE || frame.size != size || frame.id.size != 2) die(path);
    return (struct request){data, (uint16_t)size, (uint16_t)(frame.id.data - data), final_of(frame.operation.tag)};
}

static size_t number_at(const uint8_t *data, size_t at, size_t size, const char *path) {
    if (at + 2 > size) die(path);
    return (size_t)data[at] << 8 | data[at + 1];
}

static struct book read_book(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die(path);
    long end = ftell(file);
    if (end < 0 || fseek(file, 0, SEEK_SET)) die(path);
    size_t size = (size_t)end, at = 0;
    uint8_t *data = malloc(size + 1);
    if (!data || fread(data, 1, size, file) != size) die(path);
    fclose(file);
    errno = 0;
    struct book read = {0};
    for (uint64_t space = 0; at < size; read.count++) {
        if (read.count == space) {
            space = space ? 2 * space : 1024;
            if (!(read.exchanges = realloc(read.exchanges, space * sizeof *read.exchanges))) die("memory");
        }
        struct exchange *exchange = &read.exchanges[read.count];
        exchange->count = (unsigned)number_at(data, at, size, path);
        at += 2;
        if (!exchange->count || !(exchange->requests = calloc(exchange->count, sizeof *exchange->requests))) die(path);
        for (unsigned i = 0; i < exchange->count; i++) {
            size_t length = number_at(data, at, size, path);
            if (at + 2 + length > size) die(path);
            exchange->requests[i] = request_of(data + at + 2, length, path);
            at += 2 + length;
        }
    }
    if (!read.count) die(path);
    return read;
}

/* Connections */

static void watch(struct lane *lane, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(lane - lanes)};
    if (epoll_ctl(queue, operation, lane->fd, &event)) die("epoll_ctl");
}

static void shut(struct lane *lane) {
    if (lane->tls) SSL_free(lane->tls);
    if (lane->phase != CLOSED) close(lane->fd);
    lane->tls = NULL;
    lane->left_size = 0;
    lane->phase = CLOSED;
}

static void fail(struct lane *lane, const char *what);

static void send_octets(struct lane *lane, const uint8_t *data, size_t size) {
    /* One request is under way on each connection: what does not fit into an empty socket buffer is a fault of this program. */
    errno = 0;
    if (lane->tls) {
        if (SSL_write(lane->tls, data, (int)size) != (int)size) fail(lane, "SSL_write");
    } else if (send(lane->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) {
        fail(lane, "send");
    }
}

static void begin(struct lane *lane, const struct exchange *exchange, uint64_t now);
static void advance(struct lane *lane);
static void open_lane(struct lane *lane);

static const struct exchange *next_exchange(uint64_t now) {
    if (launched == total || (deadline && now >= deadline)) return NULL;
    return &book.exchanges[launched++ % book.count];
}

/* Take the next exchange; where there is none, this connection has done its part. */
static void launch(struct lane *lane) {
    uint64_t now = now_ns();
    const struct exchange *exchange = next_exchange(now);
    if (!exchange) {
        lane->phase = lane->phase == CLOSED ? CLOSED : IDLE;
        lane->exchange = NULL;
        return;
    }
    if (want.mode == FRESH) {
        lane->exchange = exchange;
        lane->began = now;
        open_lane(lane);
    } else {
        begin(lane, exchange, now);
    }
}

static void finish(struct lane *lane, bool is_good) {
    if (lane->is_first) {
        errno = 0;
        if (!is_good) die("the first exchange of a connection was refused");
        lane->is_first = false;
        lane->phase = IDLE;
        ready++;
        if (is_running) launch(lane);
        return;
    }
    if (seen.exchanges == room) {
        room = room ? 2 * room : 1 << 16;
        if (!(latencies = realloc(latencies, room * sizeof *latencies))) die("memory");
    }
    last_answer = now_ns();
    latencies[seen.exchanges++] = last_answer - lane->began;
    seen.good += is_good;
    if (want.mode == FRESH) shut(lane);
    launch(lane);
}

/* A connection that broke: what was under way is lost, and it starts afresh. */
static void fail(struct lane *lane, const char *what) {
    if (lane->phase == CLOSED) return;
    if (++seen.broken <= 3) fprintf(stderr, "ldap_load: broken: %s\n", what);
    errno = 0;
    if (seen.broken > MAX_BROKEN || !is_running) die("too many connections are broken");
    last_answer = now_ns();
    shut(lane);
    if (want.mode == FRESH) launch(lane);
    else open_lane(lane);
}

static void begin(struct lane *lane, const struct exchange *exchange, uint64_t now) {
    lane->exchange = exchange;
    lane->began = now;
    lane->at = 0;
    lane->phase = TALKING;
    advance(lane);
}

/* Send the request that is next, and those behind requests that have no answer. */
static void advance(struct lane *lane) {
    uint8_t out[MAX_REQUEST];
    while (lane->at < lane->exchange->count) {
        const struct request *request = &lane->exchange->requests[lane->at];
        lane->id = lane->id < FIRST_ID || lane->id == LAST_ID ? FIRST_ID : (uint16_t)(lane->id + 1);
        lane->entries = 0;
        memcpy(out, request->data, request->size);
        out[request->id_at] = (uint8_t)(lane->id >> 8);
        out[request->id_at + 1] = (uint8_t)lane->id;
        send_octets(lane, out, request->size);
        if (lane->phase != TALKING || request->final) return;
        lane->at++;
    }
    finish(lane, true);
}

static void take_frame(struct lane *lane, const struct frame *frame) {
    const struct part *operation = &frame->operation;
    uint16_t id = frame->id.size == 2 ? (uint16_t)(frame->id.data[0] << 8 | frame->id.data[1]) : 0;
    if (lane->phase != TALKING || id != lane->id) {
        fail(lane, "an answer to nothing that was asked");
        return;
    }
    const struct request *request = &lane->exchange->requests[lane->at];
    bool is_search = request->final == SEARCH_DONE;
    if (is_search && (operation->tag == SEARCH_ENTRY || operation->tag == SEARCH_REFERENCE)) {
        lane->entries++;
        return;
    }
    const uint8_t *result = operation->data;
    if (operation->tag != request->final || operation->size < 3 || result[0] != ENUMERATED || result[1] != 1) {
        fail(lane, "an answer of another kind");
        return;
    }
    bool is_good = result[2] == 0;
    if (is_good && is_search && want.entries >= 0 && lane->entries != (uint64_t)want.entries && !lane->is_first) {
        fail(lane, "a search with another number of entries");
        return;
    }
    if (!lane->is_first) {
        seen.results[result[2] % CODES]++;
        seen.entries += lane->entries;
    }
    lane->at++;
    if (is_good) advance(lane);
    else finish(lane, false);
}

/* Judge all that is whole; what is left is kept for later. */
static void take_octets(struct lane *lane, const uint8_t *data, size_t size) {
    size_t at = 0;
    int fd = lane->fd;
    while (lane->phase == TALKING && lane->fd == fd && at < size) {
        struct frame frame;
        enum reading reading = read_frame(data + at, size - at, &frame);
        if (reading == BROKEN) {
            fail(lane, "no LDAPMessage");
            return;
        }
        if (reading == MORE) break;
        at += frame.size;
        take_frame(lane, &frame);
    }
    if (lane->phase == CLOSED || lane->phase == CONNECTING) return;
    lane->left_size = size - at;
    if (lane->left_size >= BUFFER / 2) fail(lane, "an answer of so many octets is not expected");
    else if (lane->left_size) memcpy(lane->left, data + at, lane->left_size);
}

static ssize_t receive(struct lane *lane, uint8_t *data, size_t size) {
    if (!lane->tls) return recv(lane->fd, data, size, 0);
    int got = SSL_read(lane->tls, data, (int)size);
    if (got > 0) return got;
    if (SSL_get_error(lane->tls, got) == SSL_ERROR_WANT_READ) {
        errno = EAGAIN;
        return -1;
    }
    return 0;
}

static void read_lane(struct lane *lane) {
    static uint8_t data[BUFFER];
    while (lane->phase == TALKING || lane->phase == IDLE) {
        size_t have = lane->left_size;
        if (have) memcpy(data, lane->left, have);
        ssize_t got = receive(lane, data + have, BUFFER - have);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got <= 0) {
            fail(lane, "the server closed a connection");
            return;
        }
        if (is_running) seen.octets += (uint64_t)got;
        bool is_all = !lane->tls && (size_t)got < BUFFER - have;
        take_octets(lane, data, have + (size_t)got);
        if (is_all) return;
    }
}

/* The connection stands: what was it opened for? */
static void start_talking(struct lane *lane) {
    lane->id = 0;
    watch(lane, EPOLLIN, EPOLL_CTL_MOD);
    if (lane->tls && !*cipher) cipher = SSL_get_cipher(lane->tls);
    if (want.mode == FRESH) {
        begin(lane, lane->exchange, lane->began);
    } else {
        lane->is_first = true;
        begin(lane, &first.exchanges[(uint64_t)(lane - lanes) % first.count], now_ns());
    }
}

static void shake_hands(struct lane *lane) {
    lane->phase = HANDSHAKE;
    int done = SSL_connect(lane->tls);
    if (done == 1) {
        start_talking(lane);
        return;
    }
    int why = SSL_get_error(lane->tls, done);
    if (why == SSL_ERROR_WANT_READ) watch(lane, EPOLLIN, EPOLL_CTL_MOD);
    else if (why == SSL_ERROR_WANT_WRITE) watch(lane, EPOLLOUT, EPOLL_CTL_MOD);
    else fail(lane, "handshake");
}

static void connected(struct lane *lane) {
    int error = 0, on = 1;
    socklen_t size = sizeof error;
    if (getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
        fail(lane, "connect");
        return;
    }
    if (setsockopt(lane->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) die("TCP_NODELAY");
    if (!want.tls) {
        start_talking(lane);
        return;
    }
    if (!(lane->tls = SSL_new(context)) || !SSL_set_fd(lane->tls, lane->fd)) die("SSL_new");
    shake_hands(lane);
}

static void open_lane(struct lane *lane) {
    lane->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (lane->fd < 0) die("socket");
    lane->phase = CONNECTING;
    if (connect(lane->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die(want.to);
    watch(lane, EPOLLOUT, EPOLL_CTL_ADD);
}

static void serve_events(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int got = epoll_wait(queue, events, EVENTS, timeout_ms);
    if (got < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < got; i++) {
        struct lane *lane = &lanes[events[i].data.u32];
        switch (lane->phase) {
        case CONNECTING: connected(lane); break;
        case HANDSHAKE: shake_hands(lane); break;
        case TALKING:
        case IDLE: read_lane(lane); break;
        case CLOSED: break;
        }
    }
}

static bool is_any_busy(void) {
    for (unsigned i = 0; i < want.connections; i++)
        if (lanes[i].exchange && lanes[i].phase != CLOSED && lanes[i].phase != IDLE) return true;
    return false;
}

/* The options */

static int by_size(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static double milliseconds(double share) {
    if (!seen.exchanges) return 0;
    uint64_t at = (uint64_t)((double)seen.exchanges * share);
    return (double)latencies[at < seen.exchanges ? at : seen.exchanges - 1] / 1e6;
}

static void read_address(char *text) {
    char *colon = strrchr(text, ':');
    errno = 0;
    if (!colon) die(text);
    *colon = 0;
    to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, text, &to.sin_addr) != 1) die(text);
}

static void read_options(int argc, char **argv) {
    static const struct option known[] = {
        {"to", 1, 0, 't'},     {"book", 1, 0, 'b'},    {"first", 1, 0, 'f'}, {"mode", 1, 0, 'm'}, {"connections", 1, 0, 'n'},
        {"repeat", 1, 0, 'x'}, {"seconds", 1, 0, 's'}, {"tls", 0, 0, 'l'},   {"cpu", 1, 0, 'c'},  {"entries", 1, 0, 'e'},
        {0}};
    static const char *const modes[] = {"keep", "fresh", "hold"};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 't': want.to = optarg; break;
        case 'b': want.book = optarg; break;
        case 'f': want.first = optarg; break;
        case 'm':
            for (want.mode = KEEP; want.mode <= HOLD && strcmp(modes[want.mode], optarg); want.mode++) {}
            break;
        case 'n': want.connections = (unsigned)atoi(optarg); break;
        case 'x': want.repeat = (uint64_t)atoll(optarg); break;
        case 's': want.seconds = atof(optarg); break;
        case 'l': want.tls = true; break;
        case 'c': want.cpu = atoi(optarg); break;
        case 'e': want.entries = atoll(optarg); break;
        default: exit(2);
        }
    }
    bool is_whole = want.to && want.book && want.mode <= HOLD && (want.repeat || want.seconds > 0) &&
                    (want.mode != KEEP || want.first);
    if (!is_whole || !want.connections || want.connections > MAX_CONNECTIONS) {
        fputs("usage: ldap_load --to ADDRESS:PORT --book FILE [--first FILE] [--mode keep|fresh|hold] [--connections N]\n"
              "  [--repeat N (0: until --seconds are over)] [--seconds N] [--entries N] [--tls] [--cpu N]\n", stderr);
        exit(2);
    }
}

static void report(double seconds, double share) {
    const char *comma = "";
    if (seen.exchanges) qsort(latencies, seen.exchanges, sizeof *latencies, by_size);
    printf("{\"exchanges\": %lu, \"good\": %lu, \"broken\": %lu, \"entries\": %lu, \"octets\": %lu, \"results\": {",
           seen.exchanges, seen.good, seen.broken, seen.entries, seen.octets);
    for (unsigned code = 0; code < CODES; code++) {
        if (!seen.results[code]) continue;
        printf("%s\"%u\": %lu", comma, code, seen.results[code]);
        comma = ", ";
    }
    printf("}, \"seconds\": %.6f, \"cpu_share\": %.3f, \"cipher\": \"%s\", ", seconds, share, cipher);
    printf("\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n", milliseconds(0.5), milliseconds(0.99), milliseconds(1));
    fflush(stdout);
}

static void prepare(void) {
    struct rlimit files = {MAX_CONNECTIONS + 64, MAX_CONNECTIONS + 64};
    if (want.connections > 900 && setrlimit(RLIMIT_NOFILE, &files)) die("setrlimit");
    book = read_book(want.book);
    first = want.mode == HOLD ? book : want.first ? read_book(want.first) : (struct book){0};
    total = want.repeat ? book.count * want.repeat : UINT64_MAX;
    if (want.cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((unsigned)want.cpu, &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus)) die("sched_setaffinity");
    }
    if (want.tls && !(context = SSL_CTX_new(TLS_client_method()))) die("SSL_CTX_new");
    if (!(lanes = calloc(want.connections, sizeof *lanes))) die("memory");
    for (unsigned i = 0; i < want.connections; i++)
        if (!(lanes[i].left = malloc(BUFFER / 2))) die("memory"); /* pages are taken only when something is left */
    queue = epoll_create1(EPOLL_CLOEXEC);
    if (queue < 0) die("epoll_create1");
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    read_address((char *)(uintptr_t)want.to);
    prepare();
    if (want.mode != FRESH) {
        for (unsigned i = 0; i < want.connections; i++) {
            open_lane(&lanes[i]);
            while (ready + 64 <= i) serve_events(-1); /* no more at a time than a listening socket keeps waiting */
        }
        while (ready < want.connections) serve_events(-1);
    }
    if (want.mode == HOLD) {
        report(0, 0);
        while (getchar() != EOF) {}
        return 0;
    }
    double spent = processor_s();
    uint64_t start = now_ns();
    deadline = want.seconds > 0 ? start + (uint64_t)(want.seconds * 1e9) : 0;
    is_running = true;
    for (unsigned i = 0; i < want.connections; i++) launch(&lanes[i]);
    while (is_any_busy()) serve_events(-1);
    double wall = (double)(now_ns() - start) / 1e9;
    report((double)(last_answer - start) / 1e9, (processor_s() - spent) / wall);
    return 0;
}
