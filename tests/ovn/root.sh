#!/usr/bin/env bash
# Makes sure that there is a small Debian of another suite, in a folder of the cache, and prints its path.
#
# usage: root.sh SUITE       as root; SUITE as Debian calls it: trixie, sid; stdout: the folder, one line; stderr: progress
#
#   OVN_KUBEVIRT_CACHE, DEBIAN_MIRROR   as in tests/cached.sh
#
# debootstrap makes it in about a minute; tests/ovn/run.sh installs what the tests need. To have what the suite serves
# today, remove the folder.
set -euo pipefail

# shellcheck source=tests/cached.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cached.sh"

[ $# = 1 ] || fail 'usage: root.sh SUITE'
suite=$1
[[ $suite =~ ^[a-z]+$ ]] || fail "'$suite' is no suite of Debian's: name one, such as trixie or sid"
[ "$(id -u)" = 0 ] || fail 'debootstrap and chroot need root: run it with sudo -E'
keep "debian-$suite"

if [ ! -d "$result" ]; then
    take_turns
fi
if [ -d "$result" ]; then
    realpath "$result"
    exit
fi

# In a namespace of its own: what debootstrap mounts there is gone with it, whatever ends it.
bootstrap() { unshare --mount --pid --fork --kill-child -- debootstrap --variant=minbase "$suite" "$work" "$mirror"; }

# As this machine fetches packages: proxies, how old an archive may be, and whom its owner trusts.
adopt_settings() {
    apt-config dump Acquire >"$work/etc/apt/apt.conf.d/90acquire"
    mkdir -p "$work/usr/local/share"
    [ ! -d /usr/local/share/ca-certificates ] || cp -a /usr/local/share/ca-certificates "$work/usr/local/share/"
}

mirror=$(mirror) || fail "found no Debian mirror in this machine's apt sources: set DEBIAN_MIRROR"
command -v debootstrap >/dev/null || fail "debootstrap is missing: tests/setup.sh debootstrap"
begin
say "making a Debian $suite in $result (once)"
step "debootstrap" bootstrap
step "settings of this machine" adopt_settings
mv "$work" "$result"
say "made: $(du -sh "$result" | cut -f1)"
echo "$result"
