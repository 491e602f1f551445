//! What a logical switch says of its addresses.
//!
//! From `other_config` (`subnet`, `exclude_ips`, `ipv6_prefix`, ovn-nb(5) Logical_Switch), as OVN's
//! own IPAM reads them; where neither `subnet` nor `ipv6_prefix` is set, from the `networks` of the
//! router ports that the switch is connected to.
//!
//! One word that cannot be read stops nothing: it is kept as an [`Unread`], for the operator to correct.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::address_pool::AddressPool;
use super::exclusions::{self, Entry, Range};
use super::ranges::{RangeSet, number};
use super::spelling::{Scanner, is_blank, masked_word};
use crate::escaped::Escaped;

/// One address block of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    net: IpNet,
    first: u128,
    last: u128,
    /// Its first host address is more often than not a gateway that OVN does not know, and northd never gives it: it is
    /// had by whoever names it, and chosen for no port.
    first_is_kept: bool,
    excluded: RangeSet,
    /// What northd gives to no `dynamic` port, which may be less.
    excluded_by_northd: RangeSet,
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
        let (excluded, mut excluded_by_northd) = Default::default();
        if net.addr().is_ipv4() {
            RangeSet::insert_range(&mut excluded_by_northd, first, first);
        }
        Self { net, first, last, first_is_kept: true, excluded, excluded_by_northd }
    }

    /// The network of a router port. Of a link between two, that one's address is known.
    fn of_router(net: IpNet) -> Self {
        let block = Self::new(net);
        let point_to_point = block.last - block.first <= 1 && net.prefix_len() + 1 >= net.max_prefix_len();
        Self { first_is_kept: !point_to_point, ..block }
    }

    /// The addresses that may be chosen, but for those that are excluded; `None` where there are none.
    fn chosen(&self) -> Option<(u128, u128)> {
        let first = self.first.checked_add(self.first_is_kept.into())?;
        (first <= self.last).then_some((first, self.last))
    }

    /// The block as a network.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// Whether the address is one that a port may hold, excluded ones included.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.net.contains(&address) && (self.first..=self.last).contains(&number(address))
    }

    /// Returns true if `exclude_ips` names the address.
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

/// A part of a switch's settings that is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The key in `other_config`.
    pub key: &'static str,
    /// The part, as it is written.
    pub text: String,
}

/// `"x" in other_config:exclude_ips`
impl std::fmt::Display for Unread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "\"{}\" in other_config:{}", Escaped(&self.text), self.key)
    }
}

/// So many parts that are skipped are kept: each VM of the switch is told of them.
const MOST_UNREAD: usize = 4;
/// So many characters of a value are told.
const LONGEST: usize = 100;

/// What of a value is told, which may be as long as somebody likes.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// All blocks of a switch; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    blocks: Vec<Block>,
    unread: Vec<Unread>,
}

/// Why the addresses of a switch are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Neither the switch nor a router port names any.
    #[error("no subnet")]
    Missing,
    /// The value of `subnet`.
    #[error("other_config:subnet \"{}\" is not an IPv4 network", Escaped(.0))]
    BadSubnet(String),
    /// The value of `ipv6_prefix`.
    #[error("other_config:ipv6_prefix \"{}\" is not an IPv6 prefix", Escaped(.0))]
    BadPrefix(String),
}

impl Subnet {
    /// Reads a switch's `other_config` and the networks of its router ports (`address/length`).
    pub fn new<'a>(
        subnet: Option<&str>,
        exclude_ips: Option<&str>,
        ipv6_prefix: Option<&str>,
        router_networks: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, SubnetError> {
        let (mut blocks, mut unread) = (Vec::new(), Vec::new());
        if let Some(text) = subnet {
            let net = ipv4_subnet(text).ok_or_else(|| SubnetError::BadSubnet(cut(text)))?;
            blocks.push(Block::new(IpNet::V4(net)));
            note_blanks("subnet", text, text.trim_end_matches(is_blank), &mut unread);
        }
        if let Some(text) = ipv6_prefix {
            blocks.push(Block::new(prefix(text).ok_or_else(|| SubnetError::BadPrefix(cut(text)))?));
            note_blanks("ipv6_prefix", text, text.trim_matches(is_blank), &mut unread);
        }
        if blocks.is_empty() {
            for net in router_networks.into_iter().filter_map(router_network).filter(|net| !is_link_local(net)) {
                let block = Block::of_router(net);
                if !blocks.contains(&block) {
                    blocks.push(block);
                }
            }
        }
        if blocks.is_empty() {
            return Err(SubnetError::Missing);
        }
        exclude_each_others_ends(&mut blocks);
        if let Some(text) = exclude_ips {
            exclude(&mut blocks, text, &mut unread);
        }
        unread.truncate(MOST_UNREAD);
        Ok(Self { blocks, unread })
    }

