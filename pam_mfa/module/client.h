/* client.h - how does the module reach mfad, and whom does it trust to be mfad? */
#ifndef PAM_MFA_CLIENT_H
#define PAM_MFA_CLIENT_H

#include "options.h"
#include "wire.h"

struct mfa_client {
    pam_handle_t *pamh;
    int fd;             /* -1: none */
    int64_t phase_ends; /* in milliseconds of CLOCK_MONOTONIC */
};

/* PAM codes: SUCCESS, AUTHINFO_UNAVAIL (not there, too slow, gone) or SERVICE_ERR (not to be trusted); logged. */
int mfa_connect(struct mfa_client *client, pam_handle_t *pamh, const struct mfa_options *options);
int mfa_send(const struct mfa_client *client, const struct mfa_frame *frame);
int mfa_receive(const struct mfa_client *client, unsigned limit_s, struct mfa_frame *frame);
void mfa_close(const struct mfa_client *client);

#endif
