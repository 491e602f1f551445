//! Hosts of one test: network namespaces on a bridge of their own, so that one can be cut off from the others.
//!
//! Their files are shared: a client reaches a server in any of them through its unix socket.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the names of all our namespaces begin with; then come the process's id, a number, and the host's.
const PREFIX: &str = "okv";

/// Namespaces that reach each other, and nothing else.
#[derive(Debug)]
pub struct Hosts {
    name: String,
    count: usize,
}

impl Hosts {
    /// Makes `count` hosts, 1 to `count`.
    ///
    /// # Panics
    /// Where namespaces cannot be made, saying what is needed.
    pub fn new(count: usize) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        sweep();
        let name = format!("{PREFIX}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let this = Self { name, count };
        let bridge = this.namespace(0);
        ip(&["netns", "add", &bridge]);
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &bridge, "link", "set", "br0", "up"]);
        for host in 1..=count {
            let namespace = this.namespace(host);
            let port = format!("p{host}");
            ip(&["netns", "add", &namespace]);
            ip(&["-n", &namespace, "link", "set", "lo", "up"]);
            ip(&["-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
            ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &namespace, "address", "add", &format!("{}/24", Self::address(host)), "dev", "eth0"]);
            ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        }
        this
    }

    /// The name of a host's namespace; 0 is the bridge's.
    pub fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// A host's address. Every test has the same: they do not see each other.
    pub fn address(host: usize) -> String {
        format!("10.99.0.{host}")
    }

    /// Takes a host's cable out.
    pub fn cut(&self, host: usize) {
        ip(&["-n", &self.namespace(0), "link", "set", &format!("p{host}"), "down"]);
    }

    /// Puts it in again.
    pub fn join(&self, host: usize) {
        ip(&["-n", &self.namespace(0), "link", "set", &format!("p{host}"), "up"]);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 0..=self.count {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(host)]).output();
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip: apt install iproute2");
    assert!(
        output.status.success(),
        "ip {}: {}\nthis test makes network namespaces: run it as root, or in a container with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Removes what a test process that was killed has left behind.
fn sweep() {
    let Ok(output) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        let mut parts = name.split('-');
        let (prefix, pid) = (parts.next(), parts.next().and_then(|pid| pid.parse::<u32>().ok()));
        if prefix == Some(PREFIX) && pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}
