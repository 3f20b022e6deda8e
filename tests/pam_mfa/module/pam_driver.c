/* pam_driver.c - what does a small C program see that a Python one cannot: leaks, log lines, signals, its own stack?
 *
 * pam_driver [-n COUNT] [-a] [-c] [-p] [-s] CONFDIR SERVICE USER [ANSWER...]
 *   COUNT transactions, each authenticate (and with -a acct_mgmt), each with the same answers; -c closes stdin before;
 *   -p puts SSH_CONNECTION into the PAM environment; -s prints what pam_probe.so said of
 *   the stack: "stack clean|dirty". Prints lines: "log LEVEL TEXT" for what went to syslog,
 *   "shown STYLE TEXT", "auth CODE", "account CODE", and at the end "signals same|changed", "fds same|changed",
 *   "stdin taken|free". The log lines are caught because libpam finds this program's syslog() before libc's. */
#include <fcntl.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

int pam_start_confdir(const char *service, const char *user, const struct pam_conv *conv, const char *confdir,
                      pam_handle_t **pamh);
void __syslog_chk(int priority, int flag, const char *format, ...);

struct script {
    char **answers;
    int left;
    bool stdin_taken;
};

static void print_log(int priority, const char *format, va_list args) {
    printf("log %d ", LOG_PRI(priority));
    vprintf(format, args);
    printf("\n");
}

void syslog(int priority, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_log(priority, format, args);
    va_end(args);
}

void __syslog_chk(int priority, int flag, const char *format, ...) {
    va_list args;
    (void)flag;
    va_start(args, format);
    print_log(priority, format, args);
    va_end(args);
}

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data) {
    struct script *script = data;
    struct pam_response *response = NULL;
    if (count != 1)
        return PAM_CONV_ERR;
    script->stdin_taken = script->stdin_taken || fcntl(0, F_GETFD) != -1;
    printf("shown %d %s\n", messages[0]->msg_style, messages[0]->msg);
    if (messages[0]->msg_style == PAM_PROMPT_ECHO_OFF || messages[0]->msg_style == PAM_PROMPT_ECHO_ON) {
        if (script->left == 0)
            return PAM_CONV_ERR;
    } else {
        *responses = calloc(1, sizeof **responses);
        return *responses == NULL ? PAM_BUF_ERR : PAM_SUCCESS;
    }
    response = calloc(1, sizeof *response);
    if (response == NULL || (response->resp = strdup(*script->answers)) == NULL) {
        free(response);
        return PAM_BUF_ERR;
    }
    script->answers++;
    script->left--;
    *responses = response;
    return PAM_SUCCESS;
}

static int count_fds(void) {
    int open_ones = 0;
    for (int fd = 0; fd < 1024; fd++)
        open_ones += fcntl(fd, F_GETFD) != -1;
    return open_ones;
}

static void read_signals(struct sigaction actions[NSIG], sigset_t *mask) {
    memset(actions, 0, sizeof(struct sigaction) * NSIG);
    for (int number = 1; number < NSIG; number++)
        (void)sigaction(number, NULL, &actions[number]);
    memset(mask, 0, sizeof *mask); /* the kernel fills a part of it */
    (void)sigprocmask(SIG_BLOCK, NULL, mask);
}

int main(int argc, char **argv) {
    static struct sigaction before[NSIG], after[NSIG];
    sigset_t mask_before, mask_after;
    bool account = false, environment = false, scan = false, taken = false, same = true;
    int count = 1, option, fds;
    while ((option = getopt(argc, argv, "n:acps")) != -1) {
        switch (option) {
        case 'n': count = atoi(optarg); break;
        case 'a': account = true; break;
        case 'c': (void)close(0); break;
        case 'p': environment = true; break;
        case 's': scan = true; break;
        default: return 2;
        }
    }
    if (argc - optind < 3)
        return 2;
    fds = count_fds();
    read_signals(before, &mask_before);
    for (int i = 0; i < count; i++) {
        struct script script = { argv + optind + 3, argc - optind - 3, false };
        const struct pam_conv conv = { converse, &script };
        pam_handle_t *pamh = NULL;
        int rc = pam_start_confdir(argv[optind + 1], argv[optind + 2], &conv, argv[optind], &pamh);
        if (rc != PAM_SUCCESS)
            return 2;
        if (environment && pam_putenv(pamh, "SSH_CONNECTION=192.0.2.1 40000 192.0.2.2 22") != PAM_SUCCESS)
            return 2;
        rc = pam_authenticate(pamh, 0);
        if (scan)
            printf("stack %s\n", pam_getenv(pamh, "PROBE_STACK"));
        printf("auth %d\n", rc);
        if (account)
            printf("account %d\n", rc = pam_acct_mgmt(pamh, 0));
        (void)pam_end(pamh, rc);
        taken = taken || script.stdin_taken;
    }
    read_signals(after, &mask_after);
    for (int number = 1; number < NSIG; number++)
        same = same && before[number].sa_handler == after[number].sa_handler;
    same = same && memcmp(&mask_before, &mask_after, sizeof mask_before) == 0;
    printf("signals %s\nfds %s\nstdin %s\n", same ? "same" : "changed", count_fds() == fds ? "same" : "changed",
           taken ? "taken" : "free");
    return 0;
}
