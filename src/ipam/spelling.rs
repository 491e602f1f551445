//! Addresses as OVN's programs read them.
//!
//! ovn-northd takes spellings that RFC 4001's and Rust's parsers refuse, and holds the addresses that it read: octets
//! with leading zeros, MAC bytes of one digit, dotted masks. Its columns have two grammars: most are read by
//! `ovs_scan()` (OVS, lib/util.c), `exclude_ips` by the lexer of logical flows (OVN, lib/lex.c). A service that
//! allocates addresses beside northd has to read the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use macaddr::MacAddr6;

/// C's `isspace()`, which separates words in every column.
pub(crate) fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn is_blank_byte(byte: u8) -> bool {
    is_blank(char::from(byte))
}

/// An address with the length of its mask: 32 or 128 if it has no mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Masked {
    pub(crate) ip: IpAddr,
    pub(crate) length: u8,
}

impl Masked {
    /// Returns true if it is a whole network and no address in it (ovn-nb(5), Logical_Switch_Port `port_security`: "A
    /// masked address, if the host part is zero").
    pub(crate) fn is_network(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => self.length < 32 && u32::from(ip).checked_shl(self.length.into()).unwrap_or(0) == 0,
            IpAddr::V6(ip) => self.length < 128 && u128::from(ip).checked_shl(self.length.into()).unwrap_or(0) == 0,
        }
    }
}

/// Reads from a text as `ovs_scan()` does: a part that does not fit leaves the position unchanged.
#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    rest: &'a [u8],
    /// A byte was written as a greater number: C keeps its lowest eight bits.
    wrapped: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text.as_bytes(), wrapped: false }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn has_wrapped(&self) -> bool {
        self.wrapped
    }

    /// Six bytes (`ETH_ADDR_SCAN_FMT`).
    pub(crate) fn mac(&mut self) -> Option<MacAddr6> {
        self.whole(|scanner| scanner.bytes::<6>(16, b':')).map(MacAddr6::from)
    }

    /// Four octets (`IP_SCAN_FMT`), decimal even with leading zeros.
    pub(crate) fn ipv4(&mut self) -> Option<Ipv4Addr> {
        self.whole(|scanner| scanner.bytes::<4>(10, b'.')).map(Ipv4Addr::from)
    }

    /// An address with or without a mask (`ip_parse_cidr_len()`, `ipv6_parse_cidr_len()`), and true if it has one.
    pub(crate) fn masked(&mut self) -> Option<(Masked, bool)> {
        self.whole(|scanner| scanner.masked_ipv4().or_else(|| scanner.masked_ipv6()))
    }

    fn masked_ipv4(&mut self) -> Option<(Masked, bool)> {
        let ip = IpAddr::V4(self.ipv4()?);
        let mask = self.whole(|scanner| scanner.literal(b'/').then(|| scanner.ipv4())?);
        if let Some(mask) = mask {
            return Some((Masked { ip, length: prefix_length(u32::from(mask).into(), 32)? }, true));
        }
        let length = self.whole(|scanner| scanner.literal(b'/').then(|| scanner.number(10))?);
        let Some(length) = length else { return Some((Masked { ip, length: 32 }, false)) };
        Some((Masked { ip, length: u8::try_from(length).ok().filter(|length| *length <= 32)? }, true))
    }

    fn masked_ipv6(&mut self) -> Option<(Masked, bool)> {
        let ip = IpAddr::V6(self.whole(Self::ipv6)?);
        if let Some(length) = self.whole(|scanner| scanner.literal(b'/').then(|| scanner.number(10))?)
            && self.rest.first().is_none_or(|byte| *byte != b':')
        {
            return Some((Masked { ip, length: u8::try_from(length).ok().filter(|length| *length <= 128)? }, true));
        }
        let mask = self.whole(|scanner| scanner.literal(b'/').then(|| scanner.ipv6())?);
        let Some(mask) = mask else { return Some((Masked { ip, length: 128 }, false)) };
        Some((Masked { ip, length: prefix_length(mask.into(), 128)? }, true))
    }

    fn ipv6(&mut self) -> Option<Ipv6Addr> {
        self.skip_blanks();
        let fits = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        let length = self.rest.iter().take(46).take_while(|byte| fits(byte)).count();
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        std::str::from_utf8(word).ok()?.parse().ok()
    }

    fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let mut ahead = self.clone();
        let found = read(&mut ahead)?;
        *self = ahead;
        Some(found)
    }

    fn skip_blanks(&mut self) {
        let blanks = self.rest.iter().take_while(|byte| is_blank_byte(**byte)).count();
        self.rest = &self.rest[blanks..];
    }

    fn literal(&mut self, expected: u8) -> bool {
        let Some(rest) = self.rest.strip_prefix(&[expected]) else { return false };
        self.rest = rest;
        true
    }

    fn bytes<const N: usize>(&mut self, radix: u32, separator: u8) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (index, byte) in bytes.iter_mut().enumerate() {
            if index > 0 && !self.literal(separator) {
                return None;
            }
            let number = self.number(radix)?;
            self.wrapped |= number > 0xff;
            *byte = number.to_le_bytes()[0];
        }
        Some(bytes)
    }

    /// A number after any blanks, as `scan_int()` reads it.
    fn number(&mut self, radix: u32) -> Option<u64> {
        self.skip_blanks();
        let negative = self.literal(b'-');
        if !negative {
            self.literal(b'+');
        }
        if radix == 16 && matches!(self.rest, [b'0', b'x' | b'X', ..]) {
            self.rest = &self.rest[2..];
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(radix);
        let digits = self.rest.iter().map_while(digit);
        let (count, value) = digits.fold((0, 0u64), |(count, value), digit| {
            (count + 1, value.wrapping_mul(radix.into()).wrapping_add(digit.into()))
        });
        self.rest = &self.rest[count..];
        (count > 0).then_some(if negative { value.wrapping_neg() } else { value })
    }
}

