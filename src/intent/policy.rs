//! The operator's policy: the switches that a namespace may use, and the requests that owners of VMs may make there.
//!
//! The row of a logical switch states its own policy in `external_ids`, and that is the stronger one. The configuration
//! states the policy of all other switches. Both are written in the words that are read here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::retention::Retention;
use crate::kubevirt::annotations::is_subdomain;

/// The operator's policy for all VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The namespaces that may use a switch, by the switch's name, if its row does not name them. All others are open to
    /// every namespace.
    pub switch_namespaces: BTreeMap<String, Namespaces>,
    /// The permissions on a switch, if its row does not name them.
    pub allow: Permissions,
    /// The most ports of a namespace; `None`: unlimited.
    pub max_nics: Option<usize>,
    /// The longest time that addresses stay reserved after their VM is deleted.
    pub max_retain: Retention,
}

/// The safe values.
impl Default for Policy {
    fn default() -> Self {
        Self {
            switch_namespaces: BTreeMap::new(),
            allow: Permissions::default(),
            max_nics: None,
            max_retain: Retention::For(Duration::from_secs(30 * 86_400)),
        }
    }
}

/// The namespaces that may use a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// All of them: `*`.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Namespaces {
    /// Returns true if a namespace is one of them.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }

    /// Adds the namespaces of another list.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut names), Self::Only(more)) => {
                names.extend(more);
                Self::Only(names)
            }
            _ => Self::All,
        }
    }
}

/// A word of a policy that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" cannot be read")]
pub struct UnknownWord(pub String);

impl FromStr for Namespaces {
    type Err = UnknownWord;

    /// Reads names with commas between, or `*`. An empty list names no namespace. One word that is not the name of a
    /// namespace (RFC 1123) makes the list unreadable: the operator meant another namespace than those it names.
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let mut all = false;
        let mut names = BTreeSet::new();
        for word in words(text) {
            match word {
                "*" => all = true,
                name if is_subdomain(name) && !name.contains('.') => drop(names.insert(name.to_owned())),
                other => return Err(UnknownWord(other.to_owned())),
            }
        }
        Ok(if all { Self::All } else { Self::Only(names) })
    }
}

/// The words of a list with commas between. An empty list has no words.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_empty = text.trim().is_empty();
    text.split(',').map(str::trim).filter(move |_| !is_empty)
}

/// A request that owners of VMs may make on a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// To name an address, or a pool.
    Explicit,
    /// To name an address in `exclude_ips`. It needs [`Permission::Explicit`] as well.
    Excluded,
    /// To name the first host address, which is usually a gateway. It needs [`Permission::Explicit`] as well.
    First,
    /// To turn port security off.
    PortSecurityOff,
    /// To have guests use any link-local address. No request is needed.
    LinkLocal,
    /// To name further addresses for a NIC's guest. Each of them needs what [`Permission::Explicit`] and the other words
    /// say as well.
    Vips,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Explicit, Self::Excluded, Self::First, Self::PortSecurityOff, Self::LinkLocal, Self::Vips];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Excluded => "excluded",
            Self::First => "first",
            Self::PortSecurityOff => "port-security-off",
            Self::LinkLocal => "link-local",
            Self::Vips => "vips",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The word for an empty list: a variable with an empty value counts as unset.
const NO_PERMISSION: &str = "none";

/// The permissions on a switch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Permissions(u8);

/// The safe value: owners may name addresses that the switch leaves to VMs.
impl Default for Permissions {
    fn default() -> Self {
        Self::NONE.with(Permission::Explicit)
    }
}

impl Permissions {
    /// No permission.
    pub const NONE: Self = Self(0);

    /// All permissions.
    pub fn all() -> Self {
        Permission::ALL.into_iter().fold(Self::NONE, Self::with)
    }

    /// Adds a permission.
    #[must_use]
    pub fn with(self, permission: Permission) -> Self {
        Self(self.0 | permission.bit())
    }

    /// Returns true if a permission is among them.
    pub fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Reads a list as it stands on a row: words with commas between, or `none`. Unknown words, which give no permission,
    /// are returned as well.
    pub fn read(text: &str) -> (Self, Vec<UnknownWord>) {
        let mut unknown = Vec::new();
        if text.trim() == NO_PERMISSION {
            return (Self::NONE, unknown);
        }
        let mut permissions = Self::NONE;
        for word in words(text) {
            match Permission::ALL.into_iter().find(|permission| permission.word() == word) {
                Some(permission) => permissions = permissions.with(permission),
                None => unknown.push(UnknownWord(word.to_owned())),
            }
        }
        (permissions, unknown)
    }
}

impl FromStr for Permissions {
    type Err = UnknownWord;

    /// Reads a list as it stands in the configuration, where an unknown word is an error.
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match Self::read(text) {
            (permissions, unknown) if unknown.is_empty() => Ok(permissions),
            (_, mut unknown) => Err(unknown.swap_remove(0)),
        }
    }
}

/// In the form that is read.
impl fmt::Display for Permissions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return formatter.write_str(NO_PERMISSION);
        }
        let words = Permission::ALL.into_iter().filter(|permission| self.has(*permission)).map(Permission::word);
        formatter.write_str(&words.collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Permissions({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &[&str]) -> Result<Namespaces, UnknownWord> {
        Ok(Namespaces::Only(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn a_list_of_namespaces_is_read_whole_or_not_at_all() {
        for (text, expected) in [
            ("", only(&[])),
            (" ", only(&[])),
            ("team-a", only(&["team-a"])),
            (" team-b , team-a", only(&["team-a", "team-b"])),
            ("*", Ok(Namespaces::All)),
            ("team-a,*", Ok(Namespaces::All)),
            ("team-a,", Err(UnknownWord(String::new()))),
            ("team-a team-b", Err(UnknownWord("team-a team-b".into()))),
            ("*,Team", Err(UnknownWord("Team".into()))),
            ("team-*", Err(UnknownWord("team-*".into()))),
        ] {
            assert_eq!(text.parse(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_word_gives_no_permission_and_the_others_do() {
        for none in ["", " none "] {
            assert_eq!(Permissions::read(none), (Permissions::NONE, vec![]));
        }
        assert_eq!(Permissions::read("none,first").1, [UnknownWord("none".into())]);
        assert_eq!(Permissions::NONE.to_string().parse(), Ok(Permissions::NONE));
        let (permissions, unknown) = Permissions::read("first, exlicit,port-security-off");
        assert_eq!(
            (permissions.to_string().as_str(), unknown),
            ("first,port-security-off", vec![UnknownWord("exlicit".into())])
        );
        assert_eq!("all".parse::<Permissions>(), Err(UnknownWord("all".into())));
        assert_eq!(Permissions::all().to_string().parse(), Ok(Permissions::all()));
        assert_eq!(Permissions::default().to_string(), "explicit");
    }
}
