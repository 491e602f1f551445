//! The keys of labels and annotations: their names, and their grammar.
//!
//! A key is `<domain>/<what>`. Keys of this service's own domain concern a VM, a Node or a namespace as a whole; keys of
//! a domain that Kube-OVN introduced concern one network.

/// The label that tells a launcher pod, with its value.
pub const LAUNCHER_LABEL: (&str, &str) = ("kubevirt.io", "virt-launcher");
/// The label on the target's launcher pod of a migration; it stays there after the end.
pub const MIGRATION_LABEL: &str = "kubevirt.io/migrationJobUID";
/// The annotation of pods that only provision volumes.
pub const PROVISIONING: &str = "kubevirt.io/ephemeral-provisioning";

/// On a pod: the networks beside its default one, and their interfaces (Multus).
pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// The domain of this service's own keys.
const OUR_DOMAIN: &str = "ovn-kubevirt.io";
/// The annotation that this service writes on VMs and on bare VMIs: the ports as they are.
pub const PORTS_ANNOTATION: &str = "ovn-kubevirt.io/ports";
/// On a Node: the name of its chassis.
pub const CHASSIS_ANNOTATION: &str = "ovn-kubevirt.io/chassis";
/// On a VM: the time that its addresses stay reserved after it is deleted.
pub const RETAIN: &str = "ovn-kubevirt.io/retain";

/// The domain that Kube-OVN introduced: alone for the pod network, at the end of the domains of other networks.
pub const DOMAIN: &str = "ovn.kubernetes.io";
/// On a NAD: its logical switch. On a namespace: the switches of its VMs.
pub const SWITCH_ANNOTATION: &str = "ovn.kubernetes.io/logical_switch";
/// The second half of a key: the addresses of a NIC.
pub const IP_ADDRESS: &str = "ip_address";
/// The second half of a key: the MAC of a NIC.
pub const MAC_ADDRESS: &str = "mac_address";
/// The second half of a key: the logical switch of a NIC.
pub const LOGICAL_SWITCH: &str = "logical_switch";
/// The second half of a key: the pool that the addresses of a NIC are allocated from.
pub const IP_POOL: &str = "ip_pool";
/// The second half of a key: whether a NIC admits its own addresses only.
pub const PORT_SECURITY: &str = "port_security";
/// The second half of a key: the families of a NIC's addresses.
pub const IP_FAMILY: &str = "ip_family";
/// The second half of a key: further addresses that a NIC's guest may speak with.
pub const PORT_VIPS: &str = "port_vips";
/// The second half of a key: whether OVN answers the DHCP requests of a NIC.
pub const DHCP: &str = "dhcp";
/// The second half of a key: the DHCPv4 options of a NIC.
pub const DHCP_V4_OPTIONS: &str = "dhcp-v4-options";
/// The second half of a key: the DHCPv6 options of a NIC.
pub const DHCP_V6_OPTIONS: &str = "dhcp-v6-options";
/// The second halves of the keys that are served.
pub const SERVED: [&str; 10] = [
    IP_ADDRESS,
    MAC_ADDRESS,
    LOGICAL_SWITCH,
    IP_POOL,
    IP_FAMILY,
    PORT_SECURITY,
    PORT_VIPS,
    DHCP,
    DHCP_V4_OPTIONS,
    DHCP_V6_OPTIONS,
];

/// What Kube-OVN's controller notes for its CNI. Copied from one of its pods into a template, they ask for nothing.
const NOTES_OF_KUBE_OVN: [&str; 10] = [
    "allocated",
    "routed",
    "cidr",
    "gateway",
    "pod_nic_type",
    "virtualmachine",
    "logical_router",
    "network_type",
    "provider_network",
    "vlan_id",
];

/// Returns true if a domain is one of Kube-OVN's: `ovn.kubernetes.io` itself, or one that names a network before it.
/// Kube-OVN puts an interface's name in where a NAD is there twice.
pub fn is_of_kube_ovn(domain: &str) -> bool {
    domain.ends_with(DOMAIN) || domain.contains(".ovn.") && domain.ends_with(".kubernetes.io")
}

/// Returns true if a key is one of this service's own domain, but for the one that the service itself writes.
pub fn is_ours(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| domain == OUR_DOMAIN) && key != PORTS_ANNOTATION
}

/// Returns true if a key is more than a note of Kube-OVN's.
pub fn asks_for_something(key: &str) -> bool {
    key.split_once('/').is_none_or(|(_, what)| !NOTES_OF_KUBE_OVN.contains(&what))
}
