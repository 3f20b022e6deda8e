/* wire.c - how is a message written, and when is one refused? Bytes in, values out, nothing allocated. */
#include "wire.h"

#include <stdbool.h>
#include <string.h>

enum { FIRST = MFA_PROMPT_OFF, TAGS = MFA_RESULT + 1 - MFA_PROMPT_OFF };

static const struct rule {
    bool once;
    size_t number_size, text_max; /* a value is a number, a text (or bytes), or one before the other */
    uint32_t least, most;         /* of the number */
} rules[TAGS] = {
    [MFA_PROMPT_OFF - FIRST]  = { false, 0, MFA_TEXT_MAX,  0, 0 },
    [MFA_PROMPT_ON - FIRST]   = { false, 0, MFA_TEXT_MAX,  0, 0 },
    [MFA_INFO - FIRST]        = { false, 0, MFA_SHOWN_MAX, 0, 0 },
    [MFA_ERROR - FIRST]       = { false, 0, MFA_SHOWN_MAX, 0, 0 },
    [MFA_WAIT - FIRST]        = { true,  4, 0,             1, 300 },
    [MFA_SET_AUTHTOK - FIRST] = { true,  0, MFA_BYTES_MAX, 0, 0 },
    [MFA_PUTENV - FIRST]      = { false, 0, MFA_TEXT_MAX,  0, 0 },
    [MFA_FAIL_DELAY - FIRST]  = { true,  4, 0,             0, 5000000 },
    [MFA_LOG - FIRST]         = { false, 1, MFA_TEXT_MAX,  2, 7 },
    [MFA_RESULT - FIRST]      = { true,  1, 0,             0, 255 },
};

static uint32_t read_number(const uint8_t *at, size_t size) {
    uint32_t number = 0;
    for (size_t i = 0; i < size; i++)
        number = number << 8 | at[i];
    return number;
}

static void write_number(uint8_t *at, size_t size, uint32_t number) {
    for (; size > 0; number >>= 8)
        at[--size] = (uint8_t)number;
}

void mfa_frame_start(struct mfa_frame *frame, enum mfa_type type) {
    explicit_bzero(frame, sizeof *frame);
    memcpy(frame->bytes, "MFA1", 4);
    write_number(frame->bytes + 4, 2, MFA_WIRE_VERSION);
    write_number(frame->bytes + 6, 2, type);
    frame->size = MFA_HEADER_SIZE;
}

void mfa_put(struct mfa_frame *frame, enum mfa_tag tag, const void *data, size_t size) {
    if (frame->fields == MFA_FIELDS_MAX || size > MFA_FRAME_MAX || frame->size + 4 + size > MFA_FRAME_MAX)
        frame->size = 0;
    if (frame->size == 0)
        return;
    write_number(frame->bytes + frame->size, 2, tag);
    write_number(frame->bytes + frame->size + 2, 2, (uint32_t)size);
    memcpy(frame->bytes + frame->size + 4, data, size);
    frame->size += 4 + size;
    frame->fields++;
}

void mfa_put_number(struct mfa_frame *frame, enum mfa_tag tag, size_t size, uint32_t number) {
    uint8_t bytes[4];
    write_number(bytes, size, number);
    mfa_put(frame, tag, bytes, size);
}

/* MFA_NAME=value: nothing can be set that ld.so, a shell or another module listens to. */
static bool is_assignment(const struct mfa_op *op) {
    const uint8_t *equals = op->size < 7 ? NULL : memchr(op->data, '=', op->size - 1);
    return equals != NULL && memcmp(op->data, "MFA_", 4) == 0 && equals > op->data + 4;
}

static const char *decode_value(const struct rule *rule, struct mfa_op *op) {
    if (op->size < rule->number_size || op->size - rule->number_size > rule->text_max)
        return "a value of a wrong length";
    op->number = read_number(op->data, rule->number_size);
    if (op->number < rule->least || op->number > rule->most)
        return "a number out of range";
    op->data += rule->number_size;
    op->size -= rule->number_size;
    if (memchr(op->data, 0, op->size) != NULL)
        return "a text with NUL";
    if (op->tag == MFA_PUTENV && !is_assignment(op))
        return "a variable other than MFA_NAME=value";
    return NULL;
}

const char *mfa_decode_ops(const struct mfa_frame *frame, struct mfa_ops *ops) {
    bool seen[TAGS] = { false };
    *ops = (struct mfa_ops){ .result = -1, .version = MFA_WIRE_VERSION };
    if (frame->size < MFA_HEADER_SIZE || frame->size > MFA_FRAME_MAX)
        return "a message of a wrong length";
    if (memcmp(frame->bytes, "MFA1", 4) != 0)
        return "no MFA1 at the start";
    ops->version = read_number(frame->bytes + 4, 2);
    if (ops->version != MFA_WIRE_VERSION)
        return "another version";
    if (read_number(frame->bytes + 6, 2) != MFA_OPS)
        return "a message that is not OPS";
    for (size_t at = MFA_HEADER_SIZE; at < frame->size; ops->count++) {
        struct mfa_op *op = &ops->op[ops->count];
        if (ops->result >= 0)
            return "a field after RESULT";
        if (ops->count == MFA_FIELDS_MAX)
            return "too many fields";
        if (frame->size - at < 4)
            return "a field header cut short";
        op->tag = read_number(frame->bytes + at, 2);
        op->size = read_number(frame->bytes + at + 2, 2);
        op->data = frame->bytes + at + 4;
        at += 4 + op->size;
        if (at > frame->size)
            return "a field that runs past the end";
        const unsigned i = op->tag - FIRST; /* far off for a tag before the first */
        if (i >= TAGS)
            return "an unknown field";
        if (seen[i] && rules[i].once)
            return "a repeated field that may stand once";
        seen[i] = true;
        const char *reason = decode_value(&rules[i], op);
        if (reason != NULL)
            return reason;
        ops->prompts += op->tag == MFA_PROMPT_OFF || op->tag == MFA_PROMPT_ON;
        if (op->tag == MFA_WAIT)
            ops->wait_s = op->number;
        if (op->tag == MFA_RESULT)
            ops->result = (int)op->number;
    }
    if ((ops->prompts > 0 || ops->wait_s > 0) == (ops->result >= 0))
        return ops->result < 0 ? "neither prompts, nor WAIT, nor RESULT" : "RESULT with prompts or WAIT";
    return NULL;
}
