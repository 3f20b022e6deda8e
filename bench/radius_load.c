/* How many RADIUS requests a second does a server answer, and how late? The generator: it reads datagrams that are ready to be
 * sent, sends them, and judges the answers. It knows no password and builds no packet; bench/radius_stage.py does.
 *
 * The book is a file of records, each two octets of size (network order) and a datagram. Record i leaves through socket
 * i % sockets and must carry the identifier (i / sockets) % 256, because its Message-Authenticator covers that octet.
 *
 *   closed  each socket keeps --outstanding requests under way: throughput
 *   paced   record i is due at i / --rate seconds, whatever the server does; latencies count from the time that was due
 *   burst   every record at once, then the answers are counted
 *   flood   at --rate and with no hope of an answer, for packets that a server drops
 *
 * An answer counts when its identifier is under way at its socket and its Response Authenticator is right (RFC 2865 section 3).
 * A request without an answer is sent again as it is after --timeout-ms, --retries times, and is then lost.
 * The result is one line of JSON. cpu_share is this program's own share of its core: near 1, it was the bottleneck, not the
 * server (in a flood that share is what flooding costs, and the packets that the server's socket dropped prove the same).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SOCKETS = 256, IDS = 256, BATCH = 64, MAX_PACKET = 4096, HEADER = 20, MAX_SECRET = 256 };
enum { ACCEPT = 2, REJECT = 3, ACCOUNTING_RESPONSE = 5, CHALLENGE = 11, MESSAGE_AUTHENTICATOR = 80 };
enum { RECEIVE_BUFFER = 8 << 20 };
static const uint64_t NS = 1000000000u;
static const uint64_t SCAN_NS = 10000000u; /* how often requests that waited too long are looked for */

enum mode { CLOSED, PACED, BURST, FLOOD };

struct record {
    const uint8_t *data;
    uint16_t size;
};

struct slot { /* one identifier of one socket */
    const struct record *record;
    uint64_t due, sent; /* ns, CLOCK_MONOTONIC */
    unsigned tries;
    bool busy;
};

struct lane { /* one socket */
    int fd;
    unsigned outstanding;
    uint64_t next; /* the lane's next record: number next * sockets + lane */
    struct slot slots[IDS];
    const struct record *out[BATCH];
    unsigned queued;
};

static struct {
    const char *to, *from, *book, *secret_file;
    enum mode mode;
    unsigned sockets, outstanding, retries, timeout_ms, repeat;
    double rate;
    int cpu;
} want = {.mode = CLOSED, .sockets = 4, .outstanding = 8, .retries = 2, .timeout_ms = 1000, .repeat = 1, .cpu = -1};

static struct {
    uint64_t sent, answered, accept, reject, challenge, accounting, other, bad, stray, lost, retransmits, is_signed, late;
} seen;

/* Until a socket ran out of records: from there on fewer requests are under way than were asked for. */
static struct {
    uint64_t answered;
    double seconds;
} steady;

static struct record *records;
static uint64_t record_count, total;
static struct lane *lanes;
static uint64_t *latencies; /* ns */
static uint8_t secret[MAX_SECRET];
static size_t secret_size;

