#!/bin/sh
# Install the Debian packages that a make target needs, or name exactly what is missing.
# usage: prerequisites.sh build|demo|test
set -eu

build="python3 python3-venv gcc libc6-dev make libpam0g-dev"
demo="$build iproute2 util-linux"
test="$build git clang libclang-rt-14-dev valgrind openssh-server openssh-client sudo passwd iproute2 util-linux faketime
 pamtester libpam-google-authenticator libpam-oath sqlite3 slapd ldap-utils freeradius freeradius-utils freeradius-python3
 libpam-radius-auth openvpn openvpn-auth-radius radsecproxy eapoltest libssl-dev libevent-dev
 apache2 php-cli php-ldap python3-ldap python3-bonsai nslcd postgresql"
# Installed, this one puts itself into the PAM stacks of the machine: it is only unpacked, for the test that logs in by it.
unpacked=libpam-ldapd

case "${1:-}" in
build) wanted=$build ;;
demo) wanted=$demo ;;
test) wanted=$test ;;
*) echo "usage: $0 build|demo|test" >&2; exit 2 ;;
esac

command -v dpkg-query >/dev/null || {
    echo "This is no Debian system: install what these Debian packages hold, then try again: $wanted" >&2
    exit 1
}

unpack() {
    place=build/$unpacked
    if [ "$1" != test ] || [ -e "$place/done" ]; then return; fi
    echo "Unpacking: $unpacked"
    mkdir -p "$place"
    (cd "$place" && apt-get download -q -o APT::Sandbox::User=root "$unpacked" && dpkg-deb -x "$unpacked"_*.deb . && touch done)
}

missing=""
for package in $wanted; do
    state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing="$missing $package"
done

if [ -z "$missing" ]; then
    unpack "$1"
    exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
    echo "Missing packages. Install them and try again:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# A server package must not start its service here.
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.conf
made=""
tidy() {
    [ -z "$made" ] || rm -f "$policy"
    [ ! -e "$clusters.before" ] || mv "$clusters.before" "$clusters"
}
trap tidy EXIT
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
fi
apt-get update -q
case "$missing " in
*" postgresql "*)
    # Nor make a database, which would start with the machine: tests make their own, elsewhere.
    apt-get install -y -q --no-install-recommends postgresql-common
    cp -p "$clusters" "$clusters.before"
    sed -i 's/^#*create_main_cluster = .*/create_main_cluster = false/' "$clusters"
    ;;
esac
# shellcheck disable=SC2086  a list of words
apt-get install -y -q --no-install-recommends $missing
unpack "$1"
