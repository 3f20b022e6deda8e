/* pam_mfa.c - what does a login program ask of the module, and how is it answered?
 *
 * It decides nothing: mfad says what to ask, to show and to return (../PROTOCOL.md), and the one SUCCESS of the auth
 * phase comes from a RESULT that mfad sent. It runs inside sshd, sudo and lockers: no global state, no thread, signal
 * handler, environment, file or name service. */
#include "client.h"

#include <security/pam_ext.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default"))) /* the map file cannot undo -fvisibility=hidden */
#define BIT(code) (1u << (code))

enum phase { AUTHENTICATE = 1, ACCOUNT };
enum { ROUNDS_MAX = 32, MESSAGES_MAX = 256, FIRST_REPLY_S = 5, LATER_REPLY_S = 10, CANCELLED = -1 };

static const char module_version[] = "0.1.0";
static const char verified[] = "mfad.verified"; /* pam_set_data: the name of the user who was */
static const unsigned results_of_both = BIT(PAM_SUCCESS) | BIT(PAM_SERVICE_ERR) | BIT(PAM_PERM_DENIED)
    | BIT(PAM_AUTHINFO_UNAVAIL) | BIT(PAM_USER_UNKNOWN) | BIT(PAM_ACCT_EXPIRED) | BIT(PAM_IGNORE);
static const unsigned results_of_auth = BIT(PAM_AUTH_ERR) | BIT(PAM_CRED_INSUFFICIENT) | BIT(PAM_MAXTRIES);

struct dialogue {
    pam_handle_t *pamh;
    uint32_t flags;
    enum phase phase;
    struct mfa_options options;
    struct mfa_client client;
    struct mfa_frame in, out;
    struct mfa_ops ops;
    char text[MFA_SHOWN_MAX + 1]; /* of the operation at work, as a C string */
};

/* One call, one message: callers exist that crash on two. An answer goes into `out`; none there is a CANCEL. */
static int converse(struct dialogue *d, int style) {
    const bool prompt = style == PAM_PROMPT_ECHO_OFF || style == PAM_PROMPT_ECHO_ON;
    if (!prompt && (d->flags & PAM_SILENT) != 0)
        return PAM_SUCCESS;
    const struct pam_message message = { style, d->text }, *messages = &message;
    struct pam_response *response = NULL;
    const void *item = NULL;
    int rc = pam_get_item(d->pamh, PAM_CONV, &item);
    const struct pam_conv *conv = item;
    if (rc == PAM_SUCCESS && conv != NULL && conv->conv != NULL)
        rc = conv->conv(1, &messages, &response, conv->appdata_ptr);
    if (rc != PAM_SUCCESS)
        response = NULL; /* not ours then: callers leave freed pointers in it */
    char *answer = response != NULL ? response->resp : NULL;
    const size_t size = answer != NULL ? strlen(answer) : SIZE_MAX;
    if (prompt && size <= MFA_BYTES_MAX)
        mfa_put(&d->out, MFA_RESP, answer, size);
    if (answer != NULL)
        explicit_bzero(answer, size);
    free(answer);
    free(response);
    if (!prompt || (size <= MFA_BYTES_MAX && d->out.size > 0))
        return PAM_SUCCESS; /* that a text could not be shown is no reason to refuse */
    mfa_frame_start(&d->out, MFA_ANSWER);
    mfa_put_number(&d->out, MFA_CANCEL, 1, rc > 0 && rc < 256 ? (uint32_t)rc : PAM_CONV_ERR);
    return CANCELLED;
}

