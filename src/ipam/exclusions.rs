//! `Logical_Switch other_config:exclude_ips` (ovn-nb(5)), read twice.
//!
//! Our own list of excluded addresses is read generously: every plausible meaning is excluded. The list that northd
//! leaves alone is read exactly as northd does it, because its `dynamic` ports get all other addresses: its lexer ends
//! the list at the first unexpected token.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ranges::number;
use super::spelling::{address_word, is_blank, masked_word};

/// Addresses of one family, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) ipv4: bool,
    pub(super) first: u128,
    pub(super) last: u128,
}

/// A part of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Addresses, and their spelling.
    Range(Range, String),
    /// Neither an address nor a range, or one that ends before it begins.
    Unreadable(String),
}

/// Every part of the list in every plausible meaning.
pub(super) fn generous(text: &str) -> Vec<Entry> {
    let text = without_comments(text).replace("..", " .. ");
    let mut words = text.split(|character| is_blank(character) || matches!(character, ',' | ';')).peekable();
    let mut entries = Vec::new();
    while let Some(word) = words.next() {
        if word.is_empty() {
            continue;
        }
        while words.next_if(|next| next.is_empty()).is_some() {}
        if words.next_if(|next| matches!(*next, ".." | "-")).is_none() {
            entries.push(single(word));
            continue;
        }
        while words.next_if(|next| next.is_empty()).is_some() {}
        let last = words.next();
        match last.and_then(|last| between(word, last)) {
            Some(entry) => entries.push(entry),
            // One end of it may be a valid address.
            None => {
                let ends = [Some(word), last];
                let readable = ends.into_iter().flatten().map(single).filter(|end| matches!(end, Entry::Range(..)));
                entries.extend(readable);
                entries.push(Entry::Unreadable(format!("{word}..{}", last.unwrap_or_default())));
            }
        }
    }
    entries
}

/// `first..last`; `None` if an end is not an address, or if they are of two families.
fn between(first: &str, last: &str) -> Option<Entry> {
    let text = format!("{first}..{last}");
    let (first, last) = (address(first)?, address(last)?);
    match (first.is_ipv4() == last.is_ipv4(), first <= last) {
        (true, true) => {
            let range = Range { ipv4: first.is_ipv4(), first: number(first), last: number(last) };
            Some(Entry::Range(range, text))
        }
        (true, false) => Some(Entry::Unreadable(text)),
        (false, _) => None,
    }
}

/// An address, a network, or `first-last`.
fn single(word: &str) -> Entry {
    let range = match address(word) {
        Some(address) => Some(Range { ipv4: address.is_ipv4(), first: number(address), last: number(address) }),
        // An interface's address with its network's length: northd ends the list there. It means that address.
        None => masked_word(word).map(|masked| {
            if !masked.is_network() {
                return Range { ipv4: masked.ip.is_ipv4(), first: number(masked.ip), last: number(masked.ip) };
            }
            let (bits, at) = (if masked.ip.is_ipv4() { 32 } else { 128 }, number(masked.ip));
            let host = 1u128.checked_shl(bits - u32::from(masked.length)).unwrap_or(0).wrapping_sub(1);
            Range { ipv4: masked.ip.is_ipv4(), first: at & !host, last: at | host }
        }),
    };
    match range {
        Some(range) => Entry::Range(range, word.to_owned()),
        None => {
            let ends = word.split_once('-').and_then(|(first, last)| between(first, last));
            ends.unwrap_or_else(|| Entry::Unreadable(word.to_owned()))
        }
    }
}

/// An address, also written as a number; an IPv4 address may be mapped into IPv6.
fn address(word: &str) -> Option<IpAddr> {
    if let Some(ip) = address_word(word) {
        let mapped = |ip: Ipv6Addr| ip.to_ipv4_mapped().map(IpAddr::V4);
        return Some(if let IpAddr::V6(ipv6) = ip { mapped(ipv6).unwrap_or(ip) } else { ip });
    }
    let hexadecimal = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let number = match hexadecimal {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None => word.parse().ok()?,
    };
    Some(IpAddr::V4(Ipv4Addr::from(number)))
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some(start) = rest.find('/') {
        let (before, comment) = rest.split_at(start);
        kept.push_str(before);
        let end = match comment.as_bytes() {
            [b'/', b'/', ..] => comment.find('\n').unwrap_or(comment.len()),
            [b'/', b'*', ..] => comment.find("*/").map_or(comment.len(), |end| end + 2),
            _ => {
                kept.push('/');
                1
            }
        };
        rest = &comment[end..];
    }
    kept.push_str(rest);
    kept
}

