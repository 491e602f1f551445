//! The names and marks of our rows (the contract for the rest of the code).

use std::fmt;

use uuid::Uuid;

use crate::ovsdb::Map;

/// Keys of `external_ids` and `options`.
pub mod keys {
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
    /// `NB_Global:external_ids`: the active epoch, with the instance's name appended.
    pub const EPOCH_PREFIX: &str = "ovn-kubevirt.io/epoch.";
    /// `NB_Global:external_ids`: the cluster that the instance serves, with the instance's name appended. Its value is
    /// the UID of the namespace `kube-system`.
    pub const CLUSTER_PREFIX: &str = "ovn-kubevirt.io/cluster.";
    /// `options`: the chassis of the port (ovn-nb(5)).
    pub const REQUESTED_CHASSIS: &str = "requested-chassis";
    /// `options`: the strategy that opens an additional chassis (ovn-nb(5)).
    pub const ACTIVATION_STRATEGY: &str = "activation-strategy";
    /// `Port_Binding:options`: the additional chassis that have seen the guest, comma-separated.
    pub const ADDITIONAL_CHASSIS_ACTIVATED: &str = "additional-chassis-activated";
    /// `options` of a `router` port: its peer.
    pub const ROUTER_PORT: &str = "router-port";
    /// `options` of a `virtual` port: its address.
    pub const VIRTUAL_IP: &str = "virtual-ip";
    /// `options` of a `router` port: addresses that it answers for on behalf of others.
    pub const ARP_PROXY: &str = "arp_proxy";
    /// `options` of a `router` port: addresses that it announces.
    pub const NAT_ADDRESSES: &str = "nat-addresses";
}

/// Returns true if a key of a port's `external_ids` is read here; other keys are not kept in the replica.
pub(super) fn is_mark(key: &str) -> bool {
    key == keys::VENDOR || key.starts_with("ovn-kubevirt.io/")
}

/// Returns true if a key of a port's `options` is read here; other keys are not kept in the replica.
pub(super) fn is_read_option(key: &str) -> bool {
    matches!(
        key,
        keys::REQUESTED_CHASSIS
            | keys::ACTIVATION_STRATEGY
            | keys::ROUTER_PORT
            | keys::VIRTUAL_IP
            | keys::ARP_PROXY
            | keys::NAT_ADDRESSES
    )
}

/// Returns true if a key of `DHCP_Options:options` is read here; other keys are not kept in the replica.
pub(super) fn is_read_of_dhcp(key: &str) -> bool {
    matches!(key, "server_id" | "server_mac" | "router")
}

/// Returns true if a key of a port binding's `options` is read here; other keys are not kept in the replica.
pub(super) fn is_read_of_binding(key: &str) -> bool {
    key == keys::ADDITIONAL_CHASSIS_ACTIVATED
}

/// The key of an instance's epoch in `NB_Global:external_ids`.
pub fn epoch_key(instance: &str) -> String {
    format!("{}{instance}", keys::EPOCH_PREFIX)
}

/// The key of an instance's cluster in `NB_Global:external_ids`.
pub fn cluster_key(instance: &str) -> String {
    format!("{}{instance}", keys::CLUSTER_PREFIX)
}

/// The number of an epoch: `<n>.<random holder id>`.
pub fn epoch_number(epoch: &str) -> Option<u64> {
    epoch.split('.').next()?.parse().ok()
}

/// A VM by its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl VmKey {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The port's name on the pod network: `<vm>.<namespace>`, as in Kube-OVN.
    pub fn port_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// The VM of a port's name, read as Kube-OVN writes it; `None` for a name that no port of a VM has. A VM's name,
    /// and a NAD's, may have dots, so the name alone is no proof: see [`VmKey::candidates`].
    pub(crate) fn of_port_name(name: &str) -> Option<Self> {
        let labels: Vec<&str> = name.split('.').collect();
        // The network's name may follow the part for a NAD.
        let namespace = match labels[..] {
            [.., "ovn"] if labels.len() >= 5 => labels.len() - 4,
            [.., "ovn", _] if labels.len() >= 6 => labels.len() - 5,
            _ => labels.len() - 1,
        };
        Self::candidates(name).find(|vm| vm.name.split('.').count() == namespace)
    }

    /// Returns true if a port's name begins as those of the VM's ports do.
    pub(crate) fn has_named(&self, port_name: &str) -> bool {
        begins_as_a_port_of(&self.namespace, &self.name, port_name)
    }

    /// All VMs that a port of this name may belong to: a namespace has no dot.
    pub(crate) fn candidates(name: &str) -> impl Iterator<Item = Self> {
        let dots = name.match_indices('.').map(|(at, _)| at);
        dots.filter_map(|dot| {
            let (vm, rest) = (&name[..dot], &name[dot + 1..]);
            let namespace = rest.split('.').next().unwrap_or_default();
            (!vm.is_empty() && !namespace.is_empty()).then(|| Self::new(namespace, vm))
        })
    }

    /// The port's name on a NAD: `<vm>.<namespace>.<nad>.<nad-namespace>.ovn`, as in Kube-OVN.
    pub fn port_name_on(&self, nad: &NadKey) -> String {
        format!("{}.{}", self.port_name(), nad.provider())
    }
}

