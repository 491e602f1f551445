//! The indexes over the northbound tables, updated on every change of a row.
//!
//! A port counts on its switch once both its row and the switch's reference to it are known, in either order. It is
//! removed with exactly the claims it was entered with, so that a router port or a switch that changes meanwhile leaves
//! no stale entry.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::addresses::{is_dynamic, scan, scan_hosts};
use super::dhcp_use::DhcpUse;
use super::marks::Owner;
use super::naming::NameChanges;
use super::port_state::PortState;
use super::rows::{LogicalRouterPort, LogicalSwitchPort};
use crate::contract::{VmKey, keys};
use crate::hash::{FastMap, FastSet, Fold};
use crate::ipam::{Holders, Pool};
use crate::ovsdb::Table;

/// An event in the databases that an unserved VM waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wake {
    /// A switch of that name appears, disappears, or changes its subnet settings or its policy.
    Switch(String),
    /// A holder of the address on the switch releases it.
    Address(Uuid, IpAddr),
    /// A holder of the MAC on the switch releases it.
    Mac(Uuid, MacAddr6),
    /// Any address of the switch is released.
    Room(Uuid),
    /// A port name is released.
    Name(String),
    /// northd has processed more of the northbound (`NB_Global:sb_cfg`).
    Processed,
    /// The southbound has another binding of the port.
    Binding(String),
    /// The addresses that routers and switches answer for by themselves change: NAT rules and load balancers.
    Services,
    /// A chassis of that name or hostname is added, removed or changed.
    Chassis(String),
    /// A chassis claims or releases the port.
    Claim(String),
    /// The southbound comes into sync.
    Southbound,
    /// The southbound's tables have other DHCP options: another version of OVN runs.
    DhcpOptions,
    /// A port of ours of a VM in the namespace is deleted.
    Namespace(String),
    /// The VM has no object left in Kubernetes.
    Gone(VmKey),
}

/// The changes since they were last taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// VMs with a row of ours that was added, changed or removed.
    pub vms: BTreeSet<VmKey>,
    /// Events that VMs may wait for.
    pub wakes: HashSet<Wake>,
    /// Addresses that ports of ours released: they rest until `Northbound::end_rest` is called.
    pub rests: Vec<Rest>,
}

/// An address that a port of ours released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// The switch.
    pub switch: Uuid,
    /// The address.
    pub address: IpAddr,
    /// The number of this rest of the address.
    pub number: u64,
}

impl Changes {
    /// Returns true if nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.vms.is_empty() && self.wakes.is_empty()
    }
}

/// The claims of a port on its switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Claims {
    ips: Vec<IpAddr>,
    macs: Vec<MacAddr6>,
    /// northd allocates its addresses.
    dynamic: bool,
    /// The row is this instance's.
    ours: bool,
}

#[derive(Debug, Default)]
pub(super) struct SwitchIndex {
    pub(super) name: String,
    pub(super) pool: Pool<Uuid>,
    pub(super) macs: Holders<MacAddr6, Uuid>,
    /// Its ports of type `router`.
    pub(super) routers: BTreeSet<Uuid>,
    /// Its ports with addresses that northd allocates.
    pub(super) dynamic: BTreeSet<Uuid>,
    /// The number of our ports, by the number of their state.
    pub(super) ours: [u32; PortState::ALL.len()],
}

/// The look-ups that a decision makes without scanning the tables.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) instance: String,
    pub(super) switches_by_name: HashMap<String, BTreeSet<Uuid>>,
    pub(super) switch_of_port: FastMap<Uuid, Uuid>,
    /// Further switches that refer to a port. The first one counts; usually there is only one.
    pub(super) more_switches_of_port: FastMap<Uuid, Vec<Uuid>>,
    /// Ports by the hash of their name, which the rows have already.
    pub(super) ports_by_name: Holders<u64, Uuid>,
    pub(super) name_hash: Fold,
    pub(super) ours: HashMap<VmKey, Vec<(String, Uuid)>>,
    pub(super) on_switch: FastMap<Uuid, SwitchIndex>,
    /// The number of our ports by the namespace of their VM.
    pub(super) ports_in: HashMap<String, usize>,
    /// The same before this update, for the namespaces that it has removed ports of: a changed row is removed and entered
    /// again.
    ports_in_before: HashMap<String, usize>,
    /// The number of our ports with each MAC, on all switches: guests have NICs on several switches, so a MAC that is
    /// made is unique across them.
    pub(super) our_macs: FastMap<MacAddr6, u32>,
    /// The claims that each port of type `router` was entered with, so that exactly these are removed. The claims of
    /// other ports follow from their rows alone.
    router_claims: FastMap<Uuid, Claims>,
    /// The claims of the port at hand, kept for its allocated memory.
    claims: Claims,
    pub(super) router_ports_by_name: HashMap<String, Uuid>,
    /// Switch ports by the name of the router port that they are connected to.
    pub(super) peers: HashMap<String, BTreeSet<Uuid>>,
    /// The number of rows with a UUID as this service makes them, and marks or a name that do not fit.
    pub(super) odd: usize,
    /// The use of the rows of `DHCP_Options`.
    pub(super) dhcp: DhcpUse,
    pub(super) changes: Changes,
    /// The changes that the names of VMs depend on, while a task writes names.
    pub(super) names: Option<NameChanges>,
    /// Ports with an address or MAC whose other holders may have changed.
    pub(super) shared: Vec<Uuid>,
    /// Switches whose router ports were added, removed, or got other networks: addresses of their ports may be outside
    /// them now.
    pub(super) rerouted: HashSet<Uuid>,
    /// Ports that this update has removed already. Claims that such a port seems to have between two tables of the
    /// update were never held: its old addresses on its new switch, or the new ones on the old.
    taken_out: FastSet<Uuid>,
    /// Addresses that ports of ours released in this update, with switch and port; some of them are held again.
    released: Vec<(Uuid, IpAddr, Uuid)>,
    /// Addresses at rest since the last call of [`Index::take_rests`]; some of them may be held again.
    rests: Vec<(Uuid, IpAddr)>,
    /// Raised by every change outside our own rows.
    pub(super) foreign_changes: u64,
    pub(super) sb_cfg_before: i64,
    /// The greatest number of an epoch of this instance ever seen.
    pub(super) highest_epoch: u64,
}

