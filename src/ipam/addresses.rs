//! A set of single addresses, as a switch's ports hold them: close together, and in no order when they come.

use std::net::IpAddr;

use super::ranges::number;
use crate::hash::FastMap;

/// Addresses of one family, a bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AddressSet {
    /// By the number of an address without its lowest eight bits. None is empty.
    pages: FastMap<u128, Page>,
}

type Page = [u64; 4];

/// The page of an address, the word in it, and the bit in that.
fn place(at: u128) -> (u128, usize, u32) {
    (at >> 8, (at >> 6 & 3) as usize, (at & 63) as u32)
}

impl AddressSet {
    pub(super) fn insert(&mut self, address: IpAddr) {
        let (page, word, bit) = place(number(address));
        self.pages.entry(page).or_default()[word] |= 1 << bit;
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        let (number, word, bit) = place(number(address));
        let Some(page) = self.pages.get_mut(&number) else { return };
        page[word] &= !(1 << bit);
        if *page == Page::default() {
            self.pages.remove(&number);
        }
    }

    /// The last of the addresses from `at` on that are all in the set; `None` where `at` is not.
    pub(super) fn end_of(&self, at: u128) -> Option<u128> {
        let mut end = None;
        let mut at = at;
        loop {
            let (page, word, bit) = place(at);
            let ones = self.pages.get(&page).map_or(0, |page| (page[word] >> bit).trailing_ones());
            if ones > 0 {
                end = Some(at + u128::from(ones - 1));
            }
            if bit + ones < u64::BITS {
                return end;
            }
            match at.checked_add(u128::from(ones)) {
                Some(next) => at = next,
                None => return end,
            }
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

    #[test]
    fn a_run_is_followed_over_words_and_pages_and_to_the_end_of_all_addresses() {
        let mut set = AddressSet::default();
        (10..600).for_each(|at| set.insert(address(at)));
        assert_eq!(set.end_of(10), Some(599));
        assert_eq!(set.end_of(256), Some(599));
        assert_eq!((set.end_of(9), set.end_of(600)), (None, None));
        (0..300).for_each(|back| set.insert(address(u128::MAX - back)));
        assert_eq!(set.end_of(u128::MAX - 299), Some(u128::MAX));
        (10..600).for_each(|at| set.remove(address(at)));
        (0..300).for_each(|back| set.remove(address(u128::MAX - back)));
        assert_eq!(set, AddressSet::default());
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(steps in proptest::collection::vec((any::<bool>(), 0u128..200), 0..400)) {
            let (mut set, mut model) = (AddressSet::default(), BTreeSet::new());
            for (insert, at) in steps {
                if insert { set.insert(address(at)); model.insert(at); }
                else { set.remove(address(at)); model.remove(&at); }
            }
            for at in 0..201 {
                let end = (at..).take_while(|at| model.contains(at)).last();
                prop_assert_eq!(set.end_of(at), end);
            }
        }
    }
}
