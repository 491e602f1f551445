//! The addresses that a VM's owner lets the service allocate from (`ip_pool`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::ranges::number;
use crate::escaped::Escaped;

/// Addresses of both families as ranges; at least one.
///
/// It is independent of a switch: the [`Subnet`](super::Subnet) determines the addresses that a port may have there (no
/// network or broadcast address, no gateway).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPool {
    ipv4: Vec<(u128, u128)>,
    ipv6: Vec<(u128, u128)>,
}

/// A part of a pool that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not an address, a range first..last or a network address/length", Escaped(.0))]
pub struct BadPool(pub String);

impl AddressPool {
    /// The ranges of a family, both ends included, as numbers (an IPv4 address as its 32 bits): in ascending order,
    /// disjoint, and with a gap between any two.
    pub fn ranges(&self, ipv4: bool) -> impl Iterator<Item = (u128, u128)> {
        self.family(ipv4).iter().copied()
    }

    /// Returns true if it has no address of a family.
    pub fn is_empty(&self, ipv4: bool) -> bool {
        self.family(ipv4).is_empty()
    }

    /// Returns true if an address may be allocated.
    pub fn contains(&self, address: IpAddr) -> bool {
        let at = number(address);
        let ranges = self.family(address.is_ipv4());
        let after = ranges.partition_point(|(first, _)| *first <= at);
        after.checked_sub(1).is_some_and(|index| at <= ranges[index].1)
    }

    fn family(&self, ipv4: bool) -> &[(u128, u128)] {
        if ipv4 { &self.ipv4 } else { &self.ipv6 }
    }
}

impl FromStr for AddressPool {
    type Err = BadPool;

    /// Reads `first..last`, `address/length` and single addresses, comma-separated, of either family.
    fn from_str(text: &str) -> Result<Self, BadPool> {
        let mut pool = Self::default();
        for part in text.split(',').map(str::trim) {
            let (first, last) = range(part).ok_or_else(|| BadPool(part.to_owned()))?;
            let family = if first.is_ipv4() { &mut pool.ipv4 } else { &mut pool.ipv6 };
            family.push((number(first), number(last)));
        }
        merge(&mut pool.ipv4);
        merge(&mut pool.ipv6);
        Ok(pool)
    }
}

fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if text.contains('/') {
        let net: IpNet = text.parse().ok()?;
        return Some((net.network(), net.broadcast()));
    }
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last): (IpAddr, IpAddr) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last))
}

/// Sorts ranges, and joins adjacent and overlapping ones.
fn merge(ranges: &mut Vec<(u128, u128)>) {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for &(first, last) in ranges.iter() {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    *ranges = merged;
}

/// In the form that owners write: `10.16.0.2..10.16.0.9, fd00::5`.
impl fmt::Display for AddressPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A range of IPv4 addresses was made from IPv4 addresses, so it fits.
        let ipv4 = |at: u128| IpAddr::V4(Ipv4Addr::from(u32::try_from(at).unwrap_or(u32::MAX)));
        let ipv6 = |at: u128| IpAddr::V6(Ipv6Addr::from(at));
        let of_ipv4 = self.ipv4.iter().map(|&(first, last)| (ipv4(first), ipv4(last)));
        let of_ipv6 = self.ipv6.iter().map(|&(first, last)| (ipv6(first), ipv6(last)));
        for (index, (first, last)) in of_ipv4.chain(of_ipv6).enumerate() {
            formatter.write_str(if index > 0 { ", " } else { "" })?;
            if first == last { write!(formatter, "{first}")? } else { write!(formatter, "{first}..{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pool(text: &str) -> AddressPool {
        text.parse().expect(text)
    }

    #[test]
    fn every_form_is_read_and_adjacent_ranges_are_merged() {
        let both = pool("10.0.0.9, 10.0.0.2..10.0.0.4,10.0.0.5,fd00::/126, fd00::10..fd00::1f");
        assert_eq!(both.to_string(), "10.0.0.2..10.0.0.5, 10.0.0.9, fd00::..fd00::3, fd00::10..fd00::1f");
        assert_eq!(both.ranges(true).collect::<Vec<_>>(), [(0x0a00_0002, 0x0a00_0005), (0x0a00_0009, 0x0a00_0009)]);
        assert_eq!(both.ranges(false).count(), 2);
        assert_eq!(pool("10.0.0.7/30").to_string(), "10.0.0.4..10.0.0.7");
        assert!(pool("fd00::1").is_empty(true) && !pool("fd00::1").is_empty(false));
        let all = pool("::/0, 0.0.0.0/0");
        assert!(all.contains(IpAddr::V6(Ipv6Addr::from(u128::MAX))) && all.contains(IpAddr::V4(Ipv4Addr::BROADCAST)));
        assert_eq!(pool(&both.to_string()), both);
    }

    #[test]
    fn the_error_names_the_part_that_cannot_be_read() {
        for (text, part) in [
            ("", ""),
            ("10.0.0.1,", ""),
            ("10.0.0.1,x", "x"),
            ("10.0.0.9..10.0.0.1", "10.0.0.9..10.0.0.1"),
            ("10.0.0.1..fd00::1", "10.0.0.1..fd00::1"),
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("10.0.0.1;10.0.0.2", "10.0.0.1;10.0.0.2"),
        ] {
            assert_eq!(text.parse::<AddressPool>(), Err(BadPool(part.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(ranges in proptest::collection::vec((0u8..40, 0u8..6), 1..8)) {
            let at = |host: u8| IpAddr::from([10, 0, 0, host]);
            let text: Vec<String> =
                ranges.iter().map(|(first, more)| format!("{}..{}", at(*first), at(first + more))).collect();
            let model: BTreeSet<u8> = ranges.iter().flat_map(|(first, more)| *first..=first + more).collect();
            let pool = pool(&text.join(","));
            for host in 0..50 {
                prop_assert_eq!(pool.contains(at(host)), model.contains(&host));
            }
            let runs = model.iter().filter(|host| !host.checked_sub(1).is_some_and(|below| model.contains(&below)));
            prop_assert_eq!(pool.ranges(true).count(), runs.count());
        }
    }
}