/// A token of OVN's lexer, as far as northd's loop over `exclude_ips` distinguishes them.
enum Token {
    /// `LEX_T_INTEGER`: an address, a number or a MAC, of which the lowest 32 bits count.
    Integer(u32),
    Ellipsis,
    /// Any token that ends the list.
    Other,
}

/// The ranges that northd excludes (`init_ipam_ipv4()`), before they are cut to the subnet: those up to the first
/// unexpected token. A range that ends before it begins is included, and excludes no address.
pub(super) fn of_northd(text: &str) -> Vec<(u32, u32)> {
    let mut rest = text;
    let mut ranges = Vec::new();
    let mut token = next_token(&mut rest);
    while let Some(Token::Integer(first)) = token {
        let mut last = first;
        token = next_token(&mut rest);
        if let Some(Token::Ellipsis) = token {
            let Some(Token::Integer(end)) = next_token(&mut rest) else { break };
            last = end;
            token = next_token(&mut rest);
        }
        ranges.push((first, last));
    }
    ranges
}

/// `lex_token_parse()`; `None` at the end.
fn next_token(rest: &mut &str) -> Option<Token> {
    loop {
        *rest = rest.trim_start_matches(is_blank);
        if rest.starts_with("//") {
            *rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            match (comment.find("*/"), comment.find('\n')) {
                (Some(end), line) if line.is_none_or(|line| end < line) => *rest = &comment[end + 2..],
                _ => return Some(Token::Other),
            }
        } else {
            break;
        }
    }
    let first = rest.chars().next()?;
    if let Some(after) = rest.strip_prefix("..") {
        *rest = after;
        return Some(Token::Ellipsis);
    }
    let hex_digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    let is_number = match first {
        '0'..='9' => true,
        ':' => rest.starts_with("::"),
        _ => hex_digits > 0 && rest.as_bytes().get(hex_digits) == Some(&b':'),
    };
    if !is_number {
        return Some(Token::Other);
    }
    let (word, after) = rest.split_at(extent(rest.as_bytes()));
    *rest = after;
    // With a mask it is another kind of token.
    let integer = integer(word).filter(|_| !after.starts_with('/'));
    Some(integer.map_or(Token::Other, Token::Integer))
}

/// The length of a number: two dots end it, and so does a colon after a dot.
fn extent(text: &[u8]) -> usize {
    let mut saw_dot = false;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b':' if !saw_dot => {}
            b'.' if text.get(index + 1) != Some(&b'.') => saw_dot = true,
            byte if byte.is_ascii_alphanumeric() => {}
            _ => return index,
        }
    }
    text.len()
}

