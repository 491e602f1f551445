//! Addresses that routers and switches answer for by themselves: those of translations (NAT) and load balancers. A port
//! that had one would fight with them.
//!
//! Which of them matter on a switch follows from what refers to them: the switch itself, or a router that it is
//! connected to. Only where one of an address is known at all, which is rare, is that worked out.

use std::net::{IpAddr, SocketAddr};

use serde::de::MapAccess;
use uuid::Uuid;

use super::rows::{LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalSwitch, Nat};
use crate::escaped::Escaped;
use crate::hash::{FastMap, FastSet};
use crate::ipam::{AddressSet, Holders};
use crate::ovsdb::{Row, Table, TableSpec, Watcher};

/// The tables, and what is found in them by address.
#[derive(Debug, Default)]
pub(super) struct Services {
    pub(super) routers: Table<LogicalRouter>,
    pub(super) nats: Table<Nat>,
    pub(super) balancers: Table<LoadBalancer>,
    pub(super) groups: Table<LoadBalancerGroup>,
    index: ServiceIndex,
}

#[derive(Debug, Default)]
struct ServiceIndex {
    rows: Holders<IpAddr, Uuid>,
    /// All their addresses, wherever they matter.
    addresses: AddressSets,
    router_of_port: FastMap<Uuid, Uuid>,
    changes: ServiceChanges,
    /// Raised by every change.
    version: u64,
}

#[derive(Debug, Default)]
struct AddressSets {
    ipv4: AddressSet,
    ipv6: AddressSet,
}

/// What has changed since it was last taken.
#[derive(Debug, Default)]
struct ServiceChanges {
    addresses: Vec<IpAddr>,
    /// Rows that somebody refers to, or does no more.
    rows: Vec<Uuid>,
    any: bool,
}

impl Services {
    pub(super) const TABLES: [TableSpec; 4] =
        [LogicalRouter::TABLE, Nat::TABLE, LoadBalancer::TABLE, LoadBalancerGroup::TABLE];

    /// Whether anybody answers for any address.
    pub(super) fn any(&self) -> bool {
        self.nats.len() + self.balancers.len() > 0
    }

    /// All their addresses of a family, wherever they matter.
    pub(super) fn addresses(&self, ipv4: bool) -> &AddressSet {
        if ipv4 { &self.index.addresses.ipv4 } else { &self.index.addresses.ipv6 }
    }

    /// Who answers for an address on a switch that is connected to the routers of these ports, as its owner would name
    /// it.
    pub(super) fn holder(&self, address: IpAddr, switch: &LogicalSwitch, router_ports: &[Uuid]) -> Option<String> {
        let rows = self.index.rows.get(address);
        if rows.is_empty() {
            return None;
        }
        let routers = router_ports.iter().filter_map(|port| self.routers.get(self.index.router_of_port.get(port)?));
        let routers: Vec<&LogicalRouter> = routers.collect();
        rows.iter().find_map(|row| {
            if let Some(router) = routers.iter().find(|router| router.nat.contains(row)) {
                return Some(format!("a NAT rule of the logical router {}", Escaped(&router.name)));
            }
            let name = &self.balancers.get(row)?.name;
            let on_router =
                |router: &&LogicalRouter| self.balances(&router.load_balancer, &router.load_balancer_group, row);
            let matters =
                self.balances(&switch.load_balancer, &switch.load_balancer_group, row) || routers.iter().any(on_router);
            matters.then(|| format!("the load balancer {}", Escaped(name)))
        })
    }

    fn balances(&self, direct: &FastSet<Uuid>, groups: &FastSet<Uuid>, row: &Uuid) -> bool {
        let in_group = |group: &Uuid| self.groups.get(group).is_some_and(|group| group.load_balancer.contains(row));
        direct.contains(row) || groups.iter().any(in_group)
    }

    /// How often something changed.
    pub(super) fn version(&self) -> u64 {
        self.index.version
    }

    /// A switch refers to these, or does no more.
    pub(super) fn referred(&mut self, balancers: &FastSet<Uuid>, groups: &FastSet<Uuid>) {
        if !balancers.is_empty() || !groups.is_empty() {
            self.index.refer(balancers.iter().chain(groups));
        }
    }

