//! Addresses that routers and switches answer for by themselves, or send from: those of translations (NAT), load
//! balancers and their health checks, forwarding groups, multicast queriers. A port with one of them would conflict
//! with OVN.
//!
//! The rows that refer to a service determine the switches on which it matters: the switch itself, or a router that it
//! is connected to. A health check matters at its endpoint, on the switch whose subnet has both addresses. This is
//! computed only if a service has the address at all, which is rare. An address in a static MAC binding or in DHCP
//! options is excluded from allocation, but not refused to a request: it may be meant for that very VM.

use std::net::IpAddr;

use macaddr::MacAddr6;
use serde::de::MapAccess;
use uuid::Uuid;

use super::addresses::single_ip;
use super::answering::{Answering, check_sources, querier_addresses, virtual_addresses};
use super::rows::{
    DhcpOptions, ForwardingGroup, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalSwitch, Nat, PortHealthCheck,
    StaticMacBinding,
};
use crate::escaped::Escaped;
use crate::hash::{FastMap, FastSet};
use crate::ipam::{AddressSet, Holders, Subnet};
use crate::ovsdb::{Map, Row, Table, TableSpec, Watcher};

/// The tables, and their index by address.
#[derive(Debug, Default)]
pub(super) struct Services {
    pub(super) routers: Table<LogicalRouter>,
    pub(super) nats: Table<Nat>,
    pub(super) balancers: Table<LoadBalancer>,
    pub(super) groups: Table<LoadBalancerGroup>,
    forwarding: Table<ForwardingGroup>,
    checks: Table<PortHealthCheck>,
    bindings: Table<StaticMacBinding>,
    index: ServiceIndex,
}

#[derive(Debug, Default)]
struct ServiceIndex {
    rows: Holders<IpAddr, Uuid>,
    macs: Holders<MacAddr6, Uuid>,
    /// All their addresses, on all switches.
    addresses: AddressSets,
    router_of_port: FastMap<Uuid, Uuid>,
    changes: ServiceChanges,
    /// Raised by every change of a row.
    foreign_changes: u64,
}

#[derive(Debug, Default)]
struct AddressSets {
    ipv4: AddressSet,
    ipv6: AddressSet,
}

/// The changes since they were last taken: the addresses and MACs that may have another service now.
#[derive(Debug, Default)]
pub(super) struct ServiceChanges {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) macs: Vec<MacAddr6>,
    /// Rows to which a reference was added or removed.
    rows: Vec<Uuid>,
    any: bool,
}

/// The switch of a look-up.
pub(super) struct Place<'a> {
    pub(super) uuid: Uuid,
    pub(super) switch: &'a LogicalSwitch,
    /// The router ports that its ports of type `router` lead to.
    pub(super) router_ports: Vec<Uuid>,
    pub(super) subnet: Option<Subnet>,
}

impl Services {
    pub(super) const TABLES: [TableSpec; 4] =
        [LogicalRouter::TABLE, Nat::TABLE, LoadBalancer::TABLE, LoadBalancerGroup::TABLE];

    pub(super) const OPTIONAL: [TableSpec; 4] =
        [ForwardingGroup::TABLE, PortHealthCheck::TABLE, StaticMacBinding::TABLE, DhcpOptions::TABLE];

    /// All their addresses of a family, on all switches.
    pub(super) fn addresses(&self, ipv4: bool) -> &AddressSet {
        if ipv4 { &self.index.addresses.ipv4 } else { &self.index.addresses.ipv6 }
    }

    /// Returns true if one of them has the MAC, on any switch.
    pub(super) fn has_mac(&self, mac: MacAddr6) -> bool {
        !self.index.macs.get(mac).is_empty()
    }

