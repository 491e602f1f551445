//! The marks that make a row ours.

use crate::contract::{VmKey, begins_as_a_port_of, keys};
use crate::ovsdb::Map;

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
}
