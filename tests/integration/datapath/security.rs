//! What port security lets a guest say: raw frames from one guest to another on two chassis, IPv4, IPv6 and link-local; and
//! what a guest gets by it, whose link-local address is not that of its MAC.

use serde_json::{Value, json};

use crate::support::fabric::{Fabric, Guest};
use crate::support::northbound::Port;
use crate::support::objects::{Binding, VmOptions};
use crate::support::stage::{Builder, DEFAULT_SWITCH};
use crate::support::{Stage, eventually};

const VIPS: (&str, &str) = ("10.16.0.50", "fd00:16::50");
const GATEWAY: (&str, &str) = ("10.16.0.1", "fd00:16::1");

/// A switch with both families and a router, two chassis, and guests of VMs on them.
struct Net {
    // The guests end before their chassis, and those before the databases.
    guests: Vec<Guest>,
    fabric: Fabric,
    stage: Stage,
    router_mac: String,
    ports: Vec<Port>,
}

impl Net {
    /// One VM for each list of annotations, on one chassis after the other.
    async fn start(name: &str, vms: &[&[(&str, &str)]]) -> Self {
        let config = [("subnet", "10.16.0.0/16"), ("exclude_ips", GATEWAY.0), ("ipv6_prefix", "fd00:16::")];
        let builder: Builder<'_> = Stage::build(name).northd().switch_with(DEFAULT_SWITCH, &config);
        let prepared = builder.flags(["--manage-ra=true", "--allow", "explicit,vips"]).prepare().await;
        let networks = [format!("{}/16", GATEWAY.0), format!("{}/64", GATEWAY.1)];
        let router = prepared.northbound.add_router_port(DEFAULT_SWITCH, &[&networks[0], &networks[1]]);
        let stage = prepared.start().await;
        let fabric = Fabric::start(&stage.northbound, 2).await;
        let mut net = Self { guests: Vec::new(), fabric, stage, router_mac: router.mac, ports: Vec::new() };
        for (index, annotations) in vms.iter().enumerate() {
            let (vm, host) = (format!("vm{index}"), index % 2 + 1);
            let mut options = VmOptions::default();
            for (key, value) in *annotations {
                options = options.annotation(key, value);
            }
            net.stage.player.create_vm(&vm, options).await;
            net.stage.player.start(&vm, &Fabric::name(host)).await;
            let bound = |port: &Port| port.option("requested-chassis") == Some(Fabric::name(host).as_str());
            let port = net.stage.port_where(&vm, "is bound", bound).await;
            let (mac, ipv4, _) = words(&port);
            net.guests.push(net.fabric.plug_bound(host, &port.name, &mac, &ipv4, Binding::Bridge));
            net.ports.push(port);
        }
        net.flows_stand();
        net
    }

    fn flows_stand(&self) {
        self.stage.northbound.nbctl(&["--wait=hv", "sync"]);
    }

    /// What the second guest hears of the first.
    fn heard(&self) -> Vec<String> {
        let one = |port: &Port| {
            let (mac, ipv4, ipv6) = words(port);
            json!({"mac": mac, "ipv4": ipv4, "ipv6": ipv6})
        };
        let router = json!({"mac": self.router_mac, "ipv4": GATEWAY.0, "ipv6": GATEWAY.1});
        let who: Value = json!({"own": one(&self.ports[0]), "victim": one(&self.ports[1]), "router": router, "vip4": VIPS.0, "vip6": VIPS.1});
        self.guests[1].hears(&self.guests[0], &who)
    }

    async fn hears(&self, expected: &[&str]) {
        let mut expected: Vec<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        expected.sort();
        eventually("these frames pass and no other", || async {
            let heard = self.heard();
            let differs = |one: &[String], other: &[String]| -> Vec<String> {
                one.iter().filter(|name| !other.contains(name)).cloned().collect()
            };
            let (missing, more) = (differs(&expected, &heard), differs(&heard, &expected));
            if missing.is_empty() && more.is_empty() { Ok(()) } else { Err(format!("lacks {missing:?}, has {more:?}")) }
        })
        .await;
    }

    async fn allow(&self, words: &str, vm: &str, security: &str) {
        let allow = format!("external_ids:ovn-kubevirt.io/allow=\"{words}\"");
        self.stage.northbound.nbctl(&["set", "Logical_Switch", DEFAULT_SWITCH, &allow]);
        let has = |port: &Port| port.port_security.iter().any(|element| element.ends_with(security));
        self.stage.port_where(vm, &format!("admits {security}"), has).await;
        self.flows_stand();
    }
}

fn words(port: &Port) -> (String, String, String) {
    let element = port.addresses.first().expect("an element");
    let words: Vec<&str> = element.split(' ').collect();
    (words[0].to_owned(), words[1].to_owned(), words[2].to_owned())
}

