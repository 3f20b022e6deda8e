#!/bin/sh
# Start mfad with embedded defaults in var/demo, with one demo user, and say what to try. Stops with Ctrl-C.
set -eu
cd "$(dirname "$0")/.."
export MFAD_CONFIG="$PWD/var/demo/mfad.yaml"
mfactl=.venv/bin/mfactl
if [ "$(id -u)" -eq 0 ]; then user=demo; else user=$(id -un); fi

$mfactl init
# A secret is shown once, when it is made: each start gives the demo user a new one.
if $mfactl user show "$user" >/dev/null 2>&1; then $mfactl user reset "$user" >/dev/null; fi
answer=$($mfactl enrol "$user" --no-confirm --json)
secret=$(printf '%s' "$answer" | .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["secret"])')
printf '%s' "$answer" | .venv/bin/python -c '
import json, sys, segno
segno.make(json.load(sys.stdin)["otpauth_uri"], error="l", boost_error=False).terminal(compact=True, border=1)'
cat <<TEXT

Demo user "$user": scan the code with an authenticator app, or use the key $secret
In another terminal, in this folder ($PWD):

  a PAM login that is let in (run it again within the half minute: the code is spent, and refused):
    .venv/bin/python -c 'import pyotp; print(pyotp.TOTP("$secret").now())' | .venv/bin/mfactl --config $MFAD_CONFIG pam test $user

  the same with your own phone:
    .venv/bin/mfactl --config $MFAD_CONFIG pam test $user

  what happened, and why:
    .venv/bin/mfactl --config $MFAD_CONFIG audit tail

Protect a real sshd, sudo or su: docs/pam.md. Ctrl-C stops mfad.

TEXT
exec .venv/bin/mfad --config "$MFAD_CONFIG"
