#!/usr/bin/env bash
# Finding: northd's IPAM stops reading `Logical_Switch other_config:exclude_ips` at the first comma; what stood before it holds.
#
# Version: OVN 23.03.1 (Debian 12, ovn-central 23.03.1-1~deb12u2), Open vSwitch 3.1.0.
# Input: exclude_ips="10.0.0.2,10.0.0.3", a list with the separator that most tools take; a port with `dynamic` addresses.
# Seen: 10.0.0.2 is excluded, and the port gets 10.0.0.3, which stands in the list. With a blank between, it gets 10.0.0.4.
# northd logs one WARN line ("bad exclude_ips") and goes on. A list with commas looks as if it worked, while only its first
# element holds. ovn-nb(5) writes the list with blanks.
#
# Needs: Debian 12, apt-get; no root. Everything is unpacked into a temporary folder and listens on unix sockets there.
set -euo pipefail

dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -q download ovn-common=23.03.1-1~deb12u2 ovn-central=23.03.1-1~deb12u2 \
    openvswitch-common=3.1.0-2+deb12u1 libunbound8 libevent-2.1-7 >/dev/null
for package in *.deb; do dpkg -x "$package" root; done
PATH=$dir/root/usr/bin:$dir/root/usr/sbin:$PATH
LD_LIBRARY_PATH=$(find "$dir/root/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu')
export PATH LD_LIBRARY_PATH OVS_RUNDIR=$dir OVN_RUNDIR=$dir

for side in nb sb; do
    ovsdb-tool create "$side.db" "root/usr/share/ovn/ovn-$side.ovsschema"
    ovsdb-server "$side.db" --remote="punix:$dir/$side.sock" --unixctl="$dir/$side.ctl" -vconsole:off -vfile:off &
    pids+=($!)
done
for side in nb sb; do until [ -S "$side.sock" ]; do read -rt 0.05 <> <(:) || true; done; done
nbctl() { ovn-nbctl --db="unix:$dir/nb.sock" "$@"; }
ovn-sbctl --db="unix:$dir/sb.sock" init
nbctl init
ovn-northd --ovnnb-db="unix:$dir/nb.sock" --ovnsb-db="unix:$dir/sb.sock" --unixctl="$dir/northd.ctl" \
    -vconsole:off --log-file="$dir/northd.log" &
pids+=($!)

given() { # NAME EXCLUDE_IPS: the address that a dynamic port gets
    nbctl ls-add "$1" -- set logical_switch "$1" other_config:subnet=10.0.0.0/29 "other_config:exclude_ips=\"$2\""
    nbctl --wait=sb lsp-add "$1" "$1-port" -- lsp-set-addresses "$1-port" dynamic
    nbctl --wait=sb sync
    nbctl get logical_switch_port "$1-port" dynamic_addresses | tr -d '"' | cut -d ' ' -f 2
}
ovn-northd --version | head -n 1
comma=$(given comma 10.0.0.2,10.0.0.3)
blank=$(given blank '10.0.0.2 10.0.0.3')
echo "exclude_ips 10.0.0.2,10.0.0.3: the port gets $comma"
echo "exclude_ips 10.0.0.2 10.0.0.3: the port gets $blank"

grep "WARN.*exclude" northd.log | sed "s/.*WARN/northd logs: WARN/"
[ "$comma" = 10.0.0.3 ] && [ "$blank" = 10.0.0.4 ]
