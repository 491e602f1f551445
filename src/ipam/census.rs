//! The use of a block's addresses, for operators: how many are free, held, excluded, and which.
//!
//! The marks of single addresses are sorted once. A count over any part of the block then costs a search and a pass over
//! the marks in that part, however large the block is.

use std::net::IpAddr;

use super::ranges::{address, number};
use super::subnet::Block;

/// The use of an address. An address with several uses has the first of them in this order, except that [`Use::Free`]
/// means that there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// Several ports hold it, of which one is a VM's.
    Conflict,
    /// A VM's port holds it.
    Vm,
    /// It is retained for a deleted VM.
    Retained,
    /// It is reserved for the next start of a VM.
    Reserved,
    /// A port that is no VM's holds it.
    Foreign,
    /// OVN itself answers for it: a NAT rule, a load balancer.
    Service,
    /// It was released a moment ago.
    Resting,
    /// No host may have it: a network or broadcast address.
    Unusable,
    /// The first host address, which is never allocated unless a VM names it.
    First,
    /// `exclude_ips` names it.
    Excluded,
    /// None of these.
    Free,
}

impl Use {
    /// All of them, in the order of [`Counts`].
    pub const ALL: [Self; 11] = [
        Self::Free,
        Self::Vm,
        Self::Reserved,
        Self::Retained,
        Self::Foreign,
        Self::Service,
        Self::Conflict,
        Self::Excluded,
        Self::First,
        Self::Resting,
        Self::Unusable,
    ];

    /// Returns true if a VM has the address, now or later.
    fn is_a_vms(self) -> bool {
        matches!(self, Self::Conflict | Self::Vm | Self::Retained | Self::Reserved)
    }

    /// Returns true if a port holds the address.
    fn is_held(self) -> bool {
        self.is_a_vms() || self == Self::Foreign
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|other| *other == self).unwrap_or_default()
    }
}

/// The number of addresses by use, in the order of [`Use::ALL`]. Numbers above `u128::MAX` are that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u128; Use::ALL.len()]);

impl Counts {
    /// The number of addresses with a use.
    pub fn of(&self, of: Use) -> u128 {
        self.0[of.index()]
    }

    /// The numbers in the order of [`Use::ALL`].
    pub fn all(&self) -> [u128; Use::ALL.len()] {
        self.0
    }
}

/// The use of one block's addresses.
#[derive(Debug, Clone)]
pub struct Census<'a> {
    block: &'a Block,
    /// The addresses with a use of their own, in their order, each once.
    marks: Vec<(u128, Use)>,
}

impl<'a> Census<'a> {
    /// Takes the census of a block. `uses` has an element for each holder of an address, and for each other use but
    /// those that follow from the block itself. Addresses outside the block are skipped.
    pub fn new(block: &'a Block, uses: impl IntoIterator<Item = (IpAddr, Use)>) -> Self {
        let (first, last) = block.ends();
        let ipv4 = block.net().addr().is_ipv4();
        let uses = uses.into_iter().filter(|(address, _)| address.is_ipv4() == ipv4);
        let within = uses.map(|(address, of)| (number(address), of)).filter(|(at, _)| (first..=last).contains(at));
        let mut marks: Vec<(u128, Use)> = within.collect();
        let (unusable, kept) = block.unusable();
        marks.extend(unusable.map(|at| (at, Use::Unusable)));
        marks.extend(kept.map(|at| (at, Use::First)));
        marks.sort_unstable();
        // The first mark of an address is its use, unless it has several holders.
        marks.dedup_by(|(next, of_next), (at, of)| {
            let same = next == at;
            if same && of_next.is_held() && of.is_a_vms() {
                *of = Use::Conflict;
            }
            same
        });
        Self { block, marks }
    }

