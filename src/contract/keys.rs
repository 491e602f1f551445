//! Keys of `external_ids` and `options`, and the filters of those that a replica keeps.

/// `external_ids`: the product that made the row.
pub const VENDOR: &str = "vendor";
/// The value of [`VENDOR`] on our rows.
pub const OUR_VENDOR: &str = "ovn-kubevirt";
/// `external_ids`: the instance of this service that the row belongs to.
pub const INSTANCE: &str = "ovn-kubevirt.io/instance";
/// `external_ids`: `<namespace>/<name>` of the VM.
pub const VM: &str = "ovn-kubevirt.io/vm";
/// `external_ids`: the VM's UID.
pub const VM_UID: &str = "ovn-kubevirt.io/vm-uid";
/// `external_ids`: the network's name in the VM.
pub const NETWORK: &str = "ovn-kubevirt.io/network";
/// `external_ids`: `MAC IP...` reserved for the VM's next start.
pub const NEXT_ADDRESSES: &str = "ovn-kubevirt.io/next-addresses";
/// `external_ids`: the time that the addresses stay reserved after the VM is deleted, as the owner writes it.
pub const RETAIN: &str = "ovn-kubevirt.io/retain";
/// `external_ids`: the base name of a new port of the NIC, if the NIC has come to another network since.
pub const BASE_NAME: &str = "ovn-kubevirt.io/base-name";
/// `external_ids`: the end of the reservation, once the VM is deleted: RFC 3339, or `forever`.
pub const RETAINED_UNTIL: &str = "ovn-kubevirt.io/retained-until";
/// `external_ids`: `true` while the instance no longer selects the VM's namespace: another instance that selects it
/// takes the row over.
pub const HANDOVER: &str = "ovn-kubevirt.io/handover";
/// `DHCP_Options:external_ids`: the name of the logical switch whose ports share the row.
pub const DHCP_SWITCH: &str = "ovn-kubevirt.io/switch";
/// `DHCP_Options:external_ids`: the port that has the row for itself, as its VM's owner has written options.
pub const DHCP_PORT: &str = "ovn-kubevirt.io/port";
/// `NB_Global:external_ids`: the active epoch, with the instance's name appended.
pub const EPOCH_PREFIX: &str = "ovn-kubevirt.io/epoch.";
/// `NB_Global:external_ids`: the cluster that the instance serves, with the instance's name appended. Its value is
/// the UID of the namespace `kube-system`.
pub const CLUSTER_PREFIX: &str = "ovn-kubevirt.io/cluster.";
/// `other_config` of a switch: the MTU of its ports, for CNIs.
pub const MTU: &str = "mtu";
/// `Logical_Router_Port:ipv6_ra_configs`: how guests get their addresses; without it the router sends no advertisements.
pub const ADDRESS_MODE: &str = "address_mode";
/// `Logical_Router_Port:ipv6_ra_configs`: whether the router sends advertisements unasked. [`MTU`] is the third key.
pub const SEND_PERIODIC: &str = "send_periodic";
/// `Logical_Switch:external_ids`: the namespaces that may use the switch, comma-separated; `*` for all.
pub const NAMESPACES: &str = "ovn-kubevirt.io/namespaces";
/// `Logical_Switch:external_ids`: the requests that owners of VMs may make on the switch, comma-separated.
pub const ALLOW: &str = "ovn-kubevirt.io/allow";
/// `options`: the chassis of the port (ovn-nb(5)).
pub const REQUESTED_CHASSIS: &str = "requested-chassis";
/// `options`: the strategy that opens an additional chassis (ovn-nb(5)).
pub const ACTIVATION_STRATEGY: &str = "activation-strategy";
/// `Port_Binding:options`: the additional chassis that have seen the guest, comma-separated.
pub const ADDITIONAL_CHASSIS_ACTIVATED: &str = "additional-chassis-activated";
/// `options`: the host name that OVN sends to the guest by DHCP, with quotation marks in it (ovn-nb(5)).
pub const HOSTNAME: &str = "hostname";
/// `options` of a `router` port: its peer.
pub const ROUTER_PORT: &str = "router-port";
/// `options` of a `virtual` port: its address.
pub const VIRTUAL_IP: &str = "virtual-ip";
/// `options` of a `router` port: addresses that it answers for on behalf of others.
pub const ARP_PROXY: &str = "arp_proxy";
/// `options` of a `router` port: addresses that it announces.
pub const NAT_ADDRESSES: &str = "nat-addresses";
/// `DNS:options`: OVN answers every question for an address of the names, and passes none on (ovn-nb(5)).
pub const OVN_OWNED: &str = "ovn-owned";
/// `Interface:external_ids` of a node's Open vSwitch: the port of the interface (ovn-controller(8)).
pub const IFACE_ID: &str = "iface-id";
/// `Interface:external_ids` of a node's Open vSwitch: `<pod uid>/<port name>` where this service has set [`IFACE_ID`].
pub const NODE_MARK: &str = "ovn-kubevirt.io/node";
/// `Port:external_ids` of a node's Open vSwitch, by ovs-cni: the pod's UID.
pub const POD_UID: &str = "contPodUid";
/// `Port:external_ids` of a node's Open vSwitch, by ovs-cni: the interface's name in the pod.
pub const POD_INTERFACE: &str = "contIface";
/// `Open_vSwitch:external_ids`: the bridge that ovn-controller serves; of one chassis with a hyphen and the value of
/// [`SYSTEM_ID`] appended (ovn-controller(8)).
pub const OVN_BRIDGE: &str = "ovn-bridge";
/// `Open_vSwitch:external_ids`: the name of the chassis.
pub const SYSTEM_ID: &str = "system-id";

