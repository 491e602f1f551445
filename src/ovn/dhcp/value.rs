//! The value of an option: read by the option's type, and written so that OVN's lexer reads the same.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use macaddr::MacAddr6;

use super::bounds;
use super::domain;
use super::error::{NumberFault, OptionFault};
use super::table::{Family, OptionType};
use super::text::{Item, Raw};
use crate::ovn::mac_text;

pub use super::domain::DomainName;

/// The most bytes of a DHCPv4 option: its length is one byte. OVN sends a longer string modulo 256.
pub(super) const LONGEST_OPTION: usize = 255;

/// The value of an option. Its text is that of the row's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `0` or `1`.
    Bool(bool),
    /// A number.
    Number(u32),
    /// One or more addresses.
    Ipv4(Vec<Ipv4Addr>),
    /// One or more addresses.
    Ipv6(Vec<Ipv6Addr>),
    /// One or more routes.
    Routes(Vec<Route>),
    /// A string.
    Text(Text),
    /// One or more domain names.
    Domains(Vec<DomainName>),
    /// A MAC.
    Mac(MacAddr6),
    /// `true` or `false`.
    Switch(bool),
}

/// A route of `classless_static_route`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination, without bits after its prefix.
    pub network: Ipv4Net,
    /// The router, or `0.0.0.0` for a network on the link.
    pub via: Ipv4Addr,
}

/// A string that OVN's lexer reads as it is: visible ASCII and blanks, without `"`, `\` and `^`, of 1 to 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Text {
    type Error = OptionFault;

    fn try_from(text: &str) -> Result<Self, OptionFault> {
        // A backslash begins an escape, a circumflex the name of a template.
        let is_plain = |character: &char| matches!(character, ' '..='~') && !matches!(character, '"' | '\\' | '^');
        if let Some(character) = text.chars().find(|character| !is_plain(character)) {
            return Err(OptionFault::Character { value: text.to_owned(), character });
        }
        match text.len() {
            0 => Err(OptionFault::Empty),
            bytes if bytes > LONGEST_OPTION => Err(OptionFault::TooLong { bytes, most: LONGEST_OPTION }),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl Value {
    pub(super) fn is_empty_list(&self) -> bool {
        match self {
            Self::Ipv4(addresses) => addresses.is_empty(),
            Self::Ipv6(addresses) => addresses.is_empty(),
            Self::Routes(routes) => routes.is_empty(),
            Self::Domains(names) => names.is_empty(),
            Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Mac(_) | Self::Switch(_) => false,
        }
    }
}

/// Reads a value by the type of its option.
pub(super) fn read(raw: &Raw<'_>, family: Family, name: &str, kind: &OptionType) -> Result<Value, OptionFault> {
    let value = match kind {
        OptionType::Bool => Value::Bool(one_of(raw, ["0", "1"], OptionFault::Bool)?),
        OptionType::Switch => Value::Switch(one_of(raw, ["false", "true"], OptionFault::Switch)?),
        OptionType::Uint8 | OptionType::Uint16 | OptionType::Uint32 => Value::Number(number(raw, name, kind)?),
        OptionType::Ipv4 => Value::Ipv4(addresses(raw, name, ipv4)?),
        OptionType::Ipv6 => Value::Ipv6(addresses(raw, name, ipv6)?),
        OptionType::StaticRoutes => Value::Routes(routes(raw)?),
        OptionType::HostId => match raw {
            Raw::Quoted(text) => Value::Text(Text::try_from(*text)?),
            Raw::Bare(text) => {
                Value::Ipv4(vec![ipv4(text, name).map_err(|_| OptionFault::NotQuoted((*text).to_owned()))?])
            }
            Raw::Braces(text, _) => return Err(OptionFault::Braces((*text).to_owned())),
        },
        OptionType::Str => Value::Text(string(raw, family, name)?),
        OptionType::Domain => Value::Text(domain_text(text(raw)?)?),
        OptionType::Domains => Value::Domains(domain::read_list(text(raw)?)?),
        OptionType::Mac => Value::Mac(mac(raw)?),
        OptionType::Other(kind) => return Err(OptionFault::UnknownType(kind.clone())),
    };
    bounds::check_length(&value)?;
    Ok(value)
}

/// The text of a value that has no list.
fn single<'a>(raw: &Raw<'a>) -> Result<&'a str, OptionFault> {
    match raw {
        Raw::Bare(text) => Ok(text),
        Raw::Quoted(text) => Err(OptionFault::Quoted((*text).to_owned())),
        Raw::Braces(text, _) => Err(OptionFault::Braces((*text).to_owned())),
    }
}

