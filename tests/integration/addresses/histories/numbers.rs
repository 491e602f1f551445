//! The numbers that choose the events of a history.

use std::net::IpAddr;

use super::model::{Request, host, pools};

/// Numbers that follow from a seed (SplitMix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let at = usize::try_from(self.below(of.len() as u64)).expect("few");
        of[at].clone()
    }

    pub(super) fn address(&mut self) -> IpAddr {
        host(u8::try_from(self.below(16)).expect("small"))
    }

    pub(super) fn request(&mut self) -> Request {
        let mut request = Request::default();
        if self.below(3) == 0 {
            request.addresses.push(self.address());
        }
        if self.below(5) == 0 {
            request.addresses.push(self.pick(&["fd00::2", "fd00::3", "fd00::10"]).parse().expect("an address"));
        }
        if self.below(3) == 0 {
            request.pool = Some(self.pick(&pools().collect::<Vec<_>>()));
        }
        request
    }
}