static int perform(struct dialogue *d, const struct mfa_op *op) {
    memcpy(d->text, op->data, op->size);
    d->text[op->size] = '\0';
    switch (op->tag) {
    case MFA_PROMPT_OFF: return converse(d, PAM_PROMPT_ECHO_OFF);
    case MFA_PROMPT_ON: return converse(d, PAM_PROMPT_ECHO_ON);
    case MFA_INFO: return converse(d, PAM_TEXT_INFO);
    case MFA_ERROR: return converse(d, PAM_ERROR_MSG);
    case MFA_SET_AUTHTOK: return pam_set_item(d->pamh, PAM_AUTHTOK, d->text);
    case MFA_PUTENV: return pam_putenv(d->pamh, d->text);
    case MFA_FAIL_DELAY: return pam_fail_delay(d->pamh, op->number);
    case MFA_LOG: pam_syslog(d->pamh, (int)op->number, "%s", d->text); return PAM_SUCCESS;
    default: return PAM_SUCCESS; /* WAIT and RESULT: hold_dialogue reads them */
    }
}

/* One message, in order, up to a prompt that is cancelled; leaves its ANSWER in `out`. */
static int perform_all(struct dialogue *d) {
    int rc = PAM_SUCCESS;
    mfa_frame_start(&d->out, MFA_ANSWER);
    for (size_t i = 0; i < d->ops.count && rc == PAM_SUCCESS; i++)
        rc = perform(d, &d->ops.op[i]);
    if (rc == PAM_SUCCESS || rc == CANCELLED)
        return PAM_SUCCESS;
    pam_syslog(d->pamh, LOG_ERR, "an operation of mfad failed with PAM code %d", rc);
    return rc == PAM_BUF_ERR ? PAM_BUF_ERR : PAM_SERVICE_ERR;
}

static int protocol_error(const struct dialogue *d, const char *reason) {
    const unsigned theirs = d->ops.version, ours = MFA_WIRE_VERSION;
    pam_syslog(d->pamh, LOG_ERR, "mfad protocol error: %s (mfad speaks version %u, pam_mfa.so version %u%s)", reason,
               theirs, ours, theirs == ours ? "" : theirs < ours ? ": mfad is older" : ": pam_mfa.so is older");
    return PAM_SERVICE_ERR;
}

static int hold_dialogue(struct dialogue *d) {
    const unsigned allowed = results_of_both | (d->phase == AUTHENTICATE ? results_of_auth : 0);
    unsigned limit_s = FIRST_REPLY_S;
    int rounds = 0, rc = mfa_send(&d->client, &d->out);
    for (int messages = 0; rc == PAM_SUCCESS && messages < MESSAGES_MAX; messages++) {
        if ((rc = mfa_receive(&d->client, limit_s, &d->in)) != PAM_SUCCESS)
            return rc;
        const char *reason = mfa_decode_ops(&d->in, &d->ops);
        if (reason != NULL)
            return protocol_error(d, reason);
        if (d->ops.result > PAM_IGNORE || (d->ops.result >= 0 && (allowed & BIT(d->ops.result)) == 0))
            return protocol_error(d, "a result that this phase does not have");
        if (d->ops.prompts > 0 && ++rounds > ROUNDS_MAX)
            return protocol_error(d, "too many rounds");
        rc = perform_all(d);
        if (rc == PAM_SUCCESS && d->ops.result >= 0)
            return d->ops.result;
        if (rc == PAM_SUCCESS && d->ops.prompts > 0)
            rc = mfa_send(&d->client, &d->out);
        limit_s = d->ops.wait_s > 0 ? d->ops.wait_s : LATER_REPLY_S;
    }
    return rc != PAM_SUCCESS ? rc : protocol_error(d, "too many messages");
}

static void put_text(struct dialogue *d, enum mfa_tag tag, const char *text) {
    size_t size = text == NULL ? 0 : strlen(text);
    if (tag == MFA_SSH_AUTH_INFO_0 && size > MFA_BYTES_MAX)
        size = MFA_BYTES_MAX;
    if (text != NULL && (tag != MFA_AUTHTOK || size <= MFA_BYTES_MAX)) /* a cut password would be another one */
        mfa_put(&d->out, tag, text, size);
}

static void put_item(struct dialogue *d, enum mfa_tag tag, int item) {
    const void *value = NULL;
    if (pam_get_item(d->pamh, item, &value) == PAM_SUCCESS)
        put_text(d, tag, value);
}