/// With whatever port security.
const ALWAYS: [&str; 6] = [
    "ARP for its own address",
    "IPv4 from its own address",
    "NA for its own address",
    "NS from its own link-local",
    // OVN has no guard against them: decision 0031.
    "RA from its own link-local",
    "SOLICIT from its own link-local",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_through_what_is_its_own_and_by_the_operators_word_any_link_local_address() {
    let net = Net::start("security", &[&[], &[]]).await;
    let always = &ALWAYS[..];
    net.hears(always).await;
    net.allow("explicit,link-local", "vm0", " fe80::/64").await;
    // What decision 0031 has in its table: what it is for, and what a guest can take of its neighbours by it.
    let open = [
        "NS from a random link-local",
        "NA for a random link-local",
        "SOLICIT from a random link-local",
        "NA for the router's link-local",
        "NA for the victim's link-local",
        "NS from the router's link-local",
        "RA from a random link-local",
        "RA from the router's link-local",
    ];
    net.hears(&[always, &open[..]].concat()).await;
    net.allow("explicit", "vm0", &words(&net.ports[0]).2).await;
    net.hears(always).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_through_with_its_further_addresses() {
    let vips = format!("{},{}", VIPS.0, VIPS.1);
    let net = Net::start("vips", &[&[("ovn.kubernetes.io/port_vips", &vips)], &[]]).await;
    let more = ["ARP for the VIP", "IPv4 from the VIP", "NA for the VIP"];
    net.hears(&[&ALWAYS[..], &more[..]].concat()).await;
}

/// VRRP: the address moves between two VMs, and a third and the router find it where it is, without a port of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_further_address_is_reached_where_it_was_announced_last() {
    let vip: &[(&str, &str)] = &[("ovn.kubernetes.io/port_vips", VIPS.0)];
    let net = Net::start("vrrp", &[vip, vip, &[]]).await;
    let (first, second, client) = (&net.guests[0], &net.guests[1], &net.guests[2]);
    client.ip(&["address", "add", &format!("{}/16", words(&net.ports[2]).1), "dev", "eth0"]);
    let address = format!("{}/32", VIPS.0);
    let mut holders = [(first, &net.ports[0], second), (second, &net.ports[1], first)];
    for _ in 0..4 {
        let (to, port, from) = holders[0];
        let _ = from.inside("ip").args(["address", "del", &address, "dev", "eth0"]).output();
        to.ip(&["address", "add", &address, "dev", "eth0"]);
        // The kernel drops an interface's routes with its last address.
        to.ip(&["route", "replace", "10.16.0.0/16", "dev", "eth0"]);
        // As keepalived does it: by its own MAC, and more than once, as a neighbour's kernel takes one in a second
        // (`locktime`, arp(7)).
        let announce = || {
            let script = "import sys; sys.path.insert(0, sys.argv[1]); import garp; garp.announce(*sys.argv[2:])";
            let mut python = to.inside("python3");
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fabric");
            python.args(["-c", script, folder, &words(port).0, VIPS.0]);
            assert!(python.status().expect("python runs").success());
        };
        eventually("the address answers where it is", || async {
            announce();
            client.ping(VIPS.0)?;
            let shown = client.inside("ip").args(["neighbour", "show", VIPS.0]).output().expect("ip runs");
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            if shown.contains(&words(port).0) { Ok(()) } else { Err(shown) }
        })
        .await;
        holders.reverse();
    }
}

/// RFC 7217: the guest's kernel makes its link-local address from a secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_a_random_link_local_address_finds_its_router() {
    let net = Net::start("rfc-7217", &[&[]]).await;
    net.allow("link-local", "vm0", " fe80::/64").await;
    let guest = &net.guests[0];
    let sysctl = |setting: &str| {
        let status = guest.inside("sysctl").args(["-qw", setting]).status().expect("sysctl runs");
        assert!(status.success(), "{setting}");
    };
    sysctl("net.ipv6.conf.eth0.stable_secret=2001:db8::7217");
    sysctl("net.ipv6.conf.eth0.accept_ra=2");
    for interface in ["all", "default", "eth0"] {
        sysctl(&format!("net.ipv6.conf.{interface}.disable_ipv6=0"));
    }
    guest.ip(&["link", "set", "eth0", "down"]);
    guest.ip(&["link", "set", "eth0", "up"]);
    guest.ip(&["-6", "address", "add", &format!("{}/64", words(&net.ports[0]).2), "dev", "eth0"]);
    let show = |what: &[&str]| {
        let output = guest.inside("ip").arg("-6").args(what).output().expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("the router advertises itself to the guest", || async {
        let routes = show(&["route", "show", "default"]);
        if routes.contains("via fe80::") && routes.contains("proto ra") { Ok(()) } else { Err(routes) }
    })
    .await;
    let addresses = show(&["address", "show", "dev", "eth0", "scope", "link"]);
    assert!(addresses.contains("fe80::") && !addresses.contains("ff:fe"), "its address is no EUI-64: {addresses}");
    eventually("the router answers the guest", || async { guest.ping(GATEWAY.1).map(|_| ()) }).await;
    let addresses = show(&["address", "show", "dev", "eth0", "scope", "global"]);
    assert_eq!(addresses.matches("inet6").count(), 1, "the mode is dhcpv6_stateful: {addresses}");
}
