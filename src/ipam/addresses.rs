//! A set of single addresses, as a switch's ports hold them: close together, and added in any order.
//!
//! One bit per address, in pages of 256; above them, 64 to one, a bit for each full page, then for each group of pages,
//! and so on. The search for the next free address goes up past full groups and down again: as many steps as the
//! longest run has digits to the base 64. An upper level has entries only above full children, so that a sparse set
//! costs its pages alone.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ranges::{address, number};
use crate::hash::FastMap;

/// Addresses of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    /// By the number of an address without its lowest eight bits. Empty pages are removed.
    pages: FastMap<u128, Page>,
    /// On each level, by the number of a child without its lowest six bits: a bit for each full one of the 64 children.
    /// The lowest level's children are pages. Empty entries are removed.
    full: Vec<FastMap<u128, u64>>,
}

type Page = [u64; 4];

const FULL_PAGE: Page = [u64::MAX; 4];
/// The number of the page of the last address.
const LAST_PAGE: u128 = u128::MAX >> 8;

/// The page of an address, the word in it, and the bit in that.
fn place(at: u128) -> (u128, usize, u32) {
    (at >> 8, (at >> 6 & 3) as usize, (at & 63) as u32)
}

/// The bits of a word, which begins at `start`, for the numbers in `first..=last`.
fn within(start: u128, first: u128, last: u128) -> u64 {
    let end = start | 63;
    if end < first || last < start {
        return 0;
    }
    let (low, high) = (first.saturating_sub(start), end - end.min(last));
    u64::MAX << low & u64::MAX >> high
}

/// The lowest bit that is not set, from `bit` on.
fn lowest_zero(word: u64, bit: u32) -> Option<u32> {
    let free = !word & u64::MAX << bit;
    (free != 0).then(|| free.trailing_zeros())
}

impl AddressSet {
    /// Adds an address.
    pub fn insert(&mut self, address: IpAddr) {
        let (number, word, bit) = place(number(address));
        let page = self.pages.entry(number).or_default();
        let before = *page;
        page[word] |= 1 << bit;
        if *page == FULL_PAGE && before != FULL_PAGE {
            self.fill(number);
        }
    }

    /// Removes an address.
    pub fn remove(&mut self, address: IpAddr) {
        let (number, word, bit) = place(number(address));
        let Some(page) = self.pages.get_mut(&number) else { return };
        let before = *page;
        page[word] &= !(1 << bit);
        if *page == Page::default() {
            self.pages.remove(&number);
        }
        if before == FULL_PAGE {
            self.unfill(number);
        }
    }

