#!/usr/bin/env bash
# Finding: how ovn-controller is ended decides whether its Chassis row stays. SIGTERM keeps the row; `ovn-appctl exit` removes it.
#
# Version: OVN 23.03.1 (Debian 12, ovn-host 23.03.1-1~deb12u2), Open vSwitch 3.1.0.
# Input: one ovn-controller that has registered its chassis, ended in both ways, without any port bound to it.
# Seen: after SIGTERM the southbound still has the row in Chassis, and nothing says that the node is gone; after `exit` (without
# --restart) both Chassis and Chassis_Private are empty. So a node that is drained by `systemctl stop` and one that is ended through the
# control socket look different to whoever reads the southbound, and a port with requested-chassis loses its chassis in one case only.
#
# Needs: Debian 12, apt-get; no root. Everything is unpacked into a temporary folder and listens on unix sockets there.
set -euo pipefail

dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -q download ovn-common=23.03.1-1~deb12u2 ovn-central=23.03.1-1~deb12u2 ovn-host=23.03.1-1~deb12u2 \
    openvswitch-common=3.1.0-2+deb12u1 openvswitch-switch=3.1.0-2+deb12u1 libunbound8 libevent-2.1-7 >/dev/null
for package in *.deb; do dpkg -x "$package" root; done
PATH=$dir/root/usr/bin:$dir/root/usr/sbin:$PATH
LD_LIBRARY_PATH=$(find "$dir/root/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu')
export PATH LD_LIBRARY_PATH OVS_RUNDIR=$dir OVN_RUNDIR=$dir

ovsdb-tool create sb.db root/usr/share/ovn/ovn-sb.ovsschema
ovsdb-tool create ovs.db root/usr/share/openvswitch/vswitch.ovsschema
for database in sb ovs; do
    ovsdb-server "$database.db" --remote="punix:$dir/$database.sock" --unixctl="$dir/$database.ctl" -vconsole:off -vfile:off &
    pids+=($!)
done
poll() { # COMMAND...: waits until it succeeds, 20 s at most
    local end=$((SECONDS + 20))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || { echo "not in 20 s: $*"; return 1; }
        read -rt 0.1 <> <(:) || true
    done
}
for database in sb ovs; do poll test -S "$database.sock"; done
sbctl() { ovn-sbctl --db="unix:$dir/sb.sock" "$@"; }
vsctl() { ovs-vsctl --db="unix:$dir/ovs.sock" --no-wait "$@"; }
sbctl init
vsctl init -- set open_vswitch . external_ids:system-id=hv1 external_ids:hostname=hv1 \
    external_ids:ovn-remote="unix:$dir/sb.sock" external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=127.0.0.1 \
    -- add-br br-int
rows() { echo "$(sbctl --bare --columns=name list chassis) $(sbctl --bare --columns=name list chassis_private)"; }
has() { [ "$(rows)" = "$1" ]; }
start() {
    ovn-controller "unix:$dir/ovs.sock" -vconsole:off -vfile:off &
    controller=$!
    pids+=("$controller")
    poll has "hv1 hv1"
}
ovn-controller --version | head -n 1
start
kill -TERM "$controller"
wait "$controller" || true
term=$(rows)
echo "after SIGTERM: Chassis and Chassis_Private have '$term'"
start
ovn-appctl -t "$dir/ovn-controller.$controller.ctl" exit
wait "$controller" || true
exit_=$(rows)
echo "after ovn-appctl exit: Chassis and Chassis_Private have '$exit_'"
[ "$term" = "hv1 hv1" ] && [ "$exit_" = " " ]
