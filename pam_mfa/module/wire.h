/* wire.h - which bytes travel between the module and mfad? (../PROTOCOL.md; sans-IO: no socket and no PAM in here) */
#ifndef PAM_MFA_WIRE_H
#define PAM_MFA_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum { MFA_WIRE_VERSION = 1, MFA_HEADER_SIZE = 8, MFA_FRAME_MAX = 16384 /* a whole message */, MFA_FIELDS_MAX = 64 };
enum { MFA_TEXT_MAX = 2048, MFA_SHOWN_MAX = 8192 /* INFO, ERROR */, MFA_BYTES_MAX = 4096 /* passwords, answers */ };
enum mfa_type { MFA_BEGIN = 1, MFA_OPS, MFA_ANSWER };
enum mfa_tag {
    MFA_PHASE = 0x0101, MFA_FLAGS, MFA_USER, MFA_SERVICE, MFA_TTY, MFA_RHOST, MFA_RUSER, MFA_SSH_CONNECTION,
    MFA_SSH_AUTH_INFO_0, MFA_UID, MFA_EUID, MFA_AUTHTOK, MFA_OPTION, MFA_MODULE,
    MFA_PROMPT_OFF = 0x0201, MFA_PROMPT_ON, MFA_INFO, MFA_ERROR, MFA_WAIT, MFA_SET_AUTHTOK, MFA_PUTENV,
    MFA_FAIL_DELAY, MFA_LOG, MFA_RESULT,
    MFA_RESP = 0x0301, MFA_CANCEL,
};

struct mfa_frame { /* one message; a writer that passes a limit leaves size 0, for good */
    uint8_t bytes[MFA_FRAME_MAX];
    size_t size, fields;
};

struct mfa_op {
    unsigned tag;
    uint32_t number;     /* WAIT, FAIL_DELAY, RESULT; LOG: the level */
    const uint8_t *data; /* the text or bytes, inside the frame: no NUL in it, none behind it */
    size_t size;
};

struct mfa_ops {
    struct mfa_op op[MFA_FIELDS_MAX];
    size_t count, prompts;
    uint32_t wait_s;  /* 0: no WAIT */
    int result;       /* -1: no RESULT */
    unsigned version; /* what the header says, also when the message is refused */
};

void mfa_frame_start(struct mfa_frame *frame, enum mfa_type type); /* wipes what was in it */
void mfa_put(struct mfa_frame *frame, enum mfa_tag tag, const void *data, size_t size);
void mfa_put_number(struct mfa_frame *frame, enum mfa_tag tag, size_t size, uint32_t number);

/* Takes a whole OPS message apart. NULL, or why it is refused as a whole (words of ours, no bytes of the peer). */
const char *mfa_decode_ops(const struct mfa_frame *frame, struct mfa_ops *ops);

#endif
