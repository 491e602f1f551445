//! `MAC IP...` strings, as the columns `addresses` and `port_security` hold them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use macaddr::MacAddr6;

use crate::ipam::spelling::{Masked, address_word, element, is_blank, mac_word, masked_word};

/// A MAC with at most one address of each family: the lease of a VM NIC.
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
    /// A MAC with these addresses; the last one of each family counts.
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

    /// The text, with the MAC in this case.
    pub(super) fn written(&self, case: Case) -> Written<'_> {
        Written(self, case)
    }

    /// Reads a text that [`Addresses::written`] would write just so: after the MAC an IPv4 address, an IPv6 address, or
    /// both in this order, each behind one space. Any other text is `None`, also where [`Addresses::from_str`] reads it.
    pub(super) fn as_written(text: &str) -> Option<(Self, Case)> {
        let (mac, ips) = text.split_at_checked(17)?;
        let (mac, case) = Case::read(mac)?;
        let mut addresses = Self { mac, ipv4: None, ipv6: None };
        let Some(ips) = ips.strip_prefix(' ') else { return ips.is_empty().then_some((addresses, case)) };
        let (ipv4, ipv6) = match ips.split_once(' ') {
            Some((ipv4, ipv6)) => (Some(ipv4), Some(ipv6)),
            None if ips.contains(':') => (None, Some(ips)),
            None => (Some(ips), None),
        };
        // There is one way to write an IPv4 address, and there are many to write an IPv6 address.
        addresses.ipv4 = ipv4.map(str::parse).transpose().ok()?;
        addresses.ipv6 = ipv6.map(str::parse).transpose().ok()?;
        let is_plain = |ip: Ipv6Addr| ipv6.is_some_and(|text| ip.to_string() == text);
        addresses.ipv6.is_none_or(is_plain).then_some((addresses, case))
    }

    /// The addresses, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// The case of the hexadecimal digits in a MAC: OVN and this service write lower case, and Kube-OVN writes upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Also that of a MAC without letters.
    Lower,
    Upper,
}

impl Case {
    fn write(self, mac: MacAddr6, text: &mut impl fmt::Write) -> fmt::Result {
        let digits: &[u8; 16] = match self {
            Self::Lower => b"0123456789abcdef",
            Self::Upper => b"0123456789ABCDEF",
        };
        for (index, byte) in mac.into_array().into_iter().enumerate() {
            if index > 0 {
                text.write_char(':')?;
            }
            text.write_char(char::from(digits[usize::from(byte >> 4)]))?;
            text.write_char(char::from(digits[usize::from(byte & 0xf)]))?;
        }
        Ok(())
    }

    /// Reads a MAC of six bytes with two digits each, all in one case.
    fn read(text: &str) -> Option<(MacAddr6, Self)> {
        let (mut mac, mut lower, mut upper) = ([0; 6], false, false);
        let mut digit = |byte: u8| {
            lower |= byte.is_ascii_lowercase();
            upper |= byte.is_ascii_uppercase();
            char::from(byte).to_digit(16)
        };
        for (byte, digits) in mac.iter_mut().zip(text.as_bytes().chunks(3)) {
            let ([high, low] | [high, low, b':']) = digits else { return None };
            *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        let is_one = text.len() == 17 && !(lower && upper);
        is_one.then_some((mac.into(), if upper { Self::Upper } else { Self::Lower }))
    }
}

/// A MAC as OVN writes it.
pub(crate) fn mac_text(mac: MacAddr6) -> String {
    let mut text = String::with_capacity(17);
    // A string takes whatever is written to it.
    let _ = Case::Lower.write(mac, &mut text);
    text
}

/// The text of addresses, with their MAC in one case.
pub(super) struct Written<'a>(&'a Addresses, Case);

impl fmt::Display for Written<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(addresses, case) = self;
        case.write(addresses.mac, formatter)?;
        addresses.ips().try_for_each(|ip| write!(formatter, " {ip}"))
    }
}

/// `0a:58:0a:10:00:02 10.16.0.2 fd00::2`
impl fmt::Display for Addresses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written(Case::Lower).fmt(formatter)
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

/// Every MAC and address in a string of `addresses`, among any other words: foreign rows hold several addresses, prefix
/// lengths and keywords. The result always includes the addresses that northd reads there.
pub(super) fn scan(text: &str, macs: &mut Vec<MacAddr6>, ips: &mut Vec<IpAddr>) {
    scan_words(text, |_| true, macs, ips);
}

/// The same for a string in which a whole network stands for all of its addresses, as in `port_security`: the network
/// itself belongs to no single port.
pub(super) fn scan_hosts(text: &str, macs: &mut Vec<MacAddr6>, ips: &mut Vec<IpAddr>) {
    scan_words(text, |masked| !masked.is_network(), macs, ips);
}

