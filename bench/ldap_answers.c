/* What would a directory be that costs nothing? One that answers at once: every bind is good, WhoAmI is the DN of the last
 * bind, every search finds one entry. Behind a proxy under measurement, so that the directory is not the limit.
 *
 * usage: ldap_answers PORT    (127.0.0.1, one thread; it ends with a signal)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ldap_frame.h"

enum { MAX_FD = 8192, EVENTS = 256, BUFFER = 1 << 16, MAX_NAME = 256 };

struct client {
    uint8_t name[MAX_NAME]; /* of the last bind */
    size_t name_size;
    uint8_t left[BUFFER];
    size_t left_size;
};

static struct client *clients[MAX_FD];
static uint8_t out[4 * BUFFER];
static size_t out_size;

/* uid=answer,dc=example,dc=org with some attributes: as much as an entry of a person. */
static uint8_t entry[512];
static size_t entry_size;

static void die(const char *what) {
    fprintf(stderr, "ldap_answers: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* Append a TLV of less than 64 KiB; the head always takes four octets, as some servers write it. */
static size_t put(uint8_t *at, uint8_t tag, const uint8_t *data, size_t size) {
    at[0] = tag;
    at[1] = 0x82;
    at[2] = (uint8_t)(size >> 8);
    at[3] = (uint8_t)size;
    memmove(at + 4, data, size);
    return size + 4;
}

static void make_entry(void) {
    uint8_t attributes[400], one[200], set[100];
    size_t all = 0;
    for (unsigned i = 0; i < 6; i++) {
        char type[16], value[40];
        int type_size = snprintf(type, sizeof type, "attribute%u", i);
        int size = snprintf(value, sizeof value, "the value of attribute %u", i);
        size_t set_size = put(set, OCTETS, (const uint8_t *)value, (size_t)size);
        size_t one_size = put(one, OCTETS, (const uint8_t *)type, (size_t)type_size);
        one_size += put(one + one_size, 0x31, set, set_size);
        all += put(attributes + all, SEQUENCE, one, one_size);
    }
    static const char name[] = "uid=answer,dc=example,dc=org";
    entry_size = put(entry, OCTETS, (const uint8_t *)name, sizeof name - 1);
    entry_size += put(entry + entry_size, SEQUENCE, attributes, all);
}

static void answer(const struct part *id, uint8_t tag, const uint8_t *data, size_t size) {
    uint8_t message[1024];
    size_t used = put(message, INTEGER, id->data, id->size);
    used += put(message + used, tag, data, size);
    out_size += put(out + out_size, SEQUENCE, message, used);
}

static bool take_frame(struct client *client, const struct frame *frame) {
    static const uint8_t success[] = {ENUMERATED, 1, 0, OCTETS, 0, OCTETS, 0};
    const struct part *operation = &frame->operation;
    struct part version, name;
    size_t used, more;
    if (frame->id.size > 4) return false;
    switch (operation->tag) {
    case BIND_REQUEST:
        if (read_part(operation->data, operation->size, &version, &used) != WHOLE) return false;
        if (read_part(operation->data + used, operation->size - used, &name, &more) != WHOLE) return false;
        if (name.size > MAX_NAME) return false;
        memcpy(client->name, name.data, client->name_size = name.size);
        answer(&frame->id, BIND_RESPONSE, success, sizeof success);
        return true;
    case SEARCH_REQUEST:
        answer(&frame->id, SEARCH_ENTRY, entry, entry_size);
        answer(&frame->id, SEARCH_DONE, success, sizeof success);
        return true;
    case EXTENDED_REQUEST: {
        uint8_t body[MAX_NAME + 32], identity[MAX_NAME + 3] = "dn:";
        memcpy(body, success, sizeof success);
        if (client->name_size) memcpy(identity + 3, client->name, client->name_size);
        size_t size = client->name_size ? client->name_size + 3 : 0;
        answer(&frame->id, EXTENDED_RESPONSE, body, sizeof success + put(body + sizeof success, 0x8b, identity, size));
        return true;
    }
    default: return false; /* an Unbind, or nothing that is known */
    }
}

/* Whether the connection goes on. */
static bool serve(int fd) {
    static uint8_t data[2 * BUFFER];
    struct client *client = clients[fd];
    memcpy(data, client->left, client->left_size);
    ssize_t got = recv(fd, data + client->left_size, BUFFER, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got <= 0) return false;
    size_t have = client->left_size + (size_t)got, at = 0;
    out_size = 0;
    for (struct frame frame; at < have; at += frame.size) {
        enum reading reading = read_frame(data + at, have - at, &frame);
        if (reading == MORE) break;
        if (reading == BROKEN || !take_frame(client, &frame)) return false;
        if (out_size > 3 * BUFFER) return false; /* nobody here asks for so much at a time */
    }
    client->left_size = have - at;
    if (client->left_size > BUFFER) return false;
    memcpy(client->left, data + at, client->left_size);
    return !out_size || send(fd, out, out_size, MSG_NOSIGNAL) == (ssize_t)out_size;
}

int main(int argc, char **argv) {
    int on = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listening};
    if (argc != 2) {
        fputs("usage: ldap_answers PORT\n", stderr);
        return 2;
    }
    here.sin_port = htons((uint16_t)atoi(argv[1]));
    if (listening < 0 || setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)) die("socket");
    if (bind(listening, (struct sockaddr *)&here, sizeof here) || listen(listening, 1024)) die(argv[1]);
    int queue = epoll_create1(EPOLL_CLOEXEC);
    if (queue < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, listening, &event)) die("epoll");
    make_entry();
    for (;;) {
        int got = epoll_wait(queue, events, EVENTS, -1);
        if (got < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < got; i++) {
            int fd = events[i].data.fd;
            if (fd == listening) {
                fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0) continue;
                if (fd >= MAX_FD || !(clients[fd] = calloc(1, sizeof *clients[fd]))) die("too many connections");
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                if (epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
            } else if (!serve(fd)) {
                close(fd);
                free(clients[fd]);
                clients[fd] = NULL;
            }
        }
    }
}
