//! `options:requested-chassis` of a logical switch port (ovn-nb(5) Logical_Switch_Port).

use crate::contract::keys;
use crate::ovsdb::Map;

/// The chassis that a port is requested on: the main one, and those that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestedChassis<'a> {
    /// The first of the list.
    pub home: Option<&'a str>,
    /// The rest after the first comma: one chassis, if this service wrote it.
    pub additional: Option<&'a str>,
}

impl<'a> RequestedChassis<'a> {
    /// Reads it from a port's options.
    pub fn of(options: &'a Map) -> Self {
        let text = options.get(keys::REQUESTED_CHASSIS).unwrap_or_default();
        let (home, additional) = match text.split_once(',') {
            Some((home, additional)) => (home, Some(additional)),
            None => (text, None),
        };
        Self { home: Some(home).filter(|home| !home.is_empty()), additional }
    }

    /// All chassis of the list.
    pub fn all(self) -> impl Iterator<Item = &'a str> {
        let following = self.additional.into_iter().flat_map(|following| following.split(','));
        self.home.into_iter().chain(following.filter(|chassis| !chassis.is_empty()))
    }

    /// Returns true if there is more than one.
    pub fn is_list(self) -> bool {
        self.additional.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_northd_reads_it() {
        let read = |text: &str| {
            let options: Map = [(keys::REQUESTED_CHASSIS, text)].into_iter().collect();
            let requested = RequestedChassis::of(&options);
            let all: Vec<String> = requested.all().map(ToOwned::to_owned).collect();
            (requested.home.map(ToOwned::to_owned), requested.is_list(), all)
        };
        assert_eq!(read(""), (None, false, vec![]));
        assert_eq!(read("n1"), (Some("n1".into()), false, vec!["n1".into()]));
        assert_eq!(read("n1,n2"), (Some("n1".into()), true, vec!["n1".into(), "n2".into()]));
        assert_eq!(read(",n2,,n3"), (None, true, vec!["n2".into(), "n3".into()]));
        assert_eq!(RequestedChassis::of(&Map::default()), RequestedChassis::default());
    }
}