    /// The addresses of which it may have changed who answers for them, if anything has.
    pub(super) fn take_changes(&mut self) -> Option<Vec<IpAddr>> {
        let ServiceChanges { mut addresses, rows, any } = std::mem::take(&mut self.index.changes);
        for row in rows {
            let group = self.groups.get(&row).into_iter().flat_map(|group| group.load_balancer.iter().copied());
            for row in group.chain([row]) {
                addresses.extend(self.nats.get(&row).into_iter().flat_map(nat_address));
                addresses.extend(self.balancers.get(&row).into_iter().flat_map(balancer_addresses));
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        any.then_some(addresses)
    }

    pub(super) fn begin_dump(&mut self) {
        let Self { routers, nats, balancers, groups, index: _ } = self;
        routers.begin_dump();
        nats.begin_dump();
        balancers.begin_dump();
        groups.begin_dump();
    }

    pub(super) fn end_dump(&mut self) {
        let Self { routers, nats, balancers, groups, index } = self;
        routers.end_dump(index);
        nats.end_dump(index);
        balancers.end_dump(index);
        groups.end_dump(index);
    }

    /// Applies updates of one of [`Self::TABLES`]; gives them back where they are of another table.
    pub(super) fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, updates: A) -> Result<Option<A>, A::Error> {
        let Self { routers, nats, balancers, groups, index } = self;
        match table {
            "Logical_Router" => routers.apply(updates, index)?,
            "NAT" => nats.apply(updates, index)?,
            "Load_Balancer" => balancers.apply(updates, index)?,
            "Load_Balancer_Group" => groups.apply(updates, index)?,
            _ => return Ok(Some(updates)),
        }
        Ok(None)
    }
}

impl ServiceIndex {
    fn hold(&mut self, row: Uuid, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            self.rows.insert(address, row);
            self.family(address).insert(address);
            self.changes.addresses.push(address);
        }
        self.changes.any = true;
        self.version += 1;
    }

    fn release(&mut self, row: Uuid, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            if self.rows.remove(address, row) {
                self.family(address).remove(address);
            }
            self.changes.addresses.push(address);
        }
        self.changes.any = true;
        self.version += 1;
    }

    fn refer<'a>(&mut self, rows: impl Iterator<Item = &'a Uuid>) {
        self.changes.rows.extend(rows);
        self.changes.any = true;
        self.version += 1;
    }

    fn refer_of(&mut self, row: &LogicalRouter) {
        let LogicalRouter { name: _, ports: _, nat, load_balancer, load_balancer_group } = row;
        self.refer(nat.iter().chain(load_balancer).chain(load_balancer_group));
    }

    fn family(&mut self, address: IpAddr) -> &mut AddressSet {
        if address.is_ipv4() { &mut self.addresses.ipv4 } else { &mut self.addresses.ipv6 }
    }
}

/// One address, or none where it is written by a variable.
fn nat_address(row: &Nat) -> Option<IpAddr> {
    row.external_ip.parse().ok()
}

/// `address`, `address:port` or `[address]:port` each, once; those of templates are variables.
fn balancer_addresses(row: &LoadBalancer) -> FastSet<IpAddr> {
    let address =
        |(vip, _): (&str, &str)| vip.parse().ok().or_else(|| vip.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    row.vips.iter().filter_map(address).collect()
}

impl Watcher<Nat> for ServiceIndex {
    fn added(&mut self, uuid: Uuid, row: &Nat) {
        self.hold(uuid, nat_address(row).into_iter());
    }
    fn changing(&mut self, uuid: Uuid, row: &Nat, _: &Nat) {
        self.removed(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &Nat) {
        self.added(uuid, row);
    }
    fn removed(&mut self, uuid: Uuid, row: &Nat) {
        self.release(uuid, nat_address(row).into_iter());
    }
}

impl Watcher<LoadBalancer> for ServiceIndex {
    fn added(&mut self, uuid: Uuid, row: &LoadBalancer) {
        self.hold(uuid, balancer_addresses(row).into_iter());
    }
    fn changing(&mut self, uuid: Uuid, row: &LoadBalancer, _: &LoadBalancer) {
        self.removed(uuid, row);
    }
    fn changed(&mut self, uuid: Uuid, row: &LoadBalancer) {
        self.added(uuid, row);
    }
    fn removed(&mut self, uuid: Uuid, row: &LoadBalancer) {
        self.release(uuid, balancer_addresses(row).into_iter());
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
            // What it answered for all along matters on other switches now.
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
