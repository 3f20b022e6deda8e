/* Where does one LDAPMessage end, and what is in it? For the generator and for the directory that answers at once; both live on
 * loopback beside servers under measurement, so that this is no parser for strangers: lengths are checked, nothing else. */
#ifndef LDAP_FRAME_H
#define LDAP_FRAME_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BIND_REQUEST = 0x60, BIND_RESPONSE = 0x61, UNBIND_REQUEST = 0x42, SEARCH_REQUEST = 0x63, SEARCH_ENTRY = 0x64,
    SEARCH_DONE = 0x65, SEARCH_REFERENCE = 0x73, EXTENDED_REQUEST = 0x77, EXTENDED_RESPONSE = 0x78, SEQUENCE = 0x30,
    INTEGER = 0x02, OCTETS = 0x04, ENUMERATED = 0x0a,
};
enum reading { MORE, WHOLE, BROKEN };

struct part { /* one TLV */
    uint8_t tag;
    const uint8_t *data;
    size_t size;
};

struct frame { /* one LDAPMessage */
    size_t size; /* of all of it */
    struct part id, operation;
};

/* The TLV at the beginning of some octets; how many they are that it takes. */
static inline enum reading read_part(const uint8_t *data, size_t have, struct part *part, size_t *used) {
    size_t head = 2, size;
    if (have < head) return MORE;
    size = data[1];
    if (size > 0x80) {
        size_t count = size & 0x7f;
        if (count > 4) return BROKEN;
        head += count;
        if (have < head) return MORE;
        size = 0;
        for (size_t i = 0; i < count; i++) size = size << 8 | data[2 + i];
    } else if (size == 0x80) {
        return BROKEN;
    }
    *part = (struct part){data[0], data + head, size};
    *used = head + size;
    return have < *used ? MORE : WHOLE;
}

static inline enum reading read_frame(const uint8_t *data, size_t have, struct frame *frame) {
    struct part all;
    size_t used;
    enum reading reading = read_part(data, have, &all, &frame->size);
    if (reading != WHOLE) return reading;
    if (all.tag != SEQUENCE || read_part(all.data, all.size, &frame->id, &used) != WHOLE) return BROKEN;
    if (frame->id.tag != INTEGER) return BROKEN;
    return read_part(all.data + used, all.size - used, &frame->operation, &used) == WHOLE ? WHOLE : BROKEN;
}
#endif
