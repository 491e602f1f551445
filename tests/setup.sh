#!/usr/bin/env bash
# Makes sure that this machine has what the tests, the demo and the benchmark need; installs by apt only what is missing.
#
# usage: setup.sh [--without-rust] [PROGRAM...]     needs root or sudo only when something is missing
#
#   --without-rust             for a root in which nothing is compiled (tests/ovn/run.sh)
#   PROGRAM                    what is needed besides, each in a package of its name
#
# Nothing is left running by it: Debian starts an installed server at once and at every boot, and a northd or an OVS
# started that way would be a surprise on a developer's machine. Servers that were there before are not touched.
set -euo pipefail

# Debian keeps servers in /usr/sbin, which is not on an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin
oldest_rust=1.89

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

with_rust=1
if [ "${1:-}" = --without-rust ]; then
    with_rust=
    shift
fi

# --- what is missing -----------------------------------------------------------------------------------------------------

missing=()
need() { # PACKAGE COMMAND-OR-FILE...
    local package=$1 wanted
    shift
    for wanted; do
        command -v "$wanted" >/dev/null || [ -e "$wanted" ] || { missing+=("$package"); return 0; }
    done
}
need ca-certificates /etc/ssl/certs/ca-certificates.crt
need curl curl
need openssl openssl
need make make
need util-linux flock setpriv setsid nsenter unshare
need iproute2 ip ss
need procps /bin/kill sysctl
if [ -n "$with_rust" ]; then
    need gcc cc
    need libc6-dev /usr/include/stdlib.h
fi
need openvswitch-common ovsdb-server ovsdb-tool ovsdb-client
need openvswitch-switch ovs-vsctl /usr/share/openvswitch/vswitch.ovsschema
need ovn-common ovn-nbctl ovn-sbctl
need ovn-central ovn-northd /usr/share/ovn/ovn-nb.ovsschema /usr/share/ovn/ovn-sb.ovsschema
need ovn-host ovn-controller
need iputils-ping ping
need udhcpc udhcpc
need isc-dhcp-client dhclient
need bind9-dnsutils dig
need python3-minimal python3
need kubernetes-client kubectl
need prometheus promtool
need chromium chromium
need python3-venv /usr/lib/python3.*/ensurepip
for program; do need "$program" "$program"; done

# --- apt -----------------------------------------------------------------------------------------------------------------

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

policy=/usr/sbin/policy-rc.d
remove_policy=
keep_servers_stopped() { # Debian asks this file before it starts a service; one that exists is the owner's choice
    [ ! -e "$policy" ] || return 0
    remove_policy=1
    trap 'allow_servers' EXIT
    as_root install -m 755 /dev/stdin "$policy" <<<$'#!/bin/sh\nexit 101'
}
allow_servers() { [ -z "$remove_policy" ] || as_root rm -f "$policy"; }

disable_servers() { # PACKAGE...: not at the next boot either
    command -v systemctl >/dev/null || return 0
    local units disable=(systemctl disable --quiet)
    [ ! -d /run/systemd/system ] || disable+=(--now)
    mapfile -t units < <(dpkg -L "$@" | sed -nE 's,.*/systemd/system/([^/@]+\.service)$,\1,p' | sort -u)
    [ "${#units[@]}" = 0 ] || as_root "${disable[@]}" "${units[@]}" 2>/dev/null || true
}

install_missing() {
    command -v apt-get >/dev/null || fail "no apt-get here; please install what Debian calls: ${missing[*]}"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "please run as root: apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]} (one or two minutes)"
    case " ${missing[*]} " in *" chromium "*) say "of these chromium, which the live page is tested in, is 125 MB to fetch and 415 MB on the disk" ;; esac
    keep_servers_stopped
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    local before
    before=$(dpkg-query -W -f '${Package}\n' | sort)
    as_root "${apt[@]}" update >&2
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 </dev/null
    local new
    mapfile -t new < <(comm -13 <(echo "$before") <(dpkg-query -W -f '${Package}\n' | sort))
    [ "${#new[@]}" = 0 ] || disable_servers "${new[@]}"
}

needs="needs root or sudo (to install packages)${with_rust:+, and cargo $oldest_rust or newer}"
if [ "${#missing[@]}" = 0 ]; then
    say "$needs; every package is there"
else
    say "$needs; missing: ${missing[*]}"
    install_missing
fi

# --- a WebSocket client that is not ours ---------------------------------------------------------------------------------

# The version stands in tests/support/python.rs, too.
websockets=15.0.1
venv=${OVN_KUBEVIRT_CACHE:-$HOME/.cache/ovn-kubevirt}/websockets-$websockets
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import websockets' 2>/dev/null; then
    say "installing websockets $websockets from PyPI (some seconds, once)"
    rm -rf "$venv"
    mkdir -p "${venv%/*}"
    # /usr/bin/python3 is Debian's, which python3-venv belongs to.
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "websockets==$websockets"
fi

# --- Rust ------------------------------------------------------------------------------------------------------------------

[ -n "$with_rust" ] || exit 0
command -v cargo >/dev/null || fail "no cargo: please install Rust $oldest_rust or newer with rustup (Debian's own is too old)"
version=$(cargo --version | cut -d ' ' -f 2)
printf '%s\n' "$oldest_rust" "$version" | sort -V -C || fail "cargo is $version, and $oldest_rust or newer is needed: rustup update stable"
[ "${#missing[@]}" = 0 ] || say "everything is there"
