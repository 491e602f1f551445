//! The northbound database of one test: a real `ovsdb-server`, and `ovn-northd` with a southbound where a test asks.
//!
//! Its directory also takes the logs of the services that run on it, and is kept when the test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::eventually::eventually;
use super::netns::Hosts;
use super::ovsdb_server::OvsdbServer;
use super::process::{Daemon, mortal};

#[path = "raft.rs"]
mod raft;

/// The key of `NB_Global.external_ids` under which a leader keeps its epoch: every start bumps it, so it is no change.
const EPOCH_PREFIX: &str = "ovn-kubevirt.io/epoch.";
/// The key under which stands which cluster an instance belongs to: the first start writes it.
const CLUSTER_KEY: &str = "ovn-kubevirt.io/cluster.default";

/// A northbound of its own for one test.
#[derive(Debug)]
pub struct Northbound {
    // The daemons come before the directory: they end first.
    northd: Mutex<Option<Daemon>>,
    southbound: Option<OvsdbServer>,
    /// One, or the members of a cluster.
    servers: Vec<OvsdbServer>,
    hosts: Option<Hosts>,
    /// Members of a cluster that the test has cut off.
    cut_off: Mutex<BTreeSet<usize>>,
    dir: TempDir,
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("ovn-kubevirt-nb-").tempdir().expect("a directory for the northbound")
}

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
    /// What OVN's own IPAM gave to a `dynamic` port.
    pub dynamic_addresses: Option<String>,
    /// `MAC IP...`; empty is off.
    pub port_security: BTreeSet<String>,
    /// `requested-chassis`, `activation-strategy`, ...
    pub options: BTreeMap<String, String>,
    /// Whose the port is.
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

/// What [`Northbound::add_router_port`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPort {
    /// The name of the `Logical_Router_Port`; its peer on the switch is `<switch>-<name>`.
    pub name: String,
    /// Its MAC.
    pub mac: String,
}

impl Northbound {
    /// An empty northbound on a unix socket, with the one row in `NB_Global` that `ovn-nbctl init` makes.
    pub async fn start() -> Self {
        let dir = directory();
        let server = OvsdbServer::create(dir.path(), "nb", "OVN_Northbound").await;
        Self::with_servers(dir, vec![server], None)
    }

    fn with_servers(dir: TempDir, servers: Vec<OvsdbServer>, hosts: Option<Hosts>) -> Self {
        let cut_off = Mutex::default();
        let this = Self { northd: Mutex::new(None), southbound: None, servers, hosts, cut_off, dir };
        this.transact(json!([{"op": "insert", "table": "NB_Global", "row": {}}]));
        this
    }

    /// The first server: what is said of "the" server is meant for one alone.
    fn server_alone(&self) -> &OvsdbServer {
        &self.servers[0]
    }

    /// The server to speak with: the cluster's leader.
    #[track_caller]
    fn server(&self) -> &OvsdbServer {
        &self.servers[self.leader()]
    }

    /// Adds a southbound and an `ovn-northd` between the two, and waits until northd has done its first round.
    pub async fn with_northd(self) -> Self {
        let this = self.with_southbound().await;
        this.start_northd().await;
        this
    }

    /// The remote on the unix socket, `unix:...`; those of all members of a cluster, comma-separated.
    pub fn remote(&self) -> String {
        self.servers.iter().map(OvsdbServer::remote).collect::<Vec<_>>().join(",")
    }

    /// The remote on TCP, opened at the first call: `tcp:127.0.0.1:...`. The port stays the same over restarts.
    pub async fn tcp_remote(&self) -> String {
        self.server_alone().tcp_remote().await
    }

    /// A TCP remote on which the server probes its clients: it sends an `echo` after that many seconds of
    /// silence, and hangs up when none comes back in as many. OVSDB knows no shorter probe than a second.
    pub async fn probing_tcp_remote(&self, seconds: u32) -> String {
        let connection = Uuid::new_v4().to_string();
        self.transact(json!([
            {"op": "insert", "table": "Connection", "uuid": connection,
             "row": {"target": "ptcp:0:127.0.0.1", "inactivity_probe": seconds * 1_000}},
            {"op": "mutate", "table": "NB_Global", "where": [],
             "mutations": [["connections", "insert", ["uuid", connection]]]},
        ]));
        self.server_alone().tcp_remote_by("db:OVN_Northbound,NB_Global,connections").await
    }

    /// The directory of this northbound's files and of the logs of what runs on it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `ovn-nbctl` on this database.
    #[track_caller]
    pub fn nbctl(&self, arguments: &[&str]) -> String {
        self.server().ctl("ovn-nbctl", arguments)
    }

    /// One transaction; see [`OvsdbServer::transact`].
    #[track_caller]
    pub fn transact(&self, operations: Value) -> Vec<Value> {
        self.server().transact(operations)
    }

