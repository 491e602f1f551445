//! The mark on what this service has set.

use std::fmt;

/// For which pod an `iface-id` was set, and to what: the value of `ovn-kubevirt.io/node` in `Interface:external_ids`.
///
/// The port's name stands beside the pod's UID, so that an `iface-id` that another program has set since is told from what
/// this service has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The pod's UID.
    pub pod_uid: String,
    /// The port's name.
    pub port: String,
}

impl Mark {
    /// Reads a mark; `None` where the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (pod_uid, port) = text.split_once('/')?;
        (!pod_uid.is_empty() && !port.is_empty()).then(|| Self { pod_uid: pod_uid.to_owned(), port: port.to_owned() })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.pod_uid, self.port)
    }
}
