//! The northbound replica: typed tables, and the indexes that a plan asks.
//!
//! Each change to a table passes through the [`Index`], which keeps for every switch who holds
//! which address and MAC, and notes in [`Changes`] what somebody may have waited for. A plan never
//! scans a table.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use macaddr::MacAddr6;
use serde::de::{IgnoredAny, MapAccess};
use uuid::Uuid;

use super::addresses::scan;
use super::names::{Owner, VmKey, keys};
use super::rows::{LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, NbGlobal};
use crate::ipam::{Pool, Subnet, SubnetError};
use crate::ovsdb::{Map, Replica, Row, Table, TableSpec, Watcher};

/// Something in the northbound database that an unserved VM waits for.
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
}

/// What has changed since it was last taken.
#[derive(Debug, Default)]
pub struct Changes {
    /// VMs with a row of ours that came, changed or went.
    pub vms: BTreeSet<VmKey>,
    /// What may have been waited for.
    pub wakes: HashSet<Wake>,
}

/// A port row with the switch it is on.
#[derive(Debug, Clone, Copy)]
pub struct PortRef<'a> {
    /// The row's UUID.
    pub uuid: Uuid,
    /// The switch that refers to it.
    pub switch: Option<Uuid>,
    /// The row.
    pub row: &'a LogicalSwitchPort,
}

/// The northbound database as far as we read it.
#[derive(Debug)]
pub struct Northbound {
    global: Table<NbGlobal>,
    switches: Table<LogicalSwitch>,
    ports: Table<LogicalSwitchPort>,
    router_ports: Table<LogicalRouterPort>,
    index: Index,
}

/// What a port holds on its switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Claims {
    ips: Vec<IpAddr>,
    macs: Vec<MacAddr6>,
}

#[derive(Debug, Default)]
struct SwitchIndex {
    pool: Pool<Uuid>,
    macs: HashMap<MacAddr6, BTreeSet<Uuid>>,
    /// Its ports of type `router`.
    routers: BTreeSet<Uuid>,
}

#[derive(Debug)]
struct Index {
    instance: String,
    switches_by_name: HashMap<String, BTreeSet<Uuid>>,
    switch_of_port: HashMap<Uuid, Uuid>,
    ports_by_name: HashMap<String, Uuid>,
    ours: HashMap<VmKey, Vec<(String, Uuid)>>,
    on_switch: HashMap<Uuid, SwitchIndex>,
    /// What each port was entered with, so that it is taken out just so.
    claims: HashMap<Uuid, (Uuid, Claims)>,
    router_ports_by_name: HashMap<String, Uuid>,
    /// Switch ports by the name of the router port that they are connected to.
    peers: HashMap<String, BTreeSet<Uuid>>,
    changes: Changes,
}