impl VmKey {
    /// The number of labels of the NAD's name (0 for the pod network, `nad` of `None`) if the name of the VM's port
    /// there may be read as another VM's; `None` if the plain name belongs to this VM.
    ///
    /// The names of VMs and NADs may have dots, those of namespaces have none. Of the readings of `a.b.c.d.e.ovn`, the
    /// plain name goes to the one on a NAD whose own name has no dot, since VMs are named like hosts more often than
    /// NADs are. On the pod network a plain name has no label `ovn` after its fourth: a name with one may be a name on
    /// a NAD, or such a name with a network appended.
    pub fn has_another_reading(&self, nad: Option<&NadKey>) -> Option<usize> {
        match nad {
            None => {
                let mut labels = self.name.split('.').chain([self.namespace.as_str()]);
                labels.by_ref().take(4).for_each(drop);
                labels.any(|label| label == "ovn").then_some(0)
            }
            Some(nad) => Some(nad.name.split('.').count()).filter(|labels| *labels > 1),
        }
    }
}

/// A NetworkAttachmentDefinition (NAD) by its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NadKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NadKey {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// `<nad>.<nad-namespace>.ovn`: Kube-OVN's name for the NAD's network, which is in ports' names and in annotations'
    /// keys.
    pub fn provider(&self) -> String {
        format!("{}.{}.ovn", self.name, self.namespace)
    }
}

impl fmt::Display for NadKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for VmKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// The VM and the NIC that a row of ours belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The VM.
    pub vm: VmKey,
    /// The network's name in the VM.
    pub network: String,
}

impl Owner {
    /// Returns true if a row is this instance's.
    pub fn is_of(external_ids: &Map, instance: &str) -> bool {
        Marks::of(external_ids, instance).is_some()
    }

    /// Reads the marks of a row; `None` if the row is not this instance's.
    pub fn of(external_ids: &Map, instance: &str) -> Option<Self> {
        let Marks { namespace, name, network } = Marks::of(external_ids, instance)?;
        Some(Self { vm: VmKey::new(namespace, name), network: network.to_owned() })
    }
}

/// The marks of a row of this instance, borrowed from it.
pub(super) struct Marks<'a> {
    namespace: &'a str,
    name: &'a str,
    network: &'a str,
}

impl<'a> Marks<'a> {
    /// Reads the marks of a row; `None` if the row is not this instance's. A replica calls this for every row it
    /// receives, so it takes a single pass over the map.
    pub(super) fn of(external_ids: &'a Map, instance: &str) -> Option<Self> {
        let [mut vendor, mut marked, mut vm, mut network] = [None; 4];
        for (key, value) in external_ids.iter() {
            match key {
                keys::VENDOR => vendor = Some(value),
                keys::INSTANCE => marked = Some(value),
                keys::VM => vm = Some(value),
                keys::NETWORK => network = Some(value),
                _ => {}
            }
        }
        if vendor != Some(keys::OUR_VENDOR) || marked != Some(instance) {
            return None;
        }
        let (namespace, name) = vm?.split_once('/')?;
        Some(Self { namespace, name, network: network? })
    }

    /// Returns true if a port's name begins as those of the VM's ports do.
    pub(super) fn has_named(&self, port_name: &str) -> bool {
        begins_as_a_port_of(self.namespace, self.name, port_name)
    }
}

fn begins_as_a_port_of(namespace: &str, name: &str, port_name: &str) -> bool {
    let rest = port_name.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
    let rest = rest.and_then(|rest| rest.strip_prefix(namespace));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The UUID of a row of ours, the same at every attempt: a repeated insert collides with the first one, so it cannot
/// make a second row.
pub fn port_uuid(instance: &str, port_name: &str) -> Uuid {
    /// A UUIDv4 made once for this purpose.
    const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_9a52_43c7_4e0b_9b1e_5a0c_d2f8_7314);
    Uuid::new_v5(&NAMESPACE, format!("Logical_Switch_Port/{instance}/{port_name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_with_our_vendor_and_instance_are_ours() {
        let ours = [
            (keys::VENDOR, keys::OUR_VENDOR),
            (keys::INSTANCE, "default"),
            (keys::VM, "ns/vm"),
            (keys::NETWORK, "default"),
        ];
        let row: Map = ours.into_iter().collect();
        let owner = Owner { vm: VmKey::new("ns", "vm"), network: "default".into() };
        assert_eq!(Owner::of(&row, "default"), Some(owner));
        assert_eq!(Owner::of(&row, "other"), None);
        for (key, _) in ours {
            let mut lacking = row.clone();
            lacking.remove(key);
            assert_eq!(Owner::of(&lacking, "default"), None, "without {key}");
        }
    }
}
