//! The rows that make OVN answer for an address, or send from one, without a port: a port with that address would
//! conflict with OVN. Per table, the addresses and MACs in question.
//!
//! `docs/decisions/0011` goes through the columns of ovn-nb(5), including the unread ones.

use std::net::{IpAddr, SocketAddr};

use macaddr::MacAddr6;

use super::addresses::{single_ip, single_mac};
use super::rows::{DhcpOptions, ForwardingGroup, LoadBalancer, Nat, PortHealthCheck, StaticMacBinding};
use crate::contract::keys::is_of_dhcp_server;
use crate::ovsdb::{Map, Row};

/// A row with addresses and MACs of its own.
pub(super) trait Answering: Row {
    /// The addresses, in no order.
    fn addresses(&self) -> Vec<IpAddr>;
    /// The MACs, in no order.
    fn macs(&self) -> Vec<MacAddr6> {
        Vec::new()
    }
}

/// A translation answers for its external address; a distributed one does so with a MAC of its own.
impl Answering for Nat {
    fn addresses(&self) -> Vec<IpAddr> {
        // A variable is not an address.
        single_ip(&self.external_ip).into_iter().collect()
    }
    fn macs(&self) -> Vec<MacAddr6> {
        self.external_mac.as_deref().and_then(single_mac).into_iter().collect()
    }
}

/// A load balancer answers for its virtual addresses, and for the source addresses of its health checks.
impl Answering for LoadBalancer {
    fn addresses(&self) -> Vec<IpAddr> {
        virtual_addresses(self).chain(check_sources(self).map(|(_, source)| source)).collect()
    }
}

/// `address`, `address:port` or `[address]:port` each; those of templates are variables and are skipped.
pub(super) fn virtual_addresses(row: &LoadBalancer) -> impl Iterator<Item = IpAddr> {
    row.vips.iter().filter_map(|(vip, _)| endpoint(vip))
}

/// The endpoint that is checked, and the source address of the check: `ip_port_mappings` has `endpoint=port:source`,
/// where an IPv6 address stands in brackets and the name of a zone may follow (26.03).
pub(super) fn check_sources(row: &LoadBalancer) -> impl Iterator<Item = (Option<IpAddr>, IpAddr)> {
    let source = |value: &str| {
        let (_, source) = value.split_once(':')?;
        match source.strip_prefix('[') {
            Some(bracketed) => single_ip(bracketed.split(']').next()?),
            None => single_ip(source).or_else(|| single_ip(source.split(':').next()?)),
        }
    };
    row.ip_port_mappings.iter().filter_map(move |(key, value)| Some((endpoint(key), source(value)?)))
}

fn endpoint(text: &str) -> Option<IpAddr> {
    if let Some(bracketed) = text.strip_prefix('[') {
        return single_ip(bracketed.split(']').next()?);
    }
    let of_socket = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    single_ip(text).or_else(of_socket).or_else(|| single_ip(text.split(':').next()?).filter(IpAddr::is_ipv4))
}

/// The switch answers ARP requests for the group's address with the group's MAC.
impl Answering for ForwardingGroup {
    fn addresses(&self) -> Vec<IpAddr> {
        single_ip(&self.vip).into_iter().collect()
    }
    fn macs(&self) -> Vec<MacAddr6> {
        single_mac(&self.vmac).into_iter().collect()
    }
}

/// A port's health checks come from an address that the port answers to.
impl Answering for PortHealthCheck {
    fn addresses(&self) -> Vec<IpAddr> {
        single_ip(&self.src_ip).into_iter().collect()
    }
}

/// A router sends packets for the address to that MAC, regardless of the address' holder.
impl Answering for StaticMacBinding {
    fn addresses(&self) -> Vec<IpAddr> {
        single_ip(&self.ip).into_iter().collect()
    }
    fn macs(&self) -> Vec<MacAddr6> {
        single_mac(&self.mac).into_iter().collect()
    }
}

/// Guests renew their lease at one address and send all other traffic to another.
impl Answering for DhcpOptions {
    fn addresses(&self) -> Vec<IpAddr> {
        of_server(self).filter_map(single_ip).collect()
    }
    fn macs(&self) -> Vec<MacAddr6> {
        of_server(self).filter_map(single_mac).collect()
    }
}

fn of_server(row: &DhcpOptions) -> impl Iterator<Item = &str> {
    row.options.iter().filter(|(key, _)| is_of_dhcp_server(key)).map(|(_, value)| value)
}

/// The source addresses of a switch's multicast querier (ovn-nb(5) Logical_Switch `other_config:mcast_ip4_src`).
pub(super) fn querier_addresses(other_config: &Map) -> Vec<IpAddr> {
    let values = ["mcast_ip4_src", "mcast_ip6_src"].into_iter().filter_map(|key| other_config.get(key));
    values.filter_map(single_ip).filter(|ip| !ip.is_unspecified()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_addresses_and_sources_of_health_checks_are_found_in_every_spelling() {
        let vips = ["10.0.0.1", "10.0.0.2:80", "10.0.0.03:80", "[fd00::1]:80", "fd00::2", "^backend:80"];
        let mappings = [
            ("10.9.0.1", "a.n:10.0.0.4"),
            ("10.9.0.2", "b:10.0.0.5:zone"),
            ("[fd00::9]", "c:[fd00::3]"),
            ("fd00::a", "d:fd00::4"),
            ("10.9.0.3", "e"),
            ("10.9.0.4", "f:x"),
        ];
        let row = LoadBalancer {
            name: "lb".into(),
            vips: vips.iter().map(|vip| (*vip, "10.9.9.9:80")).collect(),
            ip_port_mappings: mappings.into_iter().collect(),
        };
        let texts = |ips: &mut dyn Iterator<Item = IpAddr>| {
            let mut texts: Vec<String> = ips.map(|ip| ip.to_string()).collect();
            texts.sort();
            texts
        };
        assert_eq!(texts(&mut virtual_addresses(&row)), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"]);
        let sources = check_sources(&row).map(|(endpoint, source)| (endpoint.expect("an endpoint"), source));
        let mut sources: Vec<String> = sources.map(|(endpoint, source)| format!("{endpoint} {source}")).collect();
        sources.sort();
        assert_eq!(sources, ["10.9.0.1 10.0.0.4", "10.9.0.2 10.0.0.5", "fd00::9 fd00::3", "fd00::a fd00::4"]);
        assert_eq!(row.addresses().len(), 9);
    }
}
