//! Values of `switches.list` and `switches.map`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `switches.list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SwitchesParams {
    /// The name or UUID of the only switch that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
}

/// The logical switches, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Switches {
    /// The switches.
    pub switches: Vec<Switch>,
}

/// A logical switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// The UUID of its row.
    pub uuid: String,
    /// Its ports.
    pub ports: PortCounts,
    /// Its subnets, as they are read.
    pub subnets: Vec<SubnetUse>,
    /// Why there is no subnet, or what of the settings is skipped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
}

/// The number of a switch's ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortCounts {
    /// Ports of VMs.
    pub vm: u64,
    /// Ports that are retained for deleted VMs.
    pub retained: u64,
    /// All other ports.
    pub foreign: u64,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// The use of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubnetUse {
    /// The subnet, as in `10.16.0.0/16`.
    pub subnet: String,
    /// Its family.
    pub family: Family,
    /// Its addresses by their use.
    pub counts: UseCounts,
}

/// The number of addresses by use; each address counts once. Numbers above 9007199254740991 are given as that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UseCounts {
    /// Free for allocation.
    pub free: u64,
    /// Held by the port of a VM.
    pub vm: u64,
    /// Reserved for the next start of a VM.
    pub reserved: u64,
    /// Retained for a deleted VM.
    pub retained: u64,
    /// Held by any other port.
    pub foreign: u64,
    /// Answered for by OVN itself: NAT rules, load balancers.
    pub service: u64,
    /// Held by several ports, of which one is a VM's.
    pub conflict: u64,
    /// Named by `exclude_ips`.
    pub excluded: u64,
    /// The first host address, which is never allocated unless a VM names it.
    pub first: u64,
    /// Released a moment ago.
    pub resting: u64,
    /// Network and broadcast addresses.
    pub unusable: u64,
}

/// The use of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UseKind {
    /// Free for allocation.
    Free,
    /// Held by the port of a VM.
    Vm,
    /// Reserved for the next start of a VM.
    Reserved,
    /// Retained for a deleted VM.
    Retained,
    /// Held by any other port.
    Foreign,
    /// Answered for by OVN itself.
    Service,
    /// Held by several ports, of which one is a VM's.
    Conflict,
    /// Named by `exclude_ips`.
    Excluded,
    /// The first host address.
    First,
    /// Released a moment ago.
    Resting,
    /// A network or broadcast address.
    Unusable,
}

/// Parameters of `switches.map`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MapParams {
    /// The name or UUID of the switch.
    pub switch: String,
    /// One of its subnets; by default the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subnet: Option<String>,
    /// The first address of the map. Without it, the map begins with the subnet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// The last address of the map. Without it, the map has the whole subnet, if that has at most 65,536 addresses; of
    /// a larger one it has the lowest power of two with every address in use, at least 1,024.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// The most cells: 1 to 4,096, by default 1,024.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cells: Option<u32>,
}

/// A map of a subnet's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchMap {
    /// The name of the switch.
    pub switch: String,
    /// The UUID of the switch.
    pub uuid: String,
    /// The subnet.
    pub subnet: String,
    /// Its family.
    pub family: Family,
    /// The first address of the map.
    pub from: String,
    /// The last address of the map.
    pub to: String,
    /// The number of addresses in a cell, a power of two. The last cell may have fewer.
    pub addresses_per_cell: u64,
    /// The meaning of the numbers in a cell.
    pub kinds: Vec<UseKind>,
    /// The cells, in the order of their addresses: the number of addresses of each kind, without zeros at the end.
    pub cells: Vec<Vec<u64>>,
    /// With one address in a cell: every address that is neither free nor excluded.
    pub addresses: Vec<UsedAddress>,
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsedAddress {
    /// The address.
    pub address: String,
    /// Its use.
    pub kind: UseKind,
    /// The ports that hold it.
    pub holders: Vec<AddressHolder>,
    /// What answers for it in OVN, where no port holds it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
}

/// A port that holds an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddressHolder {
    /// The name of the port.
    pub port: String,
    /// The namespace of its VM, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    /// The name of its VM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vm: Option<String>,
    /// The network in the VM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<String>,
    /// The end of the retention.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retained_until: Option<String>,
}
