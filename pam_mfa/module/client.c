/* client.c - is this socket mfad's, and does it answer in time? The only file that touches a descriptor. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <security/pam_ext.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { CONNECT_MS = 1000, CONNECT_AGAIN_MS = 20, SEND_MS = 5000 };

static int64_t now_ms(void) {
    struct timespec now = { 0, 0 };
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int unavailable(const struct mfa_client *client, const char *what) {
    pam_syslog(client->pamh, LOG_ERR, "mfad unavailable: %s: %m", what);
    return PAM_AUTHINFO_UNAVAIL;
}

static int untrusted(const struct mfa_client *client, const char *path, const char *what) {
    pam_syslog(client->pamh, LOG_CRIT, "mfad untrusted: %s: %s", path, what);
    return PAM_SERVICE_ERR;
}

/* lstat, not open: whoever could swap the path after this look owns the directory, and is trusted. */
static int check_path(const struct mfa_client *client, const char *path, mode_t kind, uid_t server_uid) {
    struct stat found;
    if (lstat(path, &found) != 0)
        return unavailable(client, path);
    if ((found.st_mode & S_IFMT) != kind)
        return untrusted(client, path, kind == S_IFDIR ? "not a directory" : "not a socket");
    if (found.st_uid != 0 && found.st_uid != server_uid)
        return untrusted(client, path, "owned neither by root nor by server_uid");
    if (kind == S_IFDIR && (found.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return untrusted(client, path, "writable by others than its owner");
    return PAM_SUCCESS;
}

int mfa_connect(struct mfa_client *client, pam_handle_t *pamh, const struct mfa_options *options) {
    const int64_t now = now_ms();
    *client = (struct mfa_client){ pamh, -1, now + (int64_t)options->timeout_s * 1000 };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *name = geteuid() == 0 ? "priv.sock" : "user.sock";
    int rc = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", options->socket_dir, name);
    if (rc < 0 || (size_t)rc >= sizeof address.sun_path)
        return untrusted(client, options->socket_dir, "too long a path");
    if ((rc = check_path(client, options->socket_dir, S_IFDIR, options->server_uid)) != PAM_SUCCESS
        || (rc = check_path(client, address.sun_path, S_IFSOCK, options->server_uid)) != PAM_SUCCESS)
        return rc;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    client->fd = fd < 0 || fd > STDERR_FILENO ? fd : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (client->fd != fd)
        (void)close(fd); /* 0-2, closed by the caller: another part of it may mean to open a terminal or a log there */
    if (client->fd < 0)
        return unavailable(client, "socket");
    while (connect(client->fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        if ((errno != EAGAIN && errno != EINTR) || now_ms() - now >= CONNECT_MS) /* EAGAIN: its queue is full */
            return unavailable(client, address.sun_path);
        (void)poll(NULL, 0, CONNECT_AGAIN_MS);
    }
    struct ucred peer = { 0, 0, 0 };
    socklen_t size = sizeof peer;
    if (getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || size != sizeof peer
        || (peer.uid != 0 && peer.uid != options->server_uid))
        return untrusted(client, address.sun_path, "served neither by root nor by server_uid");
    return PAM_SUCCESS;
}

/* 0: ready, or hung up, which the next call tells; -1: not in time. */
static int wait_until(const struct mfa_client *client, short events, int64_t ends) {
    struct pollfd waiting = { .fd = client->fd, .events = events };
    int rc;
    if (ends > client->phase_ends)
        ends = client->phase_ends;
    do {
        const int64_t left = ends - now_ms();
        rc = left <= 0 ? 0 : poll(&waiting, 1, (int)left); /* 600 s at most */
    } while (rc < 0 && errno == EINTR);
    if (rc == 0)
        errno = ETIMEDOUT;
    return rc > 0 ? 0 : -1;
}

int mfa_send(const struct mfa_client *client, const struct mfa_frame *frame) {
    const int64_t ends = now_ms() + SEND_MS;
    while (send(client->fd, frame->bytes, frame->size, MSG_NOSIGNAL) < 0) {
        if (errno == EPIPE || errno == ECONNRESET)
            return PAM_SUCCESS; /* it may have said why before it closed: mfa_receive finds that, or the end */
        if ((errno != EINTR && errno != EAGAIN) || wait_until(client, POLLOUT, ends) != 0)
            return unavailable(client, "send");
    }
    return PAM_SUCCESS;
}

int mfa_receive(const struct mfa_client *client, unsigned limit_s, struct mfa_frame *frame) {
    const int64_t ends = now_ms() + (int64_t)limit_s * 1000;
    int resets = 0; /* the kernel tells one before it hands out what was sent earlier */
    ssize_t size;
    explicit_bzero(frame, sizeof *frame);
    do {
        if (wait_until(client, POLLIN, ends) != 0)
            return unavailable(client, "no reply");
        /* MSG_TRUNC: the size of the message, not of what fits. Descriptors passed with it are dropped. */
        size = recv(client->fd, frame->bytes, sizeof frame->bytes, MSG_TRUNC);
    } while (size < 0 && (errno == EINTR || errno == EAGAIN || (errno == ECONNRESET && resets++ == 0)));
    if (size == 0)
        errno = ECONNRESET;
    if (size <= 0)
        return unavailable(client, "closed in mid-dialogue");
    frame->size = (size_t)size; /* mfa_decode_ops refuses one over MFA_FRAME_MAX */
    return PAM_SUCCESS;
}

void mfa_close(const struct mfa_client *client) {
    if (client->fd >= 0)
        (void)close(client->fd);
}
