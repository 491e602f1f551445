//! Router advertisements: what the router port of a switch lacks for the IPv6 guests there.
//!
//! A guest learns its router, and that it has to ask for its address by DHCPv6, from an advertisement. OVN sends them for
//! a router port with `ipv6_ra_configs:address_mode` (ovn-nb(5)). The mode is always `dhcpv6_stateful`: in the other two a
//! guest makes an address by itself, and port security drops what it sends from it.

use uuid::Uuid;

use super::change::{RouterPortChange, RowChange};
use super::problem::Problem;
use super::status::PortStatus;
use super::view::View;
use crate::contract::keys;
use crate::ovn::LogicalRouterPort;

/// The only mode in which guests have the addresses of their ports.
const STATEFUL: &str = "dhcpv6_stateful";
/// IPv6 links have at least the first (RFC 8200 section 5), and an IPv6 packet at most the second.
const MTUS: std::ops::RangeInclusive<u32> = 1_280..=65_535;

/// What is to be done for a port's guest to get advertisements.
#[derive(Default)]
pub(super) struct Advertising {
    /// Keys to add to a router port.
    pub(super) change: Option<RowChange>,
    /// The setting that stays wrong.
    pub(super) problem: Option<Problem>,
}

impl View<'_> {
    /// Decides on the advertisements for a port. With `--manage-ra` the keys that its router port lacks are added; a key
    /// that is there stays, whichever program wrote it. Without, or where several routers could be meant, its owner is told.
    pub(super) fn advertise(&self, status: &PortStatus) -> Advertising {
        self.router_of(status).map(|(switch, routers)| self.advertise_by(switch, &routers)).unwrap_or_default()
    }

    /// The switch of a port with an IPv6 address, and the router ports there with that network, by name.
    fn router_of(&self, status: &PortStatus) -> Option<(Uuid, Vec<(Uuid, &LogicalRouterPort)>)> {
        let address = status.addresses?.ipv6?;
        let mut switches = self.northbound().switches_named(status.switch.as_deref()?);
        let switch = switches.next().filter(|_| switches.next().is_none())?;
        let mut routers = self.northbound().router_ports_to(&switch, address.into());
        routers.sort_unstable_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        Some((switch, routers))
    }

    fn advertise_by(&self, switch: Uuid, routers: &[(Uuid, &LogicalRouterPort)]) -> Advertising {
        let mode = |row: &LogicalRouterPort| row.ipv6_ra_configs.get(keys::ADDRESS_MODE).map(str::to_owned);
        let by_choice = routers.iter().find(|(_, row)| mode(row).is_some());
        let Some((uuid, row)) = by_choice.or(routers.first()) else { return Advertising::default() };
        let managed = self.snapshot.settings.manage_ra && (by_choice.is_some() || routers.len() == 1);
        let written = mode(row);
        let is_right = written.as_deref() == Some(STATEFUL) || managed && written.is_none();
        let problem = (!is_right).then(|| Problem::NotAdvertised {
            switch: self.switch_name(switch).unwrap_or_default(),
            router_port: row.name.clone(),
            mode: written,
        });
        let change = managed.then(|| self.lacking(switch, *uuid, row)).flatten();
        Advertising { change, problem }
    }

    /// The keys that a router port lacks.
    fn lacking(&self, switch: Uuid, uuid: Uuid, row: &LogicalRouterPort) -> Option<RowChange> {
        let config = &self.northbound().switch(&switch)?.other_config;
        let mtu = config.get(keys::MTU).and_then(|mtu| mtu.trim().parse().ok()).filter(|mtu| MTUS.contains(mtu));
        let keys = [
            (keys::ADDRESS_MODE, Some(STATEFUL.to_owned())),
            (keys::SEND_PERIODIC, Some("true".to_owned())),
            (keys::MTU, mtu.map(|mtu| mtu.to_string())),
        ];
        let lacks = |key: &str| row.ipv6_ra_configs.get(key).is_none();
        let add: Vec<_> =
            keys.into_iter().filter_map(|(key, value)| Some((key, value?))).filter(|it| lacks(it.0)).collect();
        // Another VM of the transaction, or of the one in flight, adds them.
        let is_claimed = self.batch.has_router_port(uuid) || self.own.has_router_port(uuid);
        let change = RouterPortChange { uuid, name: row.name.clone(), add };
        (!change.add.is_empty() && !is_claimed).then_some(RowChange::RouterPort(change))
    }
}