fn scan_words(text: &str, counts: impl Fn(&Masked) -> bool, macs: &mut Vec<MacAddr6>, ips: &mut Vec<IpAddr>) {
    let mut unread = false;
    let words = text.split(|character| is_blank(character) || character == ',');
    for word in words.filter(|word| !word.is_empty()) {
        // Only a MAC has colons at these places. Most strings begin with a MAC, so that is tried first.
        let colons = word.len() == 17 && word.bytes().skip(2).step_by(3).all(|byte| byte == b':');
        if colons && let Ok(mac) = word.parse() {
            macs.push(mac);
        } else if let Ok(ip) = word.parse() {
            ips.push(ip);
        } else if !matches!(word, "dynamic" | "router" | "unknown") {
            unread |= !scan_odd_word(word, &counts, macs, ips);
        }
    }
    // northd reads by characters, and may have found addresses across words.
    if unread && let Some((mac, addresses)) = element(text) {
        macs.push(mac);
        ips.extend(addresses.iter().filter(|masked| counts(masked)).map(|masked| masked.ip));
    }
}

/// Reads a word with a mask, or in a spelling that only northd takes. Returns true if it was read.
#[cold]
fn scan_odd_word(
    word: &str,
    counts: impl Fn(&Masked) -> bool,
    macs: &mut Vec<MacAddr6>,
    ips: &mut Vec<IpAddr>,
) -> bool {
    if let Some(masked) = masked_word(word) {
        ips.extend(counts(&masked).then_some(masked.ip));
    } else if let Some(mac) = mac_word(word).or_else(|| word.parse().ok()) {
        macs.push(mac);
    } else if let Some((Ok(ip), _)) = word.split_once('/').map(|(bare, mask)| (bare.parse(), mask)) {
        ips.push(ip);
    } else {
        return false;
    }
    true
}

/// One address, in any spelling.
pub(super) fn single_ip(text: &str) -> Option<IpAddr> {
    address_word(text.trim_matches(is_blank))
}

/// One MAC, in any spelling.
pub(super) fn single_mac(text: &str) -> Option<MacAddr6> {
    mac_word(text.trim_matches(is_blank))
}

/// Returns true if northd allocates the address of an element of `addresses`: `dynamic`, with a MAC before or an
/// address after it (ovn-nb(5), `is_dynamic_lsp_address()`).
pub(super) fn is_dynamic(text: &str) -> bool {
    text.contains("dynamic") && text.split(is_blank).any(|word| word == "dynamic")
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
    fn addresses_that_a_nic_cannot_hold_are_refused() {
        for text in ["", "dynamic", "10.16.0.2", "0a:58:0a:10:00:02 10.16.0.2 10.16.0.3", "0a:58:0a:10:00:02 x"] {
            assert_eq!(text.parse::<Addresses>(), Err(AddressError(text.to_owned())));
        }
    }

    fn scanned(text: &str, scan: fn(&str, &mut Vec<MacAddr6>, &mut Vec<IpAddr>)) -> Vec<String> {
        let (mut macs, mut ips) = (Vec::new(), Vec::new());
        scan(text, &mut macs, &mut ips);
        let mut found: Vec<String> =
            macs.into_iter().map(mac_text).chain(ips.iter().map(ToString::to_string)).collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn whatever_northd_holds_of_a_foreign_port_is_found() {
        for (text, expected) in [
            ("0a:58:0a:10:00:02 10.16.0.011 fd00::2", &["0a:58:0a:10:00:02", "10.16.0.11", "fd00::2"][..]),
            ("a:58:a:10:0:2\t10.16.0.2/24", &["0a:58:0a:10:00:02", "10.16.0.2"]),
            ("0A:58:0A:10:00:02 10.16.0.2/255.255.255.0", &["0a:58:0a:10:00:02", "10.16.0.2"]),
            ("0a:58:0a:10:00:02 10.16. 0.2", &["0a:58:0a:10:00:02", "10.16.0.2"]),
            ("0a:58:0a:10:00:02 x 10.16.0.3,10.16.0.4", &["0a:58:0a:10:00:02", "10.16.0.3", "10.16.0.4"]),
            ("dynamic 10.16.0.2", &["10.16.0.2"]),
            ("unknown", &[]),
        ] {
            assert_eq!(scanned(text, scan), expected, "{text:?}");
            assert_eq!(scanned(text, scan_hosts), expected, "{text:?}");
        }
        let networks = "0a:58:0a:10:00:02 10.16.0.0/24 10.16.1.0/255.255.255.0 10.16.0.9/24 fe80::/64 0.0.0.0/0";
        assert_eq!(scanned(networks, scan_hosts), ["0a:58:0a:10:00:02", "10.16.0.9"]);
    }

    #[test]
    fn dynamic_is_a_word() {
        for text in ["dynamic", "dynamic 10.0.0.2", "0a:58:0a:10:00:02 dynamic"] {
            assert!(is_dynamic(text), "{text}");
        }
        assert!(!is_dynamic("dynamical") && !is_dynamic("unknown"));
    }
}
