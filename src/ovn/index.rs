//! The indexes over the northbound tables, kept true by watching every change to a row.
//!
//! A port counts on its switch once both its row and the switch's reference to it are known, in
//! whatever order they come. It is taken out with exactly what it was entered with, so that a router
//! port or a switch that changes meanwhile leaves nothing behind.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::addresses::{is_dynamic, scan};
use super::names::{Owner, VmKey, epoch_key, epoch_number, keys};
use super::rows::{LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, NbGlobal};
use super::services::Services;
use crate::hash::{FastMap, FastSet, Fold};
use crate::ipam::{Holders, Pool};
use crate::ovsdb::{Map, Table, Unwatched, Watcher};

/// Something in the databases that an unserved VM waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wake {
    /// A switch of that name appears, goes, or changes what it says of its addresses.
    Switch(String),
    /// A holder of the address on the switch goes.
    Address(Uuid, IpAddr),
    /// A holder of the MAC on the switch goes.
    Mac(Uuid, MacAddr6),
    /// Any address of the switch gets free.
    Room(Uuid),
    /// A port name gets free.
    Name(String),
    /// northd has processed more of the northbound (`NB_Global:sb_cfg`).
    Processed,
    /// The southbound has the port elsewhere.
    Binding(String),
    /// It changes which addresses routers and switches answer for by themselves: NAT rules and load balancers.
    Services,
    /// A chassis comes, goes or changes its name.
    Chassis,
    /// The southbound comes into sync.
    Southbound,
}

/// What has changed since it was last taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// VMs with a row of ours that came, changed or went.
    pub vms: BTreeSet<VmKey>,
    /// What may have been waited for.
    pub wakes: HashSet<Wake>,
    /// Addresses that ports of ours gave back: they rest until somebody ends it.
    pub rests: Vec<Rest>,
}

/// An address that a port of ours gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// On which switch.
    pub switch: Uuid,
    /// Which.
    pub address: IpAddr,
    /// Which of its rests this is.
    pub number: u64,
}

impl Changes {
    /// Whether nothing has.
    pub fn is_empty(&self) -> bool {
        self.vms.is_empty() && self.wakes.is_empty()
    }
}

/// What a port holds on its switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Claims {
    ips: Vec<IpAddr>,
    macs: Vec<MacAddr6>,
    /// northd chooses its addresses.
    dynamic: bool,
}

#[derive(Debug, Default)]
pub(super) struct SwitchIndex {
    name: String,
    pub(super) pool: Pool<Uuid>,
    pub(super) macs: Holders<MacAddr6, Uuid>,
    /// Its ports of type `router`.
    pub(super) routers: BTreeSet<Uuid>,
    /// Its ports whose addresses northd chooses.
    pub(super) dynamic: BTreeSet<Uuid>,
}

/// What a plan asks of the tables without scanning them.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) instance: String,
    pub(super) switches_by_name: HashMap<String, BTreeSet<Uuid>>,
    switch_of_port: FastMap<Uuid, Uuid>,
    /// The switches that refer to a port after the first one, which counts: none, unless somebody made a mistake.
    more_switches_of_port: FastMap<Uuid, Vec<Uuid>>,
    /// Ports by the hash of their name, which the rows have already.
    ports_by_name: Holders<u64, Uuid>,
    name_hash: Fold,
    pub(super) ours: HashMap<VmKey, Vec<(String, Uuid)>>,
    pub(super) on_switch: FastMap<Uuid, SwitchIndex>,
    /// What each port of type `router` was entered with, so that it is taken out just so. What others hold, their row
    /// says alone.
    router_claims: FastMap<Uuid, Claims>,
    /// Kept for its room: what the port at hand holds.
    claims: Claims,
    pub(super) router_ports_by_name: HashMap<String, Uuid>,
    /// Switch ports by the name of the router port that they are connected to.
    peers: HashMap<String, BTreeSet<Uuid>>,
    pub(super) changes: Changes,
    /// Ports of which it may have changed whether others hold the same.
    pub(super) shared: Vec<Uuid>,
    /// Switches that a router port came to, left, or told its networks: what their ports hold may be outside them now.
    pub(super) rerouted: HashSet<Uuid>,
    /// What ports of ours gave back; some of it may be held again.
    pub(super) released: Vec<(Uuid, IpAddr)>,
    /// Raised by every change of what is not a port of ours.
    pub(super) foreign_changes: u64,
    sb_cfg_before: i64,
    /// The greatest number of an epoch of this instance that was ever seen.
    pub(super) highest_epoch: u64,
}

