//! A small OVN network: chassis with userspace Open vSwitch in network namespaces, and guests on them.
//!
//! ```text
//!   guest namespace             chassis namespace                         bridge namespace
//!   eth0 ---- veth ----> br-int (ovs-vswitchd, ovn-controller)
//!                          | geneve, in userspace
//!                        br-phy ---- eth0 ---- veth ------------------------> br0
//! ```
//!
//! A guest that migrates is two namespaces with one MAC and address, of which one is awake (`tests/fabric/guest.py`).

mod dhcp;
mod traffic;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

pub use self::dhcp::{Client, Ears, Given, Running};
pub use self::traffic::{Echo, Echoed, Pings, Probe, Probed};
use super::eventually::eventually;
use super::netns::{Host, Hosts};
use super::northbound::Northbound;
use super::objects::Binding;
use super::ovsdb_server::run_tool;
use super::process::{Daemon, spawn};

/// Room for a geneve header around a guest's 1,500 bytes.
const UNDERLAY_MTU: &str = "1600";
/// Announcements of a guest that arrives.
const RARPS: &str = "5";
/// Where all guests are, on whichever switch.
const SUBNET: &str = "10.16.0.0/12";
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fabric");

/// Chassis `hv1` and so on of one northbound, which has northd.
#[derive(Debug)]
pub struct Fabric {
    // The daemons end before their namespaces go.
    /// The ovn-controllers, by host.
    controllers: BTreeMap<usize, Daemon>,
    /// The ovs-vswitchds, by host.
    switches: BTreeMap<usize, Daemon>,
    daemons: Vec<Daemon>,
    hosts: Hosts,
    dir: PathBuf,
    count: usize,
}

impl Fabric {
    /// Makes `count` chassis, and waits until the southbound has them.
    pub async fn start(northbound: &Northbound, count: usize) -> Self {
        let hosts = Hosts::without_addresses(count);
        let dir = northbound.dir().to_owned();
        let mut fabric =
            Self { controllers: BTreeMap::new(), switches: BTreeMap::new(), daemons: Vec::new(), hosts, dir, count };
        for host in 1..=count {
            fabric.add_chassis(host, &northbound.sb_remote()).await;
        }
        fabric.know_each_other();
        eventually("all chassis are in the southbound", || async {
            let chassis = northbound.southbound().rows("Chassis").len();
            if chassis == count { Ok(()) } else { Err(format!("{chassis} of {count}")) }
        })
        .await;
        fabric
    }

    /// The name of a chassis, and of the node that it is.
    pub fn name(host: usize) -> String {
        format!("hv{host}")
    }

    async fn add_chassis(&mut self, host: usize, southbound: &str) {
        let (dir, name) = (self.folder(host), Self::name(host));
        std::fs::create_dir_all(&dir).expect("a folder");
        let file = |file: &str| dir.join(file).display().to_string();
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        run_tool(Command::new("ovsdb-tool").arg("create").arg(file("conf.db")).arg(schema));
        let remote = format!("--remote=punix:{}", file("db.sock"));
        self.daemon(host, "ovsdb-server", &[&file("conf.db"), &remote]);
        eventually("the chassis' own database answers", || async {
            if dir.join("db.sock").exists() { Ok(()) } else { Err("there is no socket yet") }
        })
        .await;
        self.vsctl(host, &["--no-wait", "init"]);
        let settings = [
            format!("external_ids:system-id={name}"),
            format!("external_ids:hostname={name}"),
            format!("external_ids:ovn-remote={southbound}"),
            "external_ids:ovn-encap-type=geneve".to_owned(),
            format!("external_ids:ovn-encap-ip={}", Hosts::address(host)),
            "external_ids:ovn-bridge-datapath-type=netdev".to_owned(),
            "external_ids:ovn-monitor-all=true".to_owned(),
            "external_ids:ovn-remote-probe-interval=0".to_owned(),
            "external_ids:ovn-openflow-probe-interval=0".to_owned(),
        ];
        let mut set = vec!["--no-wait", "set", "Open_vSwitch", "."];
        set.extend(settings.iter().map(String::as_str));
        self.vsctl(host, &set);
        self.start_switch(host);
        // A tunnel of userspace needs its own address on a bridge that holds the wire.
        let mac = format!("other_config:hwaddr={}", mac(host));
        let bridge =
            ["add-br", "br-phy", "--", "set", "Bridge", "br-phy", "datapath_type=netdev", "fail_mode=standalone"];
        self.vsctl(host, &[&bridge[..], &[&mac, "--", "add-port", "br-phy", "eth0"]].concat());
        self.address(host);
        self.start_controller(host);
    }

