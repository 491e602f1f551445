//! The northbound replica: typed tables, and the indexes that a decision reads.
//!
//! Each change to a table passes through the index (`index.rs`), which keeps the holders of addresses and MACs for
//! every switch, and notes in [`Changes`] the events that VMs may wait for. A decision never scans a table.

mod names;
mod routers;
mod usage;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use macaddr::MacAddr6;
use serde::de::{IgnoredAny, MapAccess};
use uuid::Uuid;

use super::features::Multichassis;
use super::index::{Changes, Index, Rest, Wake};
use super::naming::DnsWatcher;
use super::rows::{
    DhcpOptions, Dns, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitch,
    LogicalSwitchPort, Nat, NbGlobal,
};
use super::services::{Place, ServiceChanges, Services};
use super::watchers::{DhcpWatcher, GlobalWatcher, PortWatcher, RouterPortWatcher, SwitchWatcher};
use crate::contract::{VmKey, keys};
use crate::ipam::{AddressSet, Pool, Subnet, SubnetError};
use crate::ovsdb::{OptionalColumn, Replica, Row, Schema, Table, TableSpec};

pub use self::usage::SwitchUse;

/// Addresses times switches that are looked up when NAT rules or load balancers have changed.
const MOST_LOOKUPS: usize = 1_000_000;

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

/// The address of a router on a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// The address with its network.
    pub address: IpNet,
    /// The router port's MAC, if it can be read.
    pub mac: Option<MacAddr6>,
}

/// The northbound database as far as we read it.
#[derive(Debug)]
pub struct Northbound {
    global: Table<NbGlobal>,
    switches: Table<LogicalSwitch>,
    ports: Table<LogicalSwitchPort>,
    router_ports: Table<LogicalRouterPort>,
    dhcp: Table<DhcpOptions>,
    services: Services,
    dns: Table<Dns>,
    index: Index,
    reads_names: bool,
    has_dns_options: bool,
    multichassis: Multichassis,
    schema_version: String,
}

impl Northbound {
    /// An empty replica; rows marked with this instance are ours.
    pub fn new(instance: impl Into<String>) -> Self {
        let instance = instance.into();
        Self {
            global: Table::default(),
            switches: Table::default(),
            ports: Table::default(),
            router_ports: Table::default(),
            dhcp: Table::default(),
            services: Services::default(),
            dns: Table::default(),
            reads_names: false,
            has_dns_options: false,
            index: Index::new(instance),
            multichassis: Multichassis::default(),
            schema_version: String::new(),
        }
    }

    /// The values that `options:requested-chassis` may have on this OVN, as far as the northbound tells.
    pub fn multichassis(&self) -> Multichassis {
        self.multichassis
    }

    /// The version of the schema that the server has.
    pub fn schema_version(&self) -> &str {
        &self.schema_version
    }

    /// The instance that our rows belong to.
    pub fn instance(&self) -> &str {
        &self.index.instance
    }

    /// The switches of a name, which may be several.
    pub fn switches_named(&self, name: &str) -> impl ExactSizeIterator<Item = Uuid> {
        static NONE: BTreeSet<Uuid> = BTreeSet::new();
        self.index.switches_by_name.get(name).unwrap_or(&NONE).iter().copied()
    }

    /// A switch.
    pub fn switch(&self, uuid: &Uuid) -> Option<&LogicalSwitch> {
        self.switches.get(uuid)
    }

    /// All switches, in no order: for comparison with the database.
    pub fn switches(&self) -> impl Iterator<Item = (&Uuid, &LogicalSwitch)> {
        self.switches.iter()
    }

    /// All router ports, in no order: for comparison with the database.
    pub fn router_ports(&self) -> impl Iterator<Item = (&Uuid, &LogicalRouterPort)> {
        self.router_ports.iter()
    }

    /// All routers, in no order: for comparison with the database.
    pub fn routers(&self) -> impl Iterator<Item = (&Uuid, &LogicalRouter)> {
        self.services.routers.iter()
    }

    /// All NAT rules, in no order: for comparison with the database.
    pub fn nats(&self) -> impl Iterator<Item = (&Uuid, &Nat)> {
        self.services.nats.iter()
    }

    /// All load balancers, in no order: for comparison with the database.
    pub fn load_balancers(&self) -> impl Iterator<Item = (&Uuid, &LoadBalancer)> {
        self.services.balancers.iter()
    }

    /// All load balancer groups, in no order: for comparison with the database.
    pub fn load_balancer_groups(&self) -> impl Iterator<Item = (&Uuid, &LoadBalancerGroup)> {
        self.services.groups.iter()
    }

