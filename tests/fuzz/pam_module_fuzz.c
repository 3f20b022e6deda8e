/* pam_module_fuzz.c - can bytes from mfad hurt the login process, or let somebody in that no RESULT let in?
 *
 * The input is what mfad sends: messages, each behind two bytes of length. They wait in a real SEQPACKET socket, and the
 * whole module runs on them, from pam_sm_authenticate (or pam_sm_acct_mgmt) on. Two seams, made by the linker's --wrap:
 * mfa_connect hands out that socket, mfa_send also looks at what the module says. libpam is replaced by the functions below,
 * which fail now and then. The first byte of the input: bit 0 account, bit 1 PAM_SILENT, bit 2 answers are long, the rest
 * seeds the caller's failures. Build and run: make -C pam_mfa/module fuzz fuzz-run. */
#include "client.h"

#include <security/pam_ext.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_mfa_connect(struct mfa_client *client, pam_handle_t *pamh, const struct mfa_options *options);
int __real_mfa_send(const struct mfa_client *client, const struct mfa_frame *frame);
int __wrap_mfa_send(const struct mfa_client *client, const struct mfa_frame *frame);

static struct {
    int module_fd, daemon_fd;
    unsigned chance;
    bool long_answers, silent;
    size_t prompts; /* asked since the last ANSWER */
    char *authtok, *mark;
    void (*free_mark)(pam_handle_t *, void *, int);
} world;

static bool one_in(unsigned times) {
    world.chance = world.chance * 1103515245u + 12345u;
    return (world.chance >> 16) % times == 0;
}

/* The caller: every kind of answer, and of failure, that pam.md knows. */
static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data) {
    static char freed[] = "not to be touched";
    const struct pam_message *message = messages[0];
    const bool prompt = message->msg_style == PAM_PROMPT_ECHO_OFF || message->msg_style == PAM_PROMPT_ECHO_ON;
    (void)data;
    CHECK(count == 1 && (prompt || !world.silent) && strlen(message->msg) <= MFA_SHOWN_MAX);
    world.prompts += prompt;
    if (one_in(10)) {
        *responses = (struct pam_response *)(void *)freed; /* as callers do that free what they leave there */
        return one_in(2) ? PAM_CONV_ERR : PAM_CONV_AGAIN;
    }
    *responses = one_in(20) ? NULL : calloc(1, sizeof **responses);
    if (*responses != NULL && !one_in(20)) {
        const size_t length = one_in(8) ? 0 : world.long_answers ? 4000 + world.chance % 200 : 6;
        (*responses)->resp = malloc(length + 1);
        CHECK((*responses)->resp != NULL);
        memset((*responses)->resp, '1', length);
        (*responses)->resp[length] = '\0';
    }
    return PAM_SUCCESS;
}

/* libpam */

int pam_get_item(const pam_handle_t *pamh, int item, const void **value) {
    static const struct pam_conv conv = { converse, NULL };
    (void)pamh;
    *value = item == PAM_CONV ? (const void *)&conv : item == PAM_USER ? "alice" : item == PAM_SERVICE ? "sshd"
        : item == PAM_AUTHTOK ? "secret" : item == PAM_RHOST ? "192.0.2.1" : NULL;
    return PAM_SUCCESS;
}

int pam_set_item(pam_handle_t *pamh, int item, const void *value) {
    (void)pamh;
    CHECK(item == PAM_AUTHTOK && strlen(value) <= MFA_BYTES_MAX);
    free(world.authtok);
    world.authtok = strdup(value);
    return one_in(30) ? PAM_BUF_ERR : PAM_SUCCESS;
}

int pam_get_user(pam_handle_t *pamh, const char **user, const char *prompt) {
    (void)pamh, (void)prompt;
    *user = "alice";
    return PAM_SUCCESS;
}

const char *pam_getenv(pam_handle_t *pamh, const char *name) {
    (void)pamh;
    return strcmp(name, "SSH_CONNECTION") == 0 ? "192.0.2.1 51234 192.0.2.2 22" : NULL;
}

int pam_putenv(pam_handle_t *pamh, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    (void)pamh;
    CHECK(strncmp(assignment, "MFA_", 4) == 0 && equals > assignment + 4 && equals[1] != '\0');
    return one_in(30) ? PAM_BUF_ERR : PAM_SUCCESS;
}

int pam_fail_delay(pam_handle_t *pamh, unsigned microseconds) {
    (void)pamh;
    CHECK(microseconds <= 5000000);
    return PAM_SUCCESS;
}