    fn start_switch(&mut self, host: usize) {
        let switch = self.begin(host, "ovs-vswitchd", &[&self.database(host)]);
        self.switches.insert(host, switch);
    }

    /// The address of the tunnel's end. It goes with vswitchd, which makes the device.
    fn address(&self, host: usize) {
        let there = self.hosts.host(host);
        there.ip(&["address", "replace", &format!("{}/24", Hosts::address(host)), "dev", "br-phy"]);
        there.ip(&["link", "set", "br-phy", "mtu", UNDERLAY_MTU, "up"]);
    }

    /// Kills a chassis' ovs-vswitchd with -9 and starts it again: only its database survives.
    pub async fn restart_switch(&mut self, host: usize) {
        self.switches.remove(&host).expect("it runs").kill9();
        self.start_switch(host);
        eventually("br-phy is there again", || async {
            let mut show = self.hosts.host(host).mortal("ip");
            let shown = show.args(["link", "show", "br-phy"]).output().expect("ip runs");
            if shown.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&shown.stderr).into_owned()) }
        })
        .await;
        self.address(host);
        self.know_each_other();
    }

    /// The remote of a chassis' own Open vSwitch database.
    pub fn database(&self, host: usize) -> String {
        format!("unix:{}", self.folder(host).join("db.sock").display())
    }

    /// The `external_ids` of a guest's interface in that database, as ovs-vsctl prints them.
    pub fn interface_ids(&self, guest: &Guest) -> String {
        self.vsctl(guest.chassis, &["get", "Interface", &guest.interface, "external_ids"])
    }

    /// The `external_ids` of its port there.
    pub fn port_ids(&self, guest: &Guest) -> String {
        self.vsctl(guest.chassis, &["get", "Port", &guest.interface, "external_ids"])
    }

    /// Starts a chassis' ovn-controller, again after [`stop_controller`](Self::stop_controller).
    pub fn start_controller(&mut self, host: usize) {
        let controller = self.begin(host, "ovn-controller", &[&self.database(host)]);
        self.controllers.insert(host, controller);
    }

    /// Has a chassis' ovn-controller exit in order: it takes its row out of the southbound.
    pub async fn stop_controller(&mut self, host: usize) {
        let controller = self.controllers.remove(&host).expect("it runs");
        // SIGTERM would leave the row behind.
        run_tool(self.inside(host, "ovn-appctl").args(["-t", "ovn-controller", "exit"]));
        eventually("ovn-controller has ended", || async {
            if controller.is_running() { Err("it runs") } else { Ok(()) }
        })
        .await;
    }

    /// Enters each other's tunnel ends: userspace drops the first packet to a peer that it has to look for.
    fn know_each_other(&self) {
        for host in 1..=self.count {
            let control = self.folder(host).join("ovs-vswitchd.ctl").display().to_string();
            for peer in (1..=self.count).filter(|peer| *peer != host) {
                let (address, mac) = (Hosts::address(peer), mac(peer));
                let mut command = self.inside(host, "ovs-appctl");
                command.args(["-t", &control, "tnl/neigh/set", "br-phy", &address, &mac]);
                run_tool(&mut command);
            }
        }
    }

    fn daemon(&mut self, host: usize, program: &str, arguments: &[&str]) {
        let daemon = self.begin(host, program, arguments);
        self.daemons.push(daemon);
    }

    /// A daemon of a chassis, in its namespace, with all its files in its folder.
    fn begin(&self, host: usize, program: &str, arguments: &[&str]) -> Daemon {
        let dir = self.folder(host);
        let mut command = self.hosts.host(host).mortal(program);
        command.args(arguments).args(["-vconsole:off", "-vsyslog:off", "-vfile:info"]);
        command.arg(format!("--log-file={}", dir.join(format!("{program}.log")).display()));
        // ovn-controller has no such option: it goes by its pid file.
        if program != "ovn-controller" {
            command.arg(format!("--unixctl={}", dir.join(format!("{program}.ctl")).display()));
        }
        command.arg(format!("--pidfile={}", dir.join(format!("{program}.pid")).display()));
        environment(&mut command, &dir);
        Daemon::start(program, command)
    }

    /// A command inside a chassis' namespace.
    fn inside(&self, host: usize, program: &str) -> Command {
        let mut command = self.hosts.host(host).mortal(program);
        environment(&mut command, &self.folder(host));
        command
    }

    fn vsctl(&self, host: usize, arguments: &[&str]) -> String {
        let database = format!("--db={}", self.database(host));
        run_tool(self.inside(host, "ovs-vsctl").arg(database).arg("--timeout=20").args(arguments))
    }

    fn folder(&self, host: usize) -> PathBuf {
        self.dir.join(Self::name(host))
    }

    /// A guest on a chassis: its port there, and itself in a namespace of its own. It sleeps until it is woken.
    pub fn plug(&self, host: usize, port: &str, mac: &str, address: &str) -> Guest {
        self.plug_bound(host, port, mac, address, Binding::Bridge)
    }

    /// The same with another binding than a bridge.
    pub fn plug_bound(&self, host: usize, port: &str, mac: &str, address: &str, binding: Binding) -> Guest {
        self.plug_by(host, &Cni::IfaceId(port), mac, address, binding)
    }

    /// The same by a CNI of any kind.
    pub fn plug_by(&self, host: usize, cni: &Cni<'_>, mac: &str, address: &str, binding: Binding) -> Guest {
        static PLUGGED: AtomicUsize = AtomicUsize::new(0);
        let interface = format!("g{}", PLUGGED.fetch_add(1, Ordering::Relaxed));
        let (chassis, guest) = (self.hosts.host(host), Host::new());
        let sysctl = |settings: &[&str]| {
            run_tool(guest.mortal("sysctl").arg("-qw").args(settings));
        };
        // Only the test's packets may be on the wire.
        sysctl(&["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]);
        // Then the negotiated options of a connection need not move with it.
        sysctl(&["net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_sack=0", "net.ipv4.tcp_window_scaling=0"]);
        chassis.wire(&interface, &guest, "1500");
        guest.ip(&["link", "set", "eth0", "address", mac, "up"]);
        // The guest has its address while it is awake; the way to its network stays.
        guest.ip(&["route", "add", SUBNET, "dev", "eth0"]);
        chassis.ip(&["link", "set", &interface, "up"]);
        let noted = cni.notes(&interface);
        let noted = noted.iter().map(String::as_str);
        self.vsctl(host, &["add-port", "br-int", &interface].into_iter().chain(noted).collect::<Vec<_>>());
        let mut command = guest.mortal("python3");
        let (rarps, kernel) = match binding {
            Binding::Bridge | Binding::ManagedTap => (RARPS, None),
            // QEMU's announcement does not leave the pod.
            Binding::Masquerade | Binding::Passt | Binding::PasstPlugin => ("0", Some("awake-kernel")),
            Binding::Sriov => panic!("such a guest is on no bridge of OVN's"),
        };
        command.args([&format!("{SCRIPTS}/guest.py"), mac, address, rarps]).args(kernel);
        let mut script = Script::start(command);
        // Its answer says that all is in place.
        script.order("ready");
        Guest { script, host: guest, interface, chassis: host }
    }

    /// Takes a guest's port away, and then the guest.
    pub fn unplug(&self, guest: Guest) {
        self.vsctl(guest.chassis, &["--if-exists", "del-port", "br-int", &guest.interface]);
        drop(guest);
    }
}

/// The values that a CNI writes beside the interface, in the same transaction.
#[derive(Debug, Clone, Copy)]
pub enum Cni<'a> {
    /// The name of the port.
    IfaceId(&'a str),
    /// As ovs-cni: which interface of which pod it is.
    OvsCni {
        /// The pod's UID.
        pod_uid: &'a str,
        /// The interface's name in the pod.
        interface: &'a str,
        /// The name of the port, which its releases up to 0.39.0 do not set.
        iface_id: Option<&'a str>,
    },
}

impl Cni<'_> {
    /// The rest of the command line of ovs-vsctl that adds the interface.
    fn notes(&self, interface: &str) -> Vec<String> {
        let set = |table: &str, ids: &[String]| {
            let head = ["--", "set", table, interface].map(ToOwned::to_owned);
            head.into_iter().chain(ids.iter().map(|id| format!("external_ids:{id}"))).collect::<Vec<_>>()
        };
        let named = |port: &str| set("Interface", &[format!("iface-id={port}")]);
        match *self {
            Self::IfaceId(port) => named(port),
            Self::OvsCni { pod_uid, interface: in_pod, iface_id } => {
                let ids = [
                    format!("contPodUid={pod_uid}"),
                    format!("contNetns=/var/run/netns/cni-{pod_uid}"),
                    format!("contIface={in_pod}"),
                    "owner=ovs-cni.network.kubevirt.io".to_owned(),
                ];
                [set("Port", &ids), iface_id.map(named).unwrap_or_default()].concat()
            }
        }
    }
}