static void write_begin(struct dialogue *d, const char *user, int argc, const char **argv) {
    mfa_frame_start(&d->out, MFA_BEGIN);
    mfa_put_number(&d->out, MFA_PHASE, 1, d->phase);
    mfa_put_number(&d->out, MFA_FLAGS, 4, d->flags);
    put_text(d, MFA_USER, user);
    put_item(d, MFA_SERVICE, PAM_SERVICE);
    put_item(d, MFA_TTY, PAM_TTY);
    put_item(d, MFA_RHOST, PAM_RHOST);
    put_item(d, MFA_RUSER, PAM_RUSER);
    put_text(d, MFA_SSH_CONNECTION, pam_getenv(d->pamh, "SSH_CONNECTION"));
    put_text(d, MFA_SSH_AUTH_INFO_0, pam_getenv(d->pamh, "SSH_AUTH_INFO_0"));
    mfa_put_number(&d->out, MFA_UID, 4, getuid());
    mfa_put_number(&d->out, MFA_EUID, 4, geteuid());
    if (d->phase == AUTHENTICATE && d->options.send_authtok)
        put_item(d, MFA_AUTHTOK, PAM_AUTHTOK);
    for (int i = 0; i < argc; i++)
        put_text(d, MFA_OPTION, argv[i]);
    put_text(d, MFA_MODULE, module_version);
}

static void free_mark(pam_handle_t *pamh, void *mark, int status) {
    (void)pamh, (void)status;
    free(mark);
}

/* In the account phase, which sshd runs in the same process. By name, as a handle may be used again for another. */
static bool is_marked(pam_handle_t *pamh) {
    const void *mark = NULL, *user = NULL;
    return pam_get_data(pamh, verified, &mark) == PAM_SUCCESS && mark != NULL
        && pam_get_item(pamh, PAM_USER, &user) == PAM_SUCCESS && user != NULL && strcmp(mark, user) == 0;
}

static int run_phase(pam_handle_t *pamh, int flags, int argc, const char **argv, enum phase phase) {
    struct dialogue d = { pamh, (uint32_t)flags, phase, .client.fd = -1, .ops.version = MFA_WIRE_VERSION };
    const char *user = NULL;
    char *mark = NULL;
    int rc = mfa_parse_options(pamh, argc, argv, &d.options) > 0 ? PAM_SERVICE_ERR : PAM_SUCCESS;
    if (rc == PAM_SUCCESS && phase == ACCOUNT && !is_marked(pamh) && !d.options.require_mfa)
        rc = PAM_IGNORE;
    if (rc != PAM_SUCCESS || (phase == ACCOUNT && is_marked(pamh)))
        goto out;
    rc = pam_get_user(pamh, &user, NULL); /* asks when the caller has not */
    if (rc != PAM_SUCCESS || user == NULL) {
        rc = rc == PAM_CONV_AGAIN ? PAM_INCOMPLETE : rc == PAM_BUF_ERR ? PAM_BUF_ERR : PAM_AUTH_ERR;
        goto out;
    }
    write_begin(&d, user, argc, argv);
    mark = strdup(user); /* now: the caller may change the name while it is asked */
    rc = d.out.size > 0 ? mfa_connect(&d.client, pamh, &d.options) : protocol_error(&d, "BEGIN over one message");
    if (rc == PAM_SUCCESS)
        rc = hold_dialogue(&d);
    if (phase == AUTHENTICATE && (rc == PAM_SUCCESS || rc == PAM_IGNORE)) {
        if (mark == NULL || pam_set_data(pamh, verified, mark, free_mark) != PAM_SUCCESS)
            rc = PAM_BUF_ERR;
        else
            mark = NULL; /* the handle's from now on */
    }
out:
    free(mark);
    mfa_close(&d.client);
    explicit_bzero(&d, sizeof d);
    return rc;
}

EXPORTED int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)pam_set_data(pamh, verified, NULL, NULL); /* of an earlier attempt on the same handle */
    return run_phase(pamh, flags, argc, argv, AUTHENTICATE);
}

EXPORTED int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    return run_phase(pamh, flags, argc, argv, ACCOUNT);
}

EXPORTED int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}
