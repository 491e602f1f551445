//! The held and the resting addresses of one switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::addresses::AddressSet;
use super::holders::Holders;
use super::ranges::{RangeSet, address, number};
use super::subnet::Span;

/// The addresses held on a switch, each by one holder or, in a conflict of foreign rows, by several; and those that
/// rest: released, and not to be allocated to another holder yet.
///
/// Each rest of an address has a number, so that the end of one rest does not end a later one.
#[derive(Debug, Clone)]
pub struct Pool<H> {
    holders: Holders<IpAddr, H>,
    ipv4: Family<H>,
    ipv6: Family<H>,
    rests: u64,
    /// The resting addresses, by last holder.
    left: BTreeSet<(H, IpAddr)>,
}

/// The addresses of one family.
#[derive(Debug, Clone)]
struct Family<H> {
    /// Held or resting.
    taken: AddressSet,
    /// Resting, with the number of the rest and the last holder.
    resting: BTreeMap<u128, (u64, H)>,
}

impl<H> Default for Family<H> {
    fn default() -> Self {
        Self { taken: AddressSet::default(), resting: BTreeMap::new() }
    }
}

impl<H> Default for Pool<H> {
    fn default() -> Self {
        let (ipv4, ipv6) = Default::default();
        Self { holders: Holders::default(), ipv4, ipv6, rests: 0, left: BTreeSet::new() }
    }
}

impl<H: Ord + Copy> Pool<H> {
    /// Makes room for so many addresses in all.
    pub fn reserve(&mut self, addresses: usize) {
        self.holders.reserve(addresses);
    }

    /// Notes that a holder has an address.
    pub fn hold(&mut self, address: IpAddr, holder: H) {
        self.holders.insert(address, holder);
        let family = self.family_mut(address);
        family.taken.insert(address);
        if !family.resting.is_empty()
            && let Some((_, last)) = family.resting.remove(&number(address))
        {
            self.left.remove(&(last, address));
        }
    }

    /// Notes that a holder has released an address. Returns true if the address is free.
    pub fn release(&mut self, address: IpAddr, holder: &H) -> bool {
        let last = self.holders.remove(address, *holder);
        if last {
            self.family_mut(address).taken.remove(address);
        }
        last
    }

    /// Lets a free address rest, with its last holder.
    pub fn rest(&mut self, address: IpAddr, last: H) {
        self.rests += 1;
        let rest = self.rests;
        let family = self.family_mut(address);
        family.taken.insert(address);
        family.resting.insert(number(address), (rest, last));
        self.left.insert((last, address));
    }

    /// The number of an address' rest; `None` if it is not resting.
    pub fn rest_of(&self, address: IpAddr) -> Option<u64> {
        self.family(address.is_ipv4()).resting.get(&number(address)).map(|(rest, _)| *rest)
    }

    /// Ends this rest of an address, unless it has ended.
    pub fn end_rest(&mut self, address: IpAddr, rest: u64) {
        if self.rest_of(address) == Some(rest) {
            let family = self.family_mut(address);
            let ended = family.resting.remove(&number(address));
            family.taken.remove(address);
            if let Some((_, last)) = ended {
                self.left.remove(&(last, address));
            }
        }
    }

    /// The resting addresses of a family.
    pub fn resting(&self, ipv4: bool) -> impl Iterator<Item = IpAddr> {
        self.resting_in(ipv4, 0, u128::MAX).map(move |at| address(ipv4, at))
    }

    /// The holders of an address.
    pub fn holders(&self, address: IpAddr) -> &[H] {
        self.holders.get(address)
    }

