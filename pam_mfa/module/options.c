/* options.c - is what the administrator wrote on the PAM line well formed? No default stands in for a bad value. */
#include "options.h"

#include <security/pam_ext.h>
#include <stdint.h>
#include <string.h>
#include <syslog.h>

/* Decimal digits and nothing else: no sign, no blank, no hexadecimal. */
static bool parse_number(const char *text, uint32_t least, uint32_t most, uint32_t *number) {
    const size_t digits = strspn(text, "0123456789");
    uint64_t value = 0;
    for (size_t i = 0; i < digits && i < 11; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    *number = (uint32_t)value;
    return digits > 0 && digits < 11 && text[digits] == '\0' && value >= least && value <= most;
}

int mfa_parse_options(pam_handle_t *pamh, int argc, const char **argv, struct mfa_options *options) {
    uint32_t server_uid = 0, timeout_s = 100; /* under the 120 s of sshd's LoginGraceTime */
    int bad = 0;
    *options = (struct mfa_options){ .socket_dir = "/run/mfad" };
    for (int i = 0; i < argc; i++) {
        bool good = true;
        if (strncmp(argv[i], "socket_dir=", 11) == 0) {
            options->socket_dir = argv[i] + 11; /* a slash at its end would make lstat() follow a symbolic link */
            good = options->socket_dir[0] == '/' && options->socket_dir[strlen(options->socket_dir) - 1] != '/';
        } else if (strncmp(argv[i], "server_uid=", 11) == 0)
            good = parse_number(argv[i] + 11, 0, UINT32_MAX - 1, &server_uid);
        else if (strncmp(argv[i], "timeout=", 8) == 0)
            good = parse_number(argv[i] + 8, 5, 600, &timeout_s);
        else if (strcmp(argv[i], "use_first_pass") == 0 || strcmp(argv[i], "try_first_pass") == 0)
            options->send_authtok = true;
        else if (strcmp(argv[i], "require_mfa") == 0)
            options->require_mfa = true;
        if (!good)
            pam_syslog(pamh, LOG_ERR, "bad option %d: %s", ++bad, argv[i]);
    }
    options->server_uid = server_uid;
    options->timeout_s = timeout_s;
    return bad;
}
