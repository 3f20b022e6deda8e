#!/bin/sh
# Start mfad with embedded defaults in var/demo, with one demo user, and say what to try. Stops with Ctrl-C.
set -eu
cd "$(dirname "$0")/.."
demo=var/demo
secret=$demo/radius.secret
directory=$demo/directory
radius=${DEMO_RADIUS:-127.0.0.1:18120}
ldap=${DEMO_LDAP:-127.0.0.1:13890}
people=ou=people,dc=example,dc=org
password=demo-password
export MFAD_CONFIG="$PWD/$demo/mfad.yaml"
mfactl=.venv/bin/mfactl
if [ "$(id -u)" -eq 0 ]; then user=demo; else user=$(id -un); fi

# LDAP needs a directory behind it: a slapd of our own, without root, which the kernel ends when mfad ends (setpriv).
slapd=$(PATH="$PATH:/usr/sbin:/sbin" command -v slapd || true)
schema=/etc/ldap/schema
modules=/usr/lib/ldap
no_ldap=""
if [ -z "$slapd" ]; then
    no_ldap="slapd is not installed here: apt-get install --no-install-recommends slapd ldap-utils"
elif ! command -v setpriv >/dev/null || [ ! -e $schema/inetorgperson.schema ] || [ ! -e $modules/back_mdb.la ]; then
    no_ldap="slapd's modules, its schema or setpriv are not where Debian has them"
fi

umask 077
mkdir -p $demo
for door in radius ldap; do
    wanted=1
    if [ $door = ldap ] && [ -n "$no_ldap" ]; then wanted=0; fi
    if [ -e "$MFAD_CONFIG" ] && [ "$(grep -c "^  $door:" "$MFAD_CONFIG")" -ne $wanted ]; then
        mv "$MFAD_CONFIG" "$MFAD_CONFIG.before"
        knew=$([ $wanted -eq 1 ] && echo "knew nothing of $door" || echo "has a directory behind it that is not here")
        echo "$demo/mfad.yaml $knew: it is kept as $demo/mfad.yaml.before"
    fi
done
if [ ! -e $secret ]; then
    .venv/bin/python -c 'import secrets; print(secrets.token_urlsafe(24))' >$secret
    chmod 0400 $secret
fi
if [ ! -e "$MFAD_CONFIG" ]; then
    cat >"$MFAD_CONFIG" <<YAML
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
YAML
    [ -n "$no_ldap" ] || cat >>"$MFAD_CONFIG" <<YAML
  ldap:
    listen: "ldap://$ldap"    # another port, if somebody has this one
    upstream: ldapi://directory/ldapi    # a slapd that this demo starts
    user: {base_dn: "$people"}
    exempt: {dn: "cn=app,dc=example,dc=org"}    # an application's own account: no code
YAML
    echo "policy: []                      # first match wins; the default requires TOTP of everyone" >>"$MFAD_CONFIG"
fi
radius=$(sed -n 's/^ *listen: \["\([^"]*\)".*/\1/p' "$MFAD_CONFIG")
ldap=$(sed -n 's/^ *listen: "\(ldap:[^"]*\)".*/\1/p' "$MFAD_CONFIG")

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

# The directory holds nothing but the demo user: it is made anew at each start.
serve_directory() {
    if [ -e $directory/pid ]; then
        # Of a demo that has just ended, or was killed: that one, and no other process.
        old=$(cat $directory/pid)
        tries=50
        while [ $tries -gt 0 ] && tr '\0' ' ' <"/proc/$old/cmdline" 2>/dev/null | grep -qF "$PWD/$directory/slapd.conf"; do
            if [ $tries -eq 25 ]; then kill "$old" 2>/dev/null || true; fi
            sleep 0.1
            tries=$((tries - 1))
        done
    fi
    rm -rf $directory
    mkdir -p $directory/data
    cat >$directory/slapd.conf <<CONF
include $schema/core.schema
include $schema/cosine.schema
include $schema/inetorgperson.schema
modulepath $modules
moduleload back_mdb
pidfile "$PWD/$directory/pid"
argsfile "$PWD/$directory/args"
database mdb
suffix "dc=example,dc=org"
directory "$PWD/$directory/data"
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
CONF
    cat >$directory/people.ldif <<LDIF
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: example

dn: $people
objectClass: organizationalUnit

dn: uid=$user,$people
objectClass: inetOrgPerson
uid: $user
cn: $user
sn: $user
userPassword: $password

dn: cn=app,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: app-password
LDIF
    "${slapd%/*}/slapadd" -q -f "$PWD/$directory/slapd.conf" -l $directory/people.ldif >$directory/log 2>&1 || return 1
    socket=$(printf '%s' "$PWD/$directory/ldapi" | sed 's/%/%25/g; s/ /%20/g; s|/|%2F|g')
    setpriv --pdeathsig TERM "$slapd" -d 0 -f "$PWD/$directory/slapd.conf" -h "ldapi://$socket" >>$directory/log 2>&1 &
    tries=50
    until [ -S $directory/ldapi ]; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ] || ! kill -0 $! 2>/dev/null; then return 1; fi
        sleep 0.1
    done
}
if [ -z "$no_ldap" ] && ! serve_directory; then
    no_ldap="slapd does not start: $directory/log says why (on Ubuntu, AppArmor keeps it out of this folder)"
fi

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

TEXT
if [ -n "$no_ldap" ]; then
    echo "  (LDAP is not served: $no_ldap)"
else
    as="ldapwhoami -x -H $ldap -D uid=$user,$people"
    if command -v ldapwhoami >/dev/null; then get=""; else
        get="
    (ldapwhoami is not installed here: apt-get install --no-install-recommends ldap-utils)"
    fi
    cat <<TEXT
  an LDAP login with password and code, as an application would bind: who it is, then "Invalid credentials (49)"${get}
    $as -w "$password,\$($code)"

  with the password alone, which the directory itself would take: "Invalid credentials (49)"
    $as -w $password

  an LDAP login, explained:
    (printf '$password,'; $code) | .venv/bin/mfactl --config $MFAD_CONFIG ldap test --user $user --stdin
TEXT
fi
cat <<TEXT

  with your own phone:
    .venv/bin/mfactl --config $MFAD_CONFIG pam test $user
    .venv/bin/mfactl --config $MFAD_CONFIG radius test $user

  what happened, and why:
    .venv/bin/mfactl --config $MFAD_CONFIG audit tail

Protect a real sshd, sudo or su: docs/pam.md; a VPN: docs/radius.md; an application that asks a directory: docs/ldap.md.
Ctrl-C stops mfad.

TEXT
exec .venv/bin/mfad --config "$MFAD_CONFIG"
