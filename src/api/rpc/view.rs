//! Rows and statuses as the API shows them.
//!
//! A view borrows the replicas: its user holds their locks, for some ports at a time.

use std::net::IpAddr;

use macaddr::MacAddr6;
use serde_json::{Map, Value};

use super::model::{Binding, Nic, Party, Port, PortFilter, PortRow, PortState, Trouble};
use crate::contract::{VmKey, keys};
use crate::ovn::{
    self, Addresses, Bound, LogicalSwitchPort, NodeChassis, Northbound, RequestedChassis, Southbound, mac_text,
};
use crate::plan::{Fault, PortStatus, Problem, VmStatus, present};

/// Both replicas at one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The northbound.
    pub northbound: &'a Northbound,
    /// The southbound, if it is read.
    pub southbound: Option<&'a Southbound>,
}

impl View<'_> {
    /// The NICs of a VM, in the order of their networks. `kept` is its status if that does not follow from its rows.
    pub fn ports_of(&self, vm: &VmKey, kept: Option<&VmStatus>) -> Vec<Port> {
        let from_rows;
        let status = match kept {
            Some(status) => status,
            None => {
                from_rows = present(self.northbound, vm);
                &from_rows
            }
        };
        let mut ports: Vec<Port> = status.ports.iter().map(|port| self.port(vm, port)).collect();
        if !status.problems.is_empty() {
            ports.push(Port { problems: troubles(&status.problems), ..nothing(vm, "") });
        }
        ports.sort_by(|one, other| place(one).cmp(&place(other)));
        ports
    }

    fn port(&self, vm: &VmKey, status: &PortStatus) -> Port {
        let PortStatus { network, port, row, switch, addresses, next, nads: _, coming, last, guest: _, dhcp, problems } =
            status;
        let row = row.and_then(|uuid| self.northbound.port(&uuid)).map(|port| port.row);
        let chassis = row.map(|row| RequestedChassis::of(&row.options).all().map(ToOwned::to_owned).collect());
        let retained_until = row.and_then(|row| row.external_ids.get(keys::RETAINED_UNTIL)).map(ToOwned::to_owned);
        let chassis: Vec<String> = chassis.unwrap_or_default();
        Port {
            state: row.map_or(PortState::Pending, |row| ovn::PortState::of(row).into()),
            port: port.clone(),
            switch: switch.clone().or_else(|| last.as_ref().map(|last| last.switch.clone())),
            mac: addresses.map(|addresses| mac_text(addresses.mac)),
            ips: addresses.iter().flat_map(|addresses| addresses.ips()).map(|ip| ip.to_string()).collect(),
            binding: row.and_then(|row| self.binding(&row.name)),
            next: next.map(nic),
            problems: troubles(problems),
            chassis,
            retained_until,
            coming: *coming,
            dhcp: dhcp.iter().map(|family| family.to_string()).collect(),
            ..nothing(vm, network)
        }
    }

    fn binding(&self, port: &str) -> Option<Binding> {
        Some(match self.southbound?.bound(port) {
            None => Binding::Unseen,
            Some(Bound::Nowhere) => Binding::Unbound,
            Some(Bound::On { chassis, up }) => Binding::Bound { chassis, up },
            Some(Bound::Moving { from, to, processed, activated }) => {
                Binding::Moving { chassis: from, additional: to, processed, activated }
            }
        })
    }

    /// A row as it is shown.
    pub fn row(&self, switch: Option<uuid::Uuid>, row: &LogicalSwitchPort) -> PortRow {
        let map = |pairs: &mut dyn Iterator<Item = (&str, &str)>| -> Map<String, Value> {
            pairs.map(|(key, value)| (key.to_owned(), value.into())).collect()
        };
        PortRow {
            switch: switch.and_then(|switch| self.northbound.switch(&switch)).map(|switch| switch.name.clone()),
            addresses: row.addresses.iter().map(|text| text.into_owned()).collect(),
            port_security: row.port_security.iter().map(|text| text.into_owned()).collect(),
            dhcpv4_options: row.dhcpv4_options.map(|row| row.to_string()),
            dhcpv6_options: row.dhcpv6_options.map(|row| row.to_string()),
            options: map(&mut row.options.iter()),
            external_ids: map(&mut row.external_ids.iter()),
        }
    }
}

/// A NIC of which only the name is known.
/// The place of a port among those of its VM.
pub(super) fn place(port: &Port) -> (&str, &str) {
    (&port.network, port.port.as_deref().unwrap_or_default())
}

