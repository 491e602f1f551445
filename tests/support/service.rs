//! The binary under test, run as an operator runs it, and seen from outside only: its HTTP port, its log, its exit.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cluster::{Cluster, Namespace};
use super::eventually::eventually;
use super::northbound::Northbound;
use super::process::{Daemon, mortal};
use super::stage::DEFAULT_SWITCH;

/// How much of the log a failed test prints.
const TAIL_LINES: usize = 60;

/// A running `ovn-kubevirt run` or `node`, killed on drop.
#[derive(Debug)]
pub struct Service {
    daemon: Daemon,
    log: PathBuf,
    address: OnceLock<String>,
}

/// The set-up of a [`Service`]. [`Prepared::setup`](super::stage::Prepared::setup) gives one.
#[derive(Debug, Clone)]
pub struct Setup {
    remote: String,
    leadership: Vec<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    kubeconfig: PathBuf,
    selector: String,
    dir: PathBuf,
}

impl Setup {
    /// The set-up of nearly every test: this northbound, this cluster with the rights that `deploy/kubernetes` gives, the
    /// namespaces of this test, no Lease.
    pub(super) fn new(northbound: &Northbound, cluster: &Cluster, namespace: &Namespace) -> Self {
        Self {
            remote: northbound.remote(),
            leadership: vec!["--no-lease".to_owned()],
            flags: Vec::new(),
            environment: Vec::new(),
            kubeconfig: cluster.service_kubeconfig().to_owned(),
            selector: namespace.selector(),
            dir: northbound.dir().to_owned(),
        }
    }

    /// Another remote, or several, comma-separated, instead of the northbound's unix socket.
    #[must_use]
    pub fn nb(mut self, remote: &str) -> Self {
        remote.clone_into(&mut self.remote);
        self
    }

    /// Serves other namespaces than those of the test.
    #[must_use]
    pub fn selector(mut self, selector: &str) -> Self {
        selector.clone_into(&mut self.selector);
        self
    }

    /// Leads by this Lease (`<namespace>/<name>`) instead of by `--no-lease`.
    #[must_use]
    pub fn lease(mut self, lease: &str) -> Self {
        self.leadership = vec!["--lease".to_owned(), lease.to_owned()];
        self
    }

    /// Reaches the API server with this file instead of the cluster's own: through a proxy, or with fewer rights.
    #[must_use]
    pub fn kubeconfig(mut self, kubeconfig: impl Into<PathBuf>) -> Self {
        self.kubeconfig = kubeconfig.into();
        self
    }

    /// More flags: `flags(["--instance", "blue"])`.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.flags.extend(flags.into_iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    /// None of the flags so far.
    #[must_use]
    pub fn without_flags(mut self) -> Self {
        self.flags.clear();
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts the service and does not wait for anything.
    pub fn spawn(&self) -> Service {
        let mut command = mortal(binary());
        command
            .args(["run", "--nb", &self.remote, "--default-switch", DEFAULT_SWITCH, "--http", "127.0.0.1:0"])
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace-selector", &self.selector])
            .args(&self.leadership)
            .args(&self.flags)
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        Service::begin(&self.dir, command)
    }

    /// Starts the service and waits until it is ready.
    pub async fn start(&self) -> Service {
        let service = self.spawn();
        service.ready().await;
        service
    }
}

impl Service {
    /// Starts a command line of the binary, with its log in `dir`, and does not wait for anything.
    pub fn begin(dir: &Path, mut command: Command) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let log = dir.join(format!("service-{}.log", STARTED.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&log).expect("a log in the database's directory");
        // Unless the test has said how much it wants to read.
        if command.get_envs().all(|(key, _)| key != "RUST_LOG") {
            command.env("RUST_LOG", "info,ovn_kubevirt=debug");
        }
        command
            .env("NO_COLOR", "1")
            .env_remove("KUBECONFIG")
            .stdout(file.try_clone().expect("a log has two writers"))
            .stderr(file);
        Self { daemon: Daemon::start("ovn-kubevirt", command), log, address: OnceLock::new() }
    }

