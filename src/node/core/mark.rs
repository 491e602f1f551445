//! The mark on values that this service has set.

use std::fmt;

/// The pod that an `iface-id` was set for, and the port: the value of `ovn-kubevirt.io/node` in `Interface:external_ids`.
///
/// The mark has the port's name beside the pod's UID, so that it shows whether another program has changed the `iface-id`
/// since.
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