/// `lex_parse_integer__()`, the lowest 32 bits.
fn integer(word: &str) -> Option<u32> {
    let low = |wide: u128| u32::try_from(wide & 0xffff_ffff).ok();
    if word.len() == 17
        && let Some(mac) = super::spelling::mac_word(word)
    {
        let [_, _, bytes @ ..] = mac.into_array();
        return Some(u32::from_be_bytes(bytes));
    }
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        let leading_zero = word.len() > 1 && word.starts_with('0');
        return word.parse::<u64>().ok().filter(|_| !leading_zero).and_then(|number| low(number.into()));
    }
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        return u128::from_str_radix(digits, 16).ok().and_then(low);
    }
    match word.parse().ok()? {
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(ip) => low(ip.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dotted(ranges: &[(u32, u32)]) -> Vec<String> {
        let text = |(first, last): &(u32, u32)| match first == last {
            true => Ipv4Addr::from(*first).to_string(),
            false => format!("{}..{}", Ipv4Addr::from(*first), Ipv4Addr::from(*last)),
        };
        ranges.iter().map(text).collect()
    }

    /// The readings of each list, by northd and by us; entries that begin with `!` are reported.
    const LISTS: [(&str, &[&str], &[&str]); 22] = [
        ("10.0.0.2 10.0.0.4..10.0.0.6", &["10.0.0.2", "10.0.0.4..10.0.0.6"], &["10.0.0.2", "10.0.0.4..10.0.0.6"]),
        (
            "10.0.0.2\t10.0.0.3\n10.0.0.4\r\n",
            &["10.0.0.2", "10.0.0.3", "10.0.0.4"],
            &["10.0.0.2", "10.0.0.3", "10.0.0.4"],
        ),
        ("\u{b}10.0.0.2 .. 10.0.0.4", &["10.0.0.2..10.0.0.4"], &["10.0.0.2..10.0.0.4"]),
        ("10.0.0.2,10.0.0.3", &["10.0.0.2"], &["10.0.0.2", "10.0.0.3"]),
        ("10.0.0.2; 10.0.0.3", &["10.0.0.2"], &["10.0.0.2", "10.0.0.3"]),
        ("10.0.0.2-10.0.0.4", &["10.0.0.2"], &["10.0.0.2..10.0.0.4"]),
        ("10.0.0.2 - 10.0.0.4", &["10.0.0.2"], &["10.0.0.2..10.0.0.4"]),
        ("10.0.0.8/30 10.0.0.2", &[], &["10.0.0.8..10.0.0.11", "10.0.0.2"]),
        (
            "0x0a000002 167772163 ::ffff:10.0.0.4",
            &["10.0.0.2", "10.0.0.3", "10.0.0.4"],
            &["10.0.0.2", "10.0.0.3", "10.0.0.4"],
        ),
        ("10.0.0.2,0x0a000003,167772164", &["10.0.0.2"], &["10.0.0.2", "10.0.0.3", "10.0.0.4"]),
        ("fd00::a00:2", &["10.0.0.2"], &["fd00::a00:2"]),
        ("10.0.0.010 10.0.0.2", &[], &["10.0.0.10", "10.0.0.2"]),
        ("10.0.0.9..10.0.0.3 10.0.0.2", &["10.0.0.9..10.0.0.3", "10.0.0.2"], &["!10.0.0.9..10.0.0.3", "10.0.0.2"]),
        ("x 10.0.0.2", &[], &["!x", "10.0.0.2"]),
        ("10.0.0.2 x 10.0.0.3", &["10.0.0.2"], &["10.0.0.2", "!x", "10.0.0.3"]),
        ("10.0.0.2.. 10.0.0.4 x", &["10.0.0.2..10.0.0.4"], &["10.0.0.2..10.0.0.4", "!x"]),
        ("10.0.0.2..", &[], &["10.0.0.2", "!10.0.0.2.."]),
        ("10.0.0.2..x", &[], &["10.0.0.2", "!10.0.0.2..x"]),
        ("10.0.0.2 // the router\n10.0.0.3", &["10.0.0.2", "10.0.0.3"], &["10.0.0.2", "10.0.0.3"]),
        ("10.0.0.2 /* the router */ 10.0.0.3", &["10.0.0.2", "10.0.0.3"], &["10.0.0.2", "10.0.0.3"]),
        ("10.0.0.2:80", &["10.0.0.2"], &["!10.0.0.2:80"]),
        ("", &[], &[]),
    ];

    #[test]
    fn every_list_is_read_as_northd_does_and_generously() {
        for (text, of_northd, expected) in LISTS {
            assert_eq!(dotted(&super::of_northd(text)), of_northd, "{text:?}");
            let ends = |range: &Range| {
                let at = |number| crate::ipam::ranges::address(range.ipv4, number);
                if range.first == range.last {
                    at(range.first).to_string()
                } else {
                    format!("{}..{}", at(range.first), at(range.last))
                }
            };
            let found: Vec<String> = generous(text)
                .iter()
                .map(|entry| match entry {
                    Entry::Range(range, _) => ends(range),
                    Entry::Unreadable(word) => format!("!{word}"),
                })
                .collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