int pam_set_data(pam_handle_t *pamh, const char *name, void *data, void (*cleanup)(pam_handle_t *, void *, int)) {
    (void)pamh, (void)name;
    if (data != NULL && one_in(30))
        return PAM_BUF_ERR;
    if (world.mark != NULL)
        world.free_mark(pamh, world.mark, 0);
    world.mark = data;
    world.free_mark = cleanup;
    return PAM_SUCCESS;
}

int pam_get_data(const pam_handle_t *pamh, const char *name, const void **data) {
    (void)pamh, (void)name;
    *data = world.mark;
    return world.mark == NULL ? PAM_NO_MODULE_DATA : PAM_SUCCESS;
}

void pam_syslog(const pam_handle_t *pamh, int priority, const char *format, ...) {
    char line[16384];
    va_list args;
    (void)pamh;
    CHECK(priority >= 2 && priority <= 7);
    va_start(args, format);
    CHECK(vsnprintf(line, sizeof line, format, args) >= 0);
    va_end(args);
}

/* The seams */

int __wrap_mfa_connect(struct mfa_client *client, pam_handle_t *pamh, const struct mfa_options *options) {
    (void)options;
    *client = (struct mfa_client){ pamh, dup(world.module_fd), INT64_MAX };
    return PAM_SUCCESS;
}

/* What the module sends is BEGIN once, then one ANSWER for each message with prompts: well formed, RESPs or one CANCEL. */
int __wrap_mfa_send(const struct mfa_client *client, const struct mfa_frame *frame) {
    static uint8_t bytes[2 * MFA_FRAME_MAX];
    const int rc = __real_mfa_send(client, frame);
    const ssize_t size = recv(world.daemon_fd, bytes, sizeof bytes, MSG_DONTWAIT);
    size_t answers = 0, cancels = 0, at = MFA_HEADER_SIZE;
    CHECK(size >= MFA_HEADER_SIZE && size <= MFA_FRAME_MAX && memcmp(bytes, "MFA1\0\1\0", 7) == 0);
    while (at < (size_t)size) {
        CHECK((size_t)size - at >= 4);
        answers += bytes[at] == 3 && bytes[at + 1] == 1;
        cancels += bytes[at] == 3 && bytes[at + 1] == 2;
        at += 4 + (size_t)(bytes[at + 2] << 8 | bytes[at + 3]);
    }
    CHECK(at == (size_t)size);
    if (bytes[7] == MFA_ANSWER)
        CHECK(world.prompts > 0 && ((answers == world.prompts && cancels == 0) || (answers == 0 && cancels == 1)));
    world.prompts = 0;
    return rc;
}

/* Whether any message of the input is, by its last five bytes, a RESULT of this code: without one nobody gets in. */
static bool mfad_said(const uint8_t *data, size_t size, uint8_t code) {
    const uint8_t result[] = { 0x02, 0x0a, 0x00, 0x01, code };
    return size >= sizeof result && memmem(data, size, result, sizeof result) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *words[] = { "socket_dir=/run/mfad", "try_first_pass", "require_mfa" };
    pam_handle_t *pamh = (pam_handle_t *)(void *)&world; /* never looked into */
    int pair[2], rc;
    if (size < 1 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return 0;
    memset(&world, 0, sizeof world);
    world.module_fd = pair[0];
    world.daemon_fd = pair[1];
    world.chance = data[0];
    world.silent = (data[0] & 2) != 0;
    world.long_answers = (data[0] & 4) != 0;
    for (size_t at = 1; at + 2 <= size;) {
        size_t length = (size_t)(data[at] << 8 | data[at + 1]);
        at += 2;
        if (length > size - at)
            length = size - at;
        if (send(world.daemon_fd, data + at, length, MSG_NOSIGNAL) < 0)
            break;
        at += length;
    }
    CHECK(shutdown(world.daemon_fd, SHUT_WR) == 0);
    if ((data[0] & 1) != 0)
        rc = pam_sm_acct_mgmt(pamh, world.silent ? PAM_SILENT : 0, 3, words);
    else
        rc = pam_sm_authenticate(pamh, world.silent ? PAM_SILENT : 0, 3, words);
    CHECK(rc >= PAM_SUCCESS && rc <= PAM_IGNORE);
    if (rc == PAM_SUCCESS || rc == PAM_IGNORE)
        CHECK(mfad_said(data, size, (uint8_t)rc));
    CHECK((world.mark != NULL) == ((data[0] & 1) == 0 && (rc == PAM_SUCCESS || rc == PAM_IGNORE)));
    if (world.mark != NULL)
        world.free_mark(pamh, world.mark, 0);
    free(world.authtok);
    (void)close(world.module_fd);
    (void)close(world.daemon_fd);
    return 0;
}
