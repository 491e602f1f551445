//! Real DHCP clients in a guest's namespace, and what passes on its wire.
//!
//! A client runs in the foreground with `tests/fabric/given.py` for its script, which notes what it was given in a file. It
//! configures nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value};
use tempfile::TempDir;

use super::super::eventually::eventually;
use super::super::process::Daemon;
use super::{Guest, SCRIPTS, Script, run_tool};

/// The clients of distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// BusyBox' (Alpine, installers, initial RAM disks).
    Udhcpc,
    /// ISC's (Debian, the older RHEL), for DHCPv4.
    Dhclient,
    /// The same for DHCPv6.
    Dhclient6,
}

/// What is asked for beside the usual. OVN sends all that it has, whatever is asked for; dhclient hands on what it knows.
const DHCLIENT: &str = "option wpad code 252 = text;\nalso request interface-mtu, domain-search, host-name, \
                        ntp-servers, wpad;\ninitial-delay 0;\ninitial-interval 4;\nbackoff-cutoff 4;\nretry 1;\n";

/// A client that runs.
#[derive(Debug)]
pub struct Running {
    daemon: Daemon,
    dir: TempDir,
}

/// What a client has told its script of one event, by its own names.
#[derive(Debug, Clone)]
pub struct Given(Map<String, Value>);

impl Given {
    /// The event, by the client's own name.
    pub fn event(&self) -> &str {
        self.get("event")
    }

    /// A value, or nothing.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The values of some names, in this order.
    pub fn all<'a>(&'a self, names: &[&str]) -> Vec<&'a str> {
        names.iter().map(|name| self.get(name)).collect()
    }
}

impl Running {
    /// What its script was told up to now, without what precedes a request.
    pub fn told(&self) -> Vec<Given> {
        let text = std::fs::read_to_string(self.dir.path().join("given")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok().map(Given));
        lines.filter(|given| !["deconfig", "PREINIT", "PREINIT6"].contains(&given.event())).collect()
    }

    /// Waits until it was told so many times, and returns the last.
    pub async fn given(&self, times: usize) -> Given {
        eventually(&format!("the client is given something, time {times}"), || async {
            let mut told = self.told();
            if told.len() >= times { Ok(told.swap_remove(times - 1)) } else { Err(format!("{told:#?}")) }
        })
        .await
    }

    /// udhcpc renews its lease now.
    pub fn renew(&self) {
        run_tool(Command::new("kill").args(["-USR1", &self.daemon.pid().to_string()]));
    }
}

impl Guest {
    /// Starts a client. It asks again every second until it has an answer.
    pub fn dhcp(&self, client: Client) -> Running {
        let dir = tempfile::Builder::new().prefix("ovn-kubevirt-dhcp-").tempdir().expect("a directory");
        // The script may be run by another user's client.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
        let file = |name: &str| dir.path().join(name).display().to_string();
        let script = format!("{SCRIPTS}/given.py");
        let mut command = self.host.mortal(if client == Client::Udhcpc { "udhcpc" } else { "dhclient" });
        // The script notes all variables: those of the client alone.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("GIVEN", file("given"));
        match client {
            Client::Udhcpc => {
                let options = ["mtu", "search", "hostname", "domain", "ntpsrv", "wpad"];
                command.args(["-f", "-i", "eth0", "-T", "1", "-t", "100", "-s", &script]);
                options.iter().for_each(|option| {
                    command.args(["-O", option]);
                });
            }
            Client::Dhclient | Client::Dhclient6 => {
                std::fs::write(dir.path().join("conf"), DHCLIENT).expect("a file");
                let family = if client == Client::Dhclient { "-4" } else { "-6" };
                command.args([family, "-d", "-sf", &script, "-cf", &file("conf"), "-lf", &file("leases")]);
                command.args(["-pf", &file("pid"), "-e", &format!("GIVEN={}", file("given")), "eth0"]);
            }
        }
        let out = std::fs::File::create(dir.path().join("log")).expect("a file");
        command.stdout(out.try_clone().expect("the file")).stderr(out);
        Running { daemon: Daemon::start("a DHCP client", command), dir }
    }

    /// It has IPv6, with the link-local address of its MAC at once.
    pub fn with_ipv6(&self) {
        let sysctl = ["-qw", "net.ipv6.conf.eth0.accept_dad=0", "net.ipv6.conf.eth0.disable_ipv6=0"];
        run_tool(self.host.mortal("sysctl").args(sysctl));
    }

    /// It has no way to this address from now on. (A wrong MAC would not do: OVN answers DHCP before it looks at that.)
    pub fn loses(&self, address: &str) {
        self.host.ip(&["route", "add", "blackhole", address]);
    }

    /// Begins to listen to its DHCPv4.
    pub fn ears(&self) -> Ears {
        let mut command = self.host.mortal("python3");
        command.arg(PathBuf::from(SCRIPTS).join("dhcp.py"));
        let mut script = Script::start(command);
        assert_eq!(script.answer().trim(), "ready");
        Ears { script }
    }
}

/// The DHCPv4 of a guest, as it passes.
#[derive(Debug)]
pub struct Ears {
    script: Script,
}

impl Ears {
    /// All messages: `> REQUEST 10.16.0.1` is one of the guest's own, by where it goes.
    pub fn end(mut self) -> Vec<String> {
        self.script.input.take();
        let heard: Vec<(bool, String, String)> = serde_json::from_str(&self.script.answer()).expect("a line of JSON");
        heard.into_iter().map(|(out, kind, to)| format!("{} {kind} {to}", if out { '>' } else { '<' })).collect()
    }
}
