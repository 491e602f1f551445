//! Domain names, and lists of them as OVN compresses them.

use std::fmt;

use super::error::OptionFault;

/// A domain name without a dot at its end: labels of letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainName(String);

impl DomainName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its bytes in a message: one before each label, and one at the end.
    pub(super) fn sent(&self) -> usize {
        self.0.len() + 2
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<&str> for DomainName {
    type Error = OptionFault;

    fn try_from(text: &str) -> Result<Self, OptionFault> {
        let name = text.strip_suffix('.').unwrap_or(text);
        // RFC 1035, section 2.3.4: 255 bytes as it is sent.
        match name.len() <= 253 && name.split('.').all(is_label) {
            true => Ok(Self(name.to_owned())),
            false => Err(OptionFault::Domain(text.to_owned())),
        }
    }
}

/// Returns true for 1 to 63 letters, digits, `-` and `_` that neither begin nor end with `-`.
pub(super) fn is_label(label: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&label.len()) && label.bytes().all(is_allowed) && !label.starts_with('-') && !label.ends_with('-')
}

/// Reads the names of a list, which OVN wants in one string, with commas between.
///
/// OVN compresses the list (RFC 1035, section 4.1.4) by the ends of names that it has sent, and leaves the last
/// character out when it compares them (`ovs_strlcpy` in `encode_put_dhcpv4_option` of OVN 23.03 to 26.03): of
/// `a.example.com,b.example.con` the second is sent as `b.example.com`.
pub(super) fn read_list(text: &str) -> Result<Vec<DomainName>, OptionFault> {
    let names: Vec<DomainName> =
        text.split(',').map(|name| name.trim_matches(' ').try_into()).collect::<Result<_, _>>()?;
    for (index, second) in names.iter().enumerate() {
        if let Some(first) = names[..index].iter().find(|first| are_confused(first.as_str(), second.as_str())) {
            return Err(OptionFault::SameButLast { first: first.to_string(), second: second.to_string() });
        }
    }
    Ok(names)
}

/// Returns true if an end of one name differs from an end of the other in the last character only.
fn are_confused(first: &str, second: &str) -> bool {
    let without_last = |end: &str| end.get(..end.len().saturating_sub(1)).map(ToOwned::to_owned);
    ends(first).any(|one| ends(second).any(|other| one != other && without_last(one) == without_last(other)))
}

/// The name, and what follows each of its dots.
fn ends(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |end| end.split_once('.').map(|(_, rest)| rest))
}
