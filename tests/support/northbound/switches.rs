//! Logical switches, and the ports on them that a service does not write: router ports and ports of others.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Northbound;
use super::rows::{rows_of, text};

/// The rows that [`Northbound::add_router_port`] created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPort {
    /// The name of the `Logical_Router_Port`; its peer on the switch is `<switch>-<name>`.
    pub name: String,
    /// Its MAC.
    pub mac: String,
}

impl Northbound {
    /// A logical switch; `other_config` is where a subnet is: `&[("subnet", "10.16.0.0/24")]`. Gives back its UUID.
    #[track_caller]
    pub fn add_switch(&self, name: &str, other_config: &[(&str, &str)]) -> String {
        let row = json!({"name": name, "other_config": ["map", other_config]});
        let results = self.transact(json!([{"op": "insert", "table": "Logical_Switch", "row": row}]));
        text(&results[0]["uuid"])
    }

    /// A logical router, its port with `networks` (`&["10.16.0.1/24"]`), and the peer of type `router` on the switch.
    #[track_caller]
    pub fn add_router_port(&self, switch: &str, networks: &[&str]) -> RouterPort {
        let name = format!("{switch}-gateway");
        // Made from the name, so that it is the same at every run, and another on every switch.
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).into_bytes();
        let mac = format!("0e:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", id[0], id[1], id[2], id[3], id[4]);
        let peer = json!({
            "name": format!("{switch}-{name}"), "type": "router", "addresses": "router",
            "options": ["map", [["router-port", name]]],
        });
        self.transact(json!([
            {"op": "insert", "table": "Logical_Router_Port", "uuid-name": "lrp",
             "row": {"name": name, "mac": mac, "networks": ["set", networks]}},
            {"op": "insert", "table": "Logical_Router",
             "row": {"name": format!("{switch}-router"), "ports": ["named-uuid", "lrp"]}},
            {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp", "row": peer},
            self.put_on(switch, &json!(["named-uuid", "lsp"])),
        ]));
        RouterPort { name, mac }
    }

    /// A logical switch port of another program: no `external_ids`. Gives back its UUID.
    #[track_caller]
    pub fn add_foreign_port(&self, switch: &str, name: &str, addresses: &[&str]) -> String {
        let results = self.transact(json!([
            {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp",
             "row": {"name": name, "addresses": ["set", addresses]}},
            self.put_on(switch, &json!(["named-uuid", "lsp"])),
        ]));
        text(&results[0]["uuid"])
    }

    /// A port gets a row of `DHCP_Options` with these options, in the place of another.
    #[track_caller]
    pub fn give_dhcp(&self, port: &str, cidr: &str, options: &[(&str, &str)]) {
        let column = if cidr.contains(':') { "dhcpv6_options" } else { "dhcpv4_options" };
        let row = json!({"cidr": cidr, "options": ["map", options]});
        self.transact(json!([
            {"op": "insert", "table": "DHCP_Options", "uuid-name": "row", "row": row},
            {"op": "update", "table": "Logical_Switch_Port", "where": [["name", "==", port]],
             "row": {column: ["named-uuid", "row"]}},
        ]));
    }

    /// Deletes any port, as an operator does by mistake.
    #[track_caller]
    pub fn delete_port(&self, name: &str) {
        self.nbctl(&["lsp-del", name]);
    }

    /// The mutation that puts a port on the one switch of that name.
    #[track_caller]
    fn put_on(&self, switch: &str, port: &Value) -> Value {
        let named = json!(["name", "==", switch]);
        let results = self.transact(json!([
            {"op": "select", "table": "Logical_Switch", "where": [named], "columns": ["_uuid"]},
        ]));
        let rows = rows_of(&results[0]);
        assert_eq!(rows.len(), 1, "logical switches named {switch}");
        json!({"op": "mutate", "table": "Logical_Switch", "where": [["_uuid", "==", rows[0]["_uuid"]]],
               "mutations": [["ports", "insert", port]]})
    }
}