/// A guest's namespace, and the script that acts for it there.
#[derive(Debug)]
pub struct Guest {
    // It ends before its namespace goes.
    script: Script,
    host: Host,
    interface: String,
    chassis: usize,
}

/// The part of a guest that moves with it: its connections.
#[derive(Debug, Clone)]
pub struct Memory {
    connections: String,
    /// When it fell silent, in seconds since the epoch.
    pub at: f64,
}

impl Guest {
    /// It has this neighbour in its cache, as a guest in whose memory the cache moves along.
    pub fn knows(&self, address: &str, mac: &str) {
        self.host.ip(&["neighbour", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent"]);
    }

    /// It answers from now on, and announces itself. Gives back when, in seconds since the epoch.
    pub fn wake(&mut self) -> f64 {
        time_in(&self.script.order_json("wake"))
    }

    /// It goes on here from where it was put to sleep elsewhere.
    pub fn wake_with(&mut self, memory: &Memory) {
        self.script.order(&format!("wake {}", memory.connections));
    }

    /// It answers no more.
    pub fn sleep(&mut self) -> Memory {
        let answer = self.script.order_json("sleep");
        Memory { connections: answer["connections"].to_string(), at: time_in(&answer) }
    }

    /// One RARP, though it sleeps on.
    pub fn announce(&mut self) {
        self.script.order("announce");
    }

    /// Pings an address once: the line of the answer, or else all that ping says.
    pub fn ping(&self, address: &str) -> Result<String, String> {
        let ping = ["-c", "1", "-W", "0.2", address];
        let output = self.host.mortal("ping").args(ping).output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let answer = said.lines().find(|line| line.contains("bytes from")).map(ToOwned::to_owned);
        answer.filter(|_| output.status.success()).ok_or(said)
    }

    /// Runs `ip` in its namespace.
    pub fn ip(&self, arguments: &[&str]) {
        self.host.ip(arguments);
    }

    /// A command in its namespace.
    pub fn inside(&self, program: &str) -> Command {
        self.host.mortal(program)
    }

    /// The names of the frames of `tests/fabric/frames.py` that come from another guest to this one. `who` is the script's.
    pub fn hears(&self, sender: &Self, who: &Value) -> Vec<String> {
        let command = |guest: &Self, what: &str| {
            let mut command = guest.host.mortal("python3");
            command.args([&format!("{SCRIPTS}/frames.py"), what, &who.to_string()]);
            command
        };
        let mut ears = Script::start(command(self, "hear"));
        assert_eq!(ears.answer().trim(), "ready");
        run_tool(&mut command(sender, "send"));
        serde_json::from_str(&ears.answer()).expect("a list of names")
    }

    /// What `dig +short` says of a question to a server, an answer a line.
    pub fn dig(&self, server: &str, question: &[&str]) -> Vec<String> {
        let options = [&format!("@{server}"), "+short", "+tries=1", "+time=2"];
        let output = self.host.mortal("dig").args(options).args(question).output().expect("dig");
        String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect()
    }

    /// Begins to ping an address every 5 ms.
    pub fn probe(&self, address: &str) -> Probe {
        let mut command = self.host.mortal("python3");
        command.args([&format!("{SCRIPTS}/probe.py"), address, "5"]);
        let mut script = Script::start(command);
        script.answer();
        Probe { script }
    }

    /// Begins to use a TCP connection to an address all the time.
    pub fn echo(&self, address: &str) -> Echo {
        let mut command = self.host.mortal("python3");
        command.args([&format!("{SCRIPTS}/echo.py"), address]);
        let mut script = Script::start(command);
        script.answer();
        Echo { script }
    }
}

/// A script that takes orders by its standard input and answers each with a line.
#[derive(Debug)]
struct Script {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = spawn(command).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    fn order(&mut self, order: &str) -> String {
        let input = self.input.as_mut().expect("it runs");
        writeln!(input, "{order}").and_then(|()| input.flush()).expect("the script takes orders");
        self.answer()
    }

    fn order_json(&mut self, order: &str) -> Value {
        serde_json::from_str(&self.order(order)).expect("a line of JSON")
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the script answers");
        assert!(!line.is_empty(), "the script has ended");
        line
    }

    fn end(&mut self) {
        self.input.take();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.end();
    }
}

/// When a guest did what it was told.
fn time_in(answer: &Value) -> f64 {
    answer["at"].as_f64().expect("a time")
}

/// The MAC of a chassis' tunnel end.
fn mac(host: usize) -> String {
    format!("02:00:00:00:ff:{host:02x}")
}

/// This machine's own OVS and OVN must be neither found nor touched.
fn environment(command: &mut Command, dir: &Path) {
    for key in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVN_RUNDIR", "OVN_LOGDIR", "OVN_DBDIR"] {
        command.env(key, dir);
    }
}
