//! The rows of one VM, indexed so that each of its NICs finds its own without a scan.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use crate::contract::{keys, port_uuid};
use crate::intent::{PortIntent, VmIntent};
use crate::ovn::{Northbound, PortRef};

/// A VM's rows by the network that each is marked with.
pub(super) struct VmRows<'a, 'i> {
    instance: &'a str,
    intent: &'i VmIntent,
    /// By network; the rows of one network are in the replica's order.
    rows: Vec<(&'a str, PortRef<'a>)>,
    /// The candidates for a renamed network, computed on demand; most VMs do not need them.
    renames: OnceCell<Renames<'a, 'i>>,
}

/// The NICs and the rows without a counterpart.
struct Renames<'a, 'i> {
    /// The number of NICs without a row, by base name.
    new: HashMap<&'i str, usize>,
    /// The rows whose network is gone, by base name: a port name can be read in two ways.
    left: HashMap<String, Vec<PortRef<'a>>>,
}

impl<'a, 'i> VmRows<'a, 'i> {
    pub(super) fn new(view: &'a Northbound, intent: &'i VmIntent) -> Self {
        let mut rows: Vec<_> = view.ports_of(&intent.vm).collect();
        rows.sort_by_key(|(network, _)| *network);
        Self { instance: view.instance(), intent, rows, renames: OnceCell::new() }
    }

    /// All rows, each with its network.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, PortRef<'a>)> {
        self.rows.iter().copied()
    }

    /// The rows that are marked with a network.
    pub(super) fn of(&self, network: &str) -> impl Iterator<Item = PortRef<'a>> {
        let first = self.rows.partition_point(|(found, _)| *found < network);
        let end = self.rows.partition_point(|(found, _)| *found <= network);
        self.rows[first..end].iter().map(|(_, port)| *port)
    }

    /// The row of a network that is gone, if exactly one such row and exactly one new NIC have the NIC's base name.
    /// With more of either, the match would be a guess, and a guess would hand one NIC's lease to another.
    pub(super) fn renamed(&self, nic: &PortIntent) -> Option<PortRef<'a>> {
        if self.rows.is_empty() || self.of(&nic.network).next().is_some() {
            return None;
        }
        let Renames { new, left } = self.renames.get_or_init(|| self.renames());
        if new.get(nic.base_name.as_str()) != Some(&1) {
            return None;
        }
        match left.get(nic.base_name.as_str()).map(Vec::as_slice) {
            Some([port]) => Some(*port),
            _ => None,
        }
    }

    /// The base names that a port's name can be read as. If the name was changed, the base name that this instance gave
    /// to it.
    fn bases(&self, port: &PortRef<'_>) -> Vec<String> {
        let name = port.row.name.as_str();
        let is_given = |name: &str| port_uuid(self.instance, name) == port.uuid;
        if !is_given(name)
            && let Some(nic) = self.intent.ports.iter().find(|nic| nic.names().iter().any(|name| is_given(name)))
        {
            return vec![nic.base_name.clone()];
        }
        let shorter = name.rsplit_once('.').map(|(base_name, _)| base_name.to_owned());
        std::iter::once(name.to_owned()).chain(shorter).collect()
    }

    fn renames(&self) -> Renames<'a, 'i> {
        let intent = self.intent;
        let mut new = HashMap::new();
        for nic in intent.ports.iter().filter(|nic| self.of(&nic.network).next().is_none()) {
            *new.entry(nic.base_name.as_str()).or_default() += 1;
        }
        let named: HashSet<&str> = intent.ports.iter().map(|nic| nic.network.as_str()).collect();
        let claimed = |network: &str| {
            named.contains(network) || intent.untouched.as_ref().is_some_and(|untouched| untouched.contains(network))
        };
        let mut left: HashMap<String, Vec<PortRef<'a>>> = HashMap::new();
        for (_, port) in self.all().filter(|(network, _)| !claimed(network)) {
            // As `is_on_the_network_of` reads it.
            let bases = match port.row.external_ids.get(keys::BASE_NAME) {
                Some(base_name) => vec![base_name.to_owned()],
                None => self.bases(&port),
            };
            bases.into_iter().for_each(|base_name| left.entry(base_name).or_default().push(port));
        }
        Renames { new, left }
    }
}

/// Returns true if this instance made the row for a port of the NIC, under this name or one of the NIC's own.
pub(super) fn is_made_for(instance: &str, nic: &PortIntent, port: &PortRef<'_>) -> bool {
    let mut names = std::iter::once(port.row.name.clone()).chain(nic.names());
    names.any(|name| port_uuid(instance, &name) == port.uuid)
}

/// Returns true if a port of the VM was last served on the NIC's network, also if the port's name was changed.
pub(super) fn is_on_the_network_of(northbound: &Northbound, nic: &PortIntent, port: &PortRef<'_>) -> bool {
    let instance = northbound.instance();
    let has_another_name = || port_uuid(instance, &port.row.name) != port.uuid;
    nic.is_on_the_network_of(port.row)
        || port.row.external_ids.get(keys::BASE_NAME).is_none()
            && has_another_name()
            && is_made_for(instance, nic, port)
}
