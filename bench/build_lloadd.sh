#!/bin/sh
# Build OpenLDAP's load balancer, which Debian 12 ships as source only: a peer that measurements of the LDAP door stand beside.
# usage: build_lloadd.sh FOLDER    FOLDER/lloadd is the program then; nothing outside FOLDER is changed
#
# The source is Debian's own (apt-get source, with lists of its own in FOLDER). It needs the network once, libevent-dev, and
# about a minute.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ ! -x "$folder/lloadd" ] || exit 0
for header in event2/event.h openssl/ssl.h; do
    [ -e "/usr/include/$header" ] || { echo "$header is missing: apt-get install libevent-dev libssl-dev" >&2; exit 1; }
done

. /etc/os-release
work="$folder/source"
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/tree"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$keyring] http://deb.debian.org/debian $VERSION_CODENAME main" >"$work/sources.list"

apt() {
    apt-get -q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User= "$@"
}

{
    apt update
    (cd "$work" && apt source --download-only openldap)
    tar -xf "$work"/openldap_*.orig.tar.* -C "$work/tree" --strip-components=1
    cd "$work/tree"
    ./configure --disable-slapd --enable-balancer=yes --disable-shared --enable-static --without-tls --without-cyrus-sasl
    make depend
    make -C include
    make -C libraries
    make -C servers
} >"$folder/build.log" 2>&1 || { tail -n 5 "$folder/build.log" >&2; exit 1; }
cp "$work/tree/servers/lloadd/lloadd" "$folder/lloadd"
rm -rf "$work"
