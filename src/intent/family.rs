//! The families of a NIC's addresses.

use std::fmt;
use std::str::FromStr;

/// The families that an owner requests: `ipv4`, `ipv6` or `dual`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpFamily {
    /// An IPv4 address alone.
    Ipv4,
    /// An IPv6 address alone.
    Ipv6,
    /// One of each.
    Dual,
}

impl IpFamily {
    /// Returns true if a port is to have an address of the family.
    pub fn has(self, ipv4: bool) -> bool {
        match self {
            Self::Ipv4 => ipv4,
            Self::Ipv6 => !ipv4,
            Self::Dual => true,
        }
    }
}

impl FromStr for IpFamily {
    type Err = ();

    /// Reads a word in any case.
    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Ipv4, Self::Ipv6, Self::Dual];
        all.into_iter().find(|family| family.to_string().eq_ignore_ascii_case(text)).ok_or(())
    }
}

/// In the form that is read.
impl fmt::Display for IpFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        })
    }
}
