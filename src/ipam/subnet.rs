//! What a logical switch says of its addresses.
//!
//! From `other_config` (`subnet`, `exclude_ips`, `ipv6_prefix`, ovn-nb(5) Logical_Switch), as OVN's
//! own IPAM reads them; where neither `subnet` nor `ipv6_prefix` is set, from the `networks` of the
//! router ports that the switch is connected to.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::address_pool::AddressPool;
use super::ranges::{RangeSet, number};
use crate::escaped::Escaped;

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

    /// Whether `exclude_ips` names the address.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.excluded.contains(address)
    }
}

/// Addresses of one family that may be chosen, in a row.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub(super) ipv4: bool,
    pub(super) first: u128,
    pub(super) last: u128,
    /// Of these, none may be.
    pub(super) excluded: Option<&'a RangeSet>,
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
    #[error("its other_config:subnet \"{}\" is no IPv4 network: write address/length, as in 10.16.0.0/16", Escaped(.0))]
    BadSubnet(String),
    /// `ipv6_prefix`
    #[error("its other_config:ipv6_prefix \"{}\" is no IPv6 prefix: write it as in fd00:10:16:: or fd00:10:16::/64", Escaped(.0))]
    BadPrefix(String),
    /// `exclude_ips`
    #[error("\"{}\" in its other_config:exclude_ips is neither an address nor a range first..last", Escaped(.0))]
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
        exclude_each_others_ends(&mut blocks);
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

    /// What may be chosen of a family, in the order of preference: all that is not excluded; or, where the owner names
    /// addresses of the family to choose from, those, excluded or not.
    pub fn spans(&self, ipv4: bool, pool: Option<&AddressPool>) -> Vec<Span<'_>> {
        let Some(pool) = pool.filter(|pool| !pool.is_empty(ipv4)) else {
            let blocks = self.blocks(ipv4);
            return blocks
                .map(|Block { net: _, first, last, excluded }| Span {
                    ipv4,
                    first: *first,
                    last: *last,
                    excluded: Some(excluded),
                })
                .collect();
        };
        let cut = |(first, last): (u128, u128), block: &Block| {
            let (first, last) = (first.max(block.first), last.min(block.last));
            (first <= last).then_some(Span { ipv4, first, last, excluded: None })
        };
        pool.ranges(ipv4).flat_map(|range| self.blocks(ipv4).filter_map(move |block| cut(range, block))).collect()
    }

    /// Whether `exclude_ips` names every address of a pool's family that is in the subnet.
    pub fn excludes_all(&self, ipv4: bool, pool: &AddressPool) -> bool {
        self.spans(ipv4, Some(pool)).iter().all(|span| {
            let block = self.blocks(ipv4).find(|block| block.first <= span.first && span.last <= block.last);
            block.is_some_and(|block| block.excluded.end_of(span.first).is_some_and(|end| end >= span.last))
        })
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

/// Of IPv4 networks that overlap, none's own and broadcast address is chosen from another.
fn exclude_each_others_ends(blocks: &mut [Block]) {
    let nets: Vec<IpNet> = blocks.iter().map(|block| block.net).collect();
    for net in nets.into_iter().filter(|net| net.addr().is_ipv4() && net.prefix_len() < 31) {
        for block in blocks.iter_mut().filter(|block| block.net != net && block.net.addr().is_ipv4()) {
            for end in [net.network(), net.broadcast()] {
                block.excluded.insert(end);
            }
        }
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
    use crate::ipam::ranges::address;
    use crate::ipam::{AddressSet, Pool};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn free(subnet: &Subnet, taken: &[&str]) -> Option<String> {
        let mut pool = Pool::default();
        for address in taken {
            pool.hold(ip(address), 0);
        }
        let spans = |ipv4| subnet.spans(ipv4, None);
        let lowest = |ipv4| pool.lowest_free(&spans(ipv4), &RangeSet::default(), &AddressSet::default());
        lowest(true).or_else(|| lowest(false)).map(|address| address.to_string())
    }

    #[test]
    fn ranges_to_choose_from_are_cut_to_the_subnet_and_may_be_excluded() {
        let subnet = Subnet::new(Some("10.16.0.0/24"), Some("10.16.0.1..10.16.0.99"), Some("fd00::"), []);
        let subnet = subnet.expect("a subnet");
        let chosen = |pool: &str, ipv4| {
            let pool = pool.parse().expect(pool);
            let spans = subnet.spans(ipv4, Some(&pool));
            let ends = |span: &Span<'_>| format!("{}..{}", address(ipv4, span.first), address(ipv4, span.last));
            spans.iter().map(ends).collect::<Vec<_>>()
        };
        let wide = "10.16.0.50..10.16.0.60,10.15.0.0..10.16.0.9,10.17.0.0/16,fd00::5";
        assert_eq!(chosen(wide, true), ["10.16.0.1..10.16.0.9", "10.16.0.50..10.16.0.60"]);
        assert_eq!(chosen(wide, false), ["fd00::5..fd00::5"]);
        // A family that it says nothing of is not confined.
        assert_eq!(chosen("10.16.0.50", false), ["fd00::1..fd00::ffff:ffff:ffff:ffff"]);
        assert!(subnet.excludes_all(true, &wide.parse().expect("a pool")));
        assert!(!subnet.excludes_all(true, &"10.16.0.90..10.16.0.100".parse().expect("a pool")));
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
