//! The indexes over the northbound tables, kept true by watching every change to a row.
//!
//! A port counts on its switch once both its row and the switch's reference to it are known, in
//! whatever order they come. It is taken out with exactly what it was entered with, so that a router
//! port or a switch that changes meanwhile leaves nothing behind.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::addresses::scan;
use super::names::{Owner, VmKey, epoch_key, epoch_number, keys};
use super::rows::{LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, NbGlobal};
use crate::ipam::Pool;
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
    /// A chassis comes, goes or changes its name.
    Chassis,
    /// The southbound comes into sync.
    Southbound,
}

/// What has changed since it was last taken.
#[derive(Debug, Default)]
pub struct Changes {
    /// VMs with a row of ours that came, changed or went.
    pub vms: BTreeSet<VmKey>,
    /// What may have been waited for.
    pub wakes: HashSet<Wake>,
}

/// What a port holds on its switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Claims {
    ips: Vec<IpAddr>,
    macs: Vec<MacAddr6>,
}

#[derive(Debug, Default)]
pub(super) struct SwitchIndex {
    name: String,
    pub(super) pool: Pool<Uuid>,
    pub(super) macs: HashMap<MacAddr6, BTreeSet<Uuid>>,
    /// Its ports of type `router`.
    pub(super) routers: BTreeSet<Uuid>,
}

/// What a plan asks of the tables without scanning them.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) instance: String,
    pub(super) switches_by_name: HashMap<String, BTreeSet<Uuid>>,
    /// The switches that refer to a port: one, unless somebody made a mistake. The first one counts.
    switches_of_port: HashMap<Uuid, Vec<Uuid>>,
    pub(super) ports_by_name: HashMap<String, Uuid>,
    pub(super) ours: HashMap<VmKey, Vec<(String, Uuid)>>,
    pub(super) on_switch: HashMap<Uuid, SwitchIndex>,
    /// What each port was entered with, so that it is taken out just so.
    claims: HashMap<Uuid, (Uuid, Claims)>,
    pub(super) router_ports_by_name: HashMap<String, Uuid>,
    /// Switch ports by the name of the router port that they are connected to.
    peers: HashMap<String, BTreeSet<Uuid>>,
    pub(super) changes: Changes,
    sb_cfg_before: i64,
    /// The greatest number of an epoch of this instance that was ever seen.
    pub(super) highest_epoch: u64,
}

impl Index {
    /// The switch that a port is on.
    pub(super) fn switch_of(&self, port: &Uuid) -> Option<Uuid> {
        self.switches_of_port.get(port)?.first().copied()
    }

    /// Empty indexes; rows marked with this instance are ours.
    pub(super) fn new(instance: String) -> Self {
        Self { instance, ..Self::default() }
    }

    /// Enters what a port holds, when both its row and its switch are known.
    fn attach(&mut self, port: Uuid, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) {
        let Some(switch) = self.switch_of(&port) else { return };
        let claims = self.claims_of(row, router_ports);
        let on_switch = self.on_switch.entry(switch).or_default();
        for ip in &claims.ips {
            on_switch.pool.hold(*ip, port);
        }
        for mac in &claims.macs {
            on_switch.macs.entry(*mac).or_default().insert(port);
        }
        if row.kind == "router" {
            on_switch.routers.insert(port);
            self.changes.wakes.insert(Wake::Switch(on_switch.name.clone()));
        }
        self.claims.insert(port, (switch, claims));
    }

    /// Takes out what a port was entered with.
    fn detach(&mut self, port: Uuid) {
        let Some((switch, claims)) = self.claims.remove(&port) else { return };
        let Some(on_switch) = self.on_switch.get_mut(&switch) else { return };
        for ip in claims.ips {
            on_switch.pool.release(ip, &port);
            self.changes.wakes.insert(Wake::Address(switch, ip));
            self.changes.wakes.insert(Wake::Room(switch));
        }
        for mac in claims.macs {
            if let Some(holders) = on_switch.macs.get_mut(&mac) {
                holders.remove(&port);
                if holders.is_empty() {
                    on_switch.macs.remove(&mac);
                }
            }
            self.changes.wakes.insert(Wake::Mac(switch, mac));
        }
        // The switch that it leaves, which may not refer to it any more.
        if on_switch.routers.remove(&port) {
            self.changes.wakes.insert(Wake::Switch(on_switch.name.clone()));
        }
    }