    /// The service that answers for an address at a place, in its owner's terms.
    pub(super) fn holder(&self, address: IpAddr, place: &Place<'_>) -> Option<String> {
        let routers = self.routers_at(place);
        let of_row = |row: &Uuid| {
            if *row == place.uuid {
                return Some(format!("the multicast querier of the logical switch {}", Escaped(&place.switch.name)));
            }
            if let Some(router) = routers.iter().find(|router| router.nat.contains(row)) {
                return Some(format!("a NAT rule of the logical router {}", Escaped(&router.name)));
            }
            let named = self.forwarding_group(row, place);
            named.or_else(|| self.balancer(row, address, place, &routers)).or_else(|| self.check(row, address, place))
        };
        self.index.rows.get(address).iter().find_map(of_row)
    }

    /// The service that answers with a MAC at a place, in its owner's terms. The MAC of a distributed translation may
    /// belong to the very VM behind it.
    pub(super) fn mac_holder(&self, mac: MacAddr6, place: &Place<'_>) -> Option<String> {
        self.index.macs.get(mac).iter().find_map(|row| self.forwarding_group(row, place))
    }

    fn routers_at(&self, place: &Place<'_>) -> Vec<&LogicalRouter> {
        let of_port = |port| self.routers.get(self.index.router_of_port.get(port)?);
        place.router_ports.iter().filter_map(of_port).collect()
    }

    fn forwarding_group(&self, row: &Uuid, place: &Place<'_>) -> Option<String> {
        let group = self.forwarding.get(row).filter(|_| place.switch.forwarding_groups.contains(row))?;
        Some(format!("the forwarding group {}", Escaped(&group.name)))
    }

    fn balancer(&self, uuid: &Uuid, address: IpAddr, place: &Place<'_>, routers: &[&LogicalRouter]) -> Option<String> {
        let row = self.balancers.get(uuid)?;
        let on_router =
            |router: &&LogicalRouter| self.balances(&router.load_balancer, &router.load_balancer_group, uuid);
        let attached = self.balances(&place.switch.load_balancer, &place.switch.load_balancer_group, uuid)
            || routers.iter().any(on_router);
        if attached && virtual_addresses(row).any(|vip| vip == address) {
            return Some(format!("the load balancer {}", Escaped(&row.name)));
        }
        let checks_here = |(endpoint, source): (Option<IpAddr>, IpAddr)| {
            let within = || endpoint.is_some_and(|endpoint| place.has(endpoint) && place.has(source));
            source == address && (attached || within())
        };
        check_sources(row)
            .any(checks_here)
            .then(|| format!("the health checks of the load balancer {}", Escaped(&row.name)))
    }

    fn check(&self, row: &Uuid, source: IpAddr, place: &Place<'_>) -> Option<String> {
        let PortHealthCheck { address, src_ip } = self.checks.get(row)?;
        let endpoint = single_ip(address)?;
        let here = single_ip(src_ip) == Some(source) && place.has(endpoint) && place.has(source);
        here.then(|| format!("the health checks of the port with {}", Escaped(address)))
    }

    fn balances(&self, direct: &FastSet<Uuid>, groups: &FastSet<Uuid>, row: &Uuid) -> bool {
        let in_group = |group: &Uuid| self.groups.get(group).is_some_and(|group| group.load_balancer.contains(row));
        direct.contains(row) || groups.iter().any(in_group)
    }

    /// A row of `DHCP_Options` that is not ours is added.
    pub(super) fn enter_dhcp(&mut self, uuid: Uuid, row: &DhcpOptions) {
        self.index.enter(uuid, row);
    }

    /// A row of `DHCP_Options` that is not ours is removed.
    pub(super) fn take_out_dhcp(&mut self, uuid: Uuid, row: &DhcpOptions) {
        self.index.take_out(uuid, row);
    }

    /// The number of changes of rows that are not ours.
    pub(super) fn foreign_changes(&self) -> u64 {
        self.index.foreign_changes
    }

    /// Notes that a switch has added or removed references to these.
    pub(super) fn referred(&mut self, row: &LogicalSwitch) {
        let groups = row.load_balancer_group.iter().chain(&row.forwarding_groups);
        let mut rows = row.load_balancer.iter().chain(groups).peekable();
        if rows.peek().is_some() {
            self.index.refer(rows);
        }
    }