    /// Returns true if an address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (page, word, bit) = place(number(address));
        self.pages.get(&page).is_some_and(|page| page[word] >> bit & 1 == 1)
    }

    /// The number of addresses in `first..=last` that are in this set, and not in `without`.
    pub(super) fn count(&self, first: u128, last: u128, without: Option<&Self>) -> u128 {
        let (from, to) = (first >> 8, last >> 8);
        let in_page = |number: u128, page: &Page| -> u128 {
            let without = without.and_then(|set| set.pages.get(&number)).copied().unwrap_or_default();
            let words = page.iter().zip(without).enumerate();
            let counted = words.map(|(word, (present, without))| {
                (present & !without & within(number << 8 | (word as u128) << 6, first, last)).count_ones()
            });
            counted.sum::<u32>().into()
        };
        // Whichever is shorter: the pages of the range, or those that there are.
        if to - from < self.pages.len() as u128 {
            (from..=to).filter_map(|number| Some(in_page(number, self.pages.get(&number)?))).sum()
        } else {
            let pages = self.pages.iter().filter(|(number, _)| (from..=to).contains(*number));
            pages.map(|(number, page)| in_page(*number, page)).sum()
        }
    }

    /// The addresses of the set in a network of its family, in no order. It visits every page of the set.
    pub fn within(&self, net: IpNet) -> impl Iterator<Item = IpAddr> {
        let (first, last) = (number(net.network()), number(net.broadcast()));
        let pages = self.pages.iter().filter(move |(page, _)| (first >> 8..=last >> 8).contains(page));
        let numbers = pages.flat_map(|(page, words)| {
            let bits = (0..256u32).filter(|bit| words[(bit >> 6) as usize] >> (bit & 63) & 1 == 1);
            bits.map(move |bit| page << 8 | u128::from(bit))
        });
        numbers.filter(move |at| (first..=last).contains(at)).map(move |at| address(net.addr().is_ipv4(), at))
    }

    /// The lowest number from `at` on that is not in the set; `None` if all numbers are, to the last.
    pub(super) fn next_free(&self, at: u128) -> Option<u128> {
        let (page, first, bit) = place(at);
        let Some(words) = self.pages.get(&page) else { return Some(at) };
        let within = (first..words.len()).find_map(|word| {
            let bit = lowest_zero(words[word], if word == first { bit } else { 0 })?;
            Some(u128::from(bit) | (word as u128) << 6)
        });
        within.map(|within| page << 8 | within).or_else(|| self.in_next_page(page + 1))
    }

    /// The lowest free number of the first page, from `page` on, that is not full.
    fn in_next_page(&self, page: u128) -> Option<u128> {
        // Up, past full groups.
        let (mut level, mut child) = (0, page);
        loop {
            if child > LAST_PAGE >> (6 * level) {
                return None;
            }
            let full = self.full.get(level).and_then(|groups| groups.get(&(child >> 6))).copied().unwrap_or_default();
            match lowest_zero(full, (child & 63) as u32) {
                Some(bit) => {
                    child = child >> 6 << 6 | u128::from(bit);
                    break;
                }
                None => (level, child) = (level + 1, (child >> 6) + 1),
            }
        }
        // Down, to the first group with room.
        while level > 0 {
            level -= 1;
            let full = self.full.get(level).and_then(|groups| groups.get(&child)).copied().unwrap_or_default();
            // The group has room.
            child = child << 6 | u128::from(lowest_zero(full, 0)?);
        }
        let Some(words) = self.pages.get(&child) else { return Some(child << 8) };
        let word = words.iter().position(|word| *word != u64::MAX)?;
        Some(child << 8 | (word as u128) << 6 | u128::from(lowest_zero(words[word], 0)?))
    }

    fn fill(&mut self, page: u128) {
        let mut child = page;
        for level in 0.. {
            if self.full.len() == level {
                self.full.push(FastMap::default());
            }
            let group = self.full[level].entry(child >> 6).or_default();
            *group |= 1 << (child & 63);
            if *group != u64::MAX {
                return;
            }
            child >>= 6;
        }
    }

    fn unfill(&mut self, page: u128) {
        let mut child = page;
        for groups in &mut self.full {
            let Some(group) = groups.get_mut(&(child >> 6)) else { return };
            let was_full = *group == u64::MAX;
            *group &= !(1 << (child & 63));
            if *group == 0 {
                groups.remove(&(child >> 6));
            }
            if !was_full {
                return;
            }
            child >>= 6;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::Ipv6Addr;

    fn address(at: u128) -> IpAddr {
        Ipv6Addr::from(at).into()
    }

    fn emptied(set: &AddressSet) -> bool {
        set.pages.is_empty() && set.full.iter().all(FastMap::is_empty)
    }

    #[test]
    fn a_run_is_passed_over_words_pages_and_groups_and_to_the_end_of_all_addresses() {
        let mut set = AddressSet::default();
        // More than 64 groups of 64 pages of 256.
        let run = 10..2_200_000;
        run.clone().for_each(|at| set.insert(address(at)));
        assert_eq!(set.full.len(), 3);
        for at in [10, 255, 256, 70_000, 2_199_999] {
            assert_eq!(set.next_free(at), Some(2_200_000), "{at}");
        }
        assert_eq!((set.next_free(9), set.next_free(2_200_000)), (Some(9), Some(2_200_000)));
        set.remove(address(700_000));
        assert_eq!((set.next_free(10), set.next_free(700_001)), (Some(700_000), Some(2_200_000)));
        (0..300).for_each(|back| set.insert(address(u128::MAX - back)));
        assert_eq!(set.next_free(u128::MAX - 299), None);
        assert_eq!(set.next_free(u128::MAX - 300), Some(u128::MAX - 300));
        run.for_each(|at| set.remove(address(at)));
        (0..300).for_each(|back| set.remove(address(u128::MAX - back)));
        assert!(emptied(&set), "{set:?}");
    }

    #[test]
    fn distant_addresses_take_only_their_own_pages() {
        let mut set = AddressSet::default();
        (0..1_000).for_each(|index| set.insert(address(index << 64)));
        assert_eq!((set.pages.len(), set.full.len()), (1_000, 0));
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(
            steps in proptest::collection::vec((any::<bool>(), 0u128..40, 0u128..1_500), 0..40), from in 0u128..1_600,
        ) {
            let (mut set, mut model) = (AddressSet::default(), BTreeSet::new());
            for (insert, at, length) in steps {
                for at in at * 50..at * 50 + length {
                    if insert { set.insert(address(at)); model.insert(at); }
                    else { set.remove(address(at)); model.remove(&at); }
                }
            }
            for at in (from..from + 40).chain([0, 255, 256, 511, 512, 16_383, 16_384]) {
                prop_assert_eq!(set.next_free(at), (at..).find(|at| !model.contains(at)));
                prop_assert_eq!(set.contains(address(at)), model.contains(&at));
            }
            let mut odd = AddressSet::default();
            (0..2_000).filter(|at| at % 2 == 1).for_each(|at| odd.insert(address(at)));
            for length in [0, 1, 62, 63, 64, 300, 5_000] {
                let within: Vec<u128> = model.range(from..=from + length).copied().collect();
                prop_assert_eq!(set.count(from, from + length, None), within.len() as u128);
                let even = within.iter().filter(|at| **at >= 2_000 || **at % 2 == 0).count();
                prop_assert_eq!(set.count(from, from + length, Some(&odd)), even as u128);
            }
            for at in model { set.remove(address(at)); }
            prop_assert!(emptied(&set));
        }
    }
}
