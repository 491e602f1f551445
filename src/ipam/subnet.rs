//! What a logical switch says of its addresses.
//!
//! From `other_config` (`subnet`, `exclude_ips`, `ipv6_prefix`, ovn-nb(5) Logical_Switch), as OVN's
//! own IPAM reads them; where neither `subnet` nor `ipv6_prefix` is set, from the `networks` of the
//! router ports that the switch is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::addresses::AddressSet;
use super::ranges::{RangeSet, number};

/// One address block of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    net: IpNet,
    first: u128,
    last: u128,
    excluded: RangeSet,
}

impl Block {
    fn new(net: IpNet) -> Self {
        let (network, end) = (number(net.network()), number(net.broadcast()));
        let (first, last) = match net {
            // Point-to-point links have neither network nor broadcast address (RFC 3021).
            IpNet::V4(net) if net.prefix_len() >= 31 => (network, end),
            IpNet::V4(_) => (network + 1, end - 1),
            IpNet::V6(net) if net.prefix_len() >= 127 => (network, end),
            // The first is the subnet-router anycast address (RFC 4291 section 2.6.1).
            IpNet::V6(_) => (network + 1, end),
        };
        Self { net, first, last, excluded: RangeSet::default() }
    }

    /// The block as a network.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// Whether the address is one that a port may hold, excluded ones included.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.net.contains(&address) && (self.first..=self.last).contains(&number(address))
    }

    /// The lowest address that is neither excluded nor held nor reserved.
    pub(super) fn lowest_free(&self, held: &AddressSet, reserved: &RangeSet) -> Option<IpAddr> {
        let mut at = self.first;
        loop {
            if at > self.last {
                return None;
            }
            let taken = [self.excluded.end_of(at), held.end_of(at), reserved.end_of(at)];
            match taken.into_iter().flatten().max() {
                None => return Some(self.address(at)),
                Some(end) => at = end.checked_add(1)?,
            }
        }
    }

    fn address(&self, at: u128) -> IpAddr {
        match self.net {
            // `at` lies between the ends of an IPv4 network.
            IpNet::V4(_) => Ipv4Addr::from(u32::try_from(at).unwrap_or(u32::MAX)).into(),
            IpNet::V6(_) => Ipv6Addr::from(at).into(),
        }
    }
}

/// All blocks of a switch; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    blocks: Vec<Block>,
}

/// Why a switch's addresses are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Neither the switch nor a router says.
    #[error(
        "it has no subnet: set other_config:subnet or ipv6_prefix on it, or connect it to a router port with networks"
    )]
    Missing,
    /// `subnet`
    #[error("its other_config:subnet \"{0}\" is no IPv4 network: write address/length, as in 10.16.0.0/16")]
    BadSubnet(String),
    /// `ipv6_prefix`
    #[error("its other_config:ipv6_prefix \"{0}\" is no IPv6 prefix: write it as in fd00:10:16:: or fd00:10:16::/64")]
    BadPrefix(String),
    /// `exclude_ips`
    #[error("\"{0}\" in its other_config:exclude_ips is neither an address nor a range first..last")]
    BadExclude(String),
}

impl Subnet {
    /// Reads a switch's `other_config` and the networks of its router ports (`address/length`).
    pub fn new<'a>(
        subnet: Option<&str>,
        exclude_ips: Option<&str>,
        ipv6_prefix: Option<&str>,
        router_networks: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, SubnetError> {
        let mut blocks = Vec::new();
        if let Some(text) = subnet {
            let net: Ipv4Net = text.trim().parse().map_err(|_| SubnetError::BadSubnet(text.to_owned()))?;
            blocks.push(Block::new(IpNet::V4(net.trunc())));
        }
        if let Some(text) = ipv6_prefix {
            blocks.push(Block::new(prefix(text).ok_or_else(|| SubnetError::BadPrefix(text.to_owned()))?));
        }
        if blocks.is_empty() {
            let networks = router_networks.into_iter().filter_map(|network| network.trim().parse::<IpNet>().ok());
            for net in networks.filter(|net| !is_link_local(net)) {
                let block = Block::new(net.trunc());
                if !blocks.contains(&block) {
                    blocks.push(block);
                }
            }
        }
        if blocks.is_empty() {
            return Err(SubnetError::Missing);
        }
        for text in exclude_ips.unwrap_or_default().split([' ', ',']).filter(|text| !text.is_empty()) {
            let (first, last) = range(text).ok_or_else(|| SubnetError::BadExclude(text.to_owned()))?;
            let of_family = |block: &&mut Block| block.net.addr().is_ipv4() == first.is_ipv4();
            for block in blocks.iter_mut().filter(of_family) {
                block.excluded.insert_range(number(first), number(last));
            }
        }
        Ok(Self { blocks })
    }