impl Index {
    /// The switch that a port is on.
    pub(super) fn switch_of(&self, port: &Uuid) -> Option<Uuid> {
        self.switch_of_port.get(port).copied()
    }

    /// Makes room for all ports that switches refer to, and says how many they are.
    pub(super) fn reserve_ports(&mut self) -> usize {
        let ports = self.switch_of_port.len();
        self.ports_by_name.reserve(ports);
        ports
    }

    /// The ports that may have a name: whose name's hash it is.
    pub(super) fn ports_named(&self, name: &str) -> &[Uuid] {
        self.ports_by_name.get(self.name_hash.hash_one(name))
    }

    /// Notes a change of this port, unless it is one of ours: that is told by its VM.
    fn note_foreign(&mut self, row: &LogicalSwitchPort) {
        if !Owner::is_of(&row.external_ids, &self.instance) {
            self.foreign_changes += 1;
        }
    }

    /// Empty indexes; rows marked with this instance are ours.
    pub(super) fn new(instance: String) -> Self {
        Self { instance, ..Self::default() }
    }

    /// Enters what a port holds, when both its row and its switch are known.
    fn attach(&mut self, port: Uuid, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) {
        let Some(switch) = self.switch_of(&port) else { return };
        let mut claims = std::mem::take(&mut self.claims);
        self.claims_of(row, router_ports, &mut claims);
        let on_switch = self.on_switch.entry(switch).or_default();
        for ip in &claims.ips {
            self.shared.extend(on_switch.pool.holders(*ip));
            on_switch.pool.hold(*ip, port);
        }
        for mac in &claims.macs {
            self.shared.extend(on_switch.macs.get(*mac));
            on_switch.macs.insert(*mac, port);
        }
        if claims.dynamic && on_switch.dynamic.insert(port) {
            self.changes.wakes.insert(Wake::Switch(on_switch.name.clone()));
        }
        if row.kind == "router" {
            on_switch.routers.insert(port);
            self.router_claims.insert(port, claims.clone());
            self.rerouted.insert(switch);
            self.changes.wakes.insert(Wake::Switch(on_switch.name.clone()));
        }
        self.claims = claims;
    }

    /// Takes out what a port was entered with on a switch.
    fn detach(&mut self, port: Uuid, row: &LogicalSwitchPort, switch: Uuid) {
        let claims = match self.router_claims.remove(&port) {
            Some(claims) => claims,
            None => {
                let mut claims = Claims::default();
                self.claims_of(row, &Table::default(), &mut claims);
                claims
            }
        };
        let ours = Owner::is_of(&row.external_ids, &self.instance);
        let Some(on_switch) = self.on_switch.get_mut(&switch) else { return };
        for ip in claims.ips {
            if on_switch.pool.release(ip, &port) && ours {
                on_switch.pool.rest(ip, port);
                self.released.push((switch, ip));
            }
            self.shared.extend(on_switch.pool.holders(ip));
            self.changes.wakes.insert(Wake::Address(switch, ip));
            self.changes.wakes.insert(Wake::Room(switch));
        }
        for mac in claims.macs {
            on_switch.macs.remove(mac, port);
            self.shared.extend(on_switch.macs.get(mac));
            self.changes.wakes.insert(Wake::Mac(switch, mac));
        }
        if on_switch.dynamic.remove(&port) {
            self.changes.wakes.insert(Wake::Switch(on_switch.name.clone()));
        }
        // The switch that it leaves, which may not refer to it any more.
        if on_switch.routers.remove(&port) {
            self.rerouted.insert(switch);
            self.changes.wakes.insert(Wake::Switch(on_switch.name.clone()));
        }
    }

    /// What a port holds has changed with its peer.
    fn enter_again(&mut self, port: Uuid, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) {
        let Some(switch) = self.switch_of(&port) else { return };
        self.detach(port, row, switch);
        self.attach(port, row, router_ports);
    }

