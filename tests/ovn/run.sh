#!/usr/bin/env bash
# Runs the integration tests against the OVN and the Open vSwitch that another suite of Debian has.
#
# usage: run.sh SUITE [FILTER-OR-OPTION...]     as root; without a filter all tests: those of datapath:: last, one at a time
#
#   KUBEBUILDER_ASSETS                  the folder with kube-apiserver and etcd, as tests/kube/build.sh prints it
#   OVN_KUBEVIRT_CACHE, DEBIAN_MIRROR   as in tests/cached.sh
#
# The tests are those that cargo builds on this machine: they run in a root of that suite (tests/ovn/root.sh), where every
# other program that they start is the suite's own, kubectl and the browser too. kube-apiserver and etcd are this machine's.
# Last comes a table of what passed, by group, and the names of what failed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
fail() { printf 'test-ovn: %s\n' "$*" >&2; exit 1; }

[ -n "${1:-}" ] || fail 'which suite of Debian? make test-ovn SUITE=trixie, or SUITE=sid'
suite=$1
shift
[ "$(id -u)" = 0 ] || fail 'debootstrap, chroot and network namespaces need root: run it with sudo -E'
[ -n "${KUBEBUILDER_ASSETS:-}" ] || fail 'KUBEBUILDER_ASSETS is not set: run it by make test-ovn'

root=$(tests/ovn/root.sh "$suite")
built=$(cargo test --locked --test integration --no-run --message-format=json-render-diagnostics)
binary=$(sed -nE 's/.*"name":"integration".*"executable":"([^"]+)".*/\1/p' <<<"$built" | tail -n 1)
[ -x "$binary" ] || fail 'cargo names no test binary'
target=$(realpath "${CARGO_TARGET_DIR:-target}")
assets=$(realpath "$KUBEBUILDER_ASSETS")

inside() { # COMMAND...
    tests/ovn/enter.sh "$root" "$PWD" "$target" "$assets" -- \
        env -u TEST_KUBECONFIG -u TMPDIR -u XDG_CACHE_HOME -u LD_LIBRARY_PATH \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        KUBEBUILDER_ASSETS="$assets" OVN_KUBEVIRT_CACHE=/var/cache/ovn-kubevirt "$@"
}
inside tests/setup.sh --without-rust

version() { inside "$1" --version | head -n 1; }
printf '\ntest-ovn: Debian %s: %s; %s\n' "$suite" "$(version ovn-northd)" "$(version ovs-vswitchd)"

# --- the tests, and the table --------------------------------------------------------------------------------------------

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
run() { inside "$binary" "$@" 2>&1 | tee -a "$output" || status=1; }
if [ $# = 0 ]; then
    run --skip datapath::
    run --test-threads 1 datapath::
else
    case "$*" in *datapath*) set -- --test-threads 1 "$@" ;; esac
    run "$@"
fi

printf '\n%-16s %6s %6s %7s\n' group passed failed ignored
sed -nE 's/^test ([a-z_0-9]+)::[^ ]+ .*\b(ok|FAILED|ignored)\b.*/\1 \2/p' "$output" | sort | uniq -c |
    awk '{ count[$2, $3] = $1; groups[$2] }
         END { for (group in groups) printf "%-16s %6d %6d %7d\n", group, count[group, "ok"], count[group, "FAILED"], count[group, "ignored"] }' | sort
sed -nE 's/^test ([a-z_0-9:]+) .*\bFAILED\b.*/failed: \1/p' "$output"
exit "$status"