    /// What of the switch's settings is skipped, or the first parts of it.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    /// The blocks of one family, in the order of preference.
    pub fn blocks(&self, ipv4: bool) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.net.addr().is_ipv4() == ipv4)
    }

    /// What may be chosen of a family, in the order of preference: all that is not excluded, from the second host address
    /// on; or, where the owner names addresses of the family to choose from, those, excluded or not.
    pub fn spans(&self, ipv4: bool, pool: Option<&AddressPool>) -> Vec<Span<'_>> {
        let Some(pool) = pool.filter(|pool| !pool.is_empty(ipv4)) else {
            return self
                .blocks(ipv4)
                .filter_map(|block| {
                    let (first, last) = block.chosen()?;
                    Some(Span { ipv4, first, last, excluded: Some(&block.excluded) })
                })
                .collect();
        };
        let cut = |(first, last): (u128, u128), block: &Block| {
            let (first, last) = (first.max(block.first), last.min(block.last));
            (first <= last).then_some(Span { ipv4, first, last, excluded: None })
        };
        pool.ranges(ipv4).flat_map(|range| self.blocks(ipv4).filter_map(move |block| cut(range, block))).collect()
    }

    /// What a port may have back that it had before: more than what is chosen, for its owner may have named it.
    pub fn spans_held(&self, ipv4: bool, pool: Option<&AddressPool>) -> Vec<Span<'_>> {
        let mut spans = self.spans(ipv4, pool);
        if pool.is_none_or(|pool| pool.is_empty(ipv4)) {
            let kept = self.blocks(ipv4).filter(|block| block.first_is_kept);
            spans.extend(kept.map(|block| Span {
                ipv4,
                first: block.first,
                last: block.first,
                excluded: Some(&block.excluded),
            }));
        }
        spans
    }

    /// Returns true if `exclude_ips`, as this service reads it, names every address of a pool's family that is in the
    /// subnet.
    pub fn excludes_all(&self, ipv4: bool, pool: &AddressPool) -> bool {
        self.all_of(ipv4, pool, |block| &block.excluded)
    }

    /// Returns true if northd gives none of a pool's addresses, of those in the subnet, to its `dynamic` ports: its own
    /// reading of `exclude_ips` counts, and not ours.
    pub fn northd_spares(&self, ipv4: bool, pool: &AddressPool) -> bool {
        self.all_of(ipv4, pool, |block| &block.excluded_by_northd)
    }

    fn all_of(&self, ipv4: bool, pool: &AddressPool, set: impl Fn(&Block) -> &RangeSet) -> bool {
        self.spans(ipv4, Some(pool)).iter().all(|span| {
            let block = self.blocks(ipv4).find(|block| block.first <= span.first && span.last <= block.last);
            block.is_some_and(|block| set(block).end_of(span.first).is_some_and(|end| end >= span.last))
        })
    }

    /// The blocks as networks, in their order.
    pub fn nets(&self) -> Vec<IpNet> {
        self.blocks.iter().map(|block| block.net).collect()
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

/// Excludes what a list names, and what northd makes of it.
fn exclude(blocks: &mut [Block], list: &str, unread: &mut Vec<Unread>) {
    let mut skip = |text: String| {
        if unread.len() < MOST_UNREAD {
            unread.push(Unread { key: "exclude_ips", text: cut(&text) });
        }
    };
    for entry in exclusions::generous(list) {
        match entry {
            Entry::Range(range, text) => {
                if !exclude_range(blocks, range) {
                    skip(text);
                }
            }
            Entry::Unreadable(text) => skip(text),
        }
    }
    for (first, last) in exclusions::of_northd(list).into_iter().filter(|(first, last)| first <= last) {
        let range = Range { ipv4: true, first: first.into(), last: last.into() };
        exclude_range(blocks, range);
        for block in blocks.iter_mut().filter(|block| block.net.addr().is_ipv4()) {
            block.excluded_by_northd.insert_range(range.first, range.last);
        }
    }
}

/// Returns true if the range has addresses of a block.
fn exclude_range(blocks: &mut [Block], range: Range) -> bool {
    let mut within = false;
    for block in blocks.iter_mut().filter(|block| block.net.addr().is_ipv4() == range.ipv4) {
        block.excluded.insert_range(range.first, range.last);
        within |= range.first <= number(block.net.broadcast()) && number(block.net.network()) <= range.last;
    }
    within
}

/// northd's own IPAM refuses a value for blanks that leave no doubt what it says.
fn note_blanks(key: &'static str, text: &str, taken: &str, unread: &mut Vec<Unread>) {
    if text != taken {
        unread.push(Unread { key, text: cut(text) });
    }
}

/// `subnet` as northd reads it (`ip_parse_masked()`): host bits and dotted masks are taken, leading zeros are decimal; a
/// list and a mask with holes are not. An octet above 255, which C wraps, is a mistake.
fn ipv4_subnet(text: &str) -> Option<Ipv4Net> {
    let mut scanner = Scanner::new(text.trim_end_matches(is_blank));
    let (masked, has_mask) = scanner.masked()?;
    match masked.ip {
        IpAddr::V4(ip) if has_mask && scanner.is_at_end() && !scanner.has_wrapped() => {
            Ipv4Net::new(ip, masked.length).ok().map(|net| net.trunc())
        }
        _ => None,
    }
}

/// `ipv6_prefix` is an address, of which northd uses the first 64 bits; a length is taken too, since people write one.
fn prefix(text: &str) -> Option<IpNet> {
    let text = text.trim_matches(is_blank);
    let net: Ipv6Net = match text.parse::<Ipv6Addr>() {
        Ok(address) => Ipv6Net::new(address, 64).ok()?,
        Err(_) => {
            let masked = masked_word(text)?;
            let IpAddr::V6(address) = masked.ip else { return None };
            Ipv6Net::new(address, masked.length).ok()?
        }
    };
    Some(IpNet::V6(net.trunc()))
}

/// One of a router port's `networks` (`extract_lrp_networks()`).
fn router_network(text: &str) -> Option<IpNet> {
    let masked = masked_word(text.trim_matches(is_blank))?;
    IpNet::new(masked.ip, masked.length).ok().map(|net| net.trunc())
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
        let lowest = |ipv4| pool.lowest_free(&spans(ipv4), &[], &AddressSet::default());
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
        assert_eq!(chosen("10.16.0.50", false), ["fd00::2..fd00::ffff:ffff:ffff:ffff"]);
        assert!(subnet.northd_spares(true, &wide.parse().expect("a pool")));
        assert!(!subnet.northd_spares(true, &"10.16.0.90..10.16.0.100".parse().expect("a pool")));
    }

    #[test]
    fn what_northd_does_not_read_it_gives_to_its_own_ports() {
        let subnet = |exclude| Subnet::new(Some("10.16.0.0/24"), Some(exclude), None, []).expect("a subnet");
        let spares = |exclude, pool: &str| subnet(exclude).northd_spares(true, &pool.parse().expect("a pool"));
        assert!(spares("10.16.0.5..10.16.0.6\t10.16.0.7", "10.16.0.5..10.16.0.7"));
        assert!(!spares("10.16.0.5..10.16.0.6,10.16.0.7", "10.16.0.5..10.16.0.7"));
        assert!(spares("10.16.0.5..10.16.0.6,10.16.0.7", "10.16.0.5..10.16.0.6"));
        assert!(!spares("10.16.0.0/28", "10.16.0.5"));
        // The first host address is spared without a word.
        assert!(spares("10.16.0.2", "10.16.0.1..10.16.0.2"));
        for exclude in ["10.16.0.5..10.16.0.6,10.16.0.7", "10.16.0.0/28"] {
            let subnet = subnet(exclude);
            assert!(subnet.block_of(ip("10.16.0.7")).is_some_and(|block| block.excludes(ip("10.16.0.7"))), "{exclude}");
        }
    }

    #[test]
    fn the_lowest_address_is_after_the_first_and_the_excluded() {
        let plain = Subnet::new(Some("10.16.0.0/24"), None, None, []).expect("a subnet");
        assert_eq!(free(&plain, &[]).as_deref(), Some("10.16.0.2"));
        assert_eq!(free(&plain, &["10.16.0.2", "10.16.0.4"]).as_deref(), Some("10.16.0.3"));
        let excluded = Subnet::new(Some("10.16.0.0/24"), Some("10.16.0.1..10.16.0.9 10.16.0.11"), None, []);
        assert_eq!(free(&excluded.expect("a subnet"), &["10.16.0.10"]).as_deref(), Some("10.16.0.12"));
    }

    #[test]
    fn the_first_host_address_is_named_and_never_chosen_however_small_the_subnet_is() {
        let of = |subnet: &str| {
            let (ipv4, ipv6) = if subnet.contains(':') { (None, Some(subnet)) } else { (Some(subnet), None) };
            Subnet::new(ipv4, None, ipv6, []).expect(subnet)
        };
        for (subnet, first, chosen) in [
            ("10.0.0.0/29", "10.0.0.1", Some("10.0.0.2")),
            ("10.0.0.0/30", "10.0.0.1", Some("10.0.0.2")),
            ("10.0.0.0/31", "10.0.0.0", Some("10.0.0.1")),
            ("10.0.0.7/32", "10.0.0.7", None),
            ("fd00::/64", "fd00::1", Some("fd00::2")),
            ("fd00::/127", "fd00::", Some("fd00::1")),
            ("fd00::7/128", "fd00::7", None),
        ] {
            let subnet = of(subnet);
            assert_eq!(free(&subnet, &[]).as_deref(), chosen, "{subnet}");
            assert!(subnet.block_of(ip(first)).is_some_and(|block| !block.excludes(ip(first))), "{subnet}");
            let pool = first.parse().expect(first);
            assert_eq!(subnet.spans(ip(first).is_ipv4(), Some(&pool)).len(), 1, "{subnet}");
            assert!(subnet.spans_held(ip(first).is_ipv4(), None).iter().any(|span| span.first == number(ip(first))));
        }
        // The router's own address on a link between two is known, and the other is the VM's.
        for (network, other) in [("10.0.0.1/31", "10.0.0.0"), ("10.0.0.0/31", "10.0.0.1"), ("fd00::1/127", "fd00::")] {
            let router = network.split_once('/').expect("a length").0;
            assert_eq!(
                free(&Subnet::new(None, None, None, [network]).expect(network), &[router]).as_deref(),
                Some(other)
            );
        }
        let routed = Subnet::new(None, None, None, ["10.0.0.254/24", "fd00::fe/64"]).expect("a subnet");
        assert_eq!(free(&routed, &[]).as_deref(), Some("10.0.0.2"));
    }

    #[test]
    fn a_full_block_has_none() {
        let subnet = Subnet::new(Some("10.0.0.0/30"), None, None, []).expect("a subnet");
        assert_eq!(free(&subnet, &["10.0.0.2"]), None);
        assert!(!subnet.blocks[0].holds(ip("10.0.0.3")) && !subnet.blocks[0].holds(ip("10.0.0.0")));
        let all = Subnet::new(None, None, Some("ffff:ffff:ffff:ffff::"), []).expect("a subnet");
        assert!(all.block_of(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")).is_some());
    }

    #[test]
    fn subnets_and_prefixes_are_read_as_northd_reads_them() {
        for text in [
            "10.16.0.0/24",
            "10.16.0.9/24",
            "010.16.00.0/24",
            "10.16.0.0/255.255.255.0",
            "10.16.0.0/024",
            " 10.16.0.0/24",
        ] {
            let subnet = Subnet::new(Some(text), None, None, []).expect(text);
            assert_eq!((subnet.to_string().as_str(), subnet.unread()), ("10.16.0.0/24", &[][..]), "{text}");
        }
        for text in ["fd00:10::", "fd00:10::5", "fd00:10::/64", "fd00:10::/064", "fd00:10::/ffff:ffff:ffff:ffff::"] {
            let subnet = Subnet::new(None, None, Some(text), []).expect(text);
            assert_eq!((subnet.to_string().as_str(), subnet.unread()), ("fd00:10::/64", &[][..]), "{text}");
            assert_eq!(free(&subnet, &[]).as_deref(), Some("fd00:10::2"));
        }
        let unread = |key, text: &str| [Unread { key, text: text.to_owned() }];
        let subnet = Subnet::new(Some("10.16.0.0/24 "), None, None, []).expect("a subnet");
        assert_eq!(
            (subnet.to_string().as_str(), subnet.unread()),
            ("10.16.0.0/24", &unread("subnet", "10.16.0.0/24 ")[..])
        );
        let subnet = Subnet::new(None, None, Some(" fd00::"), []).expect("a subnet");
        assert_eq!(
            (subnet.to_string().as_str(), subnet.unread()),
            ("fd00::/64", &unread("ipv6_prefix", " fd00::")[..])
        );
    }

    #[test]
    fn router_networks_serve_where_the_switch_says_nothing() {
        let networks = ["10.0.0.1/24", "fe80::1/64", "fd00::1/64", "10.0.0.01/255.255.255.0"];
        let subnet = Subnet::new(None, None, None, networks).expect("a subnet");
        assert_eq!(subnet.to_string(), "10.0.0.0/24, fd00::/64");
        let subnet = Subnet::new(Some("10.9.0.0/24"), None, None, networks).expect("a subnet");
        assert_eq!(subnet.to_string(), "10.9.0.0/24");
    }

    #[test]
    fn a_value_that_cannot_be_read_at_all_is_named() {
        let error = |subnet, prefix| Subnet::new(subnet, None, prefix, []).expect_err("an error");
        assert_eq!(error(None, None), SubnetError::Missing);
        for bad in [
            "10.0.0.0",
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.0/24,10.0.1.0/24",
            "10.0.0.0/255.0.255.0",
            "10.0.0.300/24",
            "fd00::/64",
        ] {
            assert_eq!(error(Some(bad), None), SubnetError::BadSubnet(bad.into()));
        }
        for bad in ["10.0.0.0", "", "fd00::/129", "fd00::/64 fd01::/64"] {
            assert_eq!(error(None, Some(bad)), SubnetError::BadPrefix(bad.into()));
        }
    }

    #[test]
    fn one_bad_word_of_a_list_is_kept_for_the_operator_and_the_others_count() {
        let list = "10.0.0.2 x 10.0.0.9..10.0.0.4 10.9.0.0/16 fd00::9 10.0.0.3";
        let subnet = Subnet::new(Some("10.0.0.0/24"), Some(list), None, []).expect("a subnet");
        let unread: Vec<&str> = subnet.unread().iter().map(|unread| unread.text.as_str()).collect();
        assert_eq!(unread, ["x", "10.0.0.9..10.0.0.4", "10.9.0.0/16", "fd00::9"]);
        assert_eq!(free(&subnet, &[]).as_deref(), Some("10.0.0.4"));
        let list = format!("{} 10.0.0.2", "y".repeat(5_000) + &" x".repeat(5_000));
        let subnet = Subnet::new(Some("10.0.0.0/24"), Some(&list), None, []).expect("a subnet");
        assert_eq!((subnet.unread().len(), subnet.unread()[0].text.len()), (4, 103));
        assert_eq!(free(&subnet, &[]).as_deref(), Some("10.0.0.3"));
    }
}
