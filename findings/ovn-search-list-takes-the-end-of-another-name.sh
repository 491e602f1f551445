#!/usr/bin/env bash
# Finding: of two names in `domain_search_list` that differ in their last character, OVN sends the end of the first for both.
#
# Version: OVN 23.03.1 (Debian 12, ovn-host 23.03.1-1~deb12u2), Open vSwitch 3.1.0. The code is the same in OVN 25.03 and 26.03.
# Input: DHCP_Options options:domain_search_list="a.co,b.cn", as ovn-nb(5) writes it; a chassis that has claimed the port.
# Seen: the flow's option 119 is 04 "a" "co" 00 "b" and a pointer to "co": a guest gets a.co and b.co. Nothing is logged.
# ovn-controller compresses the list (RFC 1035, section 4.1.4) and looks ends of names up that lack their last character:
# `ovs_strlcpy(suffix, domain, strlen(domain))` in lib/actions.c copies one character less. With "a.co,b.org" both are right.
#
# Needs: Debian 12, apt-get; no root. Everything is unpacked into a temporary folder and listens on unix sockets there; the
# switch has the dummy datapath of Open vSwitch's own tests.
set -euo pipefail

dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -q download ovn-common=23.03.1-1~deb12u2 ovn-central=23.03.1-1~deb12u2 ovn-host=23.03.1-1~deb12u2 \
    openvswitch-common=3.1.0-2+deb12u1 openvswitch-switch=3.1.0-2+deb12u1 \
    libunbound8 libevent-2.1-7 libxdp1 libbpf1 libnuma1 libunwind8 >/dev/null
for package in *.deb; do dpkg -x "$package" root; done
PATH=$dir/root/usr/bin:$dir/root/usr/sbin:$PATH
LD_LIBRARY_PATH=$(find "$dir/root/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu')
export PATH LD_LIBRARY_PATH OVS_RUNDIR=$dir OVN_RUNDIR=$dir OVS_LOGDIR=$dir OVN_LOGDIR=$dir OVS_DBDIR=$dir OVN_DBDIR=$dir

begin() { # PROGRAM ARGUMENT...
    "$@" -vconsole:off -vsyslog:off &
    pids+=($!)
}
until_true() { until "$@" >/dev/null 2>&1; do read -rt 0.05 <> <(:) || true; done; }
for side in nb sb; do ovsdb-tool create "$side.db" "root/usr/share/ovn/ovn-$side.ovsschema"; done
ovsdb-tool create db.db root/usr/share/openvswitch/vswitch.ovsschema
for side in nb sb db; do begin ovsdb-server "$side.db" --remote="punix:$dir/$side.sock" --unixctl="$dir/$side.ctl"; done
for side in nb sb db; do until_true test -S "$side.sock"; done
nbctl() { ovn-nbctl --db="unix:$dir/nb.sock" --timeout=20 "$@"; }
vsctl() { ovs-vsctl --db="unix:$dir/db.sock" --timeout=20 "$@"; }
ovn-sbctl --db="unix:$dir/sb.sock" init
nbctl init
begin ovn-northd --ovnnb-db="unix:$dir/nb.sock" --ovnsb-db="unix:$dir/sb.sock" --unixctl="$dir/northd.ctl"
vsctl --no-wait init -- set open_vswitch . external_ids:system-id=hv external_ids:hostname=hv \
    external_ids:ovn-remote="unix:$dir/sb.sock" external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=127.0.0.1
begin ovs-vswitchd --enable-dummy=override --disable-system --unixctl="$dir/vswitchd.ctl" "unix:$dir/db.sock"
vsctl add-br br-int -- set bridge br-int fail_mode=secure datapath_type=dummy \
    -- add-port br-int vif -- set interface vif type=dummy external_ids:iface-id=guest
begin ovn-controller "unix:$dir/db.sock"

nbctl ls-add switch -- lsp-add switch guest -- lsp-set-addresses guest "02:00:00:00:00:02 10.0.0.2"
sent() { # NAMES: option 119 in the flow, as hexadecimal bytes
    local row
    row=$(nbctl create DHCP_Options cidr=10.0.0.0/24 options:server_id=10.0.0.1 options:lease_time=60 \
        options:server_mac='"02:00:00:00:00:01"' options:domain_search_list="\"\\\"$1\\\"\"")
    nbctl --wait=hv lsp-set-dhcpv4-options guest "$row"
    ovs-ofctl -O OpenFlow15 dump-flows "unix:$dir/br-int.mgmt" | grep -o 'userdata=00.00.00.02[0-9a-f.]*' | head -n 1 |
        sed -E 's/.*\.77\.([0-9a-f.]*)\.33\.04\..*/\1/'
}
ovn-controller --version | head -n 1
bad=$(sent a.co,b.cn)
good=$(sent a.co,b.org)
echo "a.co,b.cn:  option 119 is $bad"
echo "a.co,b.org: option 119 is $good"

# Length; 1 "a" 2 "co" 0; 1 "b"; a pointer to byte 2, "co".
[ "$bad" = 0a.01.61.02.63.6f.00.01.62.c0.02 ] && [ "$good" = 0d.01.61.02.63.6f.00.01.62.03.6f.72.67.00 ]