static void die(const char *what) {
    fprintf(stderr, "radius_load: %s: %s\n", what, errno ? strerror(errno) : "not usable");
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

/* MD5, RFC 1321. */
static const uint32_t md5_k[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
static const uint8_t md5_shift[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};

static void md5_block(uint32_t state[4], const uint8_t *block) {
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], words[16];
    memcpy(words, block, sizeof words); /* little endian, as x86 and arm64 are */
    for (unsigned i = 0; i < 64; i++) {
        uint32_t mix;
        unsigned word;
        switch (i / 16) {
        case 0: mix = (b & c) | (~b & d); word = i; break;
        case 1: mix = (d & b) | (~d & c); word = (5 * i + 1) % 16; break;
        case 2: mix = b ^ c ^ d; word = (3 * i + 5) % 16; break;
        default: mix = c ^ (b | ~d); word = (7 * i) % 16; break;
        }
        uint32_t sum = a + mix + md5_k[i] + words[word];
        unsigned shift = md5_shift[i / 16 * 4 + i % 4];
        a = d;
        d = c;
        c = b;
        b += sum << shift | sum >> (32 - shift);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static void md5(const uint8_t *data, size_t size, uint8_t digest[16]) {
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    uint8_t tail[128] = {0};
    size_t whole = size / 64 * 64, left = size - whole, padded = left < 56 ? 64 : 128;
    uint64_t bits = (uint64_t)size * 8;
    for (size_t i = 0; i < whole; i += 64) md5_block(state, data + i);
    memcpy(tail, data + whole, left);
    tail[left] = 0x80;
    memcpy(tail + padded - 8, &bits, 8);
    for (size_t i = 0; i < padded; i += 64) md5_block(state, tail + i);
    memcpy(digest, state, 16);
}

/* Whether a reply is the server's answer to this request: its length and its Response Authenticator. */
static bool is_answer(const uint8_t *reply, size_t size, const struct record *request) {
    uint8_t text[MAX_PACKET + MAX_SECRET], digest[16];
    if (size < HEADER || size > MAX_PACKET || ((size_t)reply[2] << 8 | reply[3]) != size) return false;
    memcpy(text, reply, size);
    memcpy(text + 4, request->data + 4, 16);
    memcpy(text + size, secret, secret_size);
    md5(text, size + secret_size, digest);
    return memcmp(digest, reply + 4, 16) == 0;
}

static uint8_t *read_whole(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die(path);
    long end = ftell(file);
    if (end < 0 || fseek(file, 0, SEEK_SET)) die(path);
    *size = (size_t)end;
    uint8_t *data = malloc(*size + 1);
    if (!data || fread(data, 1, *size, file) != *size) die(path);
    fclose(file);
    return data;
}

static void read_book(void) {
    size_t size, count = 0;
    uint8_t *data = read_whole(want.book, &size);
    errno = 0;
    for (int fill = 0; fill < 2; fill++) {
        size_t at = 0;
        for (count = 0; at + 2 <= size; count++) {
            size_t length = (size_t)data[at] << 8 | data[at + 1];
            if (length < HEADER || length > MAX_PACKET || at + 2 + length > size) die(want.book);
            if (fill) records[count] = (struct record){data + at + 2, (uint16_t)length};
            at += 2 + length;
        }
        if (at != size || !count) die(want.book);
        if (!fill && !(records = calloc(count, sizeof *records))) die("memory");
    }
    record_count = count;
    total = record_count * want.repeat;
}

static void address(const char *text, bool with_port, struct sockaddr_storage *out, socklen_t *size) {
    char host[64];
    const char *colon = strrchr(text, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
    errno = 0;
    if (!colon || (size_t)(colon - text) >= sizeof host) die(text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    if (getaddrinfo(host, with_port ? colon + 1 : "0", &hints, &found)) die(text);
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *size = found->ai_addrlen;
    freeaddrinfo(found);
}

/* With --from HOST:PORT the sockets have the ports PORT, PORT + 1, ...: the same sources in another run. */
static void open_lanes(int queue) {
    struct sockaddr_storage to, from;
    socklen_t to_size, from_size = 0;
    address(want.to, true, &to, &to_size);
    if (want.from) address(want.from, true, &from, &from_size);
    if (!(lanes = calloc(want.sockets, sizeof *lanes))) die("memory");
    for (unsigned i = 0; i < want.sockets; i++) {
        struct lane *lane = &lanes[i];
        int buffer = RECEIVE_BUFFER;
        lane->fd = socket(to.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (lane->fd < 0) die("socket");
        /* Above net.core.rmem_max only root may go: a generator that loses answers would blame the server. */
        if (setsockopt(lane->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer))
            setsockopt(lane->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
        if (want.from) {
            if (bind(lane->fd, (struct sockaddr *)&from, from_size)) die(want.from);
            bool is_v4 = from.ss_family == AF_INET;
            in_port_t *port = is_v4 ? &((struct sockaddr_in *)&from)->sin_port : &((struct sockaddr_in6 *)&from)->sin6_port;
            if (*port) *port = htons((uint16_t)(ntohs(*port) + 1));
        }
        if (connect(lane->fd, (struct sockaddr *)&to, to_size)) die(want.to);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(queue, EPOLL_CTL_ADD, lane->fd, &event)) die("epoll_ctl");
    }
}

static void flush(struct lane *lane) {
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    unsigned done = 0;
    for (unsigned i = 0; i < lane->queued; i++) {
        vectors[i] = (struct iovec){(void *)(uintptr_t)lane->out[i]->data, lane->out[i]->size};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &vectors[i], .msg_iovlen = 1}};
    }
    while (done < lane->queued) {
        int sent = sendmmsg(lane->fd, messages + done, lane->queued - done, 0);
        if (sent > 0) {
            done += (unsigned)sent;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = lane->fd, .events = POLLOUT};
            poll(&wait, 1, 100);
        } else if (errno != EINTR && errno != ECONNREFUSED) { /* the last: what an earlier datagram was told */
            die("sendmmsg");
        }
    }
    lane->queued = 0;
}

static void queue_record(struct lane *lane, const struct record *record) {
    if (lane->queued == BATCH) flush(lane);
    lane->out[lane->queued++] = record;
}

static bool lane_has_next(const struct lane *lane) {
    return lane->next * want.sockets + (uint64_t)(lane - lanes) < total;
}

/* Send a lane's next record if its identifier is free. */
static bool launch(struct lane *lane, uint64_t due, uint64_t now) {
    uint64_t number = lane->next * want.sockets + (uint64_t)(lane - lanes);
    const struct record *record = &records[number % record_count];
    struct slot *slot = &lane->slots[record->data[1]];
    if (slot->busy) return false;
    *slot = (struct slot){.record = record, .due = due, .sent = now, .tries = 1, .busy = true};
    lane->next++;
    lane->outstanding++;
    seen.sent++;
    queue_record(lane, record);
    return true;
}

static void judge(struct lane *lane, const uint8_t *reply, size_t size, uint64_t now) {
    struct slot *slot = size >= HEADER ? &lane->slots[reply[1]] : NULL;
    if (!slot || !slot->busy) {
        seen.stray++;
        return;
    }
    if (!is_answer(reply, size, slot->record)) {
        seen.bad++;
        return;
    }
    switch (reply[0]) {
    case ACCEPT: seen.accept++; break;
    case REJECT: seen.reject++; break;
    case CHALLENGE: seen.challenge++; break;
    case ACCOUNTING_RESPONSE: seen.accounting++; break;
    default: seen.other++;
    }
    if (size > HEADER && reply[HEADER] == MESSAGE_AUTHENTICATOR) seen.is_signed++;
    latencies[seen.answered++] = now - slot->due;
    slot->busy = false;
    lane->outstanding--;
}

static void receive(struct lane *lane) {
    static uint8_t buffers[BATCH][MAX_PACKET];
    static struct iovec vectors[BATCH];
    static struct mmsghdr messages[BATCH];
    for (unsigned i = 0; !messages[BATCH - 1].msg_hdr.msg_iov && i < BATCH; i++) { /* once: the kernel keeps them */
        vectors[i] = (struct iovec){buffers[i], MAX_PACKET};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &vectors[i], .msg_iovlen = 1}};
    }
    for (;;) {
        int got = recvmmsg(lane->fd, messages, BATCH, 0, NULL);
        if (got < 0 && (errno == EAGAIN || errno == ECONNREFUSED || errno == EINTR)) return;
        if (got < 0) die("recvmmsg");
        uint64_t now = now_ns();
        for (int i = 0; i < got; i++) judge(lane, buffers[i], messages[i].msg_len, now);
        if (got < BATCH) return;
    }
}

/* Send again what waited too long; give up what was sent often enough. */
static void scan(uint64_t now) {
    for (unsigned i = 0; i < want.sockets; i++) {
        struct lane *lane = &lanes[i];
        if (!lane->outstanding) continue;
        for (unsigned id = 0; id < IDS; id++) {
            struct slot *slot = &lane->slots[id];
            if (!slot->busy || now - slot->sent < want.timeout_ms * (NS / 1000)) continue;
            if (slot->tries > want.retries) {
                slot->busy = false;
                lane->outstanding--;
                seen.lost++;
            } else {
                slot->tries++;
                slot->sent = now;
                seen.retransmits++;
                queue_record(lane, slot->record);
            }
        }
        flush(lane);
    }
}

static bool is_any_lane_dry(void) {
    for (unsigned i = 0; i < want.sockets; i++)
        if (!lane_has_next(&lanes[i])) return true;
    return false;
}

/* Ask until every record has its answer or is lost; the ns between the first packet and the last answer. */
static uint64_t ask(int queue) {
    struct epoll_event events[MAX_SOCKETS];
    uint64_t start = now_ns(), scanned = start, last = start, launched = 0;
    double interval = want.mode == PACED ? (double)NS / want.rate : 0;
    while (seen.answered + seen.lost < total) {
        uint64_t now = now_ns(), wake = scanned + SCAN_NS;
        if (want.mode == CLOSED) {
            for (unsigned i = 0; i < want.sockets; i++)
                while (lanes[i].outstanding < want.outstanding && lane_has_next(&lanes[i]) && launch(&lanes[i], now, now)) {}
        } else {
            while (launched < total) {
                uint64_t due = start + (uint64_t)((double)launched * interval);
                if (due > now) {
                    wake = due < wake ? due : wake;
                    break;
                }
                if (!launch(&lanes[launched % want.sockets], due, now)) { /* 256 under way at this socket: wait for an answer */
                    seen.late++;
                    break;
                }
                launched++;
            }
        }
        for (unsigned i = 0; i < want.sockets; i++)
            if (lanes[i].queued) flush(&lanes[i]);
        if (!steady.answered && is_any_lane_dry()) {
            steady.answered = seen.answered;
            steady.seconds = (double)(now - start) / 1e9;
        }
        if (now - scanned >= SCAN_NS) {
            scan(now);
            scanned = now;
            continue;
        }
        struct timespec timeout = {.tv_nsec = (long)(wake > now ? wake - now : 0)};
        int ready = epoll_pwait2(queue, events, MAX_SOCKETS, &timeout, NULL);
        if (ready < 0 && errno != EINTR) die("epoll_pwait2");
        for (int i = 0; i < ready; i++) {
            uint64_t before = seen.answered;
            receive(&lanes[events[i].data.u32]);
            if (seen.answered > before) last = now_ns();
        }
    }
    return last - start;
}

/* Send every record at the rate, BATCH at a time through one socket after another. Answers count as stray. */
static uint64_t flood(void) {
    uint64_t start = now_ns();
    double interval = (double)NS / want.rate;
    for (uint64_t batch = 0; seen.sent < total; batch++) {
        uint64_t due = start + (uint64_t)((double)seen.sent * interval), now = now_ns();
        struct lane *lane = &lanes[batch % want.sockets];
        if (due > now) {
            struct timespec wait = {.tv_sec = (time_t)((due - now) / NS), .tv_nsec = (long)((due - now) % NS)};
            nanosleep(&wait, NULL);
        }
        for (unsigned i = 0; i < BATCH && seen.sent < total; i++) queue_record(lane, &records[seen.sent++ % record_count]);
        flush(lane);
    }
    uint64_t took = now_ns() - start;
    usleep(200000);
    for (unsigned i = 0; i < want.sockets; i++) receive(&lanes[i]);
    return took;
}

static int by_size(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static double milliseconds(double share) {
    if (!seen.answered) return 0;
    uint64_t at = (uint64_t)((double)seen.answered * share);
    return (double)latencies[at < seen.answered ? at : seen.answered - 1] / 1e6;
}

static void read_options(int argc, char **argv) {
    static const struct option known[] = {
        {"to", 1, 0, 't'},         {"from", 1, 0, 'f'},    {"book", 1, 0, 'b'},        {"secret-file", 1, 0, 's'},
        {"mode", 1, 0, 'm'},       {"sockets", 1, 0, 'n'}, {"outstanding", 1, 0, 'o'}, {"rate", 1, 0, 'r'},
        {"timeout-ms", 1, 0, 'w'}, {"retries", 1, 0, 'y'}, {"repeat", 1, 0, 'x'},      {"cpu", 1, 0, 'c'},
        {0}};
    static const char *const modes[] = {"closed", "paced", "burst", "flood"};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 't': want.to = optarg; break;
        case 'f': want.from = optarg; break;
        case 'b': want.book = optarg; break;
        case 's': want.secret_file = optarg; break;
        case 'm':
            for (want.mode = CLOSED; want.mode <= FLOOD && strcmp(modes[want.mode], optarg); want.mode++) {}
            break;
        case 'n': want.sockets = (unsigned)atoi(optarg); break;
        case 'o': want.outstanding = (unsigned)atoi(optarg); break;
        case 'r': want.rate = atof(optarg); break;
        case 'w': want.timeout_ms = (unsigned)atoi(optarg); break;
        case 'y': want.retries = (unsigned)atoi(optarg); break;
        case 'x': want.repeat = (unsigned)atoi(optarg); break;
        case 'c': want.cpu = atoi(optarg); break;
        default: exit(2);
        }
    }
    bool is_whole = want.to && want.book && want.secret_file && want.mode <= FLOOD && want.repeat &&
                    ((want.mode != PACED && want.mode != FLOOD) || want.rate > 0);
    if (!is_whole || !want.sockets || want.sockets > MAX_SOCKETS || !want.outstanding || want.outstanding > IDS) {
        fputs("usage: radius_load --to HOST:PORT --book FILE --secret-file FILE [--from HOST:PORT]\n"
              "  [--mode closed|paced|burst|flood] [--sockets N] [--outstanding N] [--rate N] [--repeat N]\n"
              "  [--timeout-ms N] [--retries N] [--cpu N]\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    uint8_t *text = read_whole(want.secret_file, &secret_size);
    while (secret_size && (text[secret_size - 1] == '\n' || text[secret_size - 1] == '\r')) secret_size--;
    errno = 0;
    if (!secret_size || secret_size > MAX_SECRET) die(want.secret_file);
    memcpy(secret, text, secret_size);
    free(text);
    read_book();
    if (!(latencies = calloc(total, sizeof *latencies))) die("memory");
    if (want.cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((unsigned)want.cpu, &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus)) die("sched_setaffinity");
    }
    prctl(PR_SET_TIMERSLACK, 1); /* the default, 50 us, is as long as a request takes */
    int queue = epoll_create1(EPOLL_CLOEXEC);
    if (queue < 0) die("epoll_create1");
    open_lanes(queue);

    double spent = processor_s();
    uint64_t start = now_ns();
    double seconds = (double)(want.mode == FLOOD ? flood() : ask(queue)) / 1e9;
    double share = (processor_s() - spent) / ((double)(now_ns() - start) / 1e9);
    qsort(latencies, seen.answered, sizeof *latencies, by_size);
    printf("{\"sent\": %lu, \"answered\": %lu, \"accept\": %lu, \"reject\": %lu, \"challenge\": %lu, \"accounting\": %lu, ",
           seen.sent, seen.answered, seen.accept, seen.reject, seen.challenge, seen.accounting);
    printf("\"other\": %lu, \"signed\": %lu, \"bad\": %lu, \"stray\": %lu, ", seen.other, seen.is_signed, seen.bad, seen.stray);
    printf("\"lost\": %lu, \"retransmits\": %lu, \"late\": %lu, ", seen.lost, seen.retransmits, seen.late);
    printf("\"seconds\": %.6f, \"cpu_share\": %.3f, ", seconds, share);
    printf("\"steady_answered\": %lu, \"steady_seconds\": %.6f, ", steady.answered, steady.seconds);
    printf("\"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n", milliseconds(0.5), milliseconds(0.9),
           milliseconds(0.99), milliseconds(1));
    return 0;
}
