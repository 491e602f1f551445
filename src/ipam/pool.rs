//! Who holds which address on one switch.

use std::net::IpAddr;

use super::addresses::AddressSet;
use super::holders::Holders;
use super::ranges::RangeSet;
use super::subnet::Subnet;

/// The addresses held on a switch, each by one holder or, where foreign rows clash, by several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool<H> {
    holders: Holders<IpAddr, H>,
    ipv4: AddressSet,
    ipv6: AddressSet,
}

impl<H> Default for Pool<H> {
    fn default() -> Self {
        Self { holders: Holders::default(), ipv4: AddressSet::default(), ipv6: AddressSet::default() }
    }
}

impl<H: Ord + Copy> Pool<H> {
    /// Notes that a holder has an address.
    pub fn hold(&mut self, address: IpAddr, holder: H) {
        self.holders.insert(address, holder);
        self.family(address).insert(address);
    }

    /// Notes that a holder has it no more.
    pub fn release(&mut self, address: IpAddr, holder: &H) {
        if self.holders.remove(address, *holder) {
            self.family(address).remove(address);
        }
    }

    /// Who holds an address.
    pub fn holders(&self, address: IpAddr) -> &[H] {
        self.holders.get(address)
    }

    /// The lowest address of a family in the subnet that nobody holds and that is not in `reserved`.
    /// `None` when all are held, or when the subnet has no block of that family.
    pub fn lowest_free(&self, subnet: &Subnet, ipv4: bool, reserved: &RangeSet) -> Option<IpAddr> {
        let held = if ipv4 { &self.ipv4 } else { &self.ipv6 };
        subnet.blocks(ipv4).find_map(|block| block.lowest_free(held, reserved))
    }

    fn family(&mut self, address: IpAddr) -> &mut AddressSet {
        if address.is_ipv4() { &mut self.ipv4 } else { &mut self.ipv6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    proptest! {
        #[test]
        fn behaves_as_a_plain_set_of_pairs(
            steps in proptest::collection::vec((any::<bool>(), 0u8..16, 0u8..3), 0..200),
        ) {
            let subnet = Subnet::new(Some("10.0.0.0/28"), Some("10.0.0.5"), None, []).expect("a subnet");
            let (mut pool, mut model) = (Pool::default(), BTreeSet::new());
            for (hold, at, holder) in steps {
                let address: IpAddr = Ipv4Addr::new(10, 0, 0, at).into();
                if hold { pool.hold(address, holder); model.insert((at, holder)); }
                else { pool.release(address, &holder); model.remove(&(at, holder)); }
                let free = (1..15u8).find(|at| *at != 5 && !model.iter().any(|(held, _)| held == at));
                let expected = free.map(|at| IpAddr::from(Ipv4Addr::new(10, 0, 0, at)));
                prop_assert_eq!(pool.lowest_free(&subnet, true, &RangeSet::default()), expected);
                let holders: Vec<u8> = model.iter().filter(|(held, _)| *held == at).map(|(_, who)| *who).collect();
                prop_assert_eq!(pool.holders(address), &holders[..]);
            }
        }
    }
}