impl Northbound {
    /// An empty replica; rows marked with this instance are ours.
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            global: Table::default(),
            switches: Table::default(),
            ports: Table::default(),
            router_ports: Table::default(),
            index: Index {
                instance: instance.into(),
                switches_by_name: HashMap::new(),
                switch_of_port: HashMap::new(),
                ports_by_name: HashMap::new(),
                ours: HashMap::new(),
                on_switch: HashMap::new(),
                claims: HashMap::new(),
                router_ports_by_name: HashMap::new(),
                peers: HashMap::new(),
                changes: Changes::default(),
            },
        }
    }

    /// Which instance's rows are ours.
    pub fn instance(&self) -> &str {
        &self.index.instance
    }

    /// The switches of a name, which need not be one.
    pub fn switches_named(&self, name: &str) -> impl ExactSizeIterator<Item = Uuid> {
        static NONE: BTreeSet<Uuid> = BTreeSet::new();
        self.index.switches_by_name.get(name).unwrap_or(&NONE).iter().copied()
    }

    /// A switch.
    pub fn switch(&self, uuid: &Uuid) -> Option<&LogicalSwitch> {
        self.switches.get(uuid)
    }

    /// A port by its UUID.
    pub fn port(&self, uuid: &Uuid) -> Option<PortRef<'_>> {
        let row = self.ports.get(uuid)?;
        Some(PortRef { uuid: *uuid, switch: self.index.switch_of_port.get(uuid).copied(), row })
    }

    /// A port by its name.
    pub fn port_named(&self, name: &str) -> Option<PortRef<'_>> {
        self.port(self.index.ports_by_name.get(name)?)
    }

    /// All ports, in no order.
    pub fn ports(&self) -> impl Iterator<Item = PortRef<'_>> {
        self.ports.iter().map(|(uuid, row)| PortRef {
            uuid: *uuid,
            switch: self.index.switch_of_port.get(uuid).copied(),
            row,
        })
    }

    /// Our rows of a VM, with the network each is for.
    pub fn ports_of(&self, vm: &VmKey) -> impl Iterator<Item = (&str, PortRef<'_>)> {
        let rows = self.index.ours.get(vm).map_or(&[][..], Vec::as_slice);
        rows.iter().filter_map(|(network, uuid)| Some((network.as_str(), self.port(uuid)?)))
    }

    /// The VMs that have rows of ours.
    pub fn vms(&self) -> impl Iterator<Item = &VmKey> {
        self.index.ours.keys()
    }

    /// Who holds an address on a switch.
    pub fn holders(&self, switch: &Uuid, address: IpAddr) -> &[Uuid] {
        self.index.on_switch.get(switch).map_or(&[], |index| index.pool.holders(address))
    }

    /// Who holds a MAC on a switch.
    pub fn mac_holders(&self, switch: &Uuid, mac: MacAddr6) -> impl Iterator<Item = Uuid> {
        self.index.on_switch.get(switch).and_then(|index| index.macs.get(&mac)).into_iter().flatten().copied()
    }

    /// The addresses held on a switch; `None` where no port holds any.
    pub fn pool(&self, switch: &Uuid) -> Option<&Pool<Uuid>> {
        self.index.on_switch.get(switch).map(|index| &index.pool)
    }

    /// What a switch, or else its routers, says of its addresses.
    pub fn subnet(&self, switch: &Uuid) -> Result<Subnet, SubnetError> {
        let Some(row) = self.switches.get(switch) else { return Err(SubnetError::Missing) };
        let config = &row.other_config;
        let routers = self.index.on_switch.get(switch).map(|index| &index.routers);
        let networks = routers.into_iter().flatten().filter_map(|port| {
            let peer = self.ports.get(port)?.options.get(keys::ROUTER_PORT)?;
            self.router_ports.get(self.index.router_ports_by_name.get(peer)?)
        });
        let networks = networks.flat_map(|router_port| router_port.networks.iter().map(String::as_str));
        Subnet::new(config.get("subnet"), config.get("exclude_ips"), config.get("ipv6_prefix"), networks)
    }

    /// The one row of `NB_Global` has this value under a key of `external_ids`.
    pub fn global_external_id(&self, key: &str) -> Option<&str> {
        self.global.iter().next().and_then(|(_, row)| row.external_ids.get(key))
    }

    /// How many ports there are in all.
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// Takes what has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.index.changes)
    }
}

impl Replica for Northbound {
    const DATABASE: &'static str = "OVN_Northbound";
    const TABLES: &'static [TableSpec] =
        &[NbGlobal::TABLE, LogicalSwitch::TABLE, LogicalSwitchPort::TABLE, LogicalRouterPort::TABLE];

    fn begin_dump(&mut self) {
        self.global.begin_dump();
        self.switches.begin_dump();
        self.ports.begin_dump();
        self.router_ports.begin_dump();
    }

