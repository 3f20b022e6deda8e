/* options.h - which words of the PAM line does the module itself read? */
#ifndef PAM_MFA_OPTIONS_H
#define PAM_MFA_OPTIONS_H

#include <security/pam_modules.h>
#include <stdbool.h>
#include <sys/types.h>

struct mfa_options {
    const char *socket_dir;
    uid_t server_uid; /* trusted besides root; 0: root alone */
    unsigned timeout_s;
    bool send_authtok; /* use_first_pass, try_first_pass */
    bool require_mfa;
};

/* Returns the number of bad options, each logged; the words that it does not know are mfad's to judge. */
int mfa_parse_options(pam_handle_t *pamh, int argc, const char **argv, struct mfa_options *options);

#endif
