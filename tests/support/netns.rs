//! Hosts of one test: network namespaces on a bridge of their own, so that one can be cut off from the others.
//!
//! Their files are shared: a client reaches a server in any of them through its unix socket. A namespace has no name
//! and no file: a process that only sleeps holds it, and ends with the test process as every daemon does
//! ([`process`](super::process)). Then the kernel takes the namespace and its cables away, also after a kill -9.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::eventually::POLL_EVERY;
use super::process::{Daemon, mortal};

/// The requirement of a machine that cannot create namespaces.
const NEEDED: &str = "this test makes network namespaces: run it as root (sudo -E), or in a container with \
                      CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)";

/// A namespace is there in milliseconds, or never.
const MADE_WITHIN: Duration = Duration::from_secs(20);

/// Room for a tunnel's header around 1,500 bytes.
const MTU: &str = "1600";

/// Namespaces that reach only each other.
#[derive(Debug)]
pub struct Hosts {
    bridge: Host,
    hosts: Vec<Host>,
}

/// One namespace, for as long as its holder lives.
#[derive(Debug)]
pub struct Host {
    holder: Daemon,
}

impl Hosts {
    /// Makes `count` hosts, 1 to `count`, with their addresses.
    ///
    /// # Panics
    /// Where namespaces cannot be made, saying what is needed.
    #[track_caller]
    pub fn new(count: usize) -> Self {
        let this = Self::without_addresses(count);
        for number in 1..=count {
            this.host(number).ip(&["address", "add", &format!("{}/24", Self::address(number)), "dev", "eth0"]);
        }
        this
    }

    /// The same, each with an unused wire.
    #[track_caller]
    pub fn without_addresses(count: usize) -> Self {
        let bridge = Host::new();
        bridge.ip(&["link", "add", "br0", "mtu", MTU, "type", "bridge"]);
        bridge.ip(&["link", "set", "br0", "up"]);
        let hosts = (1..=count).map(|number| {
            let host = Host::new();
            let port = format!("p{number}");
            bridge.wire(&port, &host, MTU);
            bridge.ip(&["link", "set", &port, "master", "br0", "up"]);
            host.ip(&["link", "set", "eth0", "up"]);
            host
        });
        let hosts = hosts.collect();
        Self { bridge, hosts }
    }

    /// One of the hosts.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// The file that stands for a host's namespace.
    pub fn namespace(&self, host: usize) -> PathBuf {
        self.host(host).namespace()
    }

    /// A host's address. Every test has the same: they do not see each other.
    pub fn address(host: usize) -> String {
        format!("10.99.0.{host}")
    }

    /// Takes a host's cable out.
    #[track_caller]
    pub fn cut(&self, host: usize) {
        self.bridge.ip(&["link", "set", &format!("p{host}"), "down"]);
    }

    /// Puts it in again.
    #[track_caller]
    pub fn join(&self, host: usize) {
        self.bridge.ip(&["link", "set", &format!("p{host}"), "up"]);
    }
}

/// Whether namespaces and wires can be made here; the error says why not. For the demo: a test fails instead.
pub fn available() -> Result<(), String> {
    let wire = "ip link add wire0 type veth peer name wire1";
    let output = Command::new("unshare").args(["--net", "sh", "-c", wire]).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare (util-linux): {error}")),
    }
}

impl Host {
    /// A namespace with only loopback in it.
    ///
    /// # Panics
    /// Where namespaces cannot be made, saying what is needed.
    #[track_caller]
    pub fn new() -> Self {
        let mut command = mortal("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let this = Self { holder: Daemon::start("the holder of a network namespace", command) };
        let of_test = std::fs::read_link("/proc/self/ns/net").expect("Linux has network namespaces");
        let begun = Instant::now();
        // The holder is in the test's own namespace until unshare has done its work.
        while std::fs::read_link(this.namespace()).is_ok_and(|namespace| namespace == of_test) {
            assert!(this.holder.is_running() && begun.elapsed() < MADE_WITHIN, "{NEEDED}");
            std::thread::sleep(POLL_EVERY);
        }
        assert!(this.holder.is_running(), "{NEEDED}");
        this.ip(&["link", "set", "lo", "up"]);
        this
    }

    /// A wire from `port` here to `eth0` there.
    #[track_caller]
    pub fn wire(&self, port: &str, there: &Self, mtu: &str) {
        let pid = there.holder.pid().to_string();
        let wire = ["link", "add", port, "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu];
        self.ip(&[&wire[..], &["netns", &pid]].concat());
    }

    /// The file that stands for it.
    pub fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.pid()))
    }

    /// A command line for `program` in the namespace; it dies with this process.
    pub fn mortal(&self, program: &str) -> Command {
        let mut command = mortal("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).arg(program);
        command
    }

    /// Runs `ip` in the namespace.
    #[track_caller]
    pub fn ip(&self, arguments: &[&str]) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).arg("ip").args(arguments);
        let output = command.output().expect("nsenter: apt install util-linux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}\nip is of Debian's package iproute2; {NEEDED}");
    }
}
