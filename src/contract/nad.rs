//! NetworkAttachmentDefinitions by name.

use std::fmt;

/// A NetworkAttachmentDefinition (NAD) by its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NadKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NadKey {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// `<nad>.<nad-namespace>.ovn`: Kube-OVN's name for the NAD's network, which is in ports' names and in annotations'
    /// keys.
    pub fn provider(&self) -> String {
        format!("{}.{}.ovn", self.name, self.namespace)
    }
}

impl fmt::Display for NadKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}
