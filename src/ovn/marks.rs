//! The marks that make a row ours.

use std::fmt;

use serde::Deserializer;

use super::addresses::Addresses;
use crate::contract::{VmKey, begins_as_a_port_of, keys};
use crate::ovsdb::{Column, Kind, Map};

/// The keys of a port's `external_ids` that are read, with the reservation parsed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PortMarks {
    map: Map,
    /// The value of [`keys::NEXT_ADDRESSES`]. Few ports have one.
    reserved: Option<Box<Addresses>>,
}

impl PortMarks {
    /// Keys and values.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The addresses that are reserved for the next start.
    pub fn reserved(&self) -> Option<Addresses> {
        self.reserved.as_deref().copied()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.map.get(key)
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.map.iter()
    }

    /// Returns the marks with some keys set, and others removed (`None`).
    pub fn edited<'k, V: AsRef<str>>(&self, edits: impl IntoIterator<Item = (&'k str, Option<V>)>) -> Self {
        self.map.edited(edits).into()
    }

    /// Sets a key.
    pub fn insert(&mut self, key: &str, value: impl AsRef<str>) {
        *self = self.edited([(key, Some(value))]);
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        *self = self.edited([(key, None::<&str>)]);
    }
}

impl From<Map> for PortMarks {
    fn from(map: Map) -> Self {
        let reserved = map.get(keys::NEXT_ADDRESSES).and_then(|text| text.parse().ok()).map(Box::new);
        Self { map, reserved }
    }
}

impl<K: AsRef<str> + Ord, V: AsRef<str> + Ord> FromIterator<(K, V)> for PortMarks {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Map::from_iter(pairs).into()
    }
}

impl fmt::Debug for PortMarks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(formatter)
    }
}

impl Column for PortMarks {
    const KIND: Kind = Map::KIND;

    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::decode(deserializer).map(Self::from)
    }

    fn decode_some<'de, D: Deserializer<'de>>(deserializer: D, keep: fn(&str) -> bool) -> Result<Self, D::Error> {
        Map::decode_some(deserializer, keep).map(Self::from)
    }

    fn apply(&mut self, difference: Self) {
        let mut map = std::mem::take(&mut self.map);
        map.apply(difference.map);
        *self = map.into();
    }
}

/// The VM and the NIC that a row of ours belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The VM.
    pub vm: VmKey,
    /// The network's name in the VM.
    pub network: String,
}

impl Owner {
    /// Returns true if a row is this instance's.
    pub fn is_of(external_ids: &Map, instance: &str) -> bool {
        Marks::of(external_ids, instance).is_some()
    }

    /// Reads the marks of a row; `None` if the row is not this instance's.
    pub fn of(external_ids: &Map, instance: &str) -> Option<Self> {
        let Marks { namespace, name, network } = Marks::of(external_ids, instance)?;
        Some(Self { vm: VmKey::new(namespace, name), network: network.to_owned() })
    }
}

/// Returns true if a row of any table has the vendor and the instance of this instance's rows. A port needs more: its VM
/// and its network ([`Owner`]).
pub(super) fn is_marked(external_ids: &Map, instance: &str) -> bool {
    external_ids.get(keys::VENDOR) == Some(keys::OUR_VENDOR) && external_ids.get(keys::INSTANCE) == Some(instance)
}

/// The marks of a row of this instance, borrowed from it.
pub(super) struct Marks<'a> {
    namespace: &'a str,
    name: &'a str,
    network: &'a str,
}

impl<'a> Marks<'a> {
    /// Reads the marks of a row; `None` if the row is not this instance's. A replica calls this for every row it
    /// receives, so it takes a single pass over the map.
    pub(super) fn of(external_ids: &'a Map, instance: &str) -> Option<Self> {
        let [mut vendor, mut marked, mut vm, mut network] = [None; 4];
        for (key, value) in external_ids.iter() {
            match key {
                keys::VENDOR => vendor = Some(value),
                keys::INSTANCE => marked = Some(value),
                keys::VM => vm = Some(value),
                keys::NETWORK => network = Some(value),
                _ => {}
            }
        }
        if vendor != Some(keys::OUR_VENDOR) || marked != Some(instance) {
            return None;
        }
        let (namespace, name) = vm?.split_once('/')?;
        Some(Self { namespace, name, network: network? })
    }

    /// Returns true if a port's name begins as those of the VM's ports do.
    pub(super) fn has_named(&self, port_name: &str) -> bool {
        begins_as_a_port_of(self.namespace, self.name, port_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_with_our_vendor_and_instance_are_ours() {
        let ours = [
            (keys::VENDOR, keys::OUR_VENDOR),
            (keys::INSTANCE, "default"),
            (keys::VM, "ns/vm"),
            (keys::NETWORK, "default"),
        ];
        let row: Map = ours.into_iter().collect();
        let owner = Owner { vm: VmKey::new("ns", "vm"), network: "default".into() };
        assert_eq!(Owner::of(&row, "default"), Some(owner));
        assert_eq!(Owner::of(&row, "other"), None);
        for (key, _) in ours {
            let mut lacking = row.clone();
            lacking.remove(key);
            assert_eq!(Owner::of(&lacking, "default"), None, "without {key}");
        }
    }

    #[test]
    fn the_reservation_follows_the_mark() {
        let text = "0a:58:0a:10:00:02 10.16.0.2";
        let reserved: Addresses = text.parse().expect("addresses");
        let mut marks: PortMarks = [(keys::VM, "ns/vm")].into_iter().collect();
        assert_eq!(marks.reserved(), None);
        marks.insert(keys::NEXT_ADDRESSES, text);
        assert_eq!(marks.reserved(), Some(reserved));
        assert_eq!(marks.edited([(keys::VM, None::<&str>)]).reserved(), Some(reserved));
        marks.insert(keys::NEXT_ADDRESSES, "nonsense");
        assert_eq!((marks.reserved(), marks.get(keys::NEXT_ADDRESSES)), (None, Some("nonsense")));
        // A difference names a key with its new value, or with the value that is removed.
        marks.apply([(keys::NEXT_ADDRESSES, text)].into_iter().collect());
        assert_eq!(marks.reserved(), Some(reserved));
        marks.apply([(keys::NEXT_ADDRESSES, text)].into_iter().collect());
        assert_eq!((marks.reserved(), marks.get(keys::NEXT_ADDRESSES)), (None, None));
        assert_eq!(marks, [(keys::VM, "ns/vm")].into_iter().collect());
    }
}
