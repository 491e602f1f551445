//! The element of `port_security` on a row of ours.
//!
//! It begins with the lease, as `addresses` has it. Behind it stands what the guest may speak with besides, always with
//! the length of a mask, which tells it from the lease.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::addresses::{AddressError, Addresses};

/// All link-local addresses (RFC 4291 section 2.5.6), as ovn-nb(5) takes them: "A masked address, if the host part is
/// zero, indicates that the host is allowed to use any address in the subnet".
pub(super) const LINK_LOCALS: &str = "fe80::/64";

/// What a guest may speak with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// The lease.
    pub lease: Addresses,
    /// Any link-local address. Without it OVN lets the guest use the one that is made from its MAC.
    pub link_locals: bool,
    /// Further addresses, in order.
    pub vips: Vec<IpAddr>,
}

impl From<Addresses> for Secured {
    fn from(lease: Addresses) -> Self {
        Self { lease, link_locals: false, vips: Vec::new() }
    }
}

/// `0a:58:0a:10:00:02 10.16.0.2 fd00::2 fe80::/64 10.16.0.50/32`
impl fmt::Display for Secured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, link_locals, vips } = self;
        lease.fmt(formatter)?;
        if *link_locals {
            write!(formatter, " {LINK_LOCALS}")?;
        }
        vips.iter().try_for_each(|vip| write!(formatter, " {}", IpNet::from(*vip)))
    }
}

impl FromStr for Secured {
    type Err = AddressError;

    /// Reads an element as this service writes it, in any spelling of its words.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(text.to_owned());
        let words = || text.split_ascii_whitespace();
        let lease: Vec<&str> = words().take_while(|word| !word.contains('/')).collect();
        let mut secured = Self::from(lease.join(" ").parse::<Addresses>().map_err(|_| bad())?);
        for word in words().skip(lease.len()) {
            match word.parse().map_err(|_| bad())? {
                IpNet::V6(net) if is_link_locals(net.addr(), net.prefix_len()) => secured.link_locals = true,
                net if net.prefix_len() == net.max_prefix_len() => secured.vips.push(net.addr()),
                _ => return Err(bad()),
            }
        }
        secured.vips.sort_unstable();
        secured.vips.dedup();
        Ok(secured)
    }
}

fn is_link_locals(address: Ipv6Addr, length: u8) -> bool {
    length == 64 && IpAddr::V6(address) == IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_read_as_it_is_written() {
        for (text, link_locals) in [
            ("0a:58:0a:10:00:02", false),
            ("0a:58:0a:10:00:02 10.16.0.2", false),
            ("0a:58:0a:10:00:02 10.16.0.2 fd00::2", false),
            ("0a:58:0a:10:00:02 fd00::2 fe80::/64", true),
            ("0a:58:0a:10:00:02 10.16.0.2 fd00::2 fe80::/64", true),
            ("0a:58:0a:10:00:02 10.16.0.2 fd00::50/128", false),
            ("0a:58:0a:10:00:02 10.16.0.2 fd00::2 fe80::/64 10.16.0.50/32 10.16.0.51/32 fd00::50/128", true),
        ] {
            let secured: Secured = text.parse().expect(text);
            assert_eq!((secured.to_string().as_str(), secured.link_locals), (text, link_locals));
        }
    }

    #[test]
    fn an_element_of_another_program_is_none_of_ours() {
        for text in [
            "",
            "10.16.0.2",
            "fe80::/64",
            "0a:58:0a:10:00:02 fe80::/10",
            "0a:58:0a:10:00:02 fe80:0:0:1::/64",
            "0a:58:0a:10:00:02 10.16.0.0/24",
            "0a:58:0a:10:00:02 10.16.0.2/24",
            "0a:58:0a:10:00:02 fe80::/64 10.16.0.2",
            "0a:58:0a:10:00:02 10.16.0.2 10.16.0.3 fe80::/64",
        ] {
            assert_eq!(text.parse::<Secured>(), Err(AddressError(text.to_owned())));
        }
    }
}