    /// Returns the lowest free address of the first span that has one outside the `barred` sets and the `others`. A
    /// resting address is taken only if no other is left.
    pub fn lowest_free(&self, spans: &[Span<'_>], barred: &[&RangeSet], others: &AddressSet) -> Option<IpAddr> {
        let rested = spans.iter().find_map(|span| {
            let taken = [&self.family(span.ipv4).taken, others];
            let bars = barred.iter().copied().chain(span.excluded);
            lowest(span, taken, bars).map(|at| address(span.ipv4, at))
        });
        rested.or_else(|| spans.iter().find_map(|span| self.lowest_resting(span, barred, others)))
    }

    /// Returns the lowest address of the spans that rests since this holder released it, outside the `barred` sets and
    /// the `others`.
    pub fn left_by(&self, holder: H, spans: &[Span<'_>], barred: &[&RangeSet], others: &AddressSet) -> Option<IpAddr> {
        let within = |span: &Span<'_>, address: IpAddr| {
            let at = number(address);
            let excluded = span.excluded.is_some_and(|excluded| excluded.contains(address));
            span.ipv4 == address.is_ipv4() && (span.first..=span.last).contains(&at) && !excluded
        };
        let from = (holder, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let left = self.left.range(from..).take_while(|(last, _)| *last == holder).map(|(_, address)| *address);
        let is_barred = |address: IpAddr| barred.iter().any(|set| set.contains(address)) || others.contains(address);
        let mut free = left.filter(|address| !is_barred(*address));
        free.find(|address| spans.iter().any(|span| within(span, *address)))
    }

    fn lowest_resting(&self, span: &Span<'_>, barred: &[&RangeSet], others: &AddressSet) -> Option<IpAddr> {
        let resting = self.family(span.ipv4).resting.range(span.first..=span.last);
        let is_barred = |at: u128| {
            let mut bars = barred.iter().copied().chain(span.excluded);
            bars.any(|bar| bar.end_of(at).is_some()) || others.contains(address(span.ipv4, at))
        };
        resting.map(|(at, _)| *at).find(|at| !is_barred(*at)).map(|at| address(span.ipv4, at))
    }

    /// The holders of each address that has several, in no order.
    pub fn shared(&self) -> impl Iterator<Item = (IpAddr, &[H])> {
        self.holders.shared()
    }

    /// The addresses of a family that are held or at rest.
    pub(super) fn taken(&self, ipv4: bool) -> &AddressSet {
        &self.family(ipv4).taken
    }

    /// The addresses at rest in `first..=last`, as numbers.
    pub(super) fn resting_in(&self, ipv4: bool, first: u128, last: u128) -> impl Iterator<Item = u128> {
        self.family(ipv4).resting.range(first..=last).map(|(at, _)| *at)
    }

    fn family(&self, ipv4: bool) -> &Family<H> {
        if ipv4 { &self.ipv4 } else { &self.ipv6 }
    }

    fn family_mut(&mut self, address: IpAddr) -> &mut Family<H> {
        if address.is_ipv4() { &mut self.ipv4 } else { &mut self.ipv6 }
    }
}

/// The lowest number of a span that is in none of the sets.
fn lowest<'a>(
    span: &Span<'_>,
    taken: [&AddressSet; 2],
    bars: impl Iterator<Item = &'a RangeSet> + Clone,
) -> Option<u128> {
    let mut at = span.first;
    while at <= span.last {
        let from = at;
        for set in taken {
            at = set.next_free(at)?;
        }
        if let Some(end) = bars.clone().filter_map(|bar| bar.end_of(at)).max() {
            at = end.checked_add(1)?;
        }
        if at == from {
            return Some(at);
        }
    }
    None
}

/// Equal if the holders are equal: the resting addresses matter only for allocation.
impl<H: PartialEq + Ord + Copy> PartialEq for Pool<H> {
    fn eq(&self, other: &Self) -> bool {
        self.holders == other.holders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::{AddressUse, Subnet};
    use proptest::prelude::*;

    fn ip(at: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, at).into()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hold(u8, u8),
        Release(u8, u8),
        /// Ends the rest of an address, or a rest that is over.
        EndRest(u8, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..16, 0u8..3).prop_map(|(at, holder)| Step::Hold(at, holder)),
            3 => (0u8..16, 0u8..3).prop_map(|(at, holder)| Step::Release(at, holder)),
            1 => (0u8..16, any::<bool>()).prop_map(|(at, present)| Step::EndRest(at, present)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set_of_pairs(
            steps in proptest::collection::vec(step(), 0..200),
            other in 0u8..16, given in 0u8..16, low in 0u8..16, length in 0u8..16,
        ) {
            let subnet = Subnet::new(Some("10.0.0.0/28"), Some("10.0.0.5"), None, []).expect("a subnet");
            let (mut pool, mut held, mut resting) = (Pool::default(), BTreeSet::new(), BTreeMap::new());
            let (mut barred, mut others) = (RangeSet::default(), AddressSet::default());
            barred.insert(ip(given));
            others.insert(ip(other));
            let text = format!("{}..{}", ip(low), ip(low.saturating_add(length).min(15)));
            let requested = text.parse().expect("a pool");
            for step in steps {
                match step {
                    Step::Hold(at, holder) => {
                        pool.hold(ip(at), holder);
                        held.insert((at, holder));
                        resting.remove(&at);
                    }
                    Step::Release(at, holder) => {
                        let had = held.remove(&(at, holder));
                        let last = had && !held.iter().any(|(other, _)| *other == at);
                        prop_assert_eq!(pool.release(ip(at), &holder), last);
                        if last {
                            pool.rest(ip(at), holder);
                            resting.insert(at, (pool.rest_of(ip(at)).expect("it rests"), holder));
                        }
                    }
                    Step::EndRest(at, true) => {
                        if let Some((rest, _)) = resting.remove(&at) { pool.end_rest(ip(at), rest); }
                    }
                    Step::EndRest(at, false) => {
                        if let Some((rest, _)) = resting.get(&at) { pool.end_rest(ip(at), rest - 1); }
                    }
                }
                let free = |at: &u8| *at != other && *at != given && !held.iter().any(|(held, _)| held == at);
                let lowest = |all: &mut dyn Iterator<Item = u8>| {
                    let all: Vec<u8> = all.filter(free).collect();
                    all.iter().find(|at| !resting.contains_key(at)).or(all.first()).map(|at| ip(*at))
                };
                let spans = subnet.spans(true, None);
                let expected = lowest(&mut (2..15u8).filter(|at| *at != 5));
                prop_assert_eq!(pool.lowest_free(&spans, &[&barred], &others), expected);
                let for_allocation: Vec<u8> = (2..15u8).filter(|at| *at != 5).collect();
                let is_used = |at: &&u8| **at == other || held.iter().any(|(held, _)| held == *at);
                let used = for_allocation.iter().filter(is_used).count() as u128;
                let expected = AddressUse { used, free: for_allocation.len() as u128 - used };
                prop_assert_eq!(pool.usage(&subnet, true, &others), Some(expected));
                prop_assert_eq!(pool.usage(&subnet, false, &others), None);
                let spans = subnet.spans(true, Some(&requested));
                let expected = lowest(&mut (low.max(1)..=low.saturating_add(length).min(14)));
                prop_assert_eq!(pool.lowest_free(&spans, &[&barred], &others), expected);
            }
            for at in 0..16 {
                let holders: Vec<u8> = held.iter().filter(|(held, _)| *held == at).map(|(_, who)| *who).collect();
                prop_assert_eq!(pool.holders(ip(at)), &holders[..]);
                prop_assert_eq!(pool.rest_of(ip(at)), resting.get(&at).map(|(rest, _)| *rest));
            }
            for holder in 0..3 {
                let mut left = resting.iter().filter(|(_, (_, last))| *last == holder).map(|(at, _)| *at);
                let expected = left.find(|at| (2..15).contains(at) && ![5, other, given].contains(at)).map(ip);
                prop_assert_eq!(pool.left_by(holder, &subnet.spans(true, None), &[&barred], &others), expected);
            }
        }
    }
}
