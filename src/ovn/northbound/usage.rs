//! The use of each switch in numbers, read from the indexes: no port is looked at, however many there are.

use std::net::IpAddr;

use uuid::Uuid;

use super::Northbound;
use crate::ipam::AddressUse;
use crate::ovn::port_state::PortState;

/// The most addresses or MACs with several holders that are looked at on a switch.
const MOST_SHARED: usize = 1_000;

/// The use of a switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwitchUse {
    /// The ports of ours, by the number of their state ([`PortState::ALL`]).
    pub ports: [u32; PortState::ALL.len()],
    /// The IPv4 addresses; `None` if the switch has no IPv4 subnet, or none that can be read.
    pub ipv4: Option<AddressUse>,
    /// The IPv6 addresses.
    pub ipv6: Option<AddressUse>,
    /// Addresses and MACs that a port of ours and another port hold, but for further addresses that ports of ours share. At
    /// most 1,000 of each are counted.
    pub conflicts: usize,
}

impl Northbound {
    /// The switches: name, and number of ports of ours. Names are not unique.
    pub fn switch_sizes(&self) -> impl Iterator<Item = (Uuid, &str, u32)> {
        self.switches.iter().map(|(uuid, row)| {
            let ours = self.index.on_switch.get(uuid).map_or(0, |index| index.ours.iter().sum());
            (*uuid, row.name.as_str(), ours)
        })
    }

    /// Returns true if a port of ours has an address as a further one alone.
    pub fn has_vip(&self, port: &Uuid, ip: IpAddr) -> bool {
        let Some(row) = self.ports.get(port).filter(|row| row.is_of(port, &self.index.instance)) else { return false };
        let is_own = row.addresses.nics().chain(row.external_ids.reserved()).any(|own| own.ips().any(|own| own == ip));
        !is_own && row.port_security.vips().contains(&ip)
    }

    /// Counts the use of a switch.
    pub fn switch_use(&self, switch: &Uuid) -> SwitchUse {
        let Some(index) = self.index.on_switch.get(switch) else { return SwitchUse::default() };
        let subnet = self.subnet(switch).ok();
        let of_family = |ipv4| index.pool.usage(subnet.as_ref()?, ipv4, self.services.addresses(ipv4));
        let is_ours = |port: &Uuid| self.ports.get(port).is_some_and(|row| row.is_of(port, &self.index.instance));
        let with_ours = |holders: &[Uuid]| holders.iter().any(is_ours);
        let are_vips = |ip, holders: &[Uuid]| holders.iter().all(|port| self.has_vip(port, ip));
        let addresses = index.pool.shared().take(MOST_SHARED);
        let addresses = addresses.filter(|(ip, holders)| with_ours(holders) && !are_vips(*ip, holders)).count();
        let macs = index.macs.shared().take(MOST_SHARED).filter(|(_, holders)| with_ours(holders)).count();
        SwitchUse { ports: index.ours, ipv4: of_family(true), ipv6: of_family(false), conflicts: addresses + macs }
    }
}