    fn end_dump(&mut self) {
        let Self { global, switches, ports, router_ports, index } = self;
        global.end_dump(&mut Unwatched);
        router_ports.end_dump(&mut RouterPortWatcher { index, ports });
        ports.end_dump(&mut PortWatcher { index, router_ports });
        switches.end_dump(&mut SwitchWatcher { index, ports, router_ports, before: None });
    }

    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, mut updates: A) -> Result<(), A::Error> {
        let Self { global, switches, ports, router_ports, index } = self;
        match table {
            "NB_Global" => global.apply(updates, &mut Unwatched),
            "Logical_Switch" => {
                switches.apply(updates, &mut SwitchWatcher { index, ports, router_ports, before: None })
            }
            "Logical_Switch_Port" => ports.apply(updates, &mut PortWatcher { index, router_ports }),
            "Logical_Router_Port" => router_ports.apply(updates, &mut RouterPortWatcher { index, ports }),
            _ => {
                while updates.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

impl Index {
    /// Enters what a port holds, when both its row and its switch are known.
    fn attach(&mut self, port: Uuid, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) {
        let Some(&switch) = self.switch_of_port.get(&port) else { return };
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
            self.wake_switch(port);
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
        if on_switch.routers.remove(&port) {
            self.wake_switch(port);
        }
    }

    /// Every address and MAC that a port holds: static ones, those that northd gave it, those of the
    /// router behind it, a `virtual` port's own, and those that are reserved for a VM's next start.
    fn claims_of(&self, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) -> Claims {
        let Claims { mut ips, mut macs } = Claims::default();
        let reserved = row.external_ids.get(keys::NEXT_ADDRESSES);
        let texts = row.addresses.iter().map(String::as_str);
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

    /// The switch that a port is on changed what it says of its addresses.
    fn wake_switch(&mut self, port: Uuid) {
        let Some(switch) = self.switch_of_port.get(&port) else { return };
        let names = self.switches_by_name.iter().filter(|(_, switches)| switches.contains(switch));
        self.changes.wakes.extend(names.map(|(name, _)| Wake::Switch(name.clone())));
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

/// A table over which there is no index.
struct Unwatched;

impl<R: Row> Watcher<R> for Unwatched {
    fn added(&mut self, _: Uuid, _: &R) {}
    fn changing(&mut self, _: Uuid, _: &R, _: &R) {}
    fn changed(&mut self, _: Uuid, _: &R) {}
    fn removed(&mut self, _: Uuid, _: &R) {}
}

struct SwitchWatcher<'a> {
    index: &'a mut Index,
    ports: &'a Table<LogicalSwitchPort>,
    router_ports: &'a Table<LogicalRouterPort>,
    /// Name and settings of the row that is changing.
    before: Option<(String, Map)>,
}

impl SwitchWatcher<'_> {
    fn enter(&mut self, switch: Uuid, port: Uuid) {
        // A port that moves may come here before its old switch lets it go in the same update.
        self.index.detach(port);
        self.index.switch_of_port.insert(port, switch);
        if let Some(row) = self.ports.get(&port) {
            self.index.attach(port, row, self.router_ports);
        }
    }

    fn leave(&mut self, switch: Uuid, port: Uuid) {
        if self.index.switch_of_port.get(&port) == Some(&switch) {
            self.index.detach(port);
            self.index.switch_of_port.remove(&port);
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
            self.index.changes.wakes.insert(Wake::Switch(name.clone()));
        }
        if name != row.name || other_config != row.other_config {
            self.settings_changed(&row.name, &row.ports);
        }
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

struct PortWatcher<'a> {
    index: &'a mut Index,
    router_ports: &'a Table<LogicalRouterPort>,
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

struct RouterPortWatcher<'a> {
    index: &'a mut Index,
    ports: &'a Table<LogicalSwitchPort>,
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
        if self.index.router_ports_by_name.get(&row.name) == Some(&uuid) {
            self.index.router_ports_by_name.remove(&row.name);
        }
        let none = Table::default();
        for port in self.index.peers.get(&row.name).cloned().unwrap_or_default() {
            if let Some(peer) = self.ports.get(&port) {
                self.index.detach(port);
                self.index.attach(port, peer, &none);
            }
        }
    }
}

/// Rows put in place without a server, for the tests of the pure core.
#[cfg(test)]
impl Northbound {
    pub(crate) fn put_switch(&mut self, uuid: Uuid, row: LogicalSwitch) {
        let Self { switches, ports, router_ports, index, .. } = self;
        switches.put(uuid, row, &mut SwitchWatcher { index, ports, router_ports, before: None });
    }

    pub(crate) fn put_port(&mut self, uuid: Uuid, row: LogicalSwitchPort) {
        let Self { ports, router_ports, index, .. } = self;
        ports.put(uuid, row, &mut PortWatcher { index, router_ports });
    }

    pub(crate) fn put_router_port(&mut self, uuid: Uuid, row: LogicalRouterPort) {
        let Self { ports, router_ports, index, .. } = self;
        router_ports.put(uuid, row, &mut RouterPortWatcher { index, ports });
    }

    /// A port goes, or comes to another switch.
    pub(crate) fn place_port(&mut self, uuid: Uuid, switch: Option<Uuid>) {
        let holding: Vec<Uuid> =
            self.switches.iter().filter(|(_, row)| row.ports.contains(&uuid)).map(|(switch, _)| *switch).collect();
        for old in holding {
            let mut row = self.switches.get(&old).cloned().unwrap_or_default();
            row.ports.remove(&uuid);
            self.put_switch(old, row);
        }
        match switch {
            Some(switch) => {
                let mut row = self.switches.get(&switch).cloned().unwrap_or_default();
                row.ports.insert(uuid);
                self.put_switch(switch, row);
            }
            None => {
                let Self { ports, router_ports, index, .. } = self;
                ports.remove(uuid, &mut PortWatcher { index, router_ports });
            }
        }
    }

    /// The same tables entered anew, in another order: what the indexes should equal.
    pub(crate) fn rebuilt(&self) -> Self {
        let mut other = Self::new(self.index.instance.clone());
        self.switches.iter().for_each(|(uuid, row)| other.put_switch(*uuid, row.clone()));
        self.ports.iter().for_each(|(uuid, row)| other.put_port(*uuid, row.clone()));
        self.router_ports.iter().for_each(|(uuid, row)| other.put_router_port(*uuid, row.clone()));
        other
    }

    /// Whether every address on every switch is held by the same ports here as there.
    pub(crate) fn holds_the_same(&self, other: &Self) -> bool {
        let pools = |view: &Self| -> std::collections::BTreeMap<Uuid, Pool<Uuid>> {
            let used = view.index.on_switch.iter().filter(|(_, index)| index.pool != Pool::default());
            used.map(|(switch, index)| (*switch, index.pool.clone())).collect()
        };
        pools(self) == pools(other) && self.index.ours == other.index.ours
    }
}
