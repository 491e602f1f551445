//! The policy on the row of a switch, parsed.

use std::collections::BTreeSet;

use crate::contract::keys;
use crate::intent::{Namespaces, Permissions, Policy, UnknownWord};
use crate::ovn::LogicalSwitch;

/// The policy on the row of a switch; `None` where the row does not state it.
#[derive(Debug, Default)]
pub(super) struct SwitchPolicy {
    /// The namespaces that may use the switch.
    pub(super) namespaces: Option<Result<Namespaces, UnknownWord>>,
    /// The permissions, with the first word that is skipped.
    pub(super) allow: Option<(Permissions, Option<UnknownWord>)>,
}

impl SwitchPolicy {
    /// Reads a row.
    pub(super) fn of(row: &LogicalSwitch) -> Self {
        let allow = row.external_ids.get(keys::ALLOW).map(Permissions::read);
        Self {
            namespaces: row.external_ids.get(keys::NAMESPACES).map(str::parse),
            allow: allow.map(|(permissions, unknown)| (permissions, unknown.into_iter().next())),
        }
    }

    /// The namespaces that may use the switch of this name; `None` if all may. An unreadable list lets no namespace in.
    pub(super) fn lets_in<'a>(&'a self, switch: &str, configured: &'a Policy) -> Option<&'a BTreeSet<String>> {
        static NO_NAMESPACE: BTreeSet<String> = BTreeSet::new();
        let namespaces = match &self.namespaces {
            Some(Ok(namespaces)) => Some(namespaces),
            Some(Err(_)) => return Some(&NO_NAMESPACE),
            None => configured.switch_namespaces.get(switch),
        };
        match namespaces {
            None | Some(Namespaces::All) => None,
            Some(Namespaces::Only(names)) => Some(names),
        }
    }

    /// Returns true if a namespace may use the switch of this name.
    pub(super) fn lets(&self, namespace: &str, switch: &str, configured: &Policy) -> bool {
        self.lets_in(switch, configured).is_none_or(|names| names.contains(namespace))
    }
}