    /// A port by its UUID.
    pub fn port(&self, uuid: &Uuid) -> Option<PortRef<'_>> {
        let row = self.ports.get(uuid)?;
        Some(PortRef { uuid: *uuid, switch: self.index.switch_of(uuid), row })
    }

    /// A port by its name.
    pub fn port_named(&self, name: &str) -> Option<PortRef<'_>> {
        let named = |uuid: &Uuid| self.port(uuid).filter(|port| port.row.name == name);
        self.index.ports_named(name).iter().find_map(named)
    }

    /// All ports, in no order.
    pub fn ports(&self) -> impl Iterator<Item = PortRef<'_>> {
        self.ports.iter().map(|(uuid, row)| PortRef { uuid: *uuid, switch: self.index.switch_of(uuid), row })
    }

    /// Our rows of a VM, each with its network.
    pub fn ports_of(&self, vm: &VmKey) -> impl Iterator<Item = (&str, PortRef<'_>)> {
        let rows = self.index.ours.get(vm).map_or(&[][..], Vec::as_slice);
        rows.iter().filter_map(|(network, uuid)| Some((network.as_str(), self.port(uuid)?)))
    }

    /// The number of ports of ours of the VMs in a namespace.
    pub fn ports_in(&self, namespace: &str) -> usize {
        self.index.ports_in.get(namespace).copied().unwrap_or_default()
    }

    /// The VMs that have rows of ours.
    pub fn vms(&self) -> impl Iterator<Item = &VmKey> {
        self.index.ours.keys()
    }

    /// The holders of an address on a switch.
    pub fn holders(&self, switch: &Uuid, address: IpAddr) -> &[Uuid] {
        self.index.on_switch.get(switch).map_or(&[], |index| index.pool.holders(address))
    }

    /// The addresses that a port holds on its switch, those included that are reserved for a next start.
    pub fn addresses_of(&self, port: &PortRef<'_>) -> Vec<IpAddr> {
        self.index.ips_of(&port.uuid, port.row)
    }

    /// The ports that hold an address, on all switches.
    pub fn holders_anywhere(&self, address: IpAddr) -> impl Iterator<Item = &Uuid> {
        self.index.holders_anywhere(address)
    }

    /// The ports that have a MAC, on all switches.
    pub fn mac_holders_anywhere(&self, mac: MacAddr6) -> impl Iterator<Item = &Uuid> {
        self.index.mac_holders_anywhere(mac)
    }

    /// The holders of a MAC on a switch.
    pub fn mac_holders(&self, switch: &Uuid, mac: MacAddr6) -> impl Iterator<Item = Uuid> {
        self.index.on_switch.get(switch).map_or(&[][..], |index| index.macs.get(mac)).iter().copied()
    }

    /// The addresses held on a switch; `None` if no port holds any.
    pub fn pool(&self, switch: &Uuid) -> Option<&Pool<Uuid>> {
        self.index.on_switch.get(switch).map(|index| &index.pool)
    }

    /// A row of `DHCP_Options`.
    pub fn dhcp_row(&self, uuid: &Uuid) -> Option<&DhcpOptions> {
        self.dhcp.get(uuid)
    }

    /// All rows of `DHCP_Options`, in no order: for comparison with the database.
    pub fn dhcp_rows(&self) -> impl Iterator<Item = (&Uuid, &DhcpOptions)> {
        self.dhcp.iter()
    }

    /// Returns true if a row of `DHCP_Options` has the marks of this instance.
    pub fn is_our_dhcp_row(&self, uuid: &Uuid) -> bool {
        self.index.dhcp.is_ours(uuid)
    }

    /// The rows of `DHCP_Options` of this instance to which no port refers.
    pub fn unused_dhcp_rows(&self) -> impl Iterator<Item = Uuid> {
        self.index.dhcp.unused()
    }

    /// The number of ports that refer to a row of `DHCP_Options`.
    pub fn users_of_dhcp_row(&self, uuid: &Uuid) -> u32 {
        self.index.dhcp.users(uuid)
    }

    /// The subnet of a switch, from its own settings or else from its routers.
    pub fn subnet(&self, switch: &Uuid) -> Result<Subnet, SubnetError> {
        let Some(row) = self.switches.get(switch) else { return Err(SubnetError::Missing) };
        let config = &row.other_config;
        let networks = self.router_networks(switch);
        Subnet::new(config.get("subnet"), config.get("exclude_ips"), config.get("ipv6_prefix"), networks)
    }

    /// A port on the switch whose IPv4 addresses northd allocates, if there is one (ovn-nb(5) Logical_Switch
    /// `other_config:subnet`).
    pub fn dynamic_port(&self, switch: &Uuid) -> Option<PortRef<'_>> {
        self.switches.get(switch)?.other_config.get("subnet")?;
        self.port(self.index.on_switch.get(switch)?.dynamic.iter().next()?)
    }

    /// Addresses of a family that routers and switches answer for by themselves, on all switches.
    pub fn service_addresses(&self, ipv4: bool) -> &AddressSet {
        self.services.addresses(ipv4)
    }

    /// The NAT rule, load balancer or other row that answers for an address on a switch, in its owner's terms.
    pub fn service(&self, switch: &Uuid, address: IpAddr) -> Option<String> {
        let known = self.services.addresses(address.is_ipv4()).contains(address);
        known.then(|| self.services.holder(address, &self.place(switch)?)).flatten()
    }

    /// The forwarding group that answers with a MAC on a switch, in its owner's terms.
    pub fn mac_service(&self, switch: &Uuid, mac: MacAddr6) -> Option<String> {
        self.services.has_mac(mac).then(|| self.services.mac_holder(mac, &self.place(switch)?)).flatten()
    }

    fn place(&self, switch: &Uuid) -> Option<Place<'_>> {
        let row = self.switches.get(switch)?;
        let routers = self.index.on_switch.get(switch).map(|index| &index.routers);
        let peer = |port: &Uuid| {
            let peer = self.ports.get(port)?.options.get(keys::ROUTER_PORT)?;
            self.index.router_ports_by_name.get(peer).copied()
        };
        let router_ports = routers.into_iter().flatten().filter_map(peer).collect();
        Some(Place { uuid: *switch, switch: row, router_ports, subnet: self.subnet(switch).ok() })
    }

    /// The number of ports of ours with a MAC, on all switches.
    pub fn ports_with(&self, mac: MacAddr6) -> u32 {
        self.index.our_macs.get(&mac).copied().unwrap_or_default()
    }

    /// Returns true if OVN itself answers with a MAC, on any switch.
    pub fn answers_with(&self, mac: MacAddr6) -> bool {
        self.services.has_mac(mac)
    }

    /// Returns true if a switch is declared to have no addresses (ovn-nb(5) Logical_Switch `other_config:mac_only`,
    /// which northd reads only if there is neither a subnet nor a prefix).
    pub fn is_mac_only(&self, switch: &Uuid) -> bool {
        let config = self.switches.get(switch).map(|row| &row.other_config);
        let set = |key| config.and_then(|config| config.get(key));
        let mac_only = set("mac_only").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        mac_only && set("subnet").is_none() && set("ipv6_prefix").is_none()
    }

    /// Returns true if any row has a UUID as this service makes them, and marks or a name that do not fit. Otherwise
    /// all rows have their marks.
    pub fn has_odd_rows(&self) -> bool {
        self.index.odd > 0
    }

    /// Returns true if there is a router port of that name.
    pub fn has_router_port(&self, name: &str) -> bool {
        self.index.router_ports_by_name.contains_key(name)
    }

    /// Ends this rest of an address, unless it has ended.
    pub fn end_rest(&mut self, rest: &Rest) {
        if let Some(switch) = self.index.on_switch.get_mut(&rest.switch) {
            switch.pool.end_rest(rest.address, rest.number);
        }
    }

    /// The value of a key of `external_ids` in the one row of `NB_Global`.
    pub fn global_external_id(&self, key: &str) -> Option<&str> {
        self.global.iter().next().and_then(|(_, row)| row.external_ids.get(key))
    }

    /// The greatest number of an epoch of this instance ever seen, even if that epoch was removed.
    pub fn highest_epoch(&self) -> u64 {
        self.index.highest_epoch
    }

    /// The other instances of this service that have ever been active on this database.
    pub fn other_instances(&self) -> impl Iterator<Item = &str> {
        let keys = self.global.iter().flat_map(|(_, row)| row.external_ids.iter()).map(|(key, _)| key);
        let instances = keys.filter_map(|key| key.strip_prefix(keys::EPOCH_PREFIX));
        instances.filter(|instance| *instance != self.index.instance)
    }

    /// The ports that are marked with an instance. It scans all ports.
    pub fn marked_with<'v>(&'v self, instance: &'v str) -> impl Iterator<Item = &'v LogicalSwitchPort> {
        let rows = self.ports.iter().map(|(_, row)| row);
        rows.filter(move |row| row.external_ids.get(keys::INSTANCE) == Some(instance))
    }

    /// The one row of `NB_Global`.
    pub fn global(&self) -> Option<Uuid> {
        self.global.iter().next().map(|(uuid, _)| *uuid)
    }

    /// `NB_Global:nb_cfg`: raised by clients that want to know northd's progress.
    pub fn nb_cfg(&self) -> i64 {
        self.global.iter().next().map_or(0, |(_, row)| row.nb_cfg)
    }

    /// `NB_Global:sb_cfg`: northd's progress.
    pub fn sb_cfg(&self) -> i64 {
        self.global.iter().next().map_or(0, |(_, row)| row.sb_cfg)
    }

    /// The number of all ports.
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// The number of changes that may affect a decision, outside our own rows: a foreign port, a switch's name or
    /// settings, a router port, a NAT rule or load balancer. A row is ours if it has the marks of this instance, in
    /// whatever table it is.
    pub fn foreign_changes(&self) -> u64 {
        self.index.foreign_changes + self.services.foreign_changes()
    }

    /// The changes since the last call of `take_changes`.
    pub fn changes(&self) -> &Changes {
        &self.index.changes
    }

    /// Takes the changes since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let mut shared = std::mem::take(&mut self.index.shared);
        let mut changes = std::mem::take(&mut self.index.changes);
        changes.rests = self.index.take_rests();
        if let Some(ServiceChanges { addresses, macs, .. }) = self.services.take_changes() {
            changes.wakes.insert(Wake::Services);
            if (addresses.len() + macs.len()).saturating_mul(self.index.on_switch.len()) > MOST_LOOKUPS {
                // Deciding all VMs costs less than finding the affected ones.
                changes.vms.extend(self.index.ours.keys().cloned());
            } else {
                shared.extend(addresses.into_iter().flat_map(|address| self.index.holders_anywhere(address)));
                shared.extend(macs.into_iter().flat_map(|mac| self.index.mac_holders_anywhere(mac)));
            }
        }
        // A router may answer for an address that a port holds, its networks may be the subnet, it advertises itself to
        // IPv6 guests or does not, and DHCP names its address.
        for switch in std::mem::take(&mut self.index.rerouted) {
            shared.extend(self.switches.get(&switch).into_iter().flat_map(|row| &row.ports));
        }
        shared.extend(self.users_of_drifted());
        let rows = shared.iter().filter_map(|port| Some((port, self.ports.get(port)?)));
        let owners = rows.filter_map(|(port, row)| row.owner(port, &self.index.instance));
        changes.vms.extend(owners.map(|owner| owner.vm));
        changes
    }

    /// The ports of ours that refer to rows of `DHCP_Options` which other programs have edited since the last call. It scans
    /// the ports: such an edit is rare.
    fn users_of_drifted(&mut self) -> Vec<Uuid> {
        let mut drifted = self.index.dhcp.take_drifted();
        let instance = &self.index.instance;
        drifted.retain(|row| self.dhcp.get(row).is_some_and(|content| !content.is_intact(row, instance)));
        if drifted.is_empty() {
            return Vec::new();
        }
        let refers = |row: &LogicalSwitchPort| row.dhcp_rows().any(|row| drifted.contains(&row));
        self.ports.iter().filter(|(_, row)| refers(row)).map(|(port, _)| *port).collect()
    }
}

