/* How many hosts does an authority carry? The generator: it is so many hosts at once, each with a certificate of its own, over
 * TLS 1.3 and HTTP/1.1. It makes no request of its own; bench/authority_stage.py does.
 *
 *   play   every connection sends the next body of --book as soon as it has its answer, until the book is empty. The book is a
 *          file of bodies, each behind four octets of size (network order). An answer is good when its status is 200; in good ones
 *          --count is counted.
 *   hold   every connection sends the body in --body and sends it again as soon as it is answered: long polls. In the body
 *          @NONCE@, @SEQ@, @CURSOR@ and @DIGEST@ stand for 16 random octets in base64, and for what the last answer said
 *          ("seq", the "seq" of "cursor", "digest"), at first --seq, --cursor and --digest. When all of them wait, a line of JSON
 *          is written. Each line of standard input is a round: it ends when every host has been told something new (a user, or
 *          a user who is gone), or after --seconds, and a line of JSON tells of it. At the end of input it ends.
 *
 * The hosts are those of --hosts: certificates (DER), each behind four octets of size; one private key (PEM) is that of all.
 * Times in lines about rounds are CLOCK_MONOTONIC, ns. cpu_share is this program's own share of its core: near 1, it was the
 * bottleneck, not the authority. Nothing that is sealed or signed in an answer is looked at here: that the answers are good, the
 * measurement shows with one host that does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, ROOM = 4096, MAX_BODY = 1 << 22, MAX_ANSWER = 64 << 20, MAX_BROKEN = 100, AT_ONCE = 64, HEX = 64 };
static const uint64_t NS = 1000000000u;

enum mode { PLAY, HOLD };
enum phase { CLOSED, CONNECTING, HANDSHAKE, READY, SENDING, WAITING };

struct record {
    const uint8_t *data;
    size_t size;
};

struct lane { /* one host */
    int fd;
    SSL *tls;
    enum phase phase;
    bool has_news;
    char *out; /* a request, as far as it is not sent */
    size_t out_size, out_at;
    char *in; /* an answer, as far as it is here */
    size_t in_size, in_room, head_size, whole;
    uint64_t began, news_at, seq, cursor;
    char digest[HEX + 1];
};

static struct {
    const char *to, *name, *trust, *key, *hosts, *book, *body, *path, *count, *digest;
    enum mode mode;
    unsigned connections;
    uint64_t seq, cursor;
    double seconds;
    int cpu;
} want = {.name = "localhost", .path = "/", .count = "", .digest = "", .connections = 1, .seconds = 600, .cpu = -1};

static struct {
    uint64_t exchanges, good, broken, counted, octets_in, octets_out, leases;
} seen;

static struct lane *lanes;
static struct record *hosts, *book;
static uint64_t host_count, book_count, next_record, *figures, figure_count;
static char *template;
static unsigned ready, waiting, told;
static struct sockaddr_in to;
static SSL_CTX *context;
static EVP_PKEY *private_key;
static int queue;

static void die(const char *what) {
    fprintf(stderr, "authority_load: %s: %s\n", what, errno ? strerror(errno) : "not usable");
    ERR_print_errors_fp(stderr);
    exit(2);
}

static void *need(void *memory) {
    if (!memory) die("memory");
    return memory;
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

/* Files */

static uint8_t *read_whole(const char *path, size_t *size) {
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file || fseek(file, 0, SEEK_END)) die(path ? path : "a file that is needed was not named");
    long end = ftell(file);
    if (end < 0 || fseek(file, 0, SEEK_SET)) die(path);
    *size = (size_t)end;
    uint8_t *data = need(malloc(*size + 1));
    if (fread(data, 1, *size, file) != *size) die(path);
    data[*size] = 0;
    fclose(file);
    return data;
}

static struct record *read_records(const char *path, uint64_t *count) {
    size_t size;
    uint8_t *data = read_whole(path, &size);
    struct record *records = NULL;
    errno = 0;
    for (int fill = 0; fill < 2; fill++) {
        size_t at = 0;
        for (*count = 0; at + 4 <= size; ++*count) {
            size_t length = (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
            if (!length || length > MAX_BODY || at + 4 + length > size) die(path);
            if (fill) records[*count] = (struct record){data + at + 4, length};
            at += 4 + length;
        }
        if (at != size || !*count) die(path);
        if (!fill) records = need(calloc(*count, sizeof *records));
    }
    return records;
}

/* Requests */

static void watch(struct lane *lane, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = lane};
    if (epoll_ctl(queue, how, lane->fd, &event)) die("epoll_ctl");
}

