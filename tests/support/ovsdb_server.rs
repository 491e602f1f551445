//! A real `ovsdb-server` on a database file of its own, and the few words of OVSDB's JSON-RPC that a test needs.
//!
//! The tests speak to the server themselves, one short connection a call (0.1 ms on the unix socket). The client under
//! test must not vouch for itself, and `ovn-nbctl` costs a process.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::eventually::eventually;
use super::process::{Daemon, mortal};

/// How long one call may take: a frozen server fails the test instead of hanging it.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// One database, its server (while it runs), and where to reach it.
#[derive(Debug)]
pub struct OvsdbServer {
    /// `nb`, `sb`, or `nb1` for the first member of a cluster: the stem of every file name.
    stem: String,
    /// The database's own name: `OVN_Northbound`, `OVN_Southbound`.
    database: &'static str,
    dir: PathBuf,
    /// The TCP port, chosen by the kernel at the first start and kept over restarts.
    tcp_port: OnceLock<u16>,
    /// The network namespace that it runs in.
    namespace: Option<PathBuf>,
    server: Mutex<Option<Arc<Daemon>>>,
    frozen: AtomicBool,
}

impl OvsdbServer {
    /// Creates the database from the schema that its package brings, and serves it on `<dir>/<stem>.sock`.
    pub async fn create(dir: &Path, stem: &str, database: &'static str) -> Self {
        let this = Self::new(dir, stem, database, None);
        run_tool(Command::new("ovsdb-tool").arg("create").arg(this.file("db")).arg(schema(database)));
        this.start_again().await;
        this
    }

    /// Creates a member of a RAFT cluster: the first where `others` is empty, else one that joins these. RAFT speaks at
    /// `address`, as in `unix:...` or `tcp:host:port`.
    pub async fn create_member(dir: &Path, stem: &str, database: &'static str, seat: Seat, others: &[String]) -> Self {
        let Seat { address, namespace } = seat;
        let this = Self::new(dir, stem, database, namespace);
        let mut tool = Command::new("ovsdb-tool");
        if others.is_empty() {
            tool.arg("--election-timer=500").arg("create-cluster").arg(this.file("db")).arg(schema(database));
            tool.arg(&address);
        } else {
            tool.arg("join-cluster").arg(this.file("db")).arg(database).arg(&address).args(others);
        }
        run_tool(&mut tool);
        this.start_again().await;
        this
    }

    fn new(dir: &Path, stem: &str, database: &'static str, namespace: Option<PathBuf>) -> Self {
        Self {
            stem: stem.to_owned(),
            database,
            dir: dir.to_owned(),
            tcp_port: OnceLock::new(),
            namespace,
            server: Mutex::new(None),
            frozen: AtomicBool::new(false),
        }
    }

    /// The row of `_Server.Database` that says how the server has its database.
    pub fn membership(&self) -> Result<Value, String> {
        let select = json!({"op": "select", "table": "Database", "where": [["name", "==", self.database]]});
        let mut results = self.call("transact", json!(["_Server", select]))?;
        match results[0]["rows"][0].take() {
            Value::Null => Err(format!("{} is not served", self.database)),
            row => Ok(row),
        }
    }

    /// Runs a command of `ovs-appctl` on the server.
    #[track_caller]
    pub fn appctl(&self, arguments: &[&str]) -> String {
        run_tool(Command::new("ovs-appctl").arg("-t").arg(self.file("ctl")).args(arguments))
    }

    /// Whether the process runs (a frozen one does).
    pub fn is_running(&self) -> bool {
        self.slot().as_ref().is_some_and(|server| server.is_running())
    }

    /// Whether it runs and is not frozen: then a call does not wait in vain.
    pub fn answers(&self) -> bool {
        self.is_running() && !self.frozen.load(Ordering::Relaxed)
    }

    /// How many bytes its clients on the unix socket have sent that it has not read: a frozen one does not read.
    #[track_caller]
    pub fn unread(&self) -> u64 {
        let socket = self.file("sock").display().to_string();
        let sockets = Command::new("ss").args(["-xH", "src", &socket]).output().expect("ss: apt install iproute2");
        let sockets = String::from_utf8_lossy(&sockets.stdout).into_owned();
        // Netid, State, Recv-Q, ...; the socket that listens has connections in its queue, and no bytes.
        let established = sockets.lines().filter(|line| line.contains("ESTAB"));
        established.filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
    }

