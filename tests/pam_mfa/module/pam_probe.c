/* pam_probe.c - what is in PAM_AUTHTOK at this place of the stack? An application may not read it, a module may.
 *
 * auth optional pam_probe.so set_authtok=TEXT   puts TEXT into PAM_AUTHTOK, as pam_unix would
 * auth optional pam_probe.so report             copies PAM_AUTHTOK into the PAM variable PROBE_AUTHTOK, if it is set */
#include <security/pam_modules.h>
#include <stdio.h>
#include <string.h>

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    int rc = PAM_SUCCESS;
    (void)flags;
    for (int i = 0; i < argc && rc == PAM_SUCCESS; i++) {
        const void *authtok = NULL;
        char variable[65536];
        if (strncmp(argv[i], "set_authtok=", 12) == 0)
            rc = pam_set_item(pamh, PAM_AUTHTOK, argv[i] + 12);
        else if (pam_get_item(pamh, PAM_AUTHTOK, &authtok) == PAM_SUCCESS && authtok != NULL
                 && snprintf(variable, sizeof variable, "PROBE_AUTHTOK=%s", (const char *)authtok) < (int)sizeof variable)
            rc = pam_putenv(pamh, variable);
    }
    return rc;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}