impl Replica for Northbound {
    const DATABASE: &'static str = "OVN_Northbound";
    const TABLES: &'static [TableSpec] = {
        let [routers, nats, balancers, groups] = Services::TABLES;
        &[
            NbGlobal::TABLE,
            LogicalSwitch::TABLE,
            LogicalSwitchPort::TABLE,
            LogicalRouterPort::TABLE,
            routers,
            nats,
            balancers,
            groups,
        ]
    };

    const OPTIONAL_TABLES: &'static [TableSpec] = {
        let [forwarding, checks, bindings, dhcp] = Services::OPTIONAL;
        &[forwarding, checks, bindings, dhcp, Dns::TABLE]
    };

    /// OVN before 24.03 lacks it.
    const OPTIONAL_COLUMNS: &'static [OptionalColumn] = &[("DNS", "options")];

    fn leaves_out(&self, table: &str, column: &str) -> bool {
        !self.reads_names && Self::is_for_names(table, column)
    }

    fn note_schema(&mut self, schema: &Schema) {
        self.multichassis = Multichassis::of_northbound(schema);
        self.schema_version.clone_from(&schema.version);
        self.has_dns_options = schema.has(Dns::TABLE.name, "options");
    }

    fn begin_dump(&mut self) {
        self.global.begin_dump();
        self.switches.begin_dump();
        self.ports.begin_dump();
        self.router_ports.begin_dump();
        self.dhcp.begin_dump();
        self.services.begin_dump();
        self.dns.begin_dump();
    }

    fn end_dump(&mut self) {
        let Self { global, switches, ports, router_ports, dhcp, services, dns, index, .. } = self;
        dhcp.end_dump(&mut DhcpWatcher { index, services, was_ours: false });
        services.end_dump();
        dns.end_dump(&mut DnsWatcher(index));
        global.end_dump(&mut GlobalWatcher(index));
        router_ports.end_dump(&mut RouterPortWatcher { index, ports });
        ports.end_dump(&mut PortWatcher { index, router_ports });
        switches.end_dump(&mut SwitchWatcher { index, ports, router_ports, services, before: None });
    }

    fn end_update(&mut self) {
        self.index.end_update();
    }

    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, updates: A) -> Result<(), A::Error> {
        let Self { global, switches, ports, router_ports, dhcp, services, dns, index, .. } = self;
        match table {
            "DNS" => dns.apply(updates, &mut DnsWatcher(index)),
            "NB_Global" => global.apply(updates, &mut GlobalWatcher(index)),
            "Logical_Switch" => {
                switches.apply(updates, &mut SwitchWatcher { index, ports, router_ports, services, before: None })
            }
            "Logical_Switch_Port" => {
                ports.reserve(index.reserve_ports());
                ports.apply(updates, &mut PortWatcher { index, router_ports })
            }
            "Logical_Router_Port" => router_ports.apply(updates, &mut RouterPortWatcher { index, ports }),
            "DHCP_Options" => dhcp.apply(updates, &mut DhcpWatcher { index, services, was_ours: false }),
            _ => {
                if let Some(mut unread) = services.apply(table, updates)? {
                    while unread.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                }
                Ok(())
            }
        }
    }
}

