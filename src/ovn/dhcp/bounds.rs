//! The bounds of options beyond their types: ranges, numbers of addresses, and the size of an answer.

use super::DhcpOptions;
use super::error::{OptionError, OptionFault};
use super::table::{Family, OptionType};
use super::value::{LONGEST_OPTION, Route, Value};

/// The most bytes of all options of a row. With the headers, the mask and a host name the answer is one packet of at
/// most 1,280 bytes then, which is the least MTU of IPv6: OVN does not cut an answer into fragments.
pub(super) const LONGEST_ANSWER: usize = 900;

/// Options with one address: of several OVN sends the first, or more than a guest expects, or nothing.
const ONE_ADDRESS: [&str; 5] = ["server_id", "next_server", "broadcast_address", "swap_server", "router_solicitation"];
/// Options with addresses that no host has: masks, and the broadcast address.
const ANY_ADDRESS: [&str; 2] = ["policy_filter", "broadcast_address"];
/// Options with addresses in pairs (RFC 2132, section 4.3).
const PAIRS: [&str; 1] = ["policy_filter"];
/// Options whose number is a time in seconds.
const SECONDS: [&str; 5] = ["lease_time", "T1", "T2", "arp_cache_timeout", "tcp_keepalive_interval"];
/// Strings that are a domain name or a host name.
const DOMAIN: [&str; 2] = ["domain_name", "hostname"];
/// A string that OVN sends as one label, in which dots are no separators.
const ONE_LABEL: [&str; 1] = ["domain_search"];

/// The least and the greatest number of an option.
pub(super) fn range(name: &str, kind: &OptionType) -> (u32, u32) {
    let most = match kind {
        OptionType::Uint8 => u32::from(u8::MAX),
        OptionType::Uint16 => u32::from(u16::MAX),
        _ => u32::MAX,
    };
    let least = match name {
        // RFC 2132, section 5.1.
        "mtu" => 68,
        // A lease of no time is one that ends at once. RFC 2132, sections 4.5 and 6.1, for the others.
        "lease_time" | "T1" | "T2" | "default_ttl" | "tcp_ttl" => 1,
        _ => 0,
    };
    (least, most)
}

pub(super) fn has_one_address(name: &str) -> bool {
    ONE_ADDRESS.contains(&name)
}

pub(super) fn takes_any_address(name: &str) -> bool {
    ANY_ADDRESS.contains(&name)
}

pub(super) fn has_pairs(name: &str) -> bool {
    PAIRS.contains(&name)
}

pub(super) fn is_in_seconds(name: &str) -> bool {
    SECONDS.contains(&name)
}

pub(super) fn is_domain(name: &str) -> bool {
    DOMAIN.contains(&name)
}

pub(super) fn is_one_label(family: Family, name: &str) -> bool {
    family == Family::V6 && ONE_LABEL.contains(&name)
}

/// The bytes of a route in an option (RFC 3442): the length of its prefix, the prefix, the router.
fn sent_route(route: &Route) -> usize {
    1 + usize::from(route.network.prefix_len()).div_ceil(8) + 4
}

/// The bytes of a value in a message.
pub(super) fn sent(value: &Value) -> usize {
    match value {
        Value::Bool(_) | Value::Switch(_) => 1,
        Value::Number(_) => 4,
        Value::Ipv4(addresses) => 4 * addresses.len(),
        Value::Ipv6(addresses) => 16 * addresses.len(),
        Value::Routes(routes) => routes.iter().map(sent_route).sum(),
        Value::Text(text) => text.as_str().len(),
        // As if nothing were compressed.
        Value::Domains(names) => names.iter().map(super::DomainName::sent).sum(),
        Value::Mac(_) => 6,
    }
}

/// Checks the bytes of one option.
pub(super) fn check_length(value: &Value) -> Result<(), OptionFault> {
    match sent(value) {
        bytes if bytes > LONGEST_OPTION => Err(OptionFault::TooLong { bytes, most: LONGEST_OPTION }),
        _ => Ok(()),
    }
}

/// Checks the bytes of all options, with the headers of each.
pub(super) fn check_size(options: &DhcpOptions) -> Result<(), OptionError> {
    let header = if options.family == Family::V4 { 2 } else { 4 };
    let bytes = options.options.values().map(|value| header + sent(value)).sum();
    let longest = options.options.iter().max_by_key(|(_, value)| sent(value));
    match longest {
        Some((name, _)) if bytes > LONGEST_ANSWER => {
            let fault = OptionFault::AnswerTooLong { bytes, most: LONGEST_ANSWER };
            Err(OptionError::new(options.family, name, fault))
        }
        _ => Ok(()),
    }
}

/// Checks that a guest renews before it rebinds, and rebinds before its lease ends (RFC 2131, section 4.4.5).
pub(super) fn check_order(options: &DhcpOptions) -> Result<(), OptionError> {
    let number = |name: &str| match options.get(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    for (name, than) in [("T1", "T2"), ("T1", "lease_time"), ("T2", "lease_time")] {
        let (Some(value), Some(limit)) = (number(name), number(than)) else { continue };
        if value >= limit {
            return Err(OptionError::new(options.family, name, OptionFault::NotLess { value, than, limit }));
        }
    }
    Ok(())
}