/// Returns true if a key of the `external_ids` of a row is read here; other keys are not kept in the replica.
pub(crate) fn is_mark(key: &str) -> bool {
    key == VENDOR || key.starts_with("ovn-kubevirt.io/")
}

/// Returns true if a key of `Logical_Switch:external_ids` is read here; other keys are not kept in the replica.
pub(crate) fn is_policy(key: &str) -> bool {
    matches!(key, NAMESPACES | ALLOW)
}

/// Returns true if a key of a port's `options` is read here; other keys are not kept in the replica.
pub(crate) fn is_read_option(key: &str) -> bool {
    matches!(
        key,
        REQUESTED_CHASSIS | ACTIVATION_STRATEGY | HOSTNAME | ROUTER_PORT | VIRTUAL_IP | ARP_PROXY | NAT_ADDRESSES
    )
}

/// Returns true if a key of `DHCP_Options:options` has an address or a MAC of the server's.
pub(crate) fn is_of_dhcp_server(key: &str) -> bool {
    matches!(key, "server_id" | "server_mac" | "router")
}

/// Returns true if a key of `Logical_Router_Port:ipv6_ra_configs` is read here; other keys are not kept in the replica.
pub(crate) fn is_read_of_ra(key: &str) -> bool {
    matches!(key, ADDRESS_MODE | SEND_PERIODIC | MTU)
}

/// Returns true if a key of `DNS:options` is read here; other keys are not kept in the replica.
pub(crate) fn is_read_of_dns(key: &str) -> bool {
    key == OVN_OWNED
}

/// Returns true if a key of a port binding's `options` is read here; other keys are not kept in the replica.
pub(crate) fn is_read_of_binding(key: &str) -> bool {
    key == ADDITIONAL_CHASSIS_ACTIVATED
}

/// The key of an instance's epoch in `NB_Global:external_ids`.
pub fn epoch_key(instance: &str) -> String {
    format!("{EPOCH_PREFIX}{instance}")
}

/// The key of an instance's cluster in `NB_Global:external_ids`.
pub fn cluster_key(instance: &str) -> String {
    format!("{CLUSTER_PREFIX}{instance}")
}

/// The number of an epoch: `<n>.<random holder id>`.
pub fn epoch_number(epoch: &str) -> Option<u64> {
    epoch.split('.').next()?.parse().ok()
}