    /// One transaction whose error is looked for.
    pub fn try_transact(&self, operations: Value) -> Result<Vec<Value>, String> {
        self.server().try_transact(operations)
    }

    /// All rows of `table`, as the wire shows them, sorted by `_uuid`.
    #[track_caller]
    pub fn rows(&self, table: &str) -> Vec<Value> {
        self.server().rows(table)
    }

    /// All logical switch ports, sorted by name, as of one moment.
    #[track_caller]
    pub fn ports(&self) -> Vec<Port> {
        Port::all_of(self.server())
    }

    /// The logical switch port of that name.
    #[track_caller]
    pub fn port(&self, name: &str) -> Option<Port> {
        self.ports().into_iter().find(|port| port.name == name)
    }

    /// The whole database as text, a line a row, to assert that it stayed as it was.
    ///
    /// Left out are `_version`, which says nothing about content, and the epochs in `NB_Global`, which every start of a
    /// service bumps.
    #[track_caller]
    pub fn dump(&self) -> String {
        let server = self.server();
        Self::dump_of(server, &server.tables()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn dump_of(server: &OvsdbServer, tables: &[String]) -> Result<String, String> {
        let selects = tables.iter().map(|table| json!({"op": "select", "table": table, "where": []})).collect();
        let results = server.try_transact(Value::Array(selects))?;
        let mut lines = Vec::new();
        for (table, result) in tables.iter().zip(&results) {
            for row in rows_of(result) {
                let mut row = row.clone();
                let columns = row.as_object_mut().expect("a row is an object");
                columns.remove("_version");
                let uuid = columns.remove("_uuid").as_ref().map(text).unwrap_or_default();
                if let Some(external_ids) = columns.get_mut("external_ids").filter(|_| table == "NB_Global") {
                    *external_ids = json!(without_epochs(map(external_ids)));
                }
                lines.push(format!("{table} {uuid} {row}"));
            }
        }
        lines.sort();
        Ok(lines.join("\n"))
    }

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

    /// A logical switch port of somebody else's: no `external_ids`. Gives back its UUID.
    #[track_caller]
    pub fn add_foreign_port(&self, switch: &str, name: &str, addresses: &[&str]) -> String {
        let results = self.transact(json!([
            {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp",
             "row": {"name": name, "addresses": ["set", addresses]}},
            self.put_on(switch, &json!(["named-uuid", "lsp"])),
        ]));
        text(&results[0]["uuid"])
    }

    /// Deletes a port of whoever's, as an operator does by mistake.
    #[track_caller]
    pub fn delete_port(&self, name: &str) {
        self.nbctl(&["lsp-del", name]);
    }

    /// SIGKILL to the northbound's server.
    pub fn kill9(&self) {
        self.server_alone().kill9();
    }

    /// SIGTERM to the northbound's server, and waits for its end.
    pub async fn stop(&self) -> ExitStatus {
        self.server_alone().stop().await
    }

    /// SIGSTOP to the northbound's server: it hangs with its connections open.
    pub fn freeze(&self) {
        self.server_alone().freeze();
    }

    /// SIGCONT to the northbound's server.
    pub fn thaw(&self) {
        self.server_alone().thaw();
    }

    /// Serves the same file on the same socket (and TCP port) again.
    pub async fn start_again(&self) {
        self.server_alone().start_again().await;
    }

    /// A copy of the database's file as it is now.
    pub async fn backup(&self) -> std::path::PathBuf {
        let server = self.server_alone();
        let copy = self.dir().join("backup.db");
        // Whole only while nobody writes: the server is not there for the moment of the copy.
        server.stop().await;
        std::fs::copy(server.file("db"), &copy).expect("the file is copied");
        server.start_again().await;
        copy
    }

    /// Puts a [`backup`](Self::backup) in place of the database.
    pub async fn restore(&self, backup: &Path) {
        let server = self.server_alone();
        server.stop().await;
        std::fs::copy(backup, server.file("db")).expect("the file is copied");
        server.start_again().await;
    }

    /// Adds a southbound that no northd writes: for chassis alone.
    pub async fn with_southbound(mut self) -> Self {
        let southbound = OvsdbServer::create(self.dir(), "sb", "OVN_Southbound").await;
        southbound.transact(json!([{"op": "insert", "table": "SB_Global", "row": {}}]));
        self.southbound = Some(southbound);
        self
    }

    /// The southbound, where there is one.
    ///
    /// # Panics
    /// Without [`with_northd`](Self::with_northd) or [`with_southbound`](Self::with_southbound).
    #[track_caller]
    pub fn southbound(&self) -> &OvsdbServer {
        self.southbound.as_ref().expect("a northbound made by with_northd() has a southbound")
    }

    /// The southbound's remote on its unix socket.
    #[track_caller]
    pub fn sb_remote(&self) -> String {
        self.southbound().remote()
    }

    /// `ovn-sbctl` on the southbound.
    #[track_caller]
    pub fn sbctl(&self, arguments: &[&str]) -> String {
        self.southbound().ctl("ovn-sbctl", arguments)
    }

    /// A chassis as ovn-controller registers one.
    #[track_caller]
    pub fn add_chassis(&self, name: &str, hostname: &str) {
        // Type and address of a tunnel's end are unique.
        let taken: BTreeSet<String> = self.southbound().rows("Encap").iter().map(|row| text(&row["ip"])).collect();
        let ip = (1..).map(|host| format!("127.0.0.{host}")).find(|ip| !taken.contains(ip)).expect("one is free");
        let encap = json!({
            "chassis_name": name, "type": "geneve", "ip": ip, "options": ["map", [["csum", "true"]]],
        });
        self.southbound().transact(json!([
            {"op": "insert", "table": "Encap", "uuid-name": "encap", "row": encap},
            {"op": "insert", "table": "Chassis",
             "row": {"name": name, "hostname": hostname, "encaps": ["named-uuid", "encap"]}},
            {"op": "insert", "table": "Chassis_Private", "row": {"name": name}},
        ]));
    }

    /// A chassis that ovn-controller takes away as it ends.
    #[track_caller]
    pub fn remove_chassis(&self, name: &str) {
        let of = |table: &str, column: &str| json!({"op": "delete", "table": table, "where": [[column, "==", name]]});
        self.southbound().transact(json!([of("Chassis", "name"), of("Chassis_Private", "name")]));
    }

    /// Waits until northd has worked off all that is in the northbound now.
    #[track_caller]
    pub fn sync_southbound(&self) {
        self.nbctl(&["--wait=sb", "sync"]);
    }

    /// SIGSTOP to northd: it lags behind.
    pub fn freeze_northd(&self) {
        self.with_northd_daemon(Daemon::freeze);
    }

    /// SIGCONT to northd.
    pub fn thaw_northd(&self) {
        self.with_northd_daemon(Daemon::thaw);
    }

    /// SIGKILL to northd.
    pub fn kill9_northd(&self) {
        self.with_northd_daemon(Daemon::kill9);
    }

    /// Starts northd, again after [`kill9_northd`](Self::kill9_northd), and waits until it has synced.
    pub async fn start_northd(&self) {
        let file = |extension: &str| self.dir().join(format!("northd.{extension}")).display().to_string();
        let mut command = mortal("ovn-northd");
        command
            .args(["-vconsole:off", "-vsyslog:off", "-vfile:info"])
            .arg(format!("--ovnnb-db={}", self.remote()))
            .arg(format!("--ovnsb-db={}", self.sb_remote()))
            .arg(format!("--unixctl={}", file("ctl")))
            .arg(format!("--log-file={}", file("log")))
            // Nothing of this machine's own OVN is to be found or touched.
            .envs([
                ("OVN_RUNDIR", self.dir()),
                ("OVN_DBDIR", self.dir()),
                ("OVN_LOGDIR", self.dir()),
            ]);
        let northd = Daemon::start("ovn-northd", command);
        *self.northd.lock().unwrap_or_else(PoisonError::into_inner) = Some(northd);
        eventually("northd has the southbound's lock and is active", async || {
            let status = std::process::Command::new("ovn-appctl")
                .args(["-t", &file("ctl"), "status"])
                .output()
                .map_err(|error| error.to_string())?;
            let said = String::from_utf8_lossy(&status.stdout).into_owned();
            if said.contains("active") {
                Ok(())
            } else {
                Err(format!("{said}{}", String::from_utf8_lossy(&status.stderr)))
            }
        })
        .await;
        self.sync_southbound();
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

    fn with_northd_daemon(&self, act: impl FnOnce(&Daemon)) {
        let northd = self.northd.lock().unwrap_or_else(PoisonError::into_inner);
        act(northd.as_ref().expect("a northbound made by with_northd() has a northd"));
    }
}

impl Drop for Northbound {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("the northbound's files and all logs are kept in {}", self.dir().display());
        }
    }
}

impl Port {
    /// All logical switch ports that a server has, sorted by name, as of one moment.
    #[track_caller]
    fn all_of(server: &OvsdbServer) -> Vec<Self> {
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

fn without_epochs(mut external_ids: BTreeMap<String, String>) -> BTreeMap<String, String> {
    external_ids.retain(|key, _| !key.starts_with(EPOCH_PREFIX) && key != CLUSTER_KEY);
    external_ids
}

// --- OVSDB's notation (RFC 7047, section 5.1) ---

fn rows_of(result: &Value) -> &[Value] {
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
fn text(atom: &Value) -> String {
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
fn map(value: &Value) -> BTreeMap<String, String> {
    let pairs = value[1].as_array().map_or(&[][..], Vec::as_slice);
    pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}
