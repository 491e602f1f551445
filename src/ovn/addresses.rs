//! `MAC IP...` strings, as the columns `addresses` and `port_security` hold them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use macaddr::MacAddr6;

/// A MAC with at most one address of each family: what a VM NIC holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The MAC.
    pub mac: MacAddr6,
    /// The IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    /// A MAC with these addresses; of a family the last counts.
    pub fn new(mac: MacAddr6, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        let (mut ipv4, mut ipv6) = (None, None);
        for ip in ips {
            match ip {
                IpAddr::V4(ip) => ipv4 = Some(ip),
                IpAddr::V6(ip) => ipv6 = Some(ip),
            }
        }
        Self { mac, ipv4, ipv6 }
    }

    /// The addresses, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// A MAC as OVN writes it.
pub(crate) fn mac_text(mac: MacAddr6) -> String {
    mac.to_string().to_lowercase()
}

/// `0a:58:0a:10:00:02 10.16.0.2 fd00::2`
impl fmt::Display for Addresses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&mac_text(self.mac))?;
        self.ips().try_for_each(|ip| write!(formatter, " {ip}"))
    }
}

/// A string that is not a NIC's `MAC IP...`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a MAC with at most one IPv4 and one IPv6 address")]
pub struct AddressError(pub String);

impl FromStr for Addresses {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(text.to_owned());
        let mut words = text.split_ascii_whitespace();
        let mac = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
        let (mut ipv4, mut ipv6) = (None, None);
        for word in words {
            let before = match word.parse().map_err(|_| bad())? {
                IpAddr::V4(ip) => ipv4.replace(ip).is_some(),
                IpAddr::V6(ip) => ipv6.replace(ip).is_some(),
            };
            if before {
                return Err(bad());
            }
        }
        Ok(Self { mac, ipv4, ipv6 })
    }
}

/// Every MAC and address that stands in a string of `addresses`, whatever else does: other people's
/// rows hold several addresses, prefix lengths and keywords.
pub(super) fn scan(text: &str, macs: &mut Vec<MacAddr6>, ips: &mut Vec<IpAddr>) {
    for word in text.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        let bare = word.split_once('/').map_or(word, |(address, _)| address);
        // Colons as a MAC has them no address has. As the first word of most, it is tried as one first.
        let colons = word.len() == 17 && word.bytes().skip(2).step_by(3).all(|byte| byte == b':');
        if colons && let Ok(mac) = word.parse() {
            macs.push(mac);
        } else if let Ok(ip) = bare.parse() {
            ips.push(ip);
        } else if let Ok(mac) = word.parse() {
            macs.push(mac);
        }
    }
}

/// Whether northd chooses the address of an element of `addresses`: `dynamic`, with a MAC before or an address after it
/// (ovn-nb(5)).
pub(super) fn is_dynamic(text: &str) -> bool {
    text.contains("dynamic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_as_ovn_does() {
        for text in ["0a:58:0a:10:00:02 10.16.0.2", "0a:58:0a:10:00:02 10.16.0.2 fd00::2", "0a:58:0a:10:00:02"] {
            assert_eq!(text.parse::<Addresses>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_a_nic_cannot_hold_is_refused() {
        for text in ["", "dynamic", "10.16.0.2", "0a:58:0a:10:00:02 10.16.0.2 10.16.0.3", "0a:58:0a:10:00:02 x"] {
            assert_eq!(text.parse::<Addresses>(), Err(AddressError(text.to_owned())));
        }
    }
}
