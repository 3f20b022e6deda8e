/* wire_check.c - does wire.c read and write the vectors? One line in, one line out; tests/vectors/pam_wire.txt has the format.
 *
 * decode HEX                     ->  "ops FIELD..." or "refused REASON"
 * encode begin|answer FIELD...   ->  HEX, or "refused" when it does not fit */
#include "wire.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct name {
    const char *name;
    enum mfa_tag tag;
    size_t number_size;
} names[] = {
    { "PHASE", MFA_PHASE, 1 }, { "FLAGS", MFA_FLAGS, 4 }, { "USER", MFA_USER, 0 }, { "SERVICE", MFA_SERVICE, 0 },
    { "TTY", MFA_TTY, 0 }, { "RHOST", MFA_RHOST, 0 }, { "RUSER", MFA_RUSER, 0 },
    { "SSH_CONNECTION", MFA_SSH_CONNECTION, 0 }, { "SSH_AUTH_INFO_0", MFA_SSH_AUTH_INFO_0, 0 }, { "UID", MFA_UID, 4 },
    { "EUID", MFA_EUID, 4 }, { "AUTHTOK", MFA_AUTHTOK, 0 }, { "OPTION", MFA_OPTION, 0 }, { "MODULE", MFA_MODULE, 0 },
    { "PROMPT_OFF", MFA_PROMPT_OFF, 0 }, { "PROMPT_ON", MFA_PROMPT_ON, 0 }, { "INFO", MFA_INFO, 0 },
    { "ERROR", MFA_ERROR, 0 }, { "WAIT", MFA_WAIT, 4 }, { "SET_AUTHTOK", MFA_SET_AUTHTOK, 0 },
    { "PUTENV", MFA_PUTENV, 0 }, { "FAIL_DELAY", MFA_FAIL_DELAY, 4 }, { "LOG", MFA_LOG, 1 },
    { "RESULT", MFA_RESULT, 1 }, { "RESP", MFA_RESP, 0 }, { "CANCEL", MFA_CANCEL, 1 },
};
enum { NAMES = sizeof names / sizeof *names };

static unsigned hex_digit(char digit) {
    return (unsigned)(isdigit((unsigned char)digit) ? digit - '0' : (tolower((unsigned char)digit) - 'a') + 10);
}

static void print_escaped(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; i++)
        printf(isalnum(data[i]) || (data[i] != 0 && strchr("-._~", data[i]) != NULL) ? "%c" : "%%%02X", data[i]);
}

static size_t unescape(const char *text, uint8_t *data) {
    size_t size = 0;
    for (; *text != '\0'; text++, size++) {
        data[size] = (uint8_t)*text;
        if (*text == '%') {
            data[size] = (uint8_t)(hex_digit(text[1]) << 4 | hex_digit(text[2]));
            text += 2;
        }
    }
    return size;
}

static void decode(const char *hex) {
    const size_t size = strcmp(hex, "-") == 0 ? 0 : strlen(hex) / 2;
    struct mfa_frame *frame = calloc(1, sizeof *frame);
    struct mfa_ops ops;
    const char *reason;
    if (frame == NULL)
        abort();
    frame->size = size;
    for (size_t i = 0; i < size && i < sizeof frame->bytes; i++)
        frame->bytes[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    reason = mfa_decode_ops(frame, &ops);
    if (reason != NULL) {
        printf("refused %s\n", reason);
    } else {
        printf("ops");
        for (size_t i = 0; i < ops.count; i++) {
            const struct mfa_op *op = &ops.op[i];
            size_t at = 0;
            while (names[at].tag != op->tag)
                at++;
            printf(" %s:", names[at].name);
            if (names[at].number_size > 0)
                printf(op->tag == MFA_LOG ? "%u:" : "%u", op->number);
            print_escaped(op->data, op->size);
        }
        printf("\n");
    }
    free(frame);
}

static void encode(enum mfa_type type, char *fields) {
    struct mfa_frame frame;
    uint8_t data[2 * MFA_FRAME_MAX];
    char *rest = NULL;
    mfa_frame_start(&frame, type);
    for (char *field = strtok_r(fields, " ", &rest); field != NULL; field = strtok_r(NULL, " ", &rest)) {
        char *colon = strchr(field, ':');
        size_t at = 0;
        if (colon == NULL)
            abort();
        *colon = '\0';
        while (at < NAMES && strcmp(names[at].name, field) != 0)
            at++;
        if (at == NAMES)
            abort();
        if (names[at].number_size > 0)
            mfa_put_number(&frame, names[at].tag, names[at].number_size, (uint32_t)strtoul(colon + 1, NULL, 10));
        else
            mfa_put(&frame, names[at].tag, data, unescape(colon + 1, data));
    }
    for (size_t i = 0; i < frame.size; i++)
        printf("%02x", frame.bytes[i]);
    printf(frame.size == 0 ? "refused\n" : "\n");
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while ((size = getline(&line, &room, stdin)) > 0) {
        if (line[size - 1] == '\n')
            line[size - 1] = '\0';
        if (strncmp(line, "decode ", 7) == 0)
            decode(line + 7);
        else if (strncmp(line, "encode begin ", 13) == 0)
            encode(MFA_BEGIN, line + 13);
        else if (strncmp(line, "encode answer ", 14) == 0)
            encode(MFA_ANSWER, line + 14);
        else
            abort();
        fflush(stdout);
    }
    free(line);
    return 0;
}