    /// Notes that a switch's querier sends from other addresses than before.
    pub(super) fn querier(&mut self, switch: Uuid, before: &Map, after: &Map) {
        let (before, after) = (querier_addresses(before), querier_addresses(after));
        if before != after {
            self.index.release(switch, before, Vec::new());
            self.index.hold(switch, after, Vec::new());
            self.index.foreign_changes += 1;
        }
    }

    /// Takes the addresses and MACs that may have another service now, if anything has changed.
    pub(super) fn take_changes(&mut self) -> Option<ServiceChanges> {
        let mut changes = std::mem::take(&mut self.index.changes);
        for row in std::mem::take(&mut changes.rows) {
            let group = self.groups.get(&row).into_iter().flat_map(|group| group.load_balancer.iter().copied());
            for row in group.chain([row]) {
                changes.note(self.nats.get(&row));
                changes.note(self.balancers.get(&row));
                changes.note(self.forwarding.get(&row));
            }
        }
        changes.addresses.sort_unstable();
        changes.addresses.dedup();
        changes.macs.sort_unstable();
        changes.macs.dedup();
        changes.any.then_some(changes)
    }

    pub(super) fn begin_dump(&mut self) {
        let Self { routers, nats, balancers, groups, forwarding, checks, bindings, index: _ } = self;
        routers.begin_dump();
        nats.begin_dump();
        balancers.begin_dump();
        groups.begin_dump();
        forwarding.begin_dump();
        checks.begin_dump();
        bindings.begin_dump();
    }

    pub(super) fn end_dump(&mut self) {
        let Self { routers, nats, balancers, groups, forwarding, checks, bindings, index } = self;
        routers.end_dump(index);
        nats.end_dump(index);
        balancers.end_dump(index);
        groups.end_dump(index);
        forwarding.end_dump(index);
        checks.end_dump(index);
        bindings.end_dump(index);
    }

    /// Applies updates of one of [`Self::TABLES`] or [`Self::OPTIONAL`]; returns them if they are of another table.
    pub(super) fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, updates: A) -> Result<Option<A>, A::Error> {
        let Self { routers, nats, balancers, groups, forwarding, checks, bindings, index } = self;
        match table {
            "Logical_Router" => routers.apply(updates, index)?,
            "NAT" => nats.apply(updates, index)?,
            "Load_Balancer" => balancers.apply(updates, index)?,
            "Load_Balancer_Group" => groups.apply(updates, index)?,
            "Forwarding_Group" => forwarding.apply(updates, index)?,
            "Logical_Switch_Port_Health_Check" => checks.apply(updates, index)?,
            "Static_MAC_Binding" => bindings.apply(updates, index)?,
            _ => return Ok(Some(updates)),
        }
        Ok(None)
    }
}

impl Place<'_> {
    /// Returns true if the address is in the switch's subnet.
    fn has(&self, address: IpAddr) -> bool {
        self.subnet.as_ref().is_some_and(|subnet| subnet.block_of(address).is_some())
    }
}

impl ServiceChanges {
    fn note<R: Answering>(&mut self, row: Option<&R>) {
        self.addresses.extend(row.into_iter().flat_map(Answering::addresses));
        self.macs.extend(row.into_iter().flat_map(Answering::macs));
    }
}

impl ServiceIndex {
    fn hold(&mut self, row: Uuid, mut addresses: Vec<IpAddr>, macs: Vec<MacAddr6>) {
        addresses.sort_unstable();
        addresses.dedup();
        for address in &addresses {
            self.rows.insert(*address, row);
            self.family(*address).insert(*address);
        }
        macs.iter().for_each(|mac| self.macs.insert(*mac, row));
        self.changed(addresses, macs);
    }

    fn release(&mut self, row: Uuid, mut addresses: Vec<IpAddr>, macs: Vec<MacAddr6>) {
        addresses.sort_unstable();
        addresses.dedup();
        for address in &addresses {
            if self.rows.remove(*address, row) {
                self.family(*address).remove(*address);
            }
        }
        for mac in &macs {
            self.macs.remove(*mac, row);
        }
        self.changed(addresses, macs);
    }