    /// Every address and MAC that a port holds: static ones, those that northd gave it, those of the
    /// router behind it, a `virtual` port's own, and those that are reserved for a VM's next start.
    fn claims_of(&self, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>, claims: &mut Claims) {
        let Claims { ips, macs, dynamic } = claims;
        ips.clear();
        macs.clear();
        let reserved = row.external_ids.get(keys::NEXT_ADDRESSES);
        // What a row of ours is healed from, where somebody overwrote its addresses, is held, too.
        let ours = Owner::is_of(&row.external_ids, &self.instance);
        // One of ours that somebody made dynamic is healed.
        *dynamic = !ours && row.addresses.iter().any(is_dynamic);
        let secured = row.port_security.iter().filter(|_| ours);
        let texts = row.addresses.iter().chain(secured);
        for text in texts.chain(row.dynamic_addresses.as_deref()).chain(reserved) {
            scan(text, macs, ips);
        }
        match row.kind.as_str() {
            "router" => {
                let peer = row.options.get(keys::ROUTER_PORT).and_then(|name| self.router_ports_by_name.get(name));
                if let Some(peer) = peer.and_then(|uuid| router_ports.get(uuid)) {
                    scan(&peer.mac, macs, ips);
                    peer.networks.iter().for_each(|network| scan(network, macs, ips));
                }
            }
            "virtual" => {
                if let Some(address) = row.options.get(keys::VIRTUAL_IP) {
                    scan(address, macs, ips);
                }
            }
            _ => {}
        }
        ips.sort_unstable();
        ips.dedup();
        macs.sort_unstable();
        macs.dedup();
    }

    /// The switches on which ports hold an address, and their holders.
    pub(super) fn holders_anywhere(&self, address: IpAddr) -> impl Iterator<Item = &Uuid> {
        self.on_switch.values().flat_map(move |switch| switch.pool.holders(address))
    }

    /// Takes what rests since the last call.
    pub(super) fn take_rests(&mut self) -> Vec<Rest> {
        let released = std::mem::take(&mut self.released);
        let rest = |(switch, address): (Uuid, IpAddr)| {
            let number = self.on_switch.get(&switch)?.pool.rest_of(address)?;
            Some(Rest { switch, address, number })
        };
        released.into_iter().filter_map(rest).collect()
    }

    fn add_ours(&mut self, uuid: Uuid, external_ids: &Map) {
        if let Some(Owner { vm, network }) = Owner::of(external_ids, &self.instance) {
            self.changes.vms.insert(vm.clone());
            let rows = self.ours.entry(vm).or_default();
            let entry = (network, uuid);
            if let Err(at) = rows.binary_search(&entry) {
                rows.insert(at, entry);
            }
        }
    }

    fn remove_ours(&mut self, uuid: Uuid, external_ids: &Map) {
        if let Some(Owner { vm, network: _ }) = Owner::of(external_ids, &self.instance) {
            if let Some(rows) = self.ours.get_mut(&vm) {
                rows.retain(|(_, present)| *present != uuid);
                if rows.is_empty() {
                    self.ours.remove(&vm);
                }
            }
            self.changes.vms.insert(vm);
        }
    }
}

/// Watches the one row of `NB_Global`.
pub(super) struct GlobalWatcher<'a>(pub(super) &'a mut Index);

impl GlobalWatcher<'_> {
    fn note_epoch(&mut self, row: &NbGlobal) {
        let epoch = row.external_ids.get(&epoch_key(&self.0.instance)).and_then(epoch_number);
        self.0.highest_epoch = self.0.highest_epoch.max(epoch.unwrap_or_default());
    }
}

impl Watcher<NbGlobal> for GlobalWatcher<'_> {
    fn added(&mut self, _: Uuid, row: &NbGlobal) {
        self.0.foreign_changes += 1;
        self.note_epoch(row);
        self.0.changes.wakes.insert(Wake::Processed);
    }
    fn changing(&mut self, _: Uuid, row: &NbGlobal, _: &NbGlobal) {
        self.0.sb_cfg_before = row.sb_cfg;
    }
    fn changed(&mut self, _: Uuid, row: &NbGlobal) {
        self.note_epoch(row);
        if row.sb_cfg != self.0.sb_cfg_before {
            self.0.changes.wakes.insert(Wake::Processed);
        }
    }
    fn removed(&mut self, _: Uuid, _: &NbGlobal) {}
}