static void close_lane(struct lane *lane, const char *what) {
    if (++seen.broken > MAX_BROKEN) die(what);
    if (lane->phase == WAITING) waiting--;
    fprintf(stderr, "authority_load: a host lost its connection: %s\n", what);
    if (lane->tls) SSL_free(lane->tls);
    close(lane->fd);
    lane->tls = NULL;
    lane->fd = -1;
    lane->phase = CLOSED;
}

static char *put(char *at, const char *text, size_t size) {
    memcpy(at, text, size);
    return at + size;
}

static size_t fill_in(const struct lane *lane, char *out) {
    char *at = out;
    const char *from = template;
    while (*from) {
        size_t plain = strcspn(from, "@");
        at = put(at, from, plain);
        from += plain;
        if (!strncmp(from, "@NONCE@", 7)) {
            uint8_t nonce[16];
            if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce) die("getrandom");
            at += EVP_EncodeBlock((uint8_t *)at, nonce, sizeof nonce);
            from += 7;
        } else if (!strncmp(from, "@SEQ@", 5)) {
            at += sprintf(at, "%llu", (unsigned long long)lane->seq);
            from += 5;
        } else if (!strncmp(from, "@CURSOR@", 8)) {
            at += sprintf(at, "%llu", (unsigned long long)lane->cursor);
            from += 8;
        } else if (!strncmp(from, "@DIGEST@", 8)) {
            at = put(at, lane->digest, strlen(lane->digest));
            from += 8;
        } else if (*from) {
            *at++ = *from++;
        }
    }
    return (size_t)(at - out);
}