    /// Runs the binary to its end: `ports`, `status`, `release` and the other commands of an operator.
    pub fn command_line(arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Panics
    /// At the deadline, and at once when the process has ended.
    pub async fn ready(&self) {
        self.listening().await;
        eventually("the service is ready", async || {
            self.assert_running();
            match self.try_http_get("/readyz").await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("/readyz says {status}: {body}")),
                Err(error) => Err(format!("/readyz: {error}")),
            }
        })
        .await;
    }

    /// Waits for the HTTP server, whose port the log has, and gives its address.
    ///
    /// # Panics
    /// At the deadline, and at once when the process has ended.
    pub async fn listening(&self) -> &str {
        if self.address.get().is_none() {
            let address = self.logged_address("http server listening").await;
            self.address.get_or_init(|| address);
        }
        self.address.get().expect("set above")
    }

    /// Waits for the webhooks' listener, whose port the log tells, and gives its address.
    ///
    /// # Panics
    /// At the deadline, and at once when the process has ended.
    pub async fn webhooks(&self) -> String {
        self.logged_address("webhooks listening").await
    }

    /// Waits for the listener of the API, whose port the log tells, and gives its address.
    ///
    /// # Panics
    /// At the deadline, and at once when the process has ended.
    pub async fn api(&self) -> String {
        self.logged_address("api listening").await
    }

    async fn logged_address(&self, words: &str) -> String {
        eventually(&format!("the service logs an address with the words: {words}"), async || {
            self.assert_running();
            let log = self.log();
            let line = log.lines().find(|line| line.contains(words));
            let address = line.and_then(|line| line.split_once("address=")).map(|(_, rest)| rest);
            let address = address.and_then(|rest| rest.split_whitespace().next());
            address.map(|address| address.trim_matches('"').to_owned()).ok_or_else(|| self.tail())
        })
        .await
    }

    /// One GET on the service's HTTP port: the status and the body.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn http_get(&self, path: &str) -> (u16, String) {
        self.listening().await;
        self.try_http_get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.tail()))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Whether the process has not ended.
    pub fn is_running(&self) -> bool {
        self.daemon.is_running()
    }

    /// The exit status, if the process has ended by itself.
    pub fn status(&self) -> Option<ExitStatus> {
        self.daemon.status()
    }

    /// SIGKILL: a crash.
    pub fn kill9(&self) {
        self.daemon.kill9();
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> ExitStatus {
        self.daemon.stop().await
    }

    /// SIGSTOP: a hanging leader.
    pub fn freeze(&self) {
        self.daemon.freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.daemon.thaw();
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map_or_else(|error| error.to_string(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// The end of the log.
    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn assert_running(&self) {
        if let Some(status) = self.status() {
            panic!("the service has ended: {status}\n{}", self.tail());
        }
    }

    async fn try_http_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let address = self.address.get().expect("listening() was awaited");
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        read_response(&String::from_utf8_lossy(&response)).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&response).into_owned();
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no HTTP response: {shown:?}"))
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the last of {}:\n{}\n---", self.log.display(), self.tail());
        }
    }
}

/// The binary that cargo built: named by cargo for tests and benches, and beside them for an example.
pub fn binary() -> OsString {
    if let Some(binary) = option_env!("CARGO_BIN_EXE_ovn-kubevirt") {
        return binary.into();
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let beside = this.ancestors().skip(1).take(2).map(|dir| dir.join("ovn-kubevirt"));
    let found = beside.into_iter().find(|path| path.is_file());
    found
        .unwrap_or_else(|| panic!("no ovn-kubevirt beside {}: run `cargo build` first", this.display()))
        .into_os_string()
}

/// The status and the body of a response that ended with its connection.
pub fn read_response(response: &str) -> Option<(u16, String)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split_whitespace().next()?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(body)? } else { body.to_owned() }))
}

/// RFC 9112, section 7.1: a size in hexadecimal, so many bytes, until a size of 0.
fn unchunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}