    /// The first and the last address of the block.
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        let (first, last) = self.block.ends();
        (self.address(first), self.address(last))
    }

    /// The addresses from `first` to `last` that have a use other than free and excluded.
    pub fn marked(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = (IpAddr, Use)> {
        self.marks_in(number(first), number(last)).iter().map(|(at, of)| (self.address(*at), *of))
    }

    /// Counts the addresses of the whole block.
    pub fn counts(&self) -> Counts {
        let (first, last) = self.block.ends();
        self.counts_in(first, last)
    }

    /// The least power of two of addresses, `least` or more, that has every mark from the block's first address on. The
    /// broadcast address of the block does not count.
    pub fn extent(&self, least: u128) -> u128 {
        let (first, _) = self.block.ends();
        let used = self.marks.iter().rev().find(|(_, of)| *of != Use::Unusable).map_or(0, |(at, _)| at - first + 1);
        used.max(least).checked_next_power_of_two().unwrap_or(u128::MAX)
    }

    /// The number of addresses from `first` to `last`.
    pub fn size(first: IpAddr, last: IpAddr) -> u128 {
        number(last).saturating_sub(number(first)).saturating_add(1)
    }

    /// The address that is so many behind another one, at most the block's last.
    pub fn behind(&self, first: IpAddr, count: u128) -> IpAddr {
        let (_, last) = self.block.ends();
        self.address(number(first).saturating_add(count).min(last))
    }

    /// Counts the addresses from `first` to `last` in parts of `size`, of which the last may be smaller.
    pub fn cells(&self, first: IpAddr, last: IpAddr, size: u128) -> Vec<Counts> {
        let (mut at, last) = (number(first), number(last));
        let mut cells = Vec::new();
        while at <= last {
            let end = at.saturating_add(size.max(1) - 1).min(last);
            cells.push(self.counts_in(at, end));
            let Some(next) = end.checked_add(1) else { break };
            at = next;
        }
        cells
    }

    fn address(&self, at: u128) -> IpAddr {
        address(self.block.net().addr().is_ipv4(), at)
    }

    fn marks_in(&self, first: u128, last: u128) -> &[(u128, Use)] {
        let begin = self.marks.partition_point(|(at, _)| *at < first);
        let end = self.marks.partition_point(|(at, _)| *at <= last);
        self.marks.get(begin..end).unwrap_or_default()
    }

    fn counts_in(&self, first: u128, last: u128) -> Counts {
        let mut counts = Counts::default();
        let excluded = self.block.excluded();
        let mut left: u128 = excluded.within(first, last).map(|(first, last)| last - first + 1).sum();
        for (at, of) in self.marks_in(first, last) {
            counts.0[of.index()] += 1;
            left -= u128::from(excluded.end_of(*at).is_some());
        }
        counts.0[Use::Excluded.index()] = left;
        let size = (last - first).saturating_add(1);
        counts.0[Use::Free.index()] = size - counts.0.iter().sum::<u128>();
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::ipam::Subnet;

    fn ip(at: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, at).into()
    }

    fn uses() -> impl Strategy<Value = Vec<(u8, Use)>> {
        let given = [Use::Vm, Use::Retained, Use::Reserved, Use::Foreign, Use::Service, Use::Resting];
        proptest::collection::vec((0u8..40, proptest::sample::select(given.to_vec())), 0..60)
    }

    /// The use of an address, by the rules alone.
    fn expected(at: u8, uses: &[(u8, Use)], excluded: &[u8]) -> Use {
        let of: Vec<Use> = uses.iter().filter(|(other, _)| *other == at).map(|(_, of)| *of).collect();
        let holders = of.iter().filter(|of| of.is_held()).count();
        if holders > 1 && of.iter().any(|of| of.is_a_vms()) {
            return Use::Conflict;
        }
        let own = [(at == 0 || at == 31).then_some(Use::Unusable), (at == 1).then_some(Use::First)];
        let excluded = excluded.contains(&at).then_some(Use::Excluded);
        of.into_iter().chain(own.into_iter().flatten()).chain(excluded).min().unwrap_or(Use::Free)
    }

    proptest! {
        #[test]
        fn every_address_is_counted_once_by_its_first_use(uses in uses(), low in 0u8..32, length in 0u8..32, size in 1u128..9) {
            let subnet = Subnet::new(Some("10.0.0.0/27"), Some("10.0.0.1 10.0.0.5..10.0.0.9"), None, []).expect("a subnet");
            let excluded = [1, 5, 6, 7, 8, 9];
            let block = subnet.blocks(true).next().expect("a block");
            let census = Census::new(block, uses.iter().map(|(at, of)| (ip(*at), *of)));
            let high = low.saturating_add(length).min(31);
            let count = |first: u8, last: u8| {
                let mut counts = Counts::default();
                (first..=last).for_each(|at| counts.0[expected(at, &uses, &excluded).index()] += 1);
                counts
            };
            prop_assert_eq!(census.counts(), count(0, 31));
            let cells = census.cells(ip(low), ip(high), size);
            let parts = (low..=high).step_by(usize::try_from(size).expect("small"));
            let parts: Vec<Counts> = parts.map(|at| count(at, (at + u8::try_from(size).expect("small") - 1).min(high))).collect();
            prop_assert_eq!(cells, parts);
            let marked: Vec<(IpAddr, Use)> = census.marked(ip(low), ip(high)).collect();
            let all = (low..=high).map(|at| (ip(at), expected(at, &uses, &excluded)));
            let told: Vec<_> = all.filter(|(_, of)| !matches!(of, Use::Free | Use::Excluded)).collect();
            prop_assert_eq!(marked, told);
        }
    }

    #[test]
    fn a_block_of_any_size_is_counted_and_shown_to_its_last_use() {
        let subnet = Subnet::new(None, None, Some("fd00::"), []).expect("a subnet");
        let block = subnet.blocks(false).next().expect("a block");
        let at = "fd00::1:5".parse().expect("an address");
        let census = Census::new(block, [(at, Use::Vm)]);
        assert_eq!(census.counts().of(Use::Free), (1 << 64) - 3);
        assert_eq!((census.extent(1_024), census.extent(1 << 20)), (1 << 17, 1 << 20));
        assert_eq!(census.behind(census.ends().0, u128::MAX), census.ends().1);
        let all = Subnet::new(None, None, None, ["::1/0"]).expect("a subnet");
        let census = Census::new(all.blocks(false).next().expect("a block"), []);
        assert!(census.counts().of(Use::Free) > 1 << 127);
    }
}
