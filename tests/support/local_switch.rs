//! The Open vSwitch database of a node, on a real `ovsdb-server`, and the hands of ovs-cni in it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually::eventually;
use super::ovsdb_server::OvsdbServer;

/// The bridge of OVN.
pub const BR_INT: &str = "br-int";
/// Another one.
pub const BR_EX: &str = "br-ex";
/// The owner that ovs-cni writes on its ports.
const OWNER: &str = "ovs-cni.network.kubevirt.io";

/// A node's database.
#[derive(Debug)]
pub struct LocalSwitch {
    /// The server.
    pub server: OvsdbServer,
    dir: TempDir,
}

/// How ovs-cni plugs an interface: in one transaction.
#[derive(Debug, Clone)]
pub struct Plug<'a> {
    /// The interface's name on the node.
    pub name: &'a str,
    /// The pod's UID.
    pub pod_uid: &'a str,
    /// The interface's name in the pod.
    pub interface: &'a str,
    /// The `iface-id` that ovs-cni after 0.39.0 sets if its configuration has one.
    pub iface_id: Option<&'a str>,
    /// The bridge.
    pub bridge: &'a str,
}

impl<'a> Plug<'a> {
    /// As ovs-cni 0.39.0 does it, on OVN's bridge.
    pub fn new(name: &'a str, pod_uid: &'a str, interface: &'a str) -> Self {
        Self { name, pod_uid, interface, iface_id: None, bridge: BR_INT }
    }

    /// The operations on a bridge of that UUID.
    pub fn operations(&self, bridge: &Value) -> Value {
        let ids: Vec<[&str; 2]> = self.iface_id.iter().map(|id| ["iface-id", id]).collect();
        let netns = format!("/var/run/netns/cni-{}", self.pod_uid);
        let notes =
            [["contPodUid", self.pod_uid], ["contNetns", &netns], ["contIface", self.interface], ["owner", OWNER]];
        json!([
            {"op": "insert", "table": "Interface", "uuid-name": "i",
                "row": {"name": self.name, "external_ids": ["map", ids]}},
            {"op": "insert", "table": "Port", "uuid-name": "p",
                "row": {"name": self.name, "interfaces": ["named-uuid", "i"], "external_ids": ["map", notes]}},
            {"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", bridge]],
                "mutations": [["ports", "insert", ["set", [["named-uuid", "p"]]]]]},
        ])
    }
}

impl LocalSwitch {
    /// A database with two empty bridges.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("ovn-kubevirt-node-").tempdir().expect("a directory");
        let server = OvsdbServer::create(dir.path(), "vswitch", "Open_vSwitch").await;
        let bridge = |name: &str| json!({"op": "insert", "table": "Bridge", "uuid-name": name.replace('-', "_"), "row": {"name": name}});
        server.transact(json!([
            bridge(BR_INT),
            bridge(BR_EX),
            {"op": "insert", "table": "Open_vSwitch", "row": {
                "bridges": ["set", [["named-uuid", "br_int"], ["named-uuid", "br_ex"]]],
                "external_ids": ["map", [["system-id", "hv1"]]]}},
        ]));
        Self { server, dir }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The UUID of a bridge, as the wire has it.
    #[track_caller]
    pub fn bridge(&self, name: &str) -> Value {
        let bridges = self.server.rows("Bridge");
        let bridge = bridges.iter().find(|bridge| bridge["name"] == name);
        bridge.unwrap_or_else(|| panic!("no bridge {name}"))["_uuid"].clone()
    }

    /// Plugs an interface as ovs-cni does.
    #[track_caller]
    pub fn plug(&self, plug: &Plug<'_>) {
        self.server.transact(plug.operations(&self.bridge(plug.bridge)));
    }

    /// Takes an interface away, as ovs-cni's DEL does.
    #[track_caller]
    pub fn unplug(&self, name: &str) {
        let port = self.server.transact(json!([{"op": "select", "table": "Port", "where": [["name", "==", name]]}]));
        let port = port[0]["rows"][0]["_uuid"].clone();
        // A port that no bridge refers to is gone, and its interface with it.
        let remove = json!([["ports", "delete", ["set", [port]]]]);
        self.server.transact(json!([{"op": "mutate", "table": "Bridge", "where": [], "mutations": remove}]));
    }

    /// Sets `external_ids` of an interface, and takes off those keys that have no value.
    #[track_caller]
    pub fn write(&self, name: &str, ids: &[(&str, Option<&str>)]) {
        let keys: Vec<&str> = ids.iter().map(|(key, _)| *key).collect();
        let set: Vec<[&str; 2]> = ids.iter().filter_map(|(key, value)| Some([*key, (*value)?])).collect();
        let mutations = json!([["external_ids", "delete", ["set", keys]], ["external_ids", "insert", ["map", set]]]);
        self.server.transact(
            json!([{"op": "mutate", "table": "Interface", "where": [["name", "==", name]], "mutations": mutations}]),
        );
    }

    /// The `external_ids` of an interface.
    #[track_caller]
    pub fn ids(&self, name: &str) -> BTreeMap<String, String> {
        let rows = self.server.rows("Interface");
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no interface {name}"));
        let pairs = row["external_ids"][1].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
    }

    /// Waits until an interface has this port by the service on the node.
    pub async fn set(&self, name: &str, pod_uid: &str, port: &str) {
        let mark = format!("{pod_uid}/{port}");
        eventually(&format!("{name} has iface-id {port}"), || async {
            let ids = self.ids(name);
            let has = |key: &str, value: &str| ids.get(key).is_some_and(|present| present == value);
            match has("iface-id", port) && has("ovn-kubevirt.io/node", &mark) {
                true => Ok(()),
                false => Err(format!("{ids:?}")),
            }
        })
        .await;
    }

    /// Waits until an interface has neither a port nor the mark.
    pub async fn removed(&self, name: &str) {
        eventually(&format!("{name} has no iface-id"), || async {
            let ids = self.ids(name);
            match ids.contains_key("iface-id") || ids.contains_key("ovn-kubevirt.io/node") {
                true => Err(format!("{ids:?}")),
                false => Ok(()),
            }
        })
        .await;
    }
}