static void send_some(struct lane *lane) {
    while (lane->out_at < lane->out_size) {
        int sent = SSL_write(lane->tls, lane->out + lane->out_at, (int)(lane->out_size - lane->out_at));
        if (sent <= 0) {
            int why = SSL_get_error(lane->tls, sent);
            if (why == SSL_ERROR_WANT_WRITE) {
                watch(lane, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
                return;
            }
            if (why == SSL_ERROR_WANT_READ) return;
            close_lane(lane, "SSL_write");
            return;
        }
        lane->out_at += (size_t)sent;
        seen.octets_out += (size_t)sent;
    }
    free(lane->out);
    lane->out = NULL;
    lane->phase = WAITING;
    waiting++;
    watch(lane, EPOLLIN, EPOLL_CTL_MOD);
}

static void ask(struct lane *lane) {
    char filled[ROOM * 4];
    const char *body;
    size_t size;
    if (want.mode == PLAY) {
        if (next_record == book_count) {
            lane->phase = READY;
            return;
        }
        body = (const char *)book[next_record].data;
        size = book[next_record++].size;
    } else {
        size = fill_in(lane, filled);
        body = filled;
    }
    lane->out = need(malloc(size + ROOM));
    int head = snprintf(
        lane->out, ROOM,
        "POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\naccept-encoding: identity\r\ncontent-length: %zu\r\n\r\n",
        want.path, want.name, size);
    if (head < 0 || head >= ROOM) die("--path");
    memcpy(lane->out + head, body, size);
    lane->out_size = (size_t)head + size;
    lane->out_at = 0;
    lane->began = now_ns();
    lane->phase = SENDING;
    send_some(lane);
}

/* Answers */

static bool number_behind(const char *text, const char *word, uint64_t *out) {
    const char *at = strstr(text, word);
    if (!at) return false;
    char *end;
    errno = 0;
    *out = strtoull(at + strlen(word), &end, 10);
    return end != at + strlen(word) && !errno;
}

/* The digest of the manifest: the only one of 64 digits that is not inside a text. */
static void keep_digest(struct lane *lane, const char *text) {
    for (const char *at = text; (at = strstr(at, "\"digest\":\"")); at++) {
        const char *value = at + 10;
        if ((at == text || at[-1] != '\\') && strspn(value, "0123456789abcdef") == HEX && value[HEX] == '"') {
            memcpy(lane->digest, value, HEX);
            lane->digest[HEX] = 0;
        }
    }
}

static void read_answer(struct lane *lane, const char *body) {
    const char *cursor = strstr(body, "\"cursor\":{");
    if (!number_behind(body, "\"seq\":", &lane->seq) || !cursor || !number_behind(cursor, "\"seq\":", &lane->cursor))
        die("an answer says no seq and no cursor");
    keep_digest(lane, body);
    const char *gone = strstr(body, "\"gone\":[");
    bool is_news = strstr(body, "\"users\":[{") || (gone && gone[8] != ']');
    if (!is_news) seen.leases++;
    if (is_news && !lane->has_news) {
        lane->has_news = true;
        lane->news_at = now_ns();
        told++;
    }
}

static void answered(struct lane *lane) {
    char *body = lane->in + lane->head_size;
    bool is_good = !strncmp(lane->in, "HTTP/1.1 200 ", 13);
    seen.exchanges++;
    seen.octets_in += lane->whole;
    waiting--;
    if (lane->in_size != lane->whole) die("more came than one answer");
    if (is_good) {
        seen.good++;
        if (want.mode == HOLD) read_answer(lane, body);
        else
            for (const char *at = body; *want.count && (at = strstr(at, want.count)); at++) seen.counted++;
    } else if (seen.exchanges - seen.good <= 3) {
        fprintf(stderr, "authority_load: %.400s\n", lane->in);
    }
    if (want.mode == PLAY) figures[figure_count++] = now_ns() - lane->began;
    free(lane->in);
    lane->in = NULL;
    lane->in_size = lane->in_room = lane->whole = 0;
    lane->phase = READY;
    if (want.mode == HOLD && !is_good) {
        close_lane(lane, "refused");
        return;
    }
    ask(lane);
}

static void look_at_head(struct lane *lane) {
    char *end = memmem(lane->in, lane->in_size, "\r\n\r\n", 4);
    if (!end) return;
    *end = 0;
    const char *length = strcasestr(lane->in, "\r\ncontent-length:");
    *end = '\r';
    errno = 0;
    if (!length || (size_t)(length - lane->in) > (size_t)(end - lane->in)) die("an answer has no content-length");
    size_t size = strtoull(length + 17, NULL, 10);
    if (size > MAX_ANSWER) die("an answer is too large");
    lane->head_size = (size_t)(end - lane->in) + 4;
    lane->whole = lane->head_size + size;
}

static void receive(struct lane *lane) {
    for (;;) {
        if (lane->in_room - lane->in_size < ROOM) {
            lane->in_room = lane->whole > lane->in_room ? lane->whole + 2 * ROOM : 2 * lane->in_room + 2 * ROOM;
            lane->in = need(realloc(lane->in, lane->in_room + 1));
        }
        int got = SSL_read(lane->tls, lane->in + lane->in_size, (int)(lane->in_room - lane->in_size));
        if (got <= 0) {
            int why = SSL_get_error(lane->tls, got);
            if (why == SSL_ERROR_WANT_READ) {
                if (!lane->in_size) { /* ten thousand of them wait with nothing */
                    free(lane->in);
                    lane->in = NULL;
                    lane->in_room = 0;
                }
                return;
            }
            close_lane(lane, "SSL_read");
            return;
        }
        if (lane->phase != WAITING) {
            close_lane(lane, "an answer that nobody asked for");
            return;
        }
        lane->in_size += (size_t)got;
        lane->in[lane->in_size] = 0;
        if (!lane->whole) look_at_head(lane);
        if (lane->whole && lane->in_size >= lane->whole) {
            answered(lane);
            if (lane->phase == CLOSED) return;
        }
    }
}

/* Connections */

static void shake_hands(struct lane *lane) {
    int done = SSL_connect(lane->tls);
    if (done == 1) {
        lane->phase = READY;
        ready++;
        watch(lane, EPOLLIN, EPOLL_CTL_MOD);
        if (want.mode == HOLD) ask(lane);
        return;
    }
    int why = SSL_get_error(lane->tls, done);
    if (why == SSL_ERROR_WANT_READ) watch(lane, EPOLLIN, EPOLL_CTL_MOD);
    else if (why == SSL_ERROR_WANT_WRITE) watch(lane, EPOLLOUT, EPOLL_CTL_MOD);
    else die("SSL_connect");
}

static void open_lane(struct lane *lane, const struct record *host) {
    const uint8_t *der = host->data;
    X509 *certificate = d2i_X509(NULL, &der, (long)host->size);
    lane->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (lane->fd < 0 || setsockopt(lane->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) die("socket");
    if (!certificate || !(lane->tls = SSL_new(context)) || !SSL_set_fd(lane->tls, lane->fd)) die("SSL_new");
    if (!SSL_use_certificate(lane->tls, certificate) || !SSL_use_PrivateKey(lane->tls, private_key)) die("--hosts, --key");
    if (!SSL_set_tlsext_host_name(lane->tls, want.name) || !SSL_set1_host(lane->tls, want.name)) die("--name");
    X509_free(certificate);
    if (connect(lane->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    lane->phase = CONNECTING;
    lane->seq = want.seq;
    lane->cursor = want.cursor;
    if (strlen(want.digest) > HEX) die("--digest");
    strcpy(lane->digest, want.digest);
    watch(lane, EPOLLOUT, EPOLL_CTL_ADD);
}

static void serve_events(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(queue, events, EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; i++) {
        struct lane *lane = events[i].data.ptr;
        switch (lane->phase) {
        case CLOSED: break;
        case CONNECTING: lane->phase = HANDSHAKE; /* fall through */
        case HANDSHAKE: shake_hands(lane); break;
        case SENDING: send_some(lane); break;
        case READY:
        case WAITING: receive(lane); break;
        }
    }
}

/* Figures */

static int by_value(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static uint64_t share(double part) {
    size_t at = (size_t)((double)figure_count * part);
    return figure_count ? figures[at < figure_count ? at : figure_count - 1] : 0;
}

static void play(void) {
    double spent = processor_s();
    uint64_t start = now_ns();
    figures = need(calloc(book_count, sizeof *figures));
    for (unsigned i = 0; i < want.connections; i++) ask(&lanes[i]);
    while (waiting || (seen.exchanges < book_count && seen.broken < want.connections)) serve_events(1000);
    double wall = (double)(now_ns() - start) / 1e9;
    qsort(figures, figure_count, sizeof *figures, by_value);
    printf(
        "{\"exchanges\": %llu, \"good\": %llu, \"broken\": %llu, \"counted\": %llu, \"octets_in\": %llu, \"octets_out\": %llu, "
        "\"seconds\": %.6f, \"cpu_share\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f}\n",
        (unsigned long long)seen.exchanges, (unsigned long long)seen.good, (unsigned long long)seen.broken,
        (unsigned long long)seen.counted, (unsigned long long)seen.octets_in, (unsigned long long)seen.octets_out, wall,
        (processor_s() - spent) / wall, (double)share(0.5) / 1e6, (double)share(0.99) / 1e6, (double)share(1) / 1e6);
}

static void tell_round(double spent, uint64_t start) {
    figure_count = 0;
    for (unsigned i = 0; i < want.connections; i++)
        if (lanes[i].has_news) figures[figure_count++] = lanes[i].news_at;
    qsort(figures, figure_count, sizeof *figures, by_value);
    double wall = (double)(now_ns() - start) / 1e9;
    printf(
        "{\"told\": %u, \"first_ns\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu, \"last_ns\": %llu, \"leases\": %llu, "
        "\"broken\": %llu, \"octets_in\": %llu, \"cpu_share\": %.4f}\n",
        told, (unsigned long long)share(0), (unsigned long long)share(0.5), (unsigned long long)share(0.99),
        (unsigned long long)share(1), (unsigned long long)seen.leases, (unsigned long long)seen.broken,
        (unsigned long long)seen.octets_in, (processor_s() - spent) / wall);
    fflush(stdout);
}

static void hold(void) {
    figures = need(calloc(want.connections, sizeof *figures));
    while (waiting < want.connections) serve_events(100);
    printf("{\"waiting\": %u}\n", waiting);
    fflush(stdout);
    for (;;) { /* standard input may be a pipe: it is looked at between events */
        char line[64];
        ssize_t got = read(STDIN_FILENO, line, sizeof line);
        if (got == 0) return;
        if (got < 0 && errno != EAGAIN) die("standard input");
        if (got < 0) {
            serve_events(10);
            continue;
        }
        told = 0;
        for (unsigned i = 0; i < want.connections; i++) lanes[i].has_news = false;
        seen.leases = seen.octets_in = 0;
        double spent = processor_s();
        uint64_t start = now_ns(), end = start + (uint64_t)(want.seconds * 1e9);
        printf("{\"begun_ns\": %llu}\n", (unsigned long long)start);
        fflush(stdout);
        while (told + seen.broken < want.connections && now_ns() < end) serve_events(100);
        tell_round(spent, start);
    }
}

static void read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"to", required_argument, NULL, 't'},      {"name", required_argument, NULL, 'n'},
        {"trust", required_argument, NULL, 'r'},   {"key", required_argument, NULL, 'k'},
        {"hosts", required_argument, NULL, 'h'},   {"book", required_argument, NULL, 'b'},
        {"body", required_argument, NULL, 'B'},    {"path", required_argument, NULL, 'p'},
        {"count", required_argument, NULL, 'w'},   {"mode", required_argument, NULL, 'm'},
        {"digest", required_argument, NULL, 'd'},  {"seq", required_argument, NULL, 's'},
        {"cursor", required_argument, NULL, 'u'},  {"connections", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 'S'}, {"cpu", required_argument, NULL, 'C'},
        {0}};
    for (int word; (word = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (word) {
        case 't': want.to = optarg; break;
        case 'n': want.name = optarg; break;
        case 'r': want.trust = optarg; break;
        case 'k': want.key = optarg; break;
        case 'h': want.hosts = optarg; break;
        case 'b': want.book = optarg; break;
        case 'B': want.body = optarg; break;
        case 'p': want.path = optarg; break;
        case 'w': want.count = optarg; break;
        case 'm': want.mode = strcmp(optarg, "hold") ? PLAY : HOLD; break;
        case 'd': want.digest = optarg; break;
        case 's': want.seq = strtoull(optarg, NULL, 10); break;
        case 'u': want.cursor = strtoull(optarg, NULL, 10); break;
        case 'c': want.connections = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'S': want.seconds = strtod(optarg, NULL); break;
        case 'C': want.cpu = atoi(optarg); break;
        default: exit(2);
        }
    errno = 0;
    if (optind != argc || !want.connections || !want.to) die("options: see the head of authority_load.c");
}

static void prepare(void) {
    const char *colon = strrchr(want.to, ':');
    char host[64];
    size_t size;
    if (!colon || (size_t)(colon - want.to) >= sizeof host) die("--to");
    memcpy(host, want.to, (size_t)(colon - want.to));
    host[colon - want.to] = 0;
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) die("--to");
    struct rlimit files = {want.connections + 100, want.connections + 100};
    struct rlimit now;
    if (getrlimit(RLIMIT_NOFILE, &now)) die("getrlimit");
    if (now.rlim_cur < files.rlim_cur) {
        if (files.rlim_max < now.rlim_max) files.rlim_max = now.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files)) die("more open files are needed: ulimit -n");
    }
    if (want.cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(want.cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set)) die("--cpu");
    }
    hosts = read_records(want.hosts, &host_count);
    if (want.mode == PLAY) book = read_records(want.book, &book_count);
    else template = (char *)read_whole(want.body, &size);
    if (template && size > ROOM * 2) die("--body");
    FILE *file = want.key ? fopen(want.key, "r") : NULL;
    if (!file || !(private_key = PEM_read_PrivateKey(file, NULL, NULL, NULL))) die("--key");
    fclose(file);
    if (!(context = SSL_CTX_new(TLS_client_method())) || !SSL_CTX_load_verify_locations(context, want.trust, NULL)) die("--trust");
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if ((queue = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    lanes = need(calloc(want.connections, sizeof *lanes));
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    prepare();
    if (want.mode == HOLD && fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK)) die("standard input");
    for (unsigned i = 0; i < want.connections; i++) {
        open_lane(&lanes[i], &hosts[i % host_count]);
        while (ready + AT_ONCE <= i + 1) serve_events(-1); /* no more at a time than are let in */
    }
    while (ready < want.connections) serve_events(-1);
    if (want.mode == PLAY) play();
    else hold();
    return 0;
}
