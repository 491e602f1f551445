//! The routers on a switch.

use std::net::IpAddr;

use ipnet::IpNet;
use uuid::Uuid;

use super::{Gateway, Northbound};
use crate::contract::keys;
use crate::ovn::addresses::single_mac;
use crate::ovn::rows::LogicalRouterPort;

impl Northbound {
    /// A router port.
    pub fn router_port(&self, uuid: &Uuid) -> Option<&LogicalRouterPort> {
        self.router_ports.get(uuid)
    }

    /// The addresses of the routers on a switch (ovn-nb(5) Logical_Router_Port `networks`).
    pub fn gateways(&self, switch: &Uuid) -> Vec<Gateway> {
        let of_port = |(_, port): (Uuid, &LogicalRouterPort)| {
            let mac = single_mac(&port.mac);
            let addresses = port.networks.iter().filter_map(|text| text.parse().ok());
            addresses.map(|address| Gateway { address, mac }).collect::<Vec<_>>()
        };
        self.router_ports_on(switch).flat_map(of_port).collect()
    }

    /// The router that the holder of an address of a switch sends through.
    pub fn gateway_of(&self, switch: &Uuid, holder: IpAddr) -> Option<Gateway> {
        let is_router = |it: &Gateway| it.address.contains(&holder) && it.address.addr() != holder;
        self.gateways(switch).into_iter().find(is_router)
    }

    /// The router ports on a switch with an address in the network of this one.
    pub fn router_ports_to(&self, switch: &Uuid, address: IpAddr) -> Vec<(Uuid, &LogicalRouterPort)> {
        let has = |row: &LogicalRouterPort| {
            row.networks.iter().any(|text| text.parse::<IpNet>().is_ok_and(|net| net.contains(&address)))
        };
        self.router_ports_on(switch).filter(|(_, row)| has(row)).collect()
    }

    pub(super) fn router_networks<'a>(&'a self, switch: &Uuid) -> impl Iterator<Item = &'a str> + use<'a> {
        self.router_ports_on(switch).flat_map(|(_, row)| row.networks.iter())
    }

    fn router_ports_on<'a>(&'a self, switch: &Uuid) -> impl Iterator<Item = (Uuid, &'a LogicalRouterPort)> + use<'a> {
        let routers = self.index.on_switch.get(switch).map(|index| &index.routers);
        routers.into_iter().flatten().filter_map(|port| {
            let peer = self.ports.get(port)?.options.get(keys::ROUTER_PORT)?;
            let uuid = *self.index.router_ports_by_name.get(peer)?;
            Some((uuid, self.router_ports.get(&uuid)?))
        })
    }
}