    /// How many transactions it has read and not answered.
    #[track_caller]
    pub fn unanswered(&self) -> u64 {
        let report = self.appctl(&["memory/show"]);
        let triggers = report.split_whitespace().find_map(|item| item.strip_prefix("triggers:"));
        triggers.and_then(|triggers| triggers.parse().ok()).unwrap_or(0)
    }

    /// The remote on the unix socket.
    pub fn remote(&self) -> String {
        format!("unix:{}", self.file("sock").display())
    }

    /// The remote on TCP, opened at the first call; the port stays the same over restarts.
    pub async fn tcp_remote(&self) -> String {
        self.tcp_remote_by("ptcp:0:127.0.0.1").await
    }

    /// The TCP remote that this `--remote` of ovsdb-server opens, on a port that the kernel picks.
    pub async fn tcp_remote_by(&self, remote: &str) -> String {
        if self.tcp_port.get().is_none() {
            self.appctl(&["ovsdb-server/add-remote", remote]);
            // The log is where the server says which port it got.
            let port = eventually("ovsdb-server logs its TCP port", async || {
                let log = self.log();
                let port = log.lines().find_map(|line| line.split_once("0:127.0.0.1: listening on port "));
                port.and_then(|(_, port)| port.trim().parse().ok()).ok_or(log)
            })
            .await;
            self.tcp_port.get_or_init(|| port);
        }
        format!("tcp:127.0.0.1:{}", self.tcp_port.get().expect("set above"))
    }