pub(super) struct SwitchWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) ports: &'a Table<LogicalSwitchPort>,
    pub(super) router_ports: &'a Table<LogicalRouterPort>,
    pub(super) services: &'a mut Services,
    /// Name and settings of the row that is changing.
    pub(super) before: Option<(String, Map)>,
}

impl SwitchWatcher<'_> {
    fn enter(&mut self, switch: Uuid, port: Uuid) {
        match self.index.switch_of_port.entry(port) {
            Entry::Vacant(none) => {
                none.insert(switch);
                self.attach(port);
            }
            // A port that moves may come here before its old switch lets it go in the same update.
            Entry::Occupied(_) => self.index.more_switches_of_port.entry(port).or_default().push(switch),
        }
    }

    fn leave(&mut self, switch: Uuid, port: Uuid) {
        if self.index.switch_of(&port) != Some(switch) {
            if let Entry::Occupied(mut more) = self.index.more_switches_of_port.entry(port) {
                more.get_mut().retain(|present| *present != switch);
                if more.get().is_empty() {
                    more.remove();
                }
            }
            return;
        }
        // A row that has gone before was taken out then.
        if let Some(row) = self.ports.get(&port) {
            self.index.note_foreign(row);
            self.index.detach(port, row, switch);
        }
        self.index.switch_of_port.remove(&port);
        if let Entry::Occupied(mut more) = self.index.more_switches_of_port.entry(port) {
            let next = more.get_mut().remove(0);
            if more.get().is_empty() {
                more.remove();
            }
            self.index.switch_of_port.insert(port, next);
            self.attach(port);
        }
    }

    fn attach(&mut self, port: Uuid) {
        if let Some(row) = self.ports.get(&port) {
            self.index.note_foreign(row);
            self.index.attach(port, row, self.router_ports);
            // It may have come to another switch, or to none.
            self.index.changes.vms.extend(Owner::of(&row.external_ids, &self.index.instance).map(|owner| owner.vm));
        }
    }

    fn settings_changed(&mut self, name: &str, ports: &FastSet<Uuid>) {
        self.index.foreign_changes += 1;
        let changes = &mut self.index.changes;
        changes.wakes.insert(Wake::Switch(name.to_owned()));
        // Who stands on the switch is looked at again, too.
        let rows = ports.iter().filter_map(|port| self.ports.get(port));
        let owners = rows.filter_map(|row| Owner::of(&row.external_ids, &self.index.instance));
        changes.vms.extend(owners.map(|owner| owner.vm));
    }
}

impl Watcher<LogicalSwitch> for SwitchWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &LogicalSwitch) {
        self.index.switches_by_name.entry(row.name.clone()).or_default().insert(uuid);
        let on_switch = self.index.on_switch.entry(uuid).or_default();
        on_switch.name.clone_from(&row.name);
        // A first sync names the switches before their ports.
        on_switch.pool.reserve(row.ports.len());
        on_switch.macs.reserve(row.ports.len());
        self.index.switch_of_port.reserve(row.ports.len());
        self.services.referred(&row.load_balancer, &row.load_balancer_group);
        row.ports.iter().for_each(|port| self.enter(uuid, *port));
        self.settings_changed(&row.name, &row.ports);
    }

    fn changing(&mut self, uuid: Uuid, row: &LogicalSwitch, difference: &LogicalSwitch) {
        self.before = Some((row.name.clone(), row.other_config.clone()));
        self.services.referred(&difference.load_balancer, &difference.load_balancer_group);
        for port in &difference.ports {
            if row.ports.contains(port) {
                self.leave(uuid, *port);
            } else {
                self.enter(uuid, *port);
            }
        }
    }

    fn changed(&mut self, uuid: Uuid, row: &LogicalSwitch) {
        let Some((name, other_config)) = self.before.take() else { return };
        if name != row.name {
            if let Some(switches) = self.index.switches_by_name.get_mut(&name) {
                switches.remove(&uuid);
            }
            self.index.switches_by_name.entry(row.name.clone()).or_default().insert(uuid);
            self.index.on_switch.entry(uuid).or_default().name.clone_from(&row.name);
            self.index.changes.wakes.insert(Wake::Switch(name.clone()));
        }
        if name != row.name || other_config != row.other_config {
            self.settings_changed(&row.name, &row.ports);
        }
    }

    /// Only what differs counts: a switch may hold many thousand ports that stay as they are.
    fn replaced(&mut self, uuid: Uuid, row: &LogicalSwitch, by: &LogicalSwitch) {
        self.before = Some((row.name.clone(), row.other_config.clone()));
        for row in [row, by] {
            self.services.referred(&row.load_balancer, &row.load_balancer_group);
        }
        by.ports.difference(&row.ports).for_each(|port| self.enter(uuid, *port));
        row.ports.difference(&by.ports).for_each(|port| self.leave(uuid, *port));
        self.changed(uuid, by);
    }

    fn removed(&mut self, uuid: Uuid, row: &LogicalSwitch) {
        self.settings_changed(&row.name, &row.ports);
        self.services.referred(&row.load_balancer, &row.load_balancer_group);
        row.ports.iter().for_each(|port| self.leave(uuid, *port));
        self.index.on_switch.remove(&uuid);
        if let Some(switches) = self.index.switches_by_name.get_mut(&row.name) {
            switches.remove(&uuid);
            if switches.is_empty() {
                self.index.switches_by_name.remove(&row.name);
            }
        }
    }
}

