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

/// What is needed where a namespace cannot be made.
const NEEDED: &str = "this test makes network namespaces: run it as root (sudo -E), or in a container with \
                      CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)";

/// A namespace is there in milliseconds, or never.
const MADE_WITHIN: Duration = Duration::from_secs(20);

/// Namespaces that reach each other, and nothing else.
#[derive(Debug)]
pub struct Hosts {
    bridge: Host,
    hosts: Vec<Host>,
}

/// One namespace, for as long as its holder lives.
#[derive(Debug)]
struct Host {
    holder: Daemon,
}

impl Hosts {
    /// Makes `count` hosts, 1 to `count`.
    ///
    /// # Panics
    /// Where namespaces cannot be made, saying what is needed.
    #[track_caller]
    pub fn new(count: usize) -> Self {
        let bridge = Host::new();
        bridge.ip(&["link", "add", "br0", "type", "bridge"]);
        bridge.ip(&["link", "set", "br0", "up"]);
        let hosts = (1..=count).map(|number| {
            let host = Host::new();
            let (port, pid) = (format!("p{number}"), host.holder.pid().to_string());
            host.ip(&["link", "set", "lo", "up"]);
            bridge.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
            bridge.ip(&["link", "set", &port, "master", "br0", "up"]);
            host.ip(&["address", "add", &format!("{}/24", Self::address(number)), "dev", "eth0"]);
            host.ip(&["link", "set", "eth0", "up"]);
            host
        });
        let hosts = hosts.collect();
        Self { bridge, hosts }
    }

    /// The file that stands for a host's namespace.
    pub fn namespace(&self, host: usize) -> PathBuf {
        self.hosts[host - 1].namespace()
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

impl Host {
    #[track_caller]
    fn new() -> Self {
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
        this
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.pid()))
    }

    /// Runs `ip` in the namespace.
    #[track_caller]
    fn ip(&self, arguments: &[&str]) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).arg("ip").args(arguments);
        let output = command.output().expect("nsenter: apt install util-linux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}\nip is of Debian's package iproute2; {NEEDED}");
    }
}
