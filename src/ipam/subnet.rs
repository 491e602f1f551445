//! The subnet of a logical switch.
//!
//! It is read from `other_config` (`subnet`, `exclude_ips`, `ipv6_prefix`, ovn-nb(5) Logical_Switch), as OVN's own IPAM
//! reads it. If neither `subnet` nor `ipv6_prefix` is set, it is read from the `networks` of the router ports that the
//! switch is connected to.
//!
//! One unreadable word stops nothing: it is kept as an [`Unread`], for the operator to correct.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::address_pool::AddressPool;
use super::exclusions::{self, Entry, Range};
use super::ranges::{RangeSet, address, number};
use super::spelling::{Scanner, is_blank, masked_word};
use crate::escaped::Escaped;

/// One address block of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    net: IpNet,
    first: u128,
    last: u128,
    /// Its first host address is usually a gateway that OVN does not know, and northd never allocates it: a request
    /// that names it gets it, and it is never allocated.
    first_is_kept: bool,
    excluded: RangeSet,
    /// The addresses that northd allocates to no `dynamic` port, which may be fewer.
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

    /// The network of a router port. On a point-to-point link, the router's address is known.
    fn of_router(net: IpNet) -> Self {
        let block = Self::new(net);
        let point_to_point = block.last - block.first <= 1 && net.prefix_len() + 1 >= net.max_prefix_len();
        Self { first_is_kept: !point_to_point, ..block }
    }

    /// The addresses that may be allocated, before exclusions; `None` if there are none.
    fn chosen(&self) -> Option<(u128, u128)> {
        let first = self.first.checked_add(self.first_is_kept.into())?;
        (first <= self.last).then_some((first, self.last))
    }

    /// The addresses of a range that may be allocated if an owner's pool names them.
    fn within(&self, (first, last): (u128, u128), open: Openness) -> Option<Span<'_>> {
        let (lowest, highest) = if open.first { (self.first, self.last) } else { self.chosen()? };
        let (first, last) = (first.max(lowest), last.min(highest));
        let excluded = if open.excluded { None } else { Some(&self.excluded) };
        (first <= last).then_some(Span { ipv4: self.net.addr().is_ipv4(), first, last, excluded })
    }

    /// The first and the last address, those included that no host may have.
    pub(super) fn ends(&self) -> (u128, u128) {
        (number(self.net.network()), number(self.net.broadcast()))
    }

    /// The addresses of the block that no host may have, and the first host address if that is kept.
    pub(super) fn unusable(&self) -> (impl Iterator<Item = u128>, Option<u128>) {
        let (network, end) = self.ends();
        let outside = [network, end].into_iter().filter(|at| !(self.first..=self.last).contains(at));
        (outside, self.first_is_kept.then_some(self.first))
    }

    /// The addresses that `exclude_ips` names.
    pub(super) fn excluded(&self) -> &RangeSet {
        &self.excluded
    }

    /// The block as a network.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// Returns true if a port may hold the address, even an excluded one.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.net.contains(&address) && (self.first..=self.last).contains(&number(address))
    }

    /// Returns true if `exclude_ips` names the address.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.excluded.contains(address)
    }

    /// The first host address.
    pub fn first_host(&self) -> IpAddr {
        address(self.net.addr().is_ipv4(), self.first)
    }

    /// Returns true if the address is the first host address, which is never allocated.
    pub fn keeps_first(&self, address: IpAddr) -> bool {
        self.first_is_kept && self.net.contains(&address) && number(address) == self.first
    }
}

/// A run of addresses of one family that may be allocated.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub(super) ipv4: bool,
    pub(super) first: u128,
    pub(super) last: u128,
    /// The exceptions among them.
    pub(super) excluded: Option<&'a RangeSet>,
}

/// The kept addresses that a pool may take in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Openness {
    /// Those in `exclude_ips`.
    pub excluded: bool,
    /// The first host address of each block.
    pub first: bool,
}

impl Openness {
    /// All of them.
    pub const WHOLE: Self = Self { excluded: true, first: true };
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

/// The number of skipped parts that are kept: each VM of the switch reports them.
const MOST_UNREAD: usize = 4;
/// The number of characters of a value in a report.
const LONGEST: usize = 100;

/// The part of a value that is reported: a value may have any length.
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

/// The reason why the addresses of a switch are unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Neither the switch nor a router port has a subnet.
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

    /// The skipped parts of the switch's settings, or the first of them.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    /// The blocks of one family, in the order of preference.
    pub fn blocks(&self, ipv4: bool) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.net.addr().is_ipv4() == ipv4)
    }

    /// The addresses of a family for allocation, in the order of preference: all that are not excluded, from the second
    /// host address on; or, if the owner's pool has addresses of the family, those, excluded or not.
    pub fn spans(&self, ipv4: bool, pool: Option<&AddressPool>) -> Vec<Span<'_>> {
        self.open_spans(ipv4, pool, Openness::WHOLE)
    }

    /// The same, with a pool of which the kept addresses are left out that are not `open`.
    pub fn open_spans(&self, ipv4: bool, pool: Option<&AddressPool>, open: Openness) -> Vec<Span<'_>> {
        let Some(pool) = pool.filter(|pool| !pool.is_empty(ipv4)) else {
            return self
                .blocks(ipv4)
                .filter_map(|block| {
                    let (first, last) = block.chosen()?;
                    Some(Span { ipv4, first, last, excluded: Some(&block.excluded) })
                })
                .collect();
        };
        pool.ranges(ipv4)
            .flat_map(|range| self.blocks(ipv4).filter_map(move |block| block.within(range, open)))
            .collect()
    }

    /// The addresses that a port may get back after it had them: more than for allocation, because its owner may have
    /// named them.
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

    /// Returns true if northd allocates none of a pool's addresses in the subnet to its `dynamic` ports: northd's
    /// reading of `exclude_ips` counts, not ours.
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

/// The blocks in the form that people write: `10.16.0.0/16, fd00::/64`.
impl std::fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, block) in self.blocks.iter().enumerate() {
            write!(formatter, "{}{}", if index > 0 { ", " } else { "" }, block.net)?;
        }
        Ok(())
    }
}

/// Excludes the network and broadcast address of each IPv4 network from the others that overlap it.
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

/// Excludes the addresses that a list names, and those that northd reads in it.
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

/// Notes blanks for which northd's own IPAM refuses a value although its meaning is clear.
fn note_blanks(key: &'static str, text: &str, taken: &str, unread: &mut Vec<Unread>) {
    if text != taken {
        unread.push(Unread { key, text: cut(text) });
    }
}

/// `subnet` as northd reads it (`ip_parse_masked()`): host bits and dotted masks are taken, leading zeros are decimal;
/// a list and a mask with holes are refused. An octet above 255, which C wraps, is a mistake.
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

/// Link-local networks belong to every interface, and are not the subnet of a switch.
fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

#[cfg(test)]
mod tests;
