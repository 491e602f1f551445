//! docker-compose.yml as one test runs it: a project of its own, on a free port, gone when the test ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{eventually, process};

/// The folder of the scripts.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compose");
/// All images are there: the time is that of etcd, the API server, and one health check after the other.
const UP_WITHIN: Duration = Duration::from_secs(240);
/// Lines of each container's log that a failed test shows.
const TAIL: &str = "--tail=25";

/// All columns of a `Logical_Switch_Port`, by name.
pub(crate) type Row = BTreeMap<String, Value>;

/// A running project.
pub(crate) struct Stack {
    project: String,
    api_port: u16,
    /// Takes the kubeconfig, and the output of Compose.
    dir: TempDir,
    guard: Child,
}

impl Stack {
    /// Starts it all, and waits until every health check is content.
    pub(crate) async fn up() -> Self {
        let dir = tempfile::Builder::new().prefix("ovn-kubevirt-compose-").tempdir().expect("a directory");
        let project = format!("ovnk-test-{}", std::process::id());
        let api_port = free_port();
        let log = File::create(dir.path().join("compose.log")).expect("a log for Compose");
        let mut command = Command::new(format!("{SCRIPTS}/guard.sh"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        command.envs(environment(&project, api_port, dir.path()));
        let mut guard = process::spawn(command).unwrap_or_else(|error| panic!("{SCRIPTS}/guard.sh: {error}"));

        let (line, lines) = mpsc::channel();
        let stdout = BufReader::new(guard.stdout.take().expect("standard output is piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|said| drop(line.send(said))));
        let stack = Self { project, api_port, dir, guard };
        if lines.recv_timeout(UP_WITHIN).is_err() {
            panic!(
                "docker-compose.yml does not come up; `make test-compose` builds the images\n{}",
                stack.compose_log()
            );
        }
        for service in ["ovn-kubevirt", "ovn-central", "chassis1", "chassis2", "etcd"] {
            stack.healthy(service).await;
        }
        stack
    }

    /// The administrator's kubeconfig, as docker-compose.yml writes it for the host.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A client of the API server.
    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("the host's kubeconfig can be read");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("the kubeconfig has a current context")).expect("a client of the API server")
    }

    /// Compose, on this project.
    #[track_caller]
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        self.script("compose.sh", arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Compose, while other things go on.
    pub(crate) async fn compose_meanwhile(&self, arguments: &[&str]) {
        let mut command = tokio::process::Command::from(self.command("compose.sh", arguments));
        let output = command.output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {output:?}");
    }

    /// `tests/compose/guest.sh` on this project.
    #[track_caller]
    pub(crate) fn guest(&self, arguments: &[&str]) -> String {
        self.try_guest(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// One packet from the guest of a port to an address, and its answer.
    pub(crate) fn ping(&self, port: &str, address: &str) -> Result<(), String> {
        self.try_guest(&["exec", port, "ping", "-c", "1", "-W", "1", address]).map(drop)
    }

    /// Waits until the health check of a service is content.
    pub(crate) async fn healthy(&self, service: &str) {
        eventually(&format!("{service} is healthy"), || async {
            match self.inspect(service) {
                Ok(container) if container["State"]["Health"]["Status"] == "healthy" => Ok(()),
                Ok(container) => Err(container["State"].to_string()),
                Err(error) => Err(error),
            }
        })
        .await;
    }

    /// Docker's state of a service's container.
    pub(crate) fn inspect(&self, service: &str) -> Result<Value, String> {
        let container = self.container(service)?;
        let said = docker(&["inspect", &container])?;
        let mut containers: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        containers.pop().ok_or_else(|| format!("no container of {service}"))
    }

    /// The IDs of all containers of the project.
    pub(crate) fn containers(&self) -> Vec<String> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let said = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &label]);
        said.unwrap_or_else(|error| panic!("{error}")).lines().map(ToOwned::to_owned).collect()
    }

    /// All rows of `Logical_Switch_Port`, by name.
    pub(crate) fn rows(&self) -> Result<BTreeMap<String, Row>, String> {
        let central = self.container("ovn-central")?;
        let list = ["ovn-nbctl", "--timeout=5", "--format=json", "list", "Logical_Switch_Port"];
        let said = docker(&[&["exec", central.as_str()], &list[..]].concat())?;
        let table: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        let columns: Vec<&str> = table["headings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let row = |row: &Value| -> Row {
            let cells = row.as_array().into_iter().flatten().cloned();
            columns.iter().map(|&column| column.to_owned()).zip(cells).collect()
        };
        let rows = table["data"].as_array().into_iter().flatten().map(row);
        Ok(rows.map(|row| (row["name"].as_str().unwrap_or_default().to_owned(), row)).collect())
    }

    fn container(&self, service: &str) -> Result<String, String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service_label = format!("label=com.docker.compose.service={service}");
        let said = docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service_label])?;
        said.lines().next().map(ToOwned::to_owned).ok_or_else(|| format!("{service} has no container"))
    }

    fn try_guest(&self, arguments: &[&str]) -> Result<String, String> {
        self.script("guest.sh", arguments)
    }

    fn script(&self, script: &str, arguments: &[&str]) -> Result<String, String> {
        output(self.command(script, arguments))
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(format!("{SCRIPTS}/{script}"));
        command.args(arguments).envs(environment(&self.project, self.api_port, self.dir.path()));
        command
    }

    fn compose_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("compose.log")).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arguments in [&["ps"][..], &["logs", "--no-color", TAIL]] {
                let said = self.script("compose.sh", arguments).unwrap_or_else(|error| error);
                eprintln!("--- {arguments:?}:\n{said}\n---");
            }
        }
        // The guard waits for the end of its input.
        drop(self.guard.stdin.take());
        match self.guard.wait() {
            Ok(status) if status.success() => {}
            ended => eprintln!("guard.sh: {ended:?}\n{}", self.compose_log()),
        }
    }
}

/// The variables that docker-compose.yml and the scripts take from the environment.
fn environment(project: &str, api_port: u16, dir: &Path) -> [(&'static str, String); 3] {
    [
        ("COMPOSE_PROJECT_NAME", project.to_owned()),
        ("API_PORT", api_port.to_string()),
        ("KUBECONFIG_DIR", dir.display().to_string()),
    ]
}

/// The API server's port has to be the same after a restart, so that Docker cannot choose it. It is below those that the
/// kernel gives to outgoing connections.
fn free_port() -> u16 {
    let start = 10_000 + (std::process::id() % 20_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (start..32_000).chain(10_000..start).find(free).expect("a free port")
}

/// Docker's client.
pub(crate) fn docker(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    output(command)
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{command:?}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}