fn nothing(vm: &VmKey, network: &str) -> Port {
    Port {
        namespace: vm.namespace.clone(),
        vm: vm.name.clone(),
        network: network.to_owned(),
        state: PortState::Pending,
        port: None,
        switch: None,
        mac: None,
        ips: Vec::new(),
        chassis: Vec::new(),
        binding: None,
        next: None,
        retained_until: None,
        coming: false,
        dhcp: Vec::new(),
        problems: Vec::new(),
    }
}

fn nic(addresses: Addresses) -> Nic {
    Nic { mac: mac_text(addresses.mac), ips: addresses.ips().map(|ip| ip.to_string()).collect() }
}

fn troubles(problems: &[Problem]) -> Vec<Trouble> {
    let party = |fault| match fault {
        Fault::Owner => Party::Owner,
        Fault::Operator => Party::Operator,
        Fault::Passing => Party::Passing,
    };
    let trouble = |problem: &Problem| Trouble {
        reason: problem.reason().to_owned(),
        message: problem.to_string(),
        fault: party(problem.fault()),
    };
    problems.iter().map(trouble).collect()
}

/// A filter, read.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    filter: PortFilter,
    /// The names of the chassis that the filter's node may have.
    chassis: Vec<String>,
    search: Option<Search>,
}

/// A search, read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Search {
    /// A whole address.
    Ip(IpAddr),
    /// A whole MAC.
    Mac(MacAddr6),
    /// A part of a name, an address or a MAC, in lower case.
    Text(String),
}

impl Search {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(ip) = text.parse() {
            return Some(Self::Ip(ip));
        }
        match text.parse() {
            Ok(mac) if text.len() == 17 => Some(Self::Mac(mac)),
            _ => Some(Self::Text(text.to_lowercase())).filter(|_| !text.is_empty()),
        }
    }
}

impl Chosen {
    /// Reads a filter. `also` names the chassis of its node as Kubernetes has it.
    pub fn new(filter: PortFilter, also: Option<String>) -> Self {
        let search = filter.search.as_deref().and_then(Search::read);
        let chassis = filter.node.iter().cloned().chain(also).collect();
        Self { filter, chassis, search }
    }

    /// Adds the chassis that the southbound has for the node.
    pub fn locate(&mut self, southbound: Option<&Southbound>) {
        let Some((southbound, node)) = southbound.zip(self.filter.node.as_deref()) else { return };
        match southbound.chassis_of_node(node) {
            NodeChassis::One(name) => self.chassis.push(name.to_owned()),
            NodeChassis::Several(names) => self.chassis.extend(names.into_iter().map(ToOwned::to_owned)),
            NodeChassis::Absent => {}
        }
    }

    /// Returns true if every port is meant.
    pub fn takes_all(&self) -> bool {
        self.filter == PortFilter::default()
    }

    /// The one VM that is meant, if the filter names one.
    pub fn vm(&self) -> Option<VmKey> {
        let (namespace, vm) = self.filter.namespace.as_ref().zip(self.filter.vm.as_ref())?;
        Some(VmKey::new(namespace.clone(), vm.clone()))
    }

    /// Returns true if only ports with problems are meant: the ledger has their VMs.
    pub fn is_for_problems(&self) -> bool {
        self.filter.problems == Some(true)
    }

    /// The one namespace that is meant, if the filter names one.
    pub fn namespace(&self) -> Option<&str> {
        self.filter.namespace.as_deref()
    }

    /// Returns true if no VM behind this one is meant, in the order of their names.
    pub fn is_past(&self, vm: &VmKey) -> bool {
        self.namespace().is_some_and(|namespace| vm.namespace.as_str() > namespace)
    }

    /// The VMs that hold the address or MAC of the search, if it is a whole one.
    pub fn holders(&self, northbound: &Northbound) -> Option<Vec<VmKey>> {
        let ports: Vec<uuid::Uuid> = match self.search.as_ref()? {
            Search::Ip(ip) => northbound.holders_anywhere(*ip).copied().collect(),
            Search::Mac(mac) => northbound.mac_holders_anywhere(*mac).copied().collect(),
            Search::Text(_) => return None,
        };
        let rows = ports.iter().filter_map(|uuid| northbound.port(uuid));
        let mut vms: Vec<VmKey> =
            rows.filter_map(|port| Some(port.row.owner(&port.uuid, northbound.instance())?.vm)).collect();
        vms.sort_unstable();
        vms.dedup();
        Some(vms)
    }