pub(super) struct PortWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) router_ports: &'a Table<LogicalRouterPort>,
}

impl Watcher<LogicalSwitchPort> for PortWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        let name = self.index.name_hash.hash_one(row.name.as_str());
        self.index.ports_by_name.insert(name, uuid);
        if let Some(peer) = row.options.get(keys::ROUTER_PORT) {
            self.index.peers.entry(peer.to_owned()).or_default().insert(uuid);
        }
        self.index.note_foreign(row);
        self.index.attach(uuid, row, self.router_ports);
        self.index.add_ours(uuid, &row.external_ids);
    }

    fn changing(&mut self, uuid: Uuid, row: &LogicalSwitchPort, _: &LogicalSwitchPort) {
        self.removed(uuid, row);
    }

    fn changed(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.added(uuid, row);
    }

    fn removed(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.index.note_foreign(row);
        self.index.remove_ours(uuid, &row.external_ids);
        if let Some(switch) = self.index.switch_of(&uuid) {
            self.index.detach(uuid, row, switch);
        }
        if let Some(peer) = row.options.get(keys::ROUTER_PORT)
            && let Some(ports) = self.index.peers.get_mut(peer)
        {
            ports.remove(&uuid);
        }
        self.index.ports_by_name.remove(self.index.name_hash.hash_one(row.name.as_str()), uuid);
        self.index.changes.wakes.insert(Wake::Name(row.name.clone()));
    }
}

pub(super) struct RouterPortWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) ports: &'a Table<LogicalSwitchPort>,
}

impl Watcher<LogicalRouterPort> for RouterPortWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &LogicalRouterPort) {
        self.index.foreign_changes += 1;
        self.index.router_ports_by_name.insert(row.name.clone(), uuid);
        let mut only = Table::default();
        only.put(uuid, row.clone(), &mut Unwatched);
        for port in self.index.peers.get(&row.name).cloned().unwrap_or_default() {
            if let Some(peer) = self.ports.get(&port) {
                self.index.enter_again(port, peer, &only);
            }
        }
    }

    fn changing(&mut self, uuid: Uuid, row: &LogicalRouterPort, _: &LogicalRouterPort) {
        self.removed(uuid, row);
    }

    fn changed(&mut self, uuid: Uuid, row: &LogicalRouterPort) {
        self.added(uuid, row);
    }

    fn removed(&mut self, uuid: Uuid, row: &LogicalRouterPort) {
        self.index.foreign_changes += 1;
        // Another of its name may have come earlier in the same update: the switch ports are its.
        if self.index.router_ports_by_name.get(&row.name) != Some(&uuid) {
            return;
        }
        self.index.router_ports_by_name.remove(&row.name);
        let none = Table::default();
        for port in self.index.peers.get(&row.name).cloned().unwrap_or_default() {
            if let Some(peer) = self.ports.get(&port) {
                self.index.enter_again(port, peer, &none);
            }
        }
    }
}