    /// Every address and MAC that a port holds: static ones, those that northd gave it, those of the
    /// router behind it, a `virtual` port's own, and those that are reserved for a VM's next start.
    fn claims_of(&self, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) -> Claims {
        let Claims { mut ips, mut macs } = Claims::default();
        let reserved = row.external_ids.get(keys::NEXT_ADDRESSES);
        // What a row of ours is healed from, where somebody overwrote its addresses, is held, too.
        let ours = Owner::of(&row.external_ids, &self.instance).is_some();
        let secured = row.port_security.iter().filter(|_| ours);
        let texts = row.addresses.iter().chain(secured).map(String::as_str);
        for text in texts.chain(row.dynamic_addresses.as_deref()).chain(reserved) {
            scan(text, &mut macs, &mut ips);
        }
        match row.kind.as_str() {
            "router" => {
                let peer = row.options.get(keys::ROUTER_PORT).and_then(|name| self.router_ports_by_name.get(name));
                if let Some(peer) = peer.and_then(|uuid| router_ports.get(uuid)) {
                    scan(&peer.mac, &mut macs, &mut ips);
                    peer.networks.iter().for_each(|network| scan(network, &mut macs, &mut ips));
                }
            }
            "virtual" => {
                if let Some(address) = row.options.get(keys::VIRTUAL_IP) {
                    scan(address, &mut macs, &mut ips);
                }
            }
            _ => {}
        }
        ips.sort_unstable();
        ips.dedup();
        macs.sort_unstable();
        macs.dedup();
        Claims { ips, macs }
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
    /// Name and settings of the row that is changing.
    pub(super) before: Option<(String, Map)>,
}

impl SwitchWatcher<'_> {
    fn enter(&mut self, switch: Uuid, port: Uuid) {
        let switches = self.index.switches_of_port.entry(port).or_default();
        switches.push(switch);
        // A port that moves may come here before its old switch lets it go in the same update.
        if switches.len() == 1 {
            self.attach(port);
        }
    }

    fn leave(&mut self, switch: Uuid, port: Uuid) {
        let Some(switches) = self.index.switches_of_port.get_mut(&port) else { return };
        let Some(at) = switches.iter().position(|present| *present == switch) else { return };
        switches.remove(at);
        if switches.is_empty() {
            self.index.switches_of_port.remove(&port);
        }
        if at == 0 {
            self.index.detach(port);
            self.attach(port);
        }
    }

    fn attach(&mut self, port: Uuid) {
        if let Some(row) = self.ports.get(&port) {
            self.index.attach(port, row, self.router_ports);
            // It may have come to another switch, or to none.
            self.index.changes.vms.extend(Owner::of(&row.external_ids, &self.index.instance).map(|owner| owner.vm));
        }
    }

    fn settings_changed(&mut self, name: &str, ports: &HashSet<Uuid>) {
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
        self.index.on_switch.entry(uuid).or_default().name.clone_from(&row.name);
        row.ports.iter().for_each(|port| self.enter(uuid, *port));
        self.settings_changed(&row.name, &row.ports);
    }

    fn changing(&mut self, uuid: Uuid, row: &LogicalSwitch, difference: &LogicalSwitch) {
        self.before = Some((row.name.clone(), row.other_config.clone()));
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
        by.ports.difference(&row.ports).for_each(|port| self.enter(uuid, *port));
        row.ports.difference(&by.ports).for_each(|port| self.leave(uuid, *port));
        self.changed(uuid, by);
    }

    fn removed(&mut self, uuid: Uuid, row: &LogicalSwitch) {
        self.settings_changed(&row.name, &row.ports);
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
        self.index.ports_by_name.insert(row.name.clone(), uuid);
        if let Some(peer) = row.options.get(keys::ROUTER_PORT) {
            self.index.peers.entry(peer.to_owned()).or_default().insert(uuid);
        }
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
        self.index.remove_ours(uuid, &row.external_ids);
        self.index.detach(uuid);
        if let Some(peer) = row.options.get(keys::ROUTER_PORT)
            && let Some(ports) = self.index.peers.get_mut(peer)
        {
            ports.remove(&uuid);
        }
        // Names may change hands within one update: only the entry that is still ours goes.
        if self.index.ports_by_name.get(&row.name) == Some(&uuid) {
            self.index.ports_by_name.remove(&row.name);
        }
        self.index.changes.wakes.insert(Wake::Name(row.name.clone()));
    }
}

pub(super) struct RouterPortWatcher<'a> {
    pub(super) index: &'a mut Index,
    pub(super) ports: &'a Table<LogicalSwitchPort>,
}

impl Watcher<LogicalRouterPort> for RouterPortWatcher<'_> {
    fn added(&mut self, uuid: Uuid, row: &LogicalRouterPort) {
        self.index.router_ports_by_name.insert(row.name.clone(), uuid);
        let mut only = Table::default();
        only.put(uuid, row.clone(), &mut Unwatched);
        for port in self.index.peers.get(&row.name).cloned().unwrap_or_default() {
            if let Some(peer) = self.ports.get(&port) {
                self.index.detach(port);
                self.index.attach(port, peer, &only);
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
        // Another of its name may have come earlier in the same update: the switch ports are its.
        if self.index.router_ports_by_name.get(&row.name) != Some(&uuid) {
            return;
        }
        self.index.router_ports_by_name.remove(&row.name);
        let none = Table::default();
        for port in self.index.peers.get(&row.name).cloned().unwrap_or_default() {
            if let Some(peer) = self.ports.get(&port) {
                self.index.detach(port);
                self.index.attach(port, peer, &none);
            }
        }
    }
}
