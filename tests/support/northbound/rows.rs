//! A whole row of `Logical_Switch_Port`, and OVSDB's notation as it is read from the wire.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::OvsdbServer;

/// A whole row of `Logical_Switch_Port`, and the names of the switches that refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The row's UUID.
    pub uuid: String,
    /// The column of that name, as are all that follow down to `switches`.
    pub name: String,
    /// Empty for a VM's port.
    pub r#type: String,
    /// `MAC IP...`, `unknown`, `dynamic` or `router`.
    pub addresses: BTreeSet<String>,
    /// The addresses that OVN's own IPAM gave to a `dynamic` port.
    pub dynamic_addresses: Option<String>,
    /// `MAC IP...`; empty is off.
    pub port_security: BTreeSet<String>,
    /// `requested-chassis`, `activation-strategy`, ...
    pub options: BTreeMap<String, String>,
    /// The marks of its owner.
    pub external_ids: BTreeMap<String, String>,
    /// `None` counts as true.
    pub enabled: Option<bool>,
    /// Written by northd.
    pub up: Option<bool>,
    /// The UUID of the row in `DHCP_Options`.
    pub dhcpv4_options: Option<String>,
    /// The UUID of the row in `DHCP_Options`.
    pub dhcpv6_options: Option<String>,
    /// The UUID of the row in `HA_Chassis_Group`.
    pub ha_chassis_group: Option<String>,
    /// The UUIDs of the rows in `Mirror`.
    pub mirror_rules: BTreeSet<String>,
    /// The parent port of a nested container's.
    pub parent_name: Option<String>,
    /// The VLAN on the parent.
    pub tag: Option<i64>,
    /// The VLAN asked for.
    pub tag_request: Option<i64>,
    /// The names of the `Logical_Switch` rows whose `ports` hold this one.
    pub switches: Vec<String>,
}

impl Port {
    /// All logical switch ports that a server has, sorted by name, as of one moment.
    #[track_caller]
    pub(super) fn all_of(server: &OvsdbServer) -> Vec<Self> {
        let results = server.transact(json!([
            {"op": "select", "table": "Logical_Switch", "where": [], "columns": ["name", "ports"]},
            {"op": "select", "table": "Logical_Switch_Port", "where": []},
        ]));
        let mut switches_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for switch in rows_of(&results[0]) {
            for port in atoms(&switch["ports"]) {
                switches_of.entry(text(port)).or_default().push(text(&switch["name"]));
            }
        }
        let mut ports: Vec<Self> = rows_of(&results[1]).iter().map(|row| Self::read(row, &mut switches_of)).collect();
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        ports
    }

    fn read(row: &Value, switches_of: &mut BTreeMap<String, Vec<String>>) -> Self {
        let uuid = text(&row["_uuid"]);
        let mut switches = switches_of.remove(&uuid).unwrap_or_default();
        switches.sort();
        Self {
            name: text(&row["name"]),
            r#type: text(&row["type"]),
            addresses: set(&row["addresses"]),
            dynamic_addresses: optional(&row["dynamic_addresses"], text),
            port_security: set(&row["port_security"]),
            options: map(&row["options"]),
            external_ids: map(&row["external_ids"]),
            enabled: optional(&row["enabled"], flag),
            up: optional(&row["up"], flag),
            dhcpv4_options: optional(&row["dhcpv4_options"], text),
            dhcpv6_options: optional(&row["dhcpv6_options"], text),
            ha_chassis_group: optional(&row["ha_chassis_group"], text),
            mirror_rules: set(&row["mirror_rules"]),
            parent_name: optional(&row["parent_name"], text),
            tag: optional(&row["tag"], number),
            tag_request: optional(&row["tag_request"], number),
            switches,
            uuid,
        }
    }

    /// The value of an option, such as `requested-chassis`.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// The value of an external id.
    pub fn external_id(&self, key: &str) -> Option<&str> {
        self.external_ids.get(key).map(String::as_str)
    }
}
// --- OVSDB's notation (RFC 7047, section 5.1) ---

pub(super) fn rows_of(result: &Value) -> &[Value] {
    result["rows"].as_array().map_or(&[], Vec::as_slice)
}

/// The atoms of a set: `["set", [...]]`, or a lone atom that stands for a set of one.
fn atoms(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(pair) if pair.len() == 2 && pair[0] == "set" => pair[1].as_array().into_iter().flatten().collect(),
        atom => vec![atom],
    }
}

/// A string, or a UUID: `["uuid", "..."]`.
pub(super) fn text(atom: &Value) -> String {
    let atom = if atom[0] == "uuid" { &atom[1] } else { atom };
    atom.as_str().unwrap_or_else(|| panic!("{atom} is neither a string nor a UUID")).to_owned()
}

fn number(atom: &Value) -> i64 {
    atom.as_i64().unwrap_or_else(|| panic!("{atom} is no integer"))
}

fn flag(atom: &Value) -> bool {
    atom.as_bool().unwrap_or_else(|| panic!("{atom} is no boolean"))
}

fn set(value: &Value) -> BTreeSet<String> {
    atoms(value).into_iter().map(text).collect()
}

fn optional<T>(value: &Value, read: impl Fn(&Value) -> T) -> Option<T> {
    atoms(value).first().map(|atom| read(atom))
}

/// `["map", [[key, value], ...]]`.
pub(super) fn map(value: &Value) -> BTreeMap<String, String> {
    let pairs = value[1].as_array().map_or(&[][..], Vec::as_slice);
    pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}
