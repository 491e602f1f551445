//! The northbound database of one test: a real `ovsdb-server`, and `ovn-northd` with a southbound where a test asks.
//!
//! [`switches`] has the writing of rows, [`southbound`] the daemons beside it, [`rows`] the reading, and [`raft`] the
//! northbound as a cluster. Its directory also takes the logs of the services that run on it, and is kept when the test fails.

mod raft;
mod rows;
mod southbound;
mod switches;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

pub use self::rows::Port;
use self::rows::{map, rows_of, text};
pub use self::switches::RouterPort;
use super::netns::Hosts;
use super::ovsdb_server::OvsdbServer;
use super::process::Daemon;

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

    /// The first server, for calls that only make sense with one.
    fn server_alone(&self) -> &OvsdbServer {
        &self.servers[0]
    }

    /// The server to speak with: the cluster's leader.
    #[track_caller]
    fn server(&self) -> &OvsdbServer {
        &self.servers[self.leader()]
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

    /// The directory of this northbound's files and of the logs of its clients.
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
    /// Left out are `_version`, which is no content, and the epochs in `NB_Global`, which every start of a
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
        // Whole only while there is no writer: the server is not there for the moment of the copy.
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
}

impl Drop for Northbound {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("the northbound's files and all logs are kept in {}", self.dir().display());
        }
    }
}

fn without_epochs(mut external_ids: BTreeMap<String, String>) -> BTreeMap<String, String> {
    external_ids.retain(|key, _| !key.starts_with(EPOCH_PREFIX) && key != CLUSTER_KEY);
    external_ids
}
