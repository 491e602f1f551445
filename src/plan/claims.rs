//! Addresses, MACs and names that a transaction claims and that the replica does not show yet.

use std::net::IpAddr;

use macaddr::MacAddr6;
use uuid::Uuid;

use super::change::{Placed, RowChange};
use super::lease::{reserved, written};
use crate::hash::{FastMap, FastSet};
use crate::intent::Request;
use crate::ipam::RangeSet;
use crate::ovn::Addresses;

/// An address or MAC, which only one port of a switch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Claim {
    Ip(IpAddr),
    Mac(MacAddr6),
}

impl Claim {
    /// Returns the claims of a port with these addresses.
    pub(super) fn all(addresses: Addresses) -> Vec<Self> {
        addresses.ips().map(Self::Ip).chain([Self::Mac(addresses.mac)]).collect()
    }

    /// Returns the claims that a request names.
    pub(super) fn requested(request: &Request) -> impl Iterator<Item = Self> {
        let ips = [request.ipv4.map(IpAddr::V4), request.ipv6.map(IpAddr::V6)];
        ips.into_iter().flatten().map(Self::Ip).chain(request.mac.map(Self::Mac))
    }
}

/// The claims of ports with rows in flight.
#[derive(Debug, Default, Clone)]
pub struct Claims {
    on: FastMap<Uuid, OnSwitch>,
    names: FastSet<String>,
    /// Router ports that get keys.
    router_ports: FastSet<Uuid>,
    /// The number of new ports by the namespace of their VM.
    new_ports: FastMap<String, usize>,
    /// The rows of `DHCP_Options` that are written.
    dhcp_rows: FastSet<Uuid>,
}

#[derive(Debug, Default, Clone)]
struct OnSwitch {
    ipv4: RangeSet,
    ipv6: RangeSet,
    macs: FastSet<MacAddr6>,
}

impl Claims {
    /// The claims of rows that are to be written.
    pub fn of<'c>(changes: impl IntoIterator<Item = &'c RowChange>) -> Self {
        let mut claims = Self::default();
        for change in changes {
            match change {
                RowChange::Port(change) => {
                    change.after.iter().for_each(|after| claims.add_port(after));
                    let new = change.after.as_ref().filter(|_| change.before.is_none());
                    new.and_then(|new| new.row.namespace()).into_iter().for_each(|it| claims.add_new_port(&it));
                }
                RowChange::RouterPort(change) => claims.add_router_port(change.uuid),
                RowChange::Dhcp(change) if change.after.is_some() => claims.add_dhcp_row(change.uuid),
                RowChange::Dhcp(_) => {}
            }
        }
        claims
    }

    fn add_port(&mut self, Placed { switch, row }: &Placed) {
        written(row).into_iter().chain(reserved(row)).for_each(|addresses| self.add(*switch, addresses));
        self.add_ips(*switch, row.port_security.vips());
        self.add_name(row.name.clone());
    }

    /// Adds the claims of another decision.
    pub fn extend(&mut self, other: Self) {
        let is_empty = self.on.is_empty() && self.names.is_empty();
        if is_empty && self.router_ports.is_empty() && self.dhcp_rows.is_empty() {
            *self = other;
            return;
        }
        for (switch, added) in other.on {
            let on = self.on.entry(switch).or_default();
            on.ipv4.insert_all(&added.ipv4);
            on.ipv6.insert_all(&added.ipv6);
            on.macs.extend(added.macs);
        }
        self.names.extend(other.names);
        self.router_ports.extend(other.router_ports);
        self.dhcp_rows.extend(other.dhcp_rows);
        for (namespace, count) in other.new_ports {
            *self.new_ports.entry(namespace).or_default() += count;
        }
    }

    pub(super) fn add(&mut self, switch: Uuid, addresses: Addresses) {
        self.add_ips(switch, addresses.ips());
        self.on.entry(switch).or_default().macs.insert(addresses.mac);
    }

    pub(super) fn add_ips(&mut self, switch: Uuid, ips: impl IntoIterator<Item = IpAddr>) {
        for ip in ips {
            let on = self.on.entry(switch).or_default();
            let family = if ip.is_ipv4() { &mut on.ipv4 } else { &mut on.ipv6 };
            family.insert(ip);
        }
    }

    pub(super) fn add_name(&mut self, name: String) {
        self.names.insert(name);
    }

    pub(super) fn add_router_port(&mut self, uuid: Uuid) {
        self.router_ports.insert(uuid);
    }

    /// Returns true if a router port gets keys.
    pub(super) fn has_router_port(&self, uuid: Uuid) -> bool {
        self.router_ports.contains(&uuid)
    }

    pub(super) fn add_dhcp_row(&mut self, row: Uuid) {
        self.dhcp_rows.insert(row);
    }

    pub(super) fn add_new_port(&mut self, namespace: &str) {
        *self.new_ports.entry(namespace.to_owned()).or_default() += 1;
    }

    /// The number of new ports of the VMs in a namespace.
    pub(super) fn new_ports_in(&self, namespace: &str) -> usize {
        self.new_ports.get(namespace).copied().unwrap_or_default()
    }

    /// The addresses of a family that are claimed on a switch.
    pub(super) fn addresses(&self, switch: Uuid, ipv4: bool) -> Option<&RangeSet> {
        self.on.get(&switch).map(|on| if ipv4 { &on.ipv4 } else { &on.ipv6 })
    }

    /// Returns true if an address or MAC is claimed on a switch.
    pub(super) fn has(&self, switch: Uuid, claim: Claim) -> bool {
        self.on.get(&switch).is_some_and(|on| match claim {
            Claim::Ip(ip @ IpAddr::V4(_)) => on.ipv4.contains(ip),
            Claim::Ip(ip @ IpAddr::V6(_)) => on.ipv6.contains(ip),
            Claim::Mac(mac) => on.macs.contains(&mac),
        })
    }

    /// Returns true if a MAC is claimed on any switch.
    pub(super) fn has_mac(&self, mac: MacAddr6) -> bool {
        self.on.values().any(|on| on.macs.contains(&mac))
    }

    /// Returns true if a row of `DHCP_Options` is written.
    pub(super) fn has_dhcp_row(&self, row: &Uuid) -> bool {
        self.dhcp_rows.contains(row)
    }

    /// Returns true if a port name is claimed.
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}
