/* pam_probe.c - what can a module in the stack see that an application cannot: PAM_AUTHTOK, and what others left behind?
 *
 * auth optional pam_probe.so set_authtok=TEXT   puts TEXT into PAM_AUTHTOK, as pam_unix would
 * auth optional pam_probe.so set_long=SIZE      the same with SIZE letters, as no line of a service file can hold them
 * auth optional pam_probe.so report             copies PAM_AUTHTOK into the PAM variable PROBE_AUTHTOK, if it is set
 * auth optional pam_probe.so nofile=NUMBER      lowers the limit of descriptors of the process: for pam_driver only
 * auth optional pam_probe.so stack=TXET ...     looks for the texts in the 64 KiB of stack below its own frame, where the
 *                                               module before it has worked: PROBE_STACK is "clean" or "dirty"
 * auth optional pam_probe.so set_reversed=TXET  as set_authtok=TEXT
 *
 * Reversed, because what stands in a service file is on the stack already: libpam has read it there. */
#include <security/pam_modules.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { BELOW = 65536 };

/* Calls nothing, so that nothing is written over. */
__attribute__((noinline)) static void copy_stack_below(unsigned char *copy) {
    const volatile unsigned char *below = (const unsigned char *)__builtin_frame_address(0) - BELOW;
    for (size_t i = 0; i < BELOW; i++)
        copy[i] = below[i];
}

/* The text that an argument holds reversed, for free(). */
static char *reversed(const char *argument) {
    char *text = strdup(strchr(argument, '=') + 1);
    const size_t size = text == NULL ? 0 : strlen(text);
    for (size_t i = 0; i < size / 2; i++) {
        const char first = text[i];
        text[i] = text[size - 1 - i];
        text[size - 1 - i] = first;
    }
    return text;
}

static int look_at_stack(pam_handle_t *pamh, int argc, const char **argv) {
    unsigned char *copy = malloc(BELOW);
    bool dirty = false;
    if (copy == NULL)
        return PAM_BUF_ERR;
    copy_stack_below(copy);
    for (int i = 0; i < argc; i++) {
        char *text = reversed(argv[i]);
        dirty = dirty || text == NULL || memmem(copy, BELOW, text, strlen(text)) != NULL;
        free(text);
    }
    free(copy);
    return pam_putenv(pamh, dirty ? "PROBE_STACK=dirty" : "PROBE_STACK=clean");
}

static int set_reversed(pam_handle_t *pamh, const char *argument) {
    char *text = reversed(argument);
    const int rc = text == NULL ? PAM_BUF_ERR : pam_set_item(pamh, PAM_AUTHTOK, text);
    free(text);
    return rc;
}

static int set_long(pam_handle_t *pamh, size_t size) {
    char *text = calloc(1, size + 1);
    int rc = PAM_BUF_ERR;
    if (text != NULL)
        rc = pam_set_item(pamh, PAM_AUTHTOK, memset(text, 'a', size));
    free(text);
    return rc;
}

static int limit_descriptors(rlim_t number) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return PAM_SYSTEM_ERR;
    limit.rlim_cur = number;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? PAM_SUCCESS : PAM_SYSTEM_ERR;
}

static int report_authtok(pam_handle_t *pamh) {
    const void *authtok = NULL;
    char variable[5000];
    if (pam_get_item(pamh, PAM_AUTHTOK, &authtok) != PAM_SUCCESS || authtok == NULL)
        return PAM_SUCCESS;
    if (snprintf(variable, sizeof variable, "PROBE_AUTHTOK=%s", (const char *)authtok) >= (int)sizeof variable)
        return PAM_BUF_ERR;
    return pam_putenv(pamh, variable);
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)flags;
    if (argc > 0 && strncmp(argv[0], "stack=", 6) == 0)
        return look_at_stack(pamh, argc, argv);
    if (argc > 0 && strncmp(argv[0], "nofile=", 7) == 0)
        return limit_descriptors(strtoul(argv[0] + 7, NULL, 10));
    if (argc > 0 && strncmp(argv[0], "set_long=", 9) == 0)
        return set_long(pamh, strtoul(argv[0] + 9, NULL, 10));
    if (argc > 0 && strncmp(argv[0], "set_reversed=", 13) == 0)
        return set_reversed(pamh, argv[0]);
    if (argc > 0 && strncmp(argv[0], "set_authtok=", 12) == 0)
        return pam_set_item(pamh, PAM_AUTHTOK, argv[0] + 12);
    return report_authtok(pamh);
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}