impl Index {
    /// The switch that a port is on.
    pub(super) fn switch_of(&self, port: &Uuid) -> Option<Uuid> {
        self.switch_of_port.get(port).copied()
    }

    /// Makes room for all ports that switches refer to, and returns their number.
    pub(super) fn reserve_ports(&mut self) -> usize {
        let ports = self.switch_of_port.len();
        self.ports_by_name.reserve(ports);
        ports
    }

    /// The ports with a name of the same hash.
    pub(super) fn ports_named(&self, name: &str) -> &[Uuid] {
        self.ports_by_name.get(self.name_hash.hash_one(name))
    }

    /// Notes a change of this port, unless it is one of ours: a change of ours is noted for its VM.
    pub(super) fn note_foreign(&mut self, uuid: &Uuid, row: &LogicalSwitchPort) {
        if !row.is_of(uuid, &self.instance) {
            self.foreign_changes += 1;
        }
    }

    /// Empty indexes; rows marked with this instance are ours.
    pub(super) fn new(instance: String) -> Self {
        Self { instance, ..Self::default() }
    }

    /// Enters the claims of a port, if both its row and its switch are known.
    pub(super) fn attach(&mut self, port: Uuid, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) {
        let Some(switch) = self.switch_of(&port) else { return };
        let mut claims = std::mem::take(&mut self.claims);
        self.claims_of(&port, row, router_ports, &mut claims);
        let on_switch = self.on_switch.entry(switch).or_default();
        for ip in &claims.ips {
            self.shared.extend(on_switch.pool.holders(*ip));
            on_switch.pool.hold(*ip, port);
        }
        for mac in &claims.macs {
            self.shared.extend(on_switch.macs.get(*mac));
            on_switch.macs.insert(*mac, port);
            if claims.ours {
                *self.our_macs.entry(*mac).or_default() += 1;
            }
        }
        if claims.ours {
            on_switch.ours[PortState::of(row) as usize] += 1;
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

    /// Removes the claims that a port was entered with on a switch.
    pub(super) fn detach(&mut self, port: Uuid, row: &LogicalSwitchPort, switch: Uuid) {
        let claims = match self.router_claims.remove(&port) {
            Some(claims) => claims,
            None => {
                let mut claims = Claims::default();
                self.claims_of(&port, row, &Table::default(), &mut claims);
                claims
            }
        };
        // The addresses of a port that was given type `router` by hand never belonged to its VM.
        let gives_back = self.taken_out.insert(port) && claims.ours && row.kind.is_empty();
        for mac in claims.macs.iter().filter(|_| claims.ours) {
            if let Entry::Occupied(mut count) = self.our_macs.entry(*mac) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        let Some(on_switch) = self.on_switch.get_mut(&switch) else { return };
        if claims.ours {
            on_switch.ours[PortState::of(row) as usize] -= 1;
        }
        // A further address is in force where its VIP has moved to, and is no lease to be had again.
        let vips = row.port_security.vips();
        for ip in claims.ips {
            on_switch.pool.release(ip, &port);
            if gives_back && !vips.contains(&ip) {
                self.released.push((switch, ip, port));
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
        // The switch that it leaves, which may have removed its reference already.
        if on_switch.routers.remove(&port) {
            self.rerouted.insert(switch);
            self.changes.wakes.insert(Wake::Switch(on_switch.name.clone()));
        }
    }

    /// Enters a port again after its peer has changed its claims.
    pub(super) fn enter_again(&mut self, port: Uuid, row: &LogicalSwitchPort, router_ports: &Table<LogicalRouterPort>) {
        let Some(switch) = self.switch_of(&port) else { return };
        self.detach(port, row, switch);
        self.attach(port, row, router_ports);
    }

    /// Every address and MAC that a port holds: static ones, those that northd allocated, those in `port_security`,
    /// those of the router behind it, a `virtual` port's own, and those that are reserved for a VM's next start.
    fn claims_of(
        &self,
        port: &Uuid,
        row: &LogicalSwitchPort,
        router_ports: &Table<LogicalRouterPort>,
        claims: &mut Claims,
    ) {
        let Claims { ips, macs, dynamic, ours } = claims;
        ips.clear();
        macs.clear();
        let reserved = row.external_ids.get(keys::NEXT_ADDRESSES);
        // The lease from which overwritten addresses of a row of ours are repaired is held, too.
        *ours = row.is_of(port, &self.instance);
        // A row of ours that was made dynamic is repaired.
        *dynamic = !*ours && row.addresses.has_other(is_dynamic);
        row.addresses.scan(macs, ips);
        for text in row.dynamic_addresses.as_deref().into_iter().chain(reserved) {
            scan(text, macs, ips);
        }
        // The two columns are nearly always equal.
        if row.port_security != row.addresses {
            // Addresses that foreign ports may use, such as that of a VRRP router, answer to ARP like their own.
            row.port_security.scan_hosts(macs, ips);
        }
        match row.kind.as_str() {
            "router" => {
                let peer = row.options.get(keys::ROUTER_PORT).and_then(|name| self.router_ports_by_name.get(name));
                if let Some(peer) = peer.and_then(|uuid| router_ports.get(uuid)) {
                    scan(&peer.mac, macs, ips);
                    peer.networks.iter().for_each(|network| scan(network, macs, ips));
                }
                for key in [keys::ARP_PROXY, keys::NAT_ADDRESSES] {
                    row.options.get(key).into_iter().for_each(|text| scan_hosts(text, macs, ips));
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

    /// The addresses that a port holds on its switch.
    pub(super) fn ips_of(&self, port: &Uuid, row: &LogicalSwitchPort) -> Vec<IpAddr> {
        if let Some(claims) = self.router_claims.get(port) {
            return claims.ips.clone();
        }
        let mut claims = Claims::default();
        self.claims_of(port, row, &Table::default(), &mut claims);
        claims.ips
    }

    /// The switches on which ports hold an address, and their holders.
    pub(super) fn holders_anywhere(&self, address: IpAddr) -> impl Iterator<Item = &Uuid> {
        self.on_switch.values().flat_map(move |switch| switch.pool.holders(address))
    }

    /// The ports that have a MAC, on all switches.
    pub(super) fn mac_holders_anywhere(&self, mac: MacAddr6) -> impl Iterator<Item = &Uuid> {
        self.on_switch.values().flat_map(move |switch| switch.macs.get(mac))
    }

    /// Ends an update: addresses that ports of ours held before it, and that are free after it, rest.
    pub(super) fn end_update(&mut self) {
        self.taken_out = FastSet::default();
        for (namespace, before) in std::mem::take(&mut self.ports_in_before) {
            if self.ports_in.get(&namespace).is_none_or(|now| *now < before) {
                self.changes.wakes.insert(Wake::Namespace(namespace));
            }
        }
        for (switch, address, last) in std::mem::take(&mut self.released) {
            let Some(on_switch) = self.on_switch.get_mut(&switch) else { continue };
            let pool = &mut on_switch.pool;
            if pool.holders(address).is_empty() && pool.rest_of(address).is_none() {
                pool.rest(address, last);
                self.rests.push((switch, address));
            }
        }
    }

    /// Takes the addresses at rest since the last call.
    pub(super) fn take_rests(&mut self) -> Vec<Rest> {
        let rests = std::mem::take(&mut self.rests);
        let rest = |(switch, address): (Uuid, IpAddr)| {
            let number = self.on_switch.get(&switch)?.pool.rest_of(address)?;
            Some(Rest { switch, address, number })
        };
        rests.into_iter().filter_map(rest).collect()
    }

    pub(super) fn add_ours(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.odd += usize::from(row.is_odd(&uuid, &self.instance));
        if let Some(Owner { vm, network }) = row.owner(&uuid, &self.instance) {
            self.changes.vms.insert(vm.clone());
            match self.ports_in.get_mut(&vm.namespace) {
                Some(count) => *count += 1,
                None => drop(self.ports_in.insert(vm.namespace.clone(), 1)),
            }
            let rows = self.ours.entry(vm).or_default();
            let entry = (network, uuid);
            if let Err(at) = rows.binary_search(&entry) {
                rows.insert(at, entry);
            }
        }
    }

    pub(super) fn remove_ours(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        self.odd -= usize::from(row.is_odd(&uuid, &self.instance));
        if let Some(Owner { vm, network: _ }) = row.owner(&uuid, &self.instance) {
            if let Some(rows) = self.ours.get_mut(&vm) {
                rows.retain(|(_, present)| *present != uuid);
                if rows.is_empty() {
                    self.ours.remove(&vm);
                }
            }
            if let Some(count) = self.ports_in.get_mut(&vm.namespace) {
                if !self.ports_in_before.contains_key(&vm.namespace) {
                    self.ports_in_before.insert(vm.namespace.clone(), *count);
                }
                *count -= 1;
                if *count == 0 {
                    self.ports_in.remove(&vm.namespace);
                }
            }
            self.changes.vms.insert(vm);
        }
    }
}
