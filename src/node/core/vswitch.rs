//! The replica of the node's own Open vSwitch database (ovs-vswitchd.conf.db(5)): which interface of which pod is on which
//! bridge.

use std::collections::HashMap;

use serde::de::{IgnoredAny, MapAccess};
use uuid::Uuid;

use super::Mark;
use crate::contract::keys;
use crate::hash::FastSet;
use crate::ovsdb::{Map, Replica, Row, Table, TableSpec, Unwatched};
use crate::ovsdb_row;

/// The default bridge of ovn-controller.
const DEFAULT_BRIDGE: &str = "br-int";

ovsdb_row! {
    /// An interface. All its `external_ids` are kept: a change is guarded by them.
    pub struct Interface = "Interface" {
        /// Unique.
        name: String = "name",
        /// -1 where the network device is gone, absent while vswitchd has not come to it.
        ofport: Option<i64> = "ofport",
        /// `iface-id`, and the values of others.
        external_ids: Map = "external_ids",
    }
}

ovsdb_row! {
    /// A port: one interface, or several in a bond.
    pub struct Port = "Port" {
        /// References to its interfaces.
        interfaces: FastSet<Uuid> = "interfaces",
        /// The pod, as ovs-cni writes it.
        external_ids: Map = "external_ids" where is_note_of_cni,
    }
}

ovsdb_row! {
    /// A bridge.
    pub struct Bridge = "Bridge" {
        /// Unique.
        name: String = "name",
        /// References to its ports.
        ports: FastSet<Uuid> = "ports",
    }
}

ovsdb_row! {
    /// The one row of the node's own settings.
    pub struct OpenVswitch = "Open_vSwitch" {
        /// Which bridge is OVN's.
        external_ids: Map = "external_ids" where is_setting,
    }
}

/// Returns true if a key of a port's `external_ids` is read here.
fn is_note_of_cni(key: &str) -> bool {
    matches!(key, keys::POD_UID | keys::POD_INTERFACE)
}

/// Returns true if a key of the node's `external_ids` is read here.
fn is_setting(key: &str) -> bool {
    key == keys::SYSTEM_ID || key.starts_with(keys::OVN_BRIDGE)
}

/// The local Open vSwitch as far as it is read.
#[derive(Debug, Default)]
pub struct LocalSwitch {
    interfaces: Table<Interface>,
    ports: Table<Port>,
    bridges: Table<Bridge>,
    settings: Table<OpenVswitch>,
}

/// An interface on a bridge.
#[derive(Debug, Clone, Copy)]
pub struct Plugged<'a> {
    /// The UUID of the interface's row.
    pub uuid: Uuid,
    /// The row.
    pub interface: &'a Interface,
    /// The UUID of the port's row.
    pub port: Uuid,
    /// The pod's UID, where a CNI has noted it.
    pub pod_uid: Option<&'a str>,
    /// The interface's name in the pod, where a CNI has noted it.
    pub pod_interface: Option<&'a str>,
    /// The bridge, by name.
    pub bridge: &'a str,
}

impl<'a> Plugged<'a> {
    /// The port that the interface is bound to.
    pub fn iface_id(&self) -> Option<&'a str> {
        self.interface.external_ids.get(keys::IFACE_ID)
    }

    /// The mark of this service.
    pub fn mark(&self) -> Option<Mark> {
        Mark::parse(self.interface.external_ids.get(keys::NODE_MARK)?)
    }

    /// Returns true if this service has set the present `iface-id`.
    pub fn is_ours(&self) -> bool {
        self.mark().is_some_and(|mark| self.iface_id() == Some(mark.port.as_str()))
    }

    /// Returns true if its network device is gone: vswitchd says so, and ovn-controller does not claim a port for it.
    pub fn is_dead(&self) -> bool {
        self.interface.ofport.is_some_and(|ofport| ofport < 0)
    }
}

impl LocalSwitch {
    /// The bridge that ovn-controller serves on this node.
    pub fn integration_bridge(&self) -> &str {
        let settings = self.settings.iter().next().map(|(_, row)| &row.external_ids);
        let of_chassis =
            settings.and_then(|ids| ids.get(&format!("{}-{}", keys::OVN_BRIDGE, ids.get(keys::SYSTEM_ID)?)));
        of_chassis.or_else(|| settings?.get(keys::OVN_BRIDGE)).unwrap_or(DEFAULT_BRIDGE)
    }

    /// All interfaces that are a port's only one, in the order of their UUIDs.
    pub fn plugged(&self) -> Vec<Plugged<'_>> {
        let mut bridge_of: HashMap<Uuid, &str> = HashMap::new();
        for (_, bridge) in self.bridges.iter() {
            bridge_of.extend(bridge.ports.iter().map(|port| (*port, bridge.name.as_str())));
        }
        let plugged = self.ports.iter().filter_map(|(port, row)| {
            let mut members = row.interfaces.iter();
            let (Some(uuid), None) = (members.next(), members.next()) else { return None };
            Some(Plugged {
                uuid: *uuid,
                interface: self.interfaces.get(uuid)?,
                port: *port,
                pod_uid: row.external_ids.get(keys::POD_UID),
                pod_interface: row.external_ids.get(keys::POD_INTERFACE),
                bridge: bridge_of.get(port)?,
            })
        });
        let mut plugged: Vec<Plugged<'_>> = plugged.collect();
        plugged.sort_unstable_by_key(|plugged| plugged.uuid);
        plugged
    }

    /// The number of interfaces.
    pub fn interface_count(&self) -> usize {
        self.interfaces.len()
    }
}

impl Replica for LocalSwitch {
    const DATABASE: &'static str = "Open_vSwitch";
    const TABLES: &'static [TableSpec] = &[Interface::TABLE, Port::TABLE, Bridge::TABLE, OpenVswitch::TABLE];

    fn begin_dump(&mut self) {
        let Self { interfaces, ports, bridges, settings } = self;
        interfaces.begin_dump();
        ports.begin_dump();
        bridges.begin_dump();
        settings.begin_dump();
    }

    fn end_dump(&mut self) {
        let Self { interfaces, ports, bridges, settings } = self;
        interfaces.end_dump(&mut Unwatched);
        ports.end_dump(&mut Unwatched);
        bridges.end_dump(&mut Unwatched);
        settings.end_dump(&mut Unwatched);
    }

    fn apply<'de, A: MapAccess<'de>>(&mut self, table: &str, mut updates: A) -> Result<(), A::Error> {
        match table {
            "Interface" => self.interfaces.apply(updates, &mut Unwatched),
            "Port" => self.ports.apply(updates, &mut Unwatched),
            "Bridge" => self.bridges.apply(updates, &mut Unwatched),
            "Open_vSwitch" => self.settings.apply(updates, &mut Unwatched),
            _ => {
                while updates.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}
