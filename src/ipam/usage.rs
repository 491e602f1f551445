//! The used and the free addresses of a switch, counted without a look at its ports.

use super::addresses::AddressSet;
use super::pool::Pool;
use super::ranges::{RangeSet, address};
use super::subnet::{Span, Subnet};

/// The addresses of one family that are for allocation on a switch: those of its subnet that are not excluded, from the
/// second host address on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressUse {
    /// The addresses that a port holds, or that OVN itself answers for.
    pub used: u128,
    /// The other ones. An address at rest is free: it is allocated when no other is left.
    pub free: u128,
}

impl Subnet {
    /// The addresses of a family for allocation.
    fn allocatable(&self, ipv4: bool) -> RangeSet {
        let mut all = RangeSet::default();
        for Span { first, last, excluded, .. } in self.spans(ipv4, None) {
            let parts = excluded.map_or_else(|| vec![(first, last)], |excluded| excluded.gaps(first, last));
            parts.into_iter().for_each(|(first, last)| all.insert_range(first, last));
        }
        all
    }
}

impl<H: Ord + Copy> Pool<H> {
    /// Counts the addresses of a family in the subnet of this pool's switch, where OVN answers for `others`. `None` if
    /// the subnet has no block of the family.
    ///
    /// The cost depends on the number of pages of 256 addresses with a holder, and on the number of excluded ranges.
    pub fn usage(&self, subnet: &Subnet, ipv4: bool, others: &AddressSet) -> Option<AddressUse> {
        subnet.blocks(ipv4).next()?;
        let taken = self.taken(ipv4);
        let (mut all, mut used) = (0_u128, 0_u128);
        for (first, last) in subnet.allocatable(ipv4).iter() {
            let resting = self.resting_in(ipv4, first, last).filter(|at| !others.contains(address(ipv4, *at)));
            let held = taken.count(first, last, None) + others.count(first, last, Some(taken));
            used += held - resting.count() as u128;
            all = all.saturating_add((last - first).saturating_add(1));
        }
        Some(AddressUse { used, free: all - used })
    }
}
