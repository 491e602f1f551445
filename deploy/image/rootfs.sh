#!/usr/bin/env bash
# Assembles the files of the image of ovn-kubevirt: the binary, and from Debian's packages what it needs to run.
#
# usage: rootfs.sh BINARY FOLDER     FOLDER is made, and must not exist
#
# The packages (libc6, libgcc-s1, ca-certificates) are downloaded and unpacked, not installed: no maintainer script runs,
# and it needs no root. They must be of the release that the binary was linked on, which is this machine's.
set -euo pipefail

say() { printf 'rootfs: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

[ $# = 2 ] || fail 'usage: rootfs.sh BINARY FOLDER'
command -v apt-get >/dev/null || fail "no apt-get here to get Debian's packages with: build with docker build -f deploy/Dockerfile ."
binary=$(realpath "$1") folder=$(realpath -m "$2")
[ ! -e "$folder" ] || fail "$folder is there already"
license=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../LICENSE")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- the packages --------------------------------------------------------------------------------------------------------

apt() { apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@"; }
apt_private() { apt -o Dir::State="$work/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$work/cache" "$@"; }

# With the lists that this machine has; where they are missing or old, with lists of our own.
get() { apt download "$@" || { apt_private update; apt_private download "$@"; }; }

packages=(libc6 libgcc-s1 ca-certificates)
mkdir -p "$work"/{debs,files,state/lists/partial,cache/archives/partial}
cd "$work/debs"
say "getting Debian's packages ${packages[*]}"
get "${packages[@]}" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "could not be downloaded: ${packages[*]}"; }
# Where libgcc-s1 keeps its licence.
get "$(dpkg-deb -f libgcc-s1_*.deb Depends | grep -oE 'gcc-[0-9]+-base')" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
for deb in *.deb; do dpkg-deb -x "$deb" "$work/files"; done

# --- the files -----------------------------------------------------------------------------------------------------------

place() { install -D -m "$1" "$2" "$folder/$3"; } # MODE FILE PATH

place 755 "$binary" usr/bin/ovn-kubevirt
linked=$(ldd "$binary")
while read -r library; do
    found=$(find "$work/files" -name "$library" -print -quit)
    [ -n "$found" ] || fail "$library, which the binary is linked with, is in none of: ${packages[*]}"
    place 755 "$found" "lib/$library"
done < <(sed -nE 's,^\s*(lib\S+) => .*,\1,p' <<<"$linked")
loader=$(sed -nE 's,^\s*/(lib\S*/ld-linux\S*) .*,\1,p' <<<"$linked")
place 755 "$(find "$work/files" -name "${loader##*/}" -type f -print -quit)" "$loader"

# As update-ca-certificates writes it.
find "$work/files/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs cat >"$work/bundle"
place 644 "$work/bundle" etc/ssl/certs/ca-certificates.crt
place 644 /dev/stdin etc/passwd <<<'ovn-kubevirt:x:65532:65532:ovn-kubevirt:/:/nonexistent'
place 644 /dev/stdin etc/group <<<'ovn-kubevirt:x:65532:'
place 644 /dev/stdin etc/nsswitch.conf <<<'hosts: files dns'
place 644 "$license" usr/share/doc/ovn-kubevirt/copyright
for copyright in "$work"/files/usr/share/doc/*/copyright; do
    place 644 "$copyright" "${copyright#"$work/files/"}"
done

"$folder/$loader" --inhibit-cache --library-path "$folder/lib" "$binary" version >/dev/null ||
    fail "the binary does not run with the libraries of Debian's packages: was it built on another release?"
say "assembled: $(du -sh --apparent-size "$folder" | cut -f1)"