/// The length of a mask of so many bits; `None` if it has holes.
fn prefix_length(mask: u128, bits: u32) -> Option<u8> {
    let aligned = mask << (128 - bits);
    let ones = aligned.leading_ones();
    (aligned.checked_shl(ones).unwrap_or(0) == 0).then_some(ones).and_then(|ones| u8::try_from(ones).ok())
}

/// An address, with or without a mask, that fills a word.
pub(crate) fn masked_word(word: &str) -> Option<Masked> {
    let mut scanner = Scanner::new(word);
    let (masked, _) = scanner.masked()?;
    scanner.is_at_end().then_some(masked)
}

/// An address that fills a word.
pub(crate) fn address_word(word: &str) -> Option<IpAddr> {
    if let Ok(ip) = word.parse() {
        return Some(ip);
    }
    let mut scanner = Scanner::new(word);
    let ip = scanner.ipv4()?;
    scanner.is_at_end().then_some(IpAddr::V4(ip))
}

/// A MAC that fills a word.
pub(crate) fn mac_word(word: &str) -> Option<MacAddr6> {
    let mut scanner = Scanner::new(word);
    let mac = scanner.mac()?;
    scanner.is_at_end().then_some(mac)
}

/// The part of an element of `addresses` that northd reads (`extract_lsp_addresses()`): a MAC, and the addresses up to
/// the first unreadable word; `None` without a MAC.
pub(crate) fn element(text: &str) -> Option<(MacAddr6, Vec<Masked>)> {
    let mut scanner = Scanner::new(text);
    let mac = scanner.mac()?;
    let addresses = std::iter::from_fn(|| scanner.masked().map(|(masked, _)| masked));
    Some((mac, addresses.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn spellings_that_northd_takes_are_read_as_northd_reads_them() {
        for (text, mac, ips) in [
            ("a:58:a:0:0:2 10.0.0.2", "0a:58:0a:00:00:02", &["10.0.0.2"][..]),
            ("0A:58:0A:00:00:02\t10.0.0.010/24", "0a:58:0a:00:00:02", &["10.0.0.10"]),
            (
                " 0a:58:0a:00:00:02  010.00.0.2/255.255.255.0 fd00::0002/064",
                "0a:58:0a:00:00:02",
                &["10.0.0.2", "fd00::2"],
            ),
            ("0a:58:0a:00:00:02 10.0.0.2,10.0.0.3", "0a:58:0a:00:00:02", &["10.0.0.2"]),
            ("0a:58:0a:00:00:02 10. 0.0.258", "0a:58:0a:00:00:02", &["10.0.0.2"]),
            ("0a:58:0a:00:00:02 x 10.0.0.3", "0a:58:0a:00:00:02", &[]),
            ("0a:58:0a:00:00:02 10.0.0.2/255.0.255.0", "0a:58:0a:00:00:02", &[]),
        ] {
            let (found, addresses) = element(text).expect(text);
            assert_eq!(found, mac.parse().expect(mac), "{text}");
            let expected: Vec<IpAddr> = ips.iter().map(|text| ip(text)).collect();
            assert_eq!(addresses.iter().map(|masked| masked.ip).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(element("dynamic 10.0.0.2"), None);
    }

    #[test]
    fn a_network_is_distinguished_from_an_address_with_a_prefix_length() {
        for (text, network) in [
            ("10.0.0.0/24", true),
            ("10.0.0.9/24", false),
            ("10.0.0.0", false),
            ("10.0.0.0/255.255.255.0", true),
            ("0.0.0.0/0", true),
            ("fe80::/64", true),
            ("fe80::1/64", false),
            ("fe80::/ffff:ffff:ffff:ffff::", true),
            ("::/0", true),
        ] {
            assert_eq!(masked_word(text).map(|masked| masked.is_network()), Some(network), "{text}");
        }
        for text in ["10.0.0.0/33", "10.0.0.0/255.0.255.0", "10.0.0.0/24x", "fe80::/129", "x", "10.0.0"] {
            assert_eq!(masked_word(text), None, "{text}");
        }
    }
}