/// The text in quotation marks.
fn text<'a>(raw: &Raw<'a>) -> Result<&'a str, OptionFault> {
    match raw {
        Raw::Quoted("") => Err(OptionFault::Empty),
        Raw::Quoted(text) => Ok(text),
        Raw::Bare(text) => Err(OptionFault::NotQuoted((*text).to_owned())),
        Raw::Braces(text, _) => Err(OptionFault::Braces((*text).to_owned())),
    }
}

/// Returns true for the second of two words.
fn one_of(raw: &Raw<'_>, words: [&str; 2], fault: fn(String) -> OptionFault) -> Result<bool, OptionFault> {
    let text = single(raw)?;
    words.iter().position(|word| *word == text).map(|at| at == 1).ok_or_else(|| fault(text.to_owned()))
}

fn number(raw: &Raw<'_>, name: &str, kind: &OptionType) -> Result<u32, OptionFault> {
    let text = single(raw)?;
    let (least, most) = bounds::range(name, kind);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fault = match text.split_once('.') {
        Some((whole, part)) if is_number(whole) && is_number(part) => NumberFault::Fraction,
        _ if !is_number(digits) => unit(text, name),
        _ if text.starts_with('-') => NumberFault::Negative,
        _ if text.len() > 1 && text.starts_with('0') => NumberFault::LeadingZero,
        _ => match text.parse() {
            Ok(number) if (least..=most).contains(&number) => return Ok(number),
            _ => NumberFault::OutOfRange,
        },
    };
    Err(OptionFault::Number { value: text.to_owned(), fault, least, most })
}

/// The fault of a number that has more than digits.
fn unit(text: &str, name: &str) -> NumberFault {
    let (digits, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return NumberFault::NotANumber,
    };
    match digits.parse::<u32>() {
        Ok(number) if bounds::is_in_seconds(name) => NumberFault::Unit(number.checked_mul(seconds)),
        Ok(_) => NumberFault::Unit(None),
        Err(_) => NumberFault::NotANumber,
    }
}

/// The addresses of an option: one, or a list.
fn addresses<A>(
    raw: &Raw<'_>,
    name: &str,
    read: fn(&str, &str) -> Result<A, OptionFault>,
) -> Result<Vec<A>, OptionFault> {
    let texts = bare_items(raw)?;
    if texts.len() > 1 && bounds::has_one_address(name) {
        return Err(OptionFault::OneAddress(texts.len()));
    }
    if texts.len() % 2 == 1 && bounds::has_pairs(name) {
        return Err(OptionFault::Pairs(texts.len()));
    }
    texts.into_iter().map(|text| read(text, name)).collect()
}

/// The elements of a list without quotation marks. One value is a list of one.
fn bare_items<'a>(raw: &Raw<'a>) -> Result<Vec<&'a str>, OptionFault> {
    let quoted = |text: &str| OptionFault::Quoted(text.to_owned());
    match raw {
        Raw::Bare(text) => Ok(vec![text]),
        Raw::Quoted(text) => Err(quoted(text)),
        Raw::Braces(_, items) if items.is_empty() => Err(OptionFault::Empty),
        Raw::Braces(_, items) => {
            let bare = |item: &Item<'a>| match item {
                Item::Bare(text) => Ok(*text),
                Item::Quoted(text) => Err(quoted(text)),
            };
            items.iter().map(bare).collect()
        }
    }
}

/// An IPv4 address. OVN's lexer refuses some leading zeros and reads others as decimal numbers.
fn ipv4(text: &str, name: &str) -> Result<Ipv4Addr, OptionFault> {
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let octets: Vec<String> = text.split('.').map(without_zeros).collect();
        return Err(match octets.join(".").parse() {
            Ok(plain) => OptionFault::AddressZeros { value: text.to_owned(), plain },
            Err(_) => OptionFault::Address(text.to_owned()),
        });
    };
    let is_hosts = !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast();
    match is_hosts || bounds::takes_any_address(name) {
        true => Ok(address),
        false => Err(OptionFault::NotUnicast(IpAddr::V4(address))),
    }
}

fn without_zeros(octet: &str) -> String {
    let short = octet.trim_start_matches('0');
    if short.is_empty() && !octet.is_empty() { "0".to_owned() } else { short.to_owned() }
}

