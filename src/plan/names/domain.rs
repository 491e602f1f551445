//! The domain of all names, and what a name may be (RFC 1035 section 2.3.4).

use std::fmt;
use std::str::FromStr;

/// The longest label.
const LABEL: usize = 63;
/// The longest name, written with dots between the labels and none at its end.
const NAME: usize = 253;
/// The longest domain: below it are at least a VM and its namespace.
const DOMAIN: usize = NAME - 4;

/// A DNS domain in lower case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDomain(String);

/// The text is no domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a domain of labels with up to 63 letters, digits and hyphens each and dots between, 249 characters in all, as in vm.example.org"
)]
pub struct DomainError;

impl FromStr for DnsDomain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // The reverse names of all addresses are below it.
        let is_reverse = name == "arpa" || name.ends_with(".arpa");
        let is_host = name.split('.').all(|label| !label.contains('_'));
        if name.len() > DOMAIN || is_reverse || !is_host || !is_name(&name) {
            return Err(DomainError);
        }
        Ok(Self(name))
    }
}

impl fmt::Display for DnsDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl DnsDomain {
    /// The name of these labels below the domain, in lower case. Fails with the name if DNS cannot have it.
    pub(super) fn name(&self, labels: &[&str]) -> Result<String, String> {
        let name = format!("{}.{self}", labels.join(".")).to_ascii_lowercase();
        if is_name(&name) { Ok(name) } else { Err(name) }
    }
}

/// Returns true if DNS can have the name. Names of networks may have underscores.
fn is_name(name: &str) -> bool {
    let is_character = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.len() <= LABEL && label.bytes().all(is_character);
    name.len() <= NAME && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_read_in_any_case_and_with_a_dot_at_its_end() {
        let read = |text: &str| text.parse::<DnsDomain>().map(|domain| domain.to_string());
        assert_eq!(read("VM.Example.ORG."), Ok("vm.example.org".to_owned()));
        assert_eq!(read("lan"), Ok("lan".to_owned()));
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(57)].join(".");
        assert_eq!(read(&long), Ok(long.clone()));
        let label = "a".repeat(64);
        for bad in
            ["", ".", "a..b", ".a", "a b", "a_b", "ä.org", "in-addr.arpa", "ip6.arpa.", &label, &format!("x{long}")]
        {
            assert_eq!(read(bad), Err(DomainError), "{bad}");
        }
    }

    #[test]
    fn a_name_beyond_the_limits_of_dns_is_none() {
        let domain: DnsDomain = "lan".parse().expect("a domain");
        assert_eq!(domain.name(&["Net_1", "a.b", "ns"]), Ok("net_1.a.b.ns.lan".to_owned()));
        let label = "a".repeat(64);
        assert_eq!(domain.name(&[&label, "ns"]), Err(format!("{label}.ns.lan")));
        let labels = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(57)].join(".");
        assert_eq!(domain.name(&[&labels]).map(|name| name.len()), Ok(253));
        assert!(domain.name(&["e", &labels]).is_err());
        assert!(domain.name(&["a b", "ns"]).is_err());
    }
}
