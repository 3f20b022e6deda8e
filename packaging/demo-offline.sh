#!/bin/sh
# Show what an outage is like: an authority and two hosts on machines of their own (network namespaces), a login, the network cut,
# a login, a replay, the network back, the journal merged. Told step by step; leaves nothing behind. Ends with 0 if all went as told.
set -eu
cd "$(dirname "$0")/.."

fail() { printf 'demo-offline: %s\n' "$1" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || fail "only root can make network namespaces: run it as root (sudo make demo-offline)"
for program in ip bridge nsenter; do
    command -v $program >/dev/null || fail "$program is not installed: apt-get install --no-install-recommends iproute2 util-linux"
done

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m'); green=$(printf '\033[32m'); red=$(printf '\033[31m'); grey=$(printf '\033[2m'); off=$(printf '\033[0m')
else
    bold=""; green=""; red=""; grey=""; off=""
fi
step=0
chapter() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" $step "$1" "$off"; }
say() { printf '   %s\n' "$1"; }
shown() { printf '   %s$ %s%s\n' "$grey" "$1" "$off"; }
good() { printf '   %s%s%s\n' "$green" "$1" "$off"; }
bad() { printf '   %s%s%s\n' "$red" "$1" "$off"; }

umask 077
place=$(mktemp -d "${TMPDIR:-/tmp}/mfad-demo.XXXXXX")
net=mfad-demo$$
daemons=""
clean_up() {
    status=$?
    trap '' INT TERM
    for pid in $daemons; do kill "$pid" 2>/dev/null || true; done
    for pid in $daemons; do wait "$pid" 2>/dev/null || true; done
    for name in switch authority web1 web2; do ip netns del "$net-$name" 2>/dev/null || true; done
    if [ $status -ne 0 ]; then
        for log in "$place"/*/log; do
            [ ! -e "$log" ] || { echo "-- the end of ${log#"$place"/}" >&2; tail -n 15 "$log" >&2; }
        done
    fi
    rm -rf "$place"
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bin=$PWD/.venv/bin
on() { where=$1; shift; nsenter --net="/run/netns/$net-$where" -- "$@"; }
mfactl() { where=$1; shift; on "$where" "$bin/mfactl" --config "$place/$where/mfad.yaml" "$@"; }
python() { "$bin/python" "$@"; }
field() { python -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
sql() {
    python -c 'import sqlite3, sys
with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as store: print(store.execute(sys.argv[2]).fetchone()[0])' \
        "$place/$1/state/mfad.sqlite" "$2"
}
until_true() {
    # $1: what, $2: seconds, then a command
    what=$1; tries=$(($2 * 5)); shift 2
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "waited in vain: $what"
        sleep 0.2
    done
}

machine() {
    # $1: name, $2: number
    ip netns add "$net-$1"
    ip -n "$net-$1" link set lo up
    ip -n "$net-$1" link add eth0 address "02:77:00:00:00:0$2" type veth peer name "port$2" netns "$net-switch"
    ip -n "$net-switch" link set "port$2" master br0 up
    ip -n "$net-$1" link set eth0 up
    ip -n "$net-$1" address add "10.77.0.$2/24" dev eth0
    mkdir "$place/$1"
}
configure() {
    # $1: name, $2: role; standard input: what else
    { printf 'role: %s\nstate_dir: ./state\nkey_file: ./kek\n' "$2"; cat; } >"$place/$1/mfad.yaml"
    mfactl "$1" init >"$place/$1/init"
}
start() {
    nsenter --net="/run/netns/$net-$1" -- "$bin/mfad" --config "$place/$1/mfad.yaml" 2>"$place/$1/log" &
    daemons="$daemons $!"
    until_true "mfad starts on $1" 30 grep -q 'mfad: ready' "$place/$1/log"
}

# A login as sshd asks for it, by the real libpam and pam_mfa.so, with a code of alice's telephone.
last_step=0
next_code() {
    now=$(($(date +%s) / 30))
    if [ "$last_step" -ge "$now" ]; then now=$((last_step + 1)); fi
    last_step=$now
    code=$(python -c 'import pyotp, sys; print(pyotp.HOTP(sys.stdin.read().strip()).at(int(sys.argv[1])))' "$now" <"$place/secret")
}
log_in() {
    shown "mfactl pam test alice --service sshd        (on $1, with the code $2)"
    answer=$(printf '%s\n' "$2" | mfactl "$1" pam test alice --service sshd --argument first_factor=done 2>&1) || true
    printf '%s\n' "$answer" | sed 's/^/   /'
}
# $1: host, $2: code, $3: why
must_let_in() {
    log_in "$1" "$2"
    case $answer in *PAM_SUCCESS*) good "Let in: $3." ;; *) fail "alice was not let in on $1" ;; esac
}
must_refuse() {
    log_in "$1" "$2"
    case $answer in *PAM_AUTH_ERR*) bad "Refused: $3." ;; *) fail "alice was not refused on $1" ;; esac
}

chapter "Three machines and a cable each: authority, web1, web2"
ip netns add "$net-switch"
ip -n "$net-switch" link add br0 type bridge
ip -n "$net-switch" link set br0 up type bridge stp_state 0 forward_delay 0
number=1
for name in authority web1 web2; do machine $name $number; number=$((number + 1)); done
authority=https://10.77.0.1:18443
configure authority authority <<YAML
authority:
  listen: ["10.77.0.1:18443"]
  certificate_names: [10.77.0.1]
YAML
shown "mfactl enrol alice"
mfactl authority enrol alice --no-confirm --json | field secret >"$place/secret"
say "alice scans one QR code, once, for all hosts."
shown "mfactl agent group add web --material codebook --max-offline 24h"
mfactl authority agent group add web --material codebook --max-offline 24h >/dev/null
shown "mfactl agent entitle web '*'"
mfactl authority agent entitle web '*' >/dev/null
say "Alone, hosts of the group web go on for a day. For that they hold the codes of a day and a quarter, and no secret."
start authority

chapter "The hosts join, each with a token that is good once"
for name in web1 web2; do
    printf 'doors: {pam: {socket_dir: ./run}}\n' | configure $name agent
    mfactl authority agent token web --name $name --json | field token >"$place/$name/token"
    shown "mfactl agent join $authority        (on $name)"
    mfactl $name agent join $authority --name $name --token-file "$place/$name/token" >/dev/null
    start $name
done
synced() { [ "$(sql "$1" 'SELECT count(*) FROM codebooks')" -ge 1 ]; }
for name in web1 web2; do until_true "$name has heard of alice" 30 synced $name; done
good "web1 and web2 hold alice's codes to come."

chapter "A login while everything is well"
next_code
first=$code
must_let_in web1 "$first" "the authority was asked, and has written it down"
must_refuse web2 "$first" "the code was used on web1, so it is used everywhere"

chapter "The cable of web1 is cut"
ip -n "$net-web1" link set eth0 down
say "Nothing can be reached from there. Alice logs in with the next code of her telephone; it need not be its turn yet."
next_code
second=$code
must_let_in web1 "$second" "web1 has decided by itself, with the same code as ever"
must_refuse web1 "$second" "web1 remembers what was used, too"
must_refuse web1 "$first" "and what was used before the cut"

chapter "The cable is back"
ip -n "$net-web1" link set eth0 up
merged() {
    [ "$(sql authority "SELECT journal_seq FROM hosts WHERE name = 'web1'")" -ge "$(sql web1 "SELECT max(seq) FROM audit")" ]
}
until_true "web1 brings its journal" 30 merged
good "web1 has brought its journal, and the authority has checked its hash chain."
must_refuse web2 "$second" "the code of the outage is spent on web2 as well, where nobody has ever typed it"

chapter "What the authority knows"
shown "mfactl audit tail"
mfactl authority audit tail | sed 's/^/   /'
shown "mfactl agent alarms"
mfactl authority agent alarms | sed 's/^/   /'
[ "$(sql authority 'SELECT count(*) FROM alarms')" -eq 0 ] || fail "there are alarms"
shown "mfactl audit verify"
mfactl authority audit verify | sed 's/^/   /'

printf '\n%sOne enrolment, every host, enforced when the network is gone.%s docs/offline.md says how to roll it out.\n' "$bold" "$off"