fn ipv6(text: &str, _: &str) -> Result<Ipv6Addr, OptionFault> {
    let address: Ipv6Addr = text.parse().map_err(|_| OptionFault::Address(text.to_owned()))?;
    match address.is_unspecified() || address.is_multicast() || address.to_ipv4_mapped().is_some() {
        true => Err(OptionFault::NotUnicast(IpAddr::V6(address))),
        false => Ok(address),
    }
}

fn routes(raw: &Raw<'_>) -> Result<Vec<Route>, OptionFault> {
    let texts = bare_items(raw)?;
    // OVN leaves out the last of an odd number.
    if texts.len() % 2 == 1 {
        return Err(OptionFault::Pairs(texts.len()));
    }
    let route = |pair: &[&str]| Ok(Route { network: network(pair[0])?, via: router(pair[1])? });
    texts.chunks_exact(2).map(route).collect()
}

/// The destination of a route. OVN clears bits after the prefix without a word.
fn network(text: &str) -> Result<Ipv4Net, OptionFault> {
    let fault = || OptionFault::Network(text.to_owned());
    let network: Ipv4Net = match text.split_once('/') {
        Some((_, length)) if length.len() > 1 && length.starts_with('0') => return Err(fault()),
        Some(_) => text.parse().map_err(|_| fault())?,
        None => text.parse::<Ipv4Addr>().map(Ipv4Net::from).map_err(|_| fault())?,
    };
    match network.trunc() {
        plain if plain == network => Ok(network),
        plain => Err(OptionFault::HostBits { value: text.to_owned(), network: plain }),
    }
}

/// The router of a route: RFC 3442 has 0.0.0.0 for a network on the link.
fn router(text: &str) -> Result<Ipv4Addr, OptionFault> {
    if text == "0.0.0.0" { Ok(Ipv4Addr::UNSPECIFIED) } else { ipv4(text, "router") }
}

fn string(raw: &Raw<'_>, family: Family, name: &str) -> Result<Text, OptionFault> {
    let text = text(raw)?;
    if bounds::is_domain(name) {
        return domain_text(text);
    }
    if bounds::is_one_label(family, name) {
        let one = domain_text(text)?;
        return if one.as_str().contains('.') { Err(OptionFault::OneLabel(text.to_owned())) } else { Ok(one) };
    }
    Text::try_from(text)
}

/// A domain name as a string.
fn domain_text(text: &str) -> Result<Text, OptionFault> {
    DomainName::try_from(text).and_then(|name| Text::try_from(name.as_str()))
}

/// Six bytes of two digits: the lexer takes no other form.
fn mac(raw: &Raw<'_>) -> Result<MacAddr6, OptionFault> {
    let text = single(raw)?;
    let fault = || OptionFault::Mac(text.to_owned());
    let is_digits = |byte: &str| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| is_digits(byte).then(|| u8::from_str_radix(byte, 16).ok()).flatten())
        .collect::<Option<_>>()
        .ok_or_else(fault)?;
    let mac = MacAddr6::from(<[u8; 6]>::try_from(bytes).map_err(|_| fault())?);
    if mac.is_unicast() && !mac.is_nil() { Ok(mac) } else { Err(fault()) }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(formatter, "{}", u8::from(*value)),
            Self::Number(number) => number.fmt(formatter),
            Self::Ipv4(addresses) => list(formatter, addresses),
            Self::Ipv6(addresses) => list(formatter, addresses),
            Self::Routes(routes) => {
                let routes: Vec<String> =
                    routes.iter().map(|route| format!("{}, {}", route.network, route.via)).collect();
                write!(formatter, "{{{}}}", routes.join(", "))
            }
            Self::Text(text) => write!(formatter, "\"{}\"", text.as_str()),
            Self::Domains(names) => {
                let names: Vec<&str> = names.iter().map(DomainName::as_str).collect();
                write!(formatter, "\"{}\"", names.join(","))
            }
            Self::Mac(mac) => formatter.write_str(&mac_text(*mac)),
            Self::Switch(value) => value.fmt(formatter),
        }
    }
}

/// One value, or several in braces.
fn list<A: Display>(formatter: &mut fmt::Formatter<'_>, values: &[A]) -> fmt::Result {
    match values {
        [value] => value.fmt(formatter),
        values => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            write!(formatter, "{{{}}}", values.join(", "))
        }
    }
}
