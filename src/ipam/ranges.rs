//! A set of addresses as disjoint ranges: one contiguous range costs one entry.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of one family as closed, disjoint, non-adjacent ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(BTreeMap<u128, u128>);

/// An address as a number, for arithmetic within its family.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number within the family.
pub(super) fn address(ipv4: bool, number: u128) -> IpAddr {
    if ipv4 { Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into() } else { Ipv6Addr::from(number).into() }
}

impl RangeSet {
    /// Adds an address.
    pub fn insert(&mut self, address: IpAddr) {
        let at = number(address);
        self.insert_range(at, at);
    }

    /// Adds `first..=last`.
    pub(super) fn insert_range(&mut self, first: u128, last: u128) {
        let (mut first, mut last) = (first, last);
        // Ranges adjacent to the new one become part of it.
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.0.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// Adds all addresses of another set.
    pub fn insert_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(&first, &last)| self.insert_range(first, last));
    }

    /// Removes an address.
    pub fn remove(&mut self, address: IpAddr) {
        let at = number(address);
        let Some((&start, &end)) = self.0.range(..=at).next_back() else { return };
        if end < at {
            return;
        }
        self.0.remove(&start);
        if start < at {
            self.0.insert(start, at - 1);
        }
        if at < end {
            self.0.insert(at + 1, end);
        }
    }

    /// Returns true if the set has no address.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if an address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.end_of(number(address)).is_some()
    }

    /// The ranges, as first and last number, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().map(|(&first, &last)| (first, last))
    }

    /// The numbers of `first..=last` that are in no range, as ranges in their order.
    pub(super) fn gaps(&self, first: u128, last: u128) -> Vec<(u128, u128)> {
        let mut gaps = Vec::new();
        if first > last {
            return gaps;
        }
        let mut from = Some(first);
        let before = self.0.range(..first).next_back();
        for (&start, &end) in before.into_iter().chain(self.0.range(first..=last)) {
            let Some(at) = from.filter(|at| *at <= last) else { break };
            if start > at {
                gaps.push((at, start - 1));
            }
            from = if end < at { from } else { end.checked_add(1) };
        }
        gaps.extend(from.filter(|at| *at <= last).map(|at| (at, last)));
        gaps
    }

    /// The parts of its ranges that are in `first..=last`.
    pub(super) fn within(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> {
        // The range that holds `first` may begin before it.
        let from = self.0.range(..=first).next_back().map_or(first, |(&start, _)| start);
        let parts = self.0.range(from..=last.max(from)).map(move |(&start, &end)| (start.max(first), end.min(last)));
        parts.filter(|(start, end)| start <= end)
    }

    /// The last address of the range that holds `at`, if there is one.
    pub(super) fn end_of(&self, at: u128) -> Option<u128> {
        self.0.range(..=at).next_back().map(|(_, &end)| end).filter(|&end| end >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn address(at: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, at).into()
    }

    #[test]
    fn the_ends_of_the_address_space_do_not_overflow() {
        let mut set = RangeSet::default();
        let last: IpAddr = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("an address");
        set.insert(last);
        set.insert("::".parse().expect("an address"));
        assert!(set.contains(last));
        set.remove(last);
        assert!(!set.contains(last));
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(steps in proptest::collection::vec((any::<bool>(), 0u8..24), 0..120)) {
            let (mut ranges, mut model) = (RangeSet::default(), BTreeSet::new());
            for (insert, at) in steps {
                if insert { ranges.insert(address(at)); model.insert(at); }
                else { ranges.remove(address(at)); model.remove(&at); }
                for probe in 0..24 {
                    prop_assert_eq!(ranges.contains(address(probe)), model.contains(&probe));
                }
                let base = number(address(0));
                for first in base..base + 24 {
                    let gaps = ranges.gaps(first, first + 5).into_iter().flat_map(|(first, last)| first..=last);
                    let free = (first..=first + 5).filter(|at| !model.contains(&((at - base) as u8)));
                    prop_assert_eq!(gaps.collect::<Vec<_>>(), free.collect::<Vec<_>>());
                }
                let runs = model.iter().filter(|at| !model.contains(&at.wrapping_sub(1))).count();
                prop_assert_eq!(ranges.0.len(), runs);
            }
        }
    }
}