    fn changed(&mut self, addresses: Vec<IpAddr>, macs: Vec<MacAddr6>) {
        if addresses.is_empty() && macs.is_empty() {
            return;
        }
        self.changes.addresses.extend(addresses);
        self.changes.macs.extend(macs);
        self.changes.any = true;
    }

    /// Counts a change of a row, unless the row answers for nothing.
    fn note_foreign(&mut self, addresses: &[IpAddr], macs: &[MacAddr6]) {
        if !(addresses.is_empty() && macs.is_empty()) {
            self.foreign_changes += 1;
        }
    }

    fn enter<R: Answering>(&mut self, uuid: Uuid, row: &R) {
        let (addresses, macs) = (row.addresses(), row.macs());
        self.note_foreign(&addresses, &macs);
        self.hold(uuid, addresses, macs);
    }

    fn take_out<R: Answering>(&mut self, uuid: Uuid, row: &R) {
        let (addresses, macs) = (row.addresses(), row.macs());
        self.note_foreign(&addresses, &macs);
        self.release(uuid, addresses, macs);
    }

    fn refer<'a>(&mut self, rows: impl Iterator<Item = &'a Uuid>) {
        self.changes.rows.extend(rows);
        self.changes.any = true;
        self.foreign_changes += 1;
    }

    fn refer_of(&mut self, row: &LogicalRouter) {
        let LogicalRouter { name: _, ports: _, nat, load_balancer, load_balancer_group } = row;
        self.refer(nat.iter().chain(load_balancer).chain(load_balancer_group));
    }

    fn family(&mut self, address: IpAddr) -> &mut AddressSet {
        if address.is_ipv4() { &mut self.addresses.ipv4 } else { &mut self.addresses.ipv6 }
    }
}

impl<R: Answering> Watcher<R> for ServiceIndex {
    fn added(&mut self, uuid: Uuid, row: &R) {
        self.enter(uuid, row);
    }
    fn changing(&mut self, uuid: Uuid, row: &R, _: &R) {
        self.take_out(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &R) {
        self.enter(uuid, row);
    }
    fn removed(&mut self, uuid: Uuid, row: &R) {
        self.take_out(uuid, row);
    }
}

impl Watcher<LoadBalancerGroup> for ServiceIndex {
    fn added(&mut self, _: Uuid, row: &LoadBalancerGroup) {
        self.refer(row.load_balancer.iter());
    }
    fn changing(&mut self, _: Uuid, _: &LoadBalancerGroup, difference: &LoadBalancerGroup) {
        self.refer(difference.load_balancer.iter());
    }
    fn changed(&mut self, _: Uuid, _: &LoadBalancerGroup) {}
    fn removed(&mut self, _: Uuid, row: &LoadBalancerGroup) {
        self.refer(row.load_balancer.iter());
    }
}

impl Watcher<LogicalRouter> for ServiceIndex {
    fn added(&mut self, uuid: Uuid, row: &LogicalRouter) {
        self.router_of_port.extend(row.ports.iter().map(|port| (*port, uuid)));
        self.refer_of(row);
    }
    fn changing(&mut self, uuid: Uuid, row: &LogicalRouter, difference: &LogicalRouter) {
        for port in &difference.ports {
            if !row.ports.contains(port) {
                self.router_of_port.insert(*port, uuid);
            } else if self.router_of_port.get(port) == Some(&uuid) {
                // Another router may have taken it in the same update.
                self.router_of_port.remove(port);
            }
        }
        self.refer_of(difference);
        if !difference.ports.is_empty() {
            // The services of the router matter on other switches now.
            self.refer_of(row);
        }
    }
    fn changed(&mut self, _: Uuid, _: &LogicalRouter) {}
    fn removed(&mut self, uuid: Uuid, row: &LogicalRouter) {
        for port in &row.ports {
            if self.router_of_port.get(port) == Some(&uuid) {
                self.router_of_port.remove(port);
            }
        }
        self.refer_of(row);
    }
}