    /// The server's own log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill9(&self) {
        self.daemon().kill9();
    }

    /// SIGTERM, and waits for the end. OVS cleans up and then ends by the signal: the status is no exit code.
    pub async fn stop(&self) -> ExitStatus {
        self.daemon().stop().await
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
        self.daemon().freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.daemon().thaw();
        self.frozen.store(false, Ordering::Relaxed);
    }

    /// Serves the same file on the same remotes, after [`kill9`](Self::kill9) or [`stop`](Self::stop).
    pub async fn start_again(&self) {
        assert!(!self.is_running(), "{} is being served already", self.database);
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = mortal("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg("ovsdb-server");
                command
            }
            None => mortal("ovsdb-server"),
        };
        command
            .args(["-vconsole:off", "-vsyslog:off", "-vfile:info"])
            .arg(format!("--remote=p{}", self.remote()))
            .arg(format!("--unixctl={}", self.file("ctl").display()))
            .arg(format!("--log-file={}", self.file("log").display()));
        if let Some(port) = self.tcp_port.get() {
            command.arg(format!("--remote=ptcp:{port}:127.0.0.1"));
        }
        command.arg(self.file("db"));
        let server = Arc::new(Daemon::start("ovsdb-server", command));
        *self.slot() = Some(Arc::clone(&server));
        self.frozen.store(false, Ordering::Relaxed);

        eventually("ovsdb-server serves its database", async || {
            if let Some(status) = server.status() {
                panic!("ovsdb-server of {} ended with {status}\n{}", self.database, self.log());
            }
            let databases = self.call("list_dbs", json!([]))?;
            match databases.as_array().is_some_and(|names| names.contains(&json!(self.database))) {
                true => Ok(()),
                false => Err(format!("it has {databases}")),
            }
        })
        .await;
    }

    /// One transaction of `operations`, and the result of each.
    ///
    /// # Panics
    /// When the server is away, and when any operation, or the commit, fails.
    #[track_caller]
    pub fn transact(&self, operations: Value) -> Vec<Value> {
        let shown = operations.to_string();
        match self.try_transact(operations) {
            Ok(results) => results,
            Err(error) => panic!("transaction on {} failed: {error}\n  {shown}", self.database),
        }
    }

    /// As [`transact`](Self::transact), with the error as a value.
    pub fn try_transact(&self, operations: Value) -> Result<Vec<Value>, String> {
        let Value::Array(operations) = operations else {
            return Err("operations are an array".to_owned());
        };
        let mut params = vec![json!(self.database)];
        params.extend(operations);
        let Value::Array(results) = self.call("transact", Value::Array(params))? else {
            return Err("the result of a transaction is an array".to_owned());
        };
        // An error at the commit comes as one result more than there were operations.
        match results.iter().find(|result| result.get("error").is_some()) {
            Some(failed) => Err(failed.to_string()),
            None => Ok(results),
        }
    }

    /// All rows of `table`, as the wire shows them, sorted by `_uuid`.
    #[track_caller]
    pub fn rows(&self, table: &str) -> Vec<Value> {
        let mut results = self.transact(json!([{"op": "select", "table": table, "where": []}]));
        let mut rows = match results[0]["rows"].take() {
            Value::Array(rows) => rows,
            other => panic!("a select gives rows, not {other}"),
        };
        rows.sort_by_key(|row| row["_uuid"].to_string());
        rows
    }

    /// The names of the database's tables, sorted.
    #[track_caller]
    pub fn tables(&self) -> Vec<String> {
        let schema = self.call("get_schema", json!([self.database])).unwrap_or_else(|error| panic!("{error}"));
        let tables = schema["tables"].as_object().expect("a schema has tables");
        let mut names: Vec<String> = tables.keys().cloned().collect();
        names.sort();
        names
    }

    /// Runs one of OVN's own tools (`ovn-nbctl`, `ovn-sbctl`) on this database.
    ///
    /// # Panics
    /// When the tool fails, with its standard error.
    #[track_caller]
    pub fn ctl(&self, tool: &str, arguments: &[&str]) -> String {
        run_tool(Command::new(tool).arg(format!("--db={}", self.remote())).arg("--timeout=20").args(arguments))
    }

    /// One request on a connection of its own (RFC 7047: JSON-RPC 1.0, messages back to back without framing).
    fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        let away = |error: std::io::Error| format!("{}: {error}", self.remote());
        let stream = UnixStream::connect(self.file("sock")).map_err(away)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(away)?;
        stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(away)?;
        let request = json!({"method": method, "params": params, "id": 1});
        (&stream).write_all(request.to_string().as_bytes()).map_err(away)?;

        for message in serde_json::Deserializer::from_reader(BufReader::new(&stream)).into_iter::<Value>() {
            let mut message = message.map_err(|error| format!("{}: {error}", self.remote()))?;
            // The server's own echo requests are of no concern on so short a connection.
            if message["id"] == 1 && message.get("method").is_none() {
                return match message["error"].take() {
                    Value::Null => Ok(message["result"].take()),
                    error => Err(error.to_string()),
                };
            }
        }
        Err(format!("{}: closed without an answer", self.remote()))
    }

    /// One of its files: `db`, `sock`, `log`.
    pub fn file(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.stem))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Daemon>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn daemon(&self) -> Arc<Daemon> {
        self.slot().clone().unwrap_or_else(|| panic!("{} was never started", self.database))
    }
}

/// Where a member of a cluster sits.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Where the others reach it.
    pub address: String,
    /// The network namespace that it runs in; none is the test's own.
    pub namespace: Option<PathBuf>,
}

/// The schema that OVN's package, or Open vSwitch's, brings.
fn schema(database: &str) -> PathBuf {
    let schema = PathBuf::from(match database {
        "Open_vSwitch" => "/usr/share/openvswitch/vswitch.ovsschema",
        "OVN_Southbound" => "/usr/share/ovn/ovn-sb.ovsschema",
        _ => "/usr/share/ovn/ovn-nb.ovsschema",
    });
    assert!(
        schema.exists(),
        "{} is missing: apt install ovn-central openvswitch-switch, or make test",
        schema.display()
    );
    schema
}

/// Runs a tool to its end and gives back its standard output.
///
/// # Panics
/// When it is missing, with the package to install, and when it fails, with its standard error.
#[track_caller]
pub fn run_tool(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}: apt install ovn-central openvswitch-switch, or make test")
    });
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a tool of OVN writes UTF-8")
}