    /// Returns true if a VM of this name may have ports that are meant.
    pub fn takes_vm(&self, vm: &VmKey) -> bool {
        let PortFilter { namespace, vm: name, .. } = &self.filter;
        namespace.as_ref().is_none_or(|namespace| *namespace == vm.namespace)
            && name.as_ref().is_none_or(|name| *name == vm.name)
    }

    /// Returns true if a port of a VM is meant. `takes_vm` has been asked before.
    pub fn takes(&self, port: &Port) -> bool {
        let PortFilter { namespace: _, vm: _, switch, node, state, problems, search: _ } = &self.filter;
        switch.as_ref().is_none_or(|switch| port.switch.as_ref() == Some(switch))
            && (node.is_none() || port.chassis.iter().any(|chassis| self.chassis.contains(chassis)))
            && state.is_none_or(|state| state == port.state)
            && problems.is_none_or(|problems| problems != port.problems.is_empty())
            && self.search.as_ref().is_none_or(|search| finds(search, port))
    }
}

fn finds(search: &Search, port: &Port) -> bool {
    let next = port.next.as_ref();
    let ips = || port.ips.iter().chain(next.iter().flat_map(|next| &next.ips));
    let macs = || port.mac.iter().chain(next.map(|next| &next.mac));
    match search {
        Search::Ip(ip) => ips().any(|text| text.parse() == Ok(*ip)),
        Search::Mac(mac) => macs().any(|text| text.parse() == Ok(*mac)),
        Search::Text(part) => {
            let names = [Some(&port.vm), Some(&port.namespace), Some(&port.network), port.port.as_ref()];
            let names = names.into_iter().flatten().chain(&port.switch).chain(&port.chassis);
            names.chain(ips()).chain(macs()).any(|text| contains(text, part))
        }
    }
}

/// Returns true if a text has a part that is in lower case. Nearly every name is ASCII.
fn contains(text: &str, part: &str) -> bool {
    if text.is_ascii() && part.is_ascii() {
        let (text, part) = (text.as_bytes(), part.as_bytes());
        return text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
    }
    text.to_lowercase().contains(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> Port {
        Port {
            port: Some("testvm.default".into()),
            switch: Some("Blue".into()),
            mac: Some("0a:58:0a:10:00:0f".into()),
            ips: vec!["10.16.0.15".into(), "fd00::f".into()],
            chassis: vec!["hv1".into()],
            state: PortState::Bound,
            ..nothing(&VmKey::new("default", "testvm"), "net1")
        }
    }

    #[test]
    fn a_search_finds_whole_addresses_and_macs_and_parts_of_names() {
        let finds = |text: &str| {
            Chosen::new(PortFilter { search: Some(text.to_owned()), ..PortFilter::default() }, None).takes(&port())
        };
        for text in
            ["10.16.0.15", "fd00:0::f", "0A:58:0A:10:00:0F", "10.16", "stv", "blue", "HV1", "net1", "  ", "58:0a"]
        {
            assert!(finds(text), "{text}");
        }
        for text in ["10.16.0.1", "0a:58:0a:10:00:01", "green", "fd00::"] {
            assert!(!finds(text), "{text}");
        }
    }

    #[test]
    fn every_member_of_a_filter_has_to_fit() {
        let all = PortFilter {
            namespace: Some("default".into()),
            vm: Some("testvm".into()),
            switch: Some("Blue".into()),
            node: Some("node1".into()),
            state: Some(PortState::Bound),
            problems: Some(false),
            search: Some("test".into()),
        };
        let takes = |filter: &PortFilter| {
            let chosen = Chosen::new(filter.clone(), Some("hv1".into()));
            chosen.takes_vm(&VmKey::new("default", "testvm")) && chosen.takes(&port())
        };
        assert!(takes(&all));
        let others = [
            PortFilter { namespace: Some("other".into()), ..all.clone() },
            PortFilter { vm: Some("test".into()), ..all.clone() },
            PortFilter { switch: Some("blue".into()), ..all.clone() },
            PortFilter { state: Some(PortState::Moving), ..all.clone() },
            PortFilter { problems: Some(true), ..all.clone() },
        ];
        for other in &others {
            assert!(!takes(other), "{other:?}");
        }
        assert!(!Chosen::new(PortFilter { node: Some("node1".into()), ..PortFilter::default() }, None).takes(&port()));
    }
}