    /// The blocks of one family, in the order of preference.
    pub fn blocks(&self, ipv4: bool) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.net.addr().is_ipv4() == ipv4)
    }

    /// The block that an address may be taken from.
    pub fn block_of(&self, address: IpAddr) -> Option<&Block> {
        self.blocks.iter().find(|block| block.holds(address))
    }
}

/// The blocks as a person writes them: `10.16.0.0/16, fd00::/64`.
impl std::fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, block) in self.blocks.iter().enumerate() {
            write!(formatter, "{}{}", if index > 0 { ", " } else { "" }, block.net)?;
        }
        Ok(())
    }
}

/// `ipv6_prefix` is an address that ends in `::`, of which northd uses the first 64 bits; a length
/// is taken too, since people write one.
fn prefix(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let net: Ipv6Net = match text.parse::<Ipv6Addr>() {
        Ok(address) => Ipv6Net::new(address, 64).ok()?,
        Err(_) => text.parse().ok()?,
    };
    Some(IpNet::V6(net.trunc()))
}

/// `first..last`, or a single address.
fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last))
}

/// Link-local networks are every interface's own and nobody's subnet.
fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn free(subnet: &Subnet, taken: &[&str]) -> Option<String> {
        let mut held = AddressSet::default();
        taken.iter().for_each(|address| held.insert(ip(address)));
        let lowest = subnet.blocks.iter().find_map(|block| block.lowest_free(&held, &RangeSet::default()));
        lowest.map(|address| address.to_string())
    }

    #[test]
    fn the_lowest_address_is_after_the_network_and_the_excluded() {
        let plain = Subnet::new(Some("10.16.0.0/24"), None, None, []).expect("a subnet");
        assert_eq!(free(&plain, &[]).as_deref(), Some("10.16.0.1"));
        assert_eq!(free(&plain, &["10.16.0.1", "10.16.0.3"]).as_deref(), Some("10.16.0.2"));
        let excluded = Subnet::new(Some("10.16.0.0/24"), Some("10.16.0.1..10.16.0.9 10.16.0.11"), None, []);
        assert_eq!(free(&excluded.expect("a subnet"), &["10.16.0.10"]).as_deref(), Some("10.16.0.12"));
    }

    #[test]
    fn a_full_block_has_none() {
        let subnet = Subnet::new(Some("10.0.0.0/30"), None, None, []).expect("a subnet");
        assert_eq!(free(&subnet, &["10.0.0.1", "10.0.0.2"]), None);
        assert!(!subnet.blocks[0].holds(ip("10.0.0.3")) && !subnet.blocks[0].holds(ip("10.0.0.0")));
        let all = Subnet::new(None, None, Some("ffff:ffff:ffff:ffff::"), []).expect("a subnet");
        assert!(all.block_of(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")).is_some());
    }

    #[test]
    fn a_prefix_may_have_a_length() {
        for text in ["fd00:10::", "fd00:10::/64"] {
            let subnet = Subnet::new(None, None, Some(text), []).expect(text);
            assert_eq!(subnet.to_string(), "fd00:10::/64");
            assert_eq!(free(&subnet, &[]).as_deref(), Some("fd00:10::1"));
        }
    }

    #[test]
    fn router_networks_serve_where_the_switch_says_nothing() {
        let networks = ["10.0.0.1/24", "fe80::1/64", "fd00::1/64"];
        let subnet = Subnet::new(None, None, None, networks).expect("a subnet");
        assert_eq!(subnet.to_string(), "10.0.0.0/24, fd00::/64");
        let subnet = Subnet::new(Some("10.9.0.0/24"), None, None, networks).expect("a subnet");
        assert_eq!(subnet.to_string(), "10.9.0.0/24");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |subnet, exclude, prefix| Subnet::new(subnet, exclude, prefix, []).expect_err("an error");
        assert_eq!(error(None, None, None), SubnetError::Missing);
        assert_eq!(error(Some("10.0.0.0"), None, None), SubnetError::BadSubnet("10.0.0.0".into()));
        assert_eq!(error(None, None, Some("10.0.0.0")), SubnetError::BadPrefix("10.0.0.0".into()));
        for bad in ["x", "10.0.0.9..10.0.0.1", "10.0.0.1..fd00::1"] {
            assert_eq!(error(Some("10.0.0.0/24"), Some(bad), None), SubnetError::BadExclude(bad.into()));
        }
    }
}
