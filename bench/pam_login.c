/* How long does one login take through libpam? Reads "USER CODE" lines, logs each in, prints the PAM result and nanoseconds.
 *
 * usage: pam_login CONFDIR SERVICE. What is measured is pam_start to pam_end, module loading included, as su or sshd pay it.
 */
#define _GNU_SOURCE
#include <security/pam_appl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
    struct pam_response *answers = calloc((size_t)count, sizeof *answers);
    if (answers == NULL)
        return PAM_BUF_ERR;
    for (int i = 0; i < count; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF || messages[i]->msg_style == PAM_PROMPT_ECHO_ON)
            answers[i].resp = strdup(data);
    *responses = answers;
    return PAM_SUCCESS;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv)
{
    char user[256], code[256];
    if (argc != 3)
        return 2;
    while (scanf("%255s %255s", user, code) == 2) {
        struct pam_conv conv = {.conv = converse, .appdata_ptr = code};
        pam_handle_t *pamh = NULL;
        uint64_t start = now_ns();
        int rc = pam_start_confdir(argv[2], user, &conv, argv[1], &pamh);
        if (rc == PAM_SUCCESS)
            rc = pam_authenticate(pamh, 0);
        pam_end(pamh, rc);
        printf("%d %llu\n", rc, (unsigned long long)(now_ns() - start));
        fflush(stdout);
    }
    return 0;
}