/// Puts rows in place without a server, for the tests of the pure core.
#[cfg(test)]
impl Northbound {
    pub(crate) fn put_global(&mut self, row: NbGlobal) {
        let Self { global, index, .. } = self;
        global.put(Uuid::nil(), row, &mut GlobalWatcher(index));
    }

    pub(crate) fn put_switch(&mut self, uuid: Uuid, row: LogicalSwitch) {
        let Self { switches, ports, router_ports, services, index, .. } = self;
        switches.put(uuid, row, &mut SwitchWatcher { index, ports, router_ports, services, before: None });
    }

    pub(crate) fn put_port(&mut self, uuid: Uuid, row: LogicalSwitchPort) {
        let Self { ports, router_ports, index, .. } = self;
        ports.put(uuid, row, &mut PortWatcher { index, router_ports });
    }

    pub(crate) fn put_router_port(&mut self, uuid: Uuid, row: LogicalRouterPort) {
        let Self { ports, router_ports, index, .. } = self;
        router_ports.put(uuid, row, &mut RouterPortWatcher { index, ports });
    }

    /// Removes a port, or moves it to another switch.
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

    /// The same tables entered again, in another order, with the indexes expected for these.
    pub(crate) fn rebuilt(&self) -> Self {
        let mut other = Self::new(self.index.instance.clone());
        self.switches.iter().for_each(|(uuid, row)| other.put_switch(*uuid, row.clone()));
        self.ports.iter().for_each(|(uuid, row)| other.put_port(*uuid, row.clone()));
        self.router_ports.iter().for_each(|(uuid, row)| other.put_router_port(*uuid, row.clone()));
        other
    }

    /// Returns true if every address on every switch has the same holders in both.
    pub(crate) fn holds_the_same(&self, other: &Self) -> bool {
        let pools = |view: &Self| -> std::collections::BTreeMap<Uuid, Pool<Uuid>> {
            let used = view.index.on_switch.iter().filter(|(_, index)| index.pool != Pool::default());
            used.map(|(switch, index)| (*switch, index.pool.clone())).collect()
        };
        let same = self.index.ours == other.index.ours && self.index.our_macs == other.index.our_macs;
        let uses = |view: &Self| -> std::collections::BTreeMap<Uuid, ([u32; 4], usize)> {
            let of = |switch: &Uuid| view.switch_use(switch);
            view.switches.iter().map(|(switch, _)| (*switch, (of(switch).ports, of(switch).conflicts))).collect()
        };
        let counts = self.index.ports_in == other.index.ports_in && uses(self) == uses(other);
        pools(self) == pools(other) && same && counts
    }
}
