#!/bin/sh
# Start mfad with embedded defaults in var/demo, with one demo user, and say what to try. Stops with Ctrl-C.
set -eu
cd "$(dirname "$0")/.."
demo=var/demo
secret=$demo/radius.secret
radius=${DEMO_RADIUS:-127.0.0.1:18120}
export MFAD_CONFIG="$PWD/$demo/mfad.yaml"
mfactl=.venv/bin/mfactl
if [ "$(id -u)" -eq 0 ]; then user=demo; else user=$(id -un); fi

umask 077
mkdir -p $demo
if [ -e "$MFAD_CONFIG" ] && ! grep -q '^  radius:' "$MFAD_CONFIG"; then
    mv "$MFAD_CONFIG" "$MFAD_CONFIG.before"
    echo "$demo/mfad.yaml knew nothing of RADIUS: it is kept as $demo/mfad.yaml.before"
fi
if [ ! -e $secret ]; then
    .venv/bin/python -c 'import secrets; print(secrets.token_urlsafe(24))' >$secret
    chmod 0400 $secret
fi
[ -e "$MFAD_CONFIG" ] || cat >"$MFAD_CONFIG" <<YAML
# The demo of \`make run\`. Relative paths start at the folder of this file; config/ explains every key.
role: standalone
state_dir: ./var/state          # store, journal, cache
key_file: ./var/kek             # key-encryption key, 0400
doors:
  pam:
    socket_dir: ./var/run       # priv.sock, user.sock
  radius:
    listen: ["$radius"]    # another port, if somebody has this one
    clients:
      - {name: demo, network: 127.0.0.1, secret_file: ./radius.secret}
policy: []                      # first match wins; the default requires TOTP of everyone
YAML

radius=$(sed -n 's/^ *listen: \["\([^"]*\)".*/\1/p' "$MFAD_CONFIG")

$mfactl init
# A new secret for the demo user would take the codes of a demo that runs already away.
if $mfactl status --json | .venv/bin/python -c '
import json, sys
sys.exit(not json.load(sys.stdin)["sockets"]["priv.sock"])'; then
    echo "the demo runs already, in another terminal: use that one, or stop it there with Ctrl-C" >&2
    exit 1
fi
# A secret is shown once, when it is made: each start gives the demo user a new one.
if $mfactl user show "$user" >/dev/null 2>&1; then $mfactl user reset "$user" >/dev/null; fi
answer=$($mfactl enrol "$user" --no-confirm --json)
key=$(printf '%s' "$answer" | .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["secret"])')
printf '%s' "$answer" | .venv/bin/python -c '
import json, sys, segno
segno.make(json.load(sys.stdin)["otpauth_uri"], error="l", boost_error=False).terminal(compact=True, border=1)'
code=".venv/bin/python -c 'import pyotp; print(pyotp.TOTP(\"$key\").now())'"
if command -v radclient >/dev/null; then get=""; else
    get="
    (radclient is not installed here: apt-get install --no-install-recommends freeradius-utils)"
fi
cat <<TEXT

Demo user "$user": scan the code with an authenticator app, or use the key $key
In another terminal, in this folder ($PWD).
A code works once, at all doors together: each of these lets in, and refuses when it comes again within the half minute.

  a PAM login:
    $code | .venv/bin/mfactl --config $MFAD_CONFIG pam test $user

  a RADIUS login, as a VPN gateway would ask: Access-Accept, then Access-Reject${get}
    echo "User-Name=$user, User-Password=\$($code), Message-Authenticator=0x00" | radclient -x -S $secret $radius auth

  the same, explained:
    $code | .venv/bin/mfactl --config $MFAD_CONFIG radius test $user --stdin

  with your own phone:
    .venv/bin/mfactl --config $MFAD_CONFIG pam test $user
    .venv/bin/mfactl --config $MFAD_CONFIG radius test $user

  what happened, and why:
    .venv/bin/mfactl --config $MFAD_CONFIG audit tail

Protect a real sshd, sudo or su: docs/pam.md; a VPN: docs/radius.md. Ctrl-C stops mfad.

TEXT
exec .venv/bin/mfad --config "$MFAD_CONFIG"
