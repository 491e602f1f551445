//! Any history, in small domains so that collisions happen.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use uuid::Uuid;

use super::fabric;
use super::objects::{Template, pod_change, run_change, vm_change};
use super::policy_rules;
use super::rules;
use super::server::Tables;
use super::services;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::{VmKey, keys, port_uuid};
use crate::intent::DhcpMode;
use crate::kubevirt::Change;
use crate::ovn::{Elements, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, PortMarks};
use crate::ovsdb::Map;

/// VMs with port names and fallback names that meet: `a.n.m` is a name of two.
pub(super) fn vm(index: usize) -> VmKey {
    let (namespace, name) = [("n", "a"), ("m", "a.n"), ("n", "b"), ("m", "c"), ("n", "d")][index];
    VmKey::new(namespace, name)
}

/// The address settings that a switch may have.
pub(super) fn config(index: usize) -> Map {
    let (subnet, prefix) = (("subnet", "10.0.0.0/29"), ("ipv6_prefix", "fd00::/125"));
    match index {
        0 => map([subnet]),
        1 => map([subnet, ("exclude_ips", "10.0.0.1..10.0.0.2")]),
        2 => map([subnet, prefix]),
        3 => map([prefix]),
        4 => map([("subnet", "10.0.0.0/30")]),
        5 => map([subnet, ("exclude_ips", "10.0.0.1 x")]),
        6 => map([subnet, prefix, ("exclude_ips", "10.0.0.3..10.0.0.6 fd00::1..fd00::2")]),
        7 => map([("mac_only", "true")]),
        // `mac_only` has no effect beside a prefix.
        8 => map([("mac_only", "true"), prefix]),
        9 => map([("subnet", "010.0.0.3/255.255.255.248"), ("exclude_ips", "10.0.0.2,10.0.0.3;x\t10.0.0.9")]),
        _ => Map::default(),
    }
}
pub(super) const CONFIGS: usize = 11;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Apply(usize, Template),
    Delete(usize),
    Start(usize),
    Launch(usize, Option<usize>),
    Ready(usize),
    EndLauncher(usize),
    RemoveLauncher(usize),
    Stop(usize),
    Plug(usize),
    Replug(usize),
    Migrate(usize, Option<usize>),
    EndMigration(usize, bool),
    Chassis(u8, usize),
    Namespace(bool, usize),
    Nad {
        of_n: bool,
        nad: usize,
        switch: usize,
    },
    Foreign {
        slot: u8,
        switch: u8,
        name: usize,
        holds: usize,
    },
    ForeignGoes(u8),
    RouterPort {
        slot: u8,
        name: u8,
        networks: usize,
    },
    RouterPortGoes(u8),
    /// One is deleted and another of its name is inserted, in one transaction.
    RouterPortReplaced {
        old: u8,
        new: u8,
        networks: usize,
    },
    Switch {
        slot: u8,
        name: usize,
        config: usize,
    },
    SwitchGoes(u8),
    /// `ls-del` and `ls-add`: its ports are gone, and its UUID is another.
    SwitchAnew(u8),
    /// A person deletes a row of ours.
    PortGoes(usize),
    /// A namespace gets, or loses, the label that has this instance serve it.
    Select(bool, bool),
    /// Routers, NAT rules, load balancers, and the references to them.
    Service(services::Edit),
    /// The operator's policy, on a switch or in the flags.
    Policy(policy_rules::Edit),
    /// Seconds pass.
    Pass(i64),
    /// A person writes into a row of ours.
    Meddle(usize, usize),
    /// A person writes into rows of DHCP options, or deletes one.
    MeddleDhcp(usize),
    /// Rows of DHCP options without ports are deleted.
    Collect,
    Mode(DhcpMode),
    Rest(usize),
}

const NAMES: [&str; 3] = ["blue", "red", "green"];

/// The switches that a namespace may name: one, or several.
const LISTS: [&str; 6] = ["blue", "red", "green", "red,blue", "green, red", " ,blue,green,red"];
const NADS: [&str; 2] = ["net1", "net2"];

/// The networks of a VM on NADs.
const MORE: [&[(&str, &str)]; 8] = [
    &[],
    &[],
    &[("red", "net1")],
    &[("red", "net1"), ("blue", "net1")],
    &[("blue", "net1"), ("red", "net1")],
    &[("red", "net2"), ("green", "n/net1")],
    &[("green", "net1")],
    &[("m", "m/net1"), ("red", "m/net1"), ("green", "m/net1")],
];

fn template() -> impl Strategy<Value = Template> {
    let some_of = |values: &'static [&'static str]| proptest::sample::select(values);
    let ip = ["", "", "", "10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::3", "10.0.0.3,fd00::3", "10.0.0.9", "none", "x"];
    let ip = proptest::sample::select(ip.to_vec());
    let mac = some_of(&["", "", "", "", "0a:58:0a:00:00:02", "02:00:00:00:00:01"]);
    let switch = some_of(&["", "", "", "", "blue", "red", "green"]);
    let network = some_of(&["default", "default", "default", "m", "m", ""]);
    let another = some_of(&["", "", "none", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "x"]);
    let more = (proptest::sample::select(MORE.to_vec()), another, 0..5usize, 0..12usize);
    let pool =
        some_of(&["", "", "", "", "10.0.0.2..10.0.0.3", "10.0.0.0/30,fd00::2", "fd00::/126", "10.9.0.1", "10.0.0.3"]);
    let retain = some_of(&["", "", "", "20s", "forever", "x"]);
    let family = some_of(&["", "", "", "", "ipv4", "ipv6", "dual", "x"]);
    let vips = some_of(&["", "", "", "10.0.0.5", "10.0.0.2, 10.0.0.5", "10.0.0.3,fd00::5", "x"]);
    let of_vm = (network, pool, retain, family, vips);
    (ip, mac, switch, of_vm, more).prop_map(|(ip, mac, switch, of_vm, (more, another, domain, what))| {
        let (network, pool, retain, family, vips) = of_vm;
        let mut template = Template::new([("ip_address", ip), ("mac_address", mac), ("logical_switch", switch)]);
        let domain = ["red", "blue", "net1.n", "net1.m", "green"][domain];
        template = template.annotated(&format!("{domain}.ovn.kubernetes.io/ip_address"), another);
        template = template.annotated("ovn.kubernetes.io/ip_pool", pool).annotated("ovn-kubevirt.io/retain", retain);
        template = template.annotated("ovn.kubernetes.io/ip_family", family);
        template = template.annotated("ovn.kubernetes.io/port_vips", vips);
        template = match what {
            0 => template.annotated(&format!("{domain}.ovn.kubernetes.io/logical_switch"), "green"),
            1 => template.annotated(&format!("{domain}.ovn.kubernetes.io/port_security"), "false"),
            2 => template.annotated("ovn.kubernetes.io/port_security", "false"),
            6 | 7 => template.bound_by("managedtap"),
            8 => template.bound_by("managedtap").annotated("ovn.kubernetes.io/dhcp-v4-options", "lease_time=600"),
            9 => template.bound_by("managedtap").annotated("ovn.kubernetes.io/dhcp", "false"),
            10 => template.annotated(&format!("{domain}.ovn.kubernetes.io/dhcp"), "true").bound_by("macvlan"),
            11 => template.annotated("ovn.kubernetes.io/dhcp-v6-options", "lease=x"),
            _ => template,
        };
        template.annotations.retain(|(_, value)| !value.is_empty());
        template.network = (!network.is_empty()).then(|| network.to_owned());
        // KubeVirt does not admit two networks of one name.
        template.more = more.iter().filter(|(name, _)| *name != network).copied().collect();
        template.absent = more.iter().map(|(name, _)| *name).filter(|_| what == 5).take(1).collect();
        template
    })
}

fn step() -> impl Strategy<Value = Step> {
    let (vm, slot) = (0..5usize, 0..4u8);
    let foreign = (slot.clone(), 0..3u8, 0..11usize, 0..13usize);
    prop_oneof![
        8 => (vm.clone(), template()).prop_map(|(vm, template)| Step::Apply(vm, template)),
        2 => vm.clone().prop_map(Step::Delete),
        6 => vm.clone().prop_map(Step::Start),
        6 => (vm.clone(), proptest::option::weighted(0.8, 0..3usize)).prop_map(|(vm, node)| Step::Launch(vm, node)),
        3 => vm.clone().prop_map(Step::Ready),
        3 => vm.clone().prop_map(Step::EndLauncher),
        3 => vm.clone().prop_map(Step::RemoveLauncher),
        4 => vm.clone().prop_map(Step::Stop),
        4 => vm.clone().prop_map(Step::Plug),
        2 => vm.clone().prop_map(Step::Replug),
        4 => (vm.clone(), proptest::option::weighted(0.8, 0..3usize)).prop_map(|(vm, node)| Step::Migrate(vm, node)),
        3 => (vm.clone(), any::<bool>()).prop_map(|(vm, success)| Step::EndMigration(vm, success)),
        3 => (0..3u8, 0..fabric::KINDS).prop_map(|(node, kind)| Step::Chassis(node, kind)),
        1 => (any::<bool>(), 0..=LISTS.len()).prop_map(|(namespace, switch)| Step::Namespace(namespace, switch)),
        3 => (any::<bool>(), 0..2usize, 0..5usize).prop_map(|(of_n, nad, switch)| Step::Nad { of_n, nad, switch }),
        5 => foreign.prop_map(|(slot, switch, name, holds)| Step::Foreign { slot, switch, name, holds }),
        3 => slot.clone().prop_map(Step::ForeignGoes),
        2 => (0..3u8, 0..2u8, 0..4usize).prop_map(|(slot, name, networks)| Step::RouterPort { slot, name, networks }),
        1 => (0..3u8).prop_map(Step::RouterPortGoes),
        1 => (0..3u8, 0..3u8, 0..4usize).prop_map(|(old, new, networks)| Step::RouterPortReplaced { old, new, networks }),
        4 => (0..3u8, 0..3usize, 0..CONFIGS).prop_map(|(slot, name, config)| Step::Switch { slot, name, config }),
        1 => (0..3u8).prop_map(Step::SwitchGoes),
        2 => (0..3u8).prop_map(Step::SwitchAnew),
        2 => vm.clone().prop_map(Step::PortGoes),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(namespace, selected)| Step::Select(namespace, selected)),
        4 => (vm, 0..MEDDLINGS).prop_map(|(vm, what)| Step::Meddle(vm, what)),
        3 => (0..DHCP_MEDDLINGS).prop_map(Step::MeddleDhcp),
        2 => Just(Step::Collect),
        1 => proptest::sample::select(vec![DhcpMode::Auto, DhcpMode::Always, DhcpMode::Never]).prop_map(Step::Mode),
        4 => services::edit().prop_map(Step::Service),
        4 => policy_rules::edit().prop_map(Step::Policy),
        3 => (1..30i64).prop_map(Step::Pass),
        12 => (1..6usize).prop_map(Step::Rest),
    ]
}

/// Other people's ports, of every kind that holds addresses.
fn foreign(name: String, holds: usize) -> LogicalSwitchPort {
    let row = |kind: &str, addresses: &[&str], options: Map| LogicalSwitchPort {
        name: name.clone(),
        kind: kind.into(),
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        options,
        external_ids: map([("vendor", "kube-ovn")]),
        ..Default::default()
    };
    match holds {
        0 => row("", &["0a:58:0a:00:00:02 10.0.0.2"], Map::default()),
        1 => row("", &["02:00:00:00:00:01 10.0.0.3 10.0.0.4 fd00::3", "unknown"], Map::default()),
        2 => row("localnet", &["unknown"], Map::default()),
        3 => LogicalSwitchPort {
            dynamic_addresses: Some("0a:00:00:00:00:09 10.0.0.1 fd00::1".into()),
            ..row("", &["dynamic"], Map::default())
        },
        4 => row("virtual", &["02:00:00:00:00:05"], map([("virtual-ip", "10.0.0.1"), ("virtual-parents", "a.n")])),
        5 => row("router", &["router"], map([("router-port", "lrp0")])),
        6 => row("router", &["router"], map([("router-port", "lrp1")])),
        // Another instance's, with a reservation.
        7 => LogicalSwitchPort {
            external_ids: map([
                (keys::VENDOR, keys::OUR_VENDOR),
                (keys::INSTANCE, "other"),
                (keys::VM, "n/a"),
                (keys::NETWORK, "default"),
                (keys::NEXT_ADDRESSES, "0a:58:0a:00:00:03 10.0.0.3"),
            ]),
            ..row("", &["0a:58:0a:00:00:01 10.0.0.1"], Map::default())
        },
        // It may speak with more than it has.
        8 => LogicalSwitchPort {
            port_security: [
                "02:00:00:00:00:07 10.0.0.5 10.0.0.4/29 fd00::4",
                "00:00:5e:00:01:05 10.0.0.0/29 fe80::/64",
            ]
            .iter()
            .collect(),
            ..row("", &["02:00:00:00:00:07 10.0.0.5"], Map::default())
        },
        9 => row("", &["a:58:a:0:0:2\t10.0.0.02/29 fd00::0003"], Map::default()),
        10 => row("router", &["router"], map([("router-port", "lrp0"), ("arp_proxy", "10.0.0.3 fd00::/125")])),
        11 => {
            row("router", &["router"], map([("router-port", "lrp1"), ("nat-addresses", "02:00:00:00:00:08 10.0.0.2")]))
        }
        _ => row("", &["0a:58:0a:00:00:05 10.0.0.5/24", "0A:58:0A:00:00:06 10.0.0.6 FD00::2"], Map::default()),
    }
}

fn router_port(name: u8, networks: usize) -> LogicalRouterPort {
    let networks: &[&str] =
        [&["10.0.0.1/29"][..], &["10.0.0.6/29", "fe80::1/64"], &["fd00::1/125", "10.0.0.1/30"], &[]][networks];
    LogicalRouterPort {
        name: format!("lrp{name}"),
        mac: "0a:58:0a:00:00:01".into(),
        networks: networks.iter().map(|network| (*network).to_owned()).collect(),
        ipv6_ra_configs: Map::default(),
    }
}

fn ours_of(tables: &Tables, vm: &VmKey) -> Option<Uuid> {
    let of_vm =
        |(uuid, row): &(&Uuid, &LogicalSwitchPort)| row.owner(uuid, INSTANCE).is_some_and(|owner| owner.vm == *vm);
    tables.ports.iter().find(of_vm).map(|(uuid, _)| *uuid)
}

const MEDDLINGS: usize = 16;
const DHCP_MEDDLINGS: usize = 6;

fn meddle_dhcp(tables: &mut Tables, what: usize) {
    let (row, content) = match tables.dhcp.iter_mut().find(|(row, _)| row.get_version_num() == 5) {
        Some((row, content)) => (*row, content),
        None => return,
    };
    match what {
        0 => drop(content.options.insert("mtu", "1")),
        1 => content.external_ids = Map::default(),
        2 => drop(content.external_ids.insert(keys::DHCP_SWITCH, "elsewhere")),
        3 => content.cidr = "192.0.2.0/24".into(),
        4 => drop(content.external_ids.insert(keys::INSTANCE, "other")),
        _ => drop(tables.dhcp.remove(&row)),
    }
}

fn meddle(row: &mut LogicalSwitchPort, what: usize) {
    match what {
        8 => row.external_ids = PortMarks::default(),
        9 => row.external_ids.remove(keys::VENDOR),
        10 => row.kind = "virtual".into(),
        11 => {
            row.kind = "router".into();
            row.options.insert("router-port", "lrp0");
        }
        12 => row.name.push_str("-renamed"),
        14 => row.dhcpv4_options = None,
        15 => {
            row.dhcpv6_options = row.dhcpv4_options;
            row.options.insert("hostname", "other");
        }
        13 => row.external_ids.remove(keys::VM),
        0 => row.addresses = Elements::default(),
        1 => row.addresses = Elements::from_iter(["dynamic".to_owned()]),
        2 => row.addresses = Elements::from_iter(["unknown".to_owned()]),
        3 => row.port_security = Elements::default(),
        6 => row.port_security = Elements::from_iter(["0a:58:0a:00:00:02 10.0.0.1".to_owned()]),
        7 => {
            let more = ["0a:58:0a:00:00:05 10.0.0.2".to_owned()];
            row.port_security = row.port_security.iter().map(Cow::into_owned).chain(more).collect();
        }
        4 => {
            row.options.insert("requested-chassis", "elsewhere");
            row.options.insert("activation-strategy", "garp");
            row.options.insert("mcast_flood", "true");
        }
        _ => {
            row.external_ids.insert("neutron:cidrs", "10.0.0.2/29");
            row.external_ids.remove(keys::VM_UID);
            row.external_ids.remove(keys::NEXT_ADDRESSES);
        }
    }
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Apply(index, template) => world.apply(&vm(index), template),
        Step::Delete(index) => world.delete(&vm(index)),
        Step::Start(index) => world.start(&vm(index)),
        Step::Launch(index, node) => world.launch(&vm(index), node.map(|node| ["n1", "n2", "n3"][node])),
        Step::Ready(index) => world.ready(&vm(index)),
        Step::EndLauncher(index) => world.end_launcher(&vm(index)),
        Step::RemoveLauncher(index) => world.remove_launcher(&vm(index)),
        Step::Stop(index) => world.stop(&vm(index)),
        Step::Plug(index) => world.plug(&vm(index)),
        Step::Replug(index) => world.replug(&vm(index)),
        Step::Migrate(index, node) => world.migrate(&vm(index), node.map(|node| ["n1", "n2", "n3"][node])),
        Step::EndMigration(index, success) => world.end_migration(&vm(index), success),
        Step::Chassis(node, kind) => world.chassis(node, kind),
        Step::Nad { of_n, nad, switch: 4 } => world.nad_goes(if of_n { "n" } else { "m" }, NADS[nad]),
        Step::Nad { of_n, nad, switch } => {
            world.nad(if of_n { "n" } else { "m" }, NADS[nad], NAMES.get(switch).copied());
        }
        Step::Namespace(first, switch) => {
            world.namespace(if first { "n" } else { "m" }, LISTS.get(switch).copied());
        }
        Step::Select(first, true) => world.namespace(if first { "n" } else { "m" }, None),
        Step::Select(first, false) => world.unselect(if first { "n" } else { "m" }),
        Step::Pass(seconds) => world.pass(seconds),
        Step::Policy(edit) => policy_rules::take(world, edit),
        Step::Rest(vms) => rest(world, vms),
        Step::Collect => world.collect(),
        Step::Mode(mode) => {
            world.settings.dhcp.mode = mode;
            world.vms().into_iter().for_each(|vm| world.mark(vm));
        }
        other => world.edit(|tables| edit(tables, other)),
    }
}

fn edit(tables: &mut Tables, step: Step) {
    match step {
        Step::Foreign { slot, switch, name, holds } => {
            let names = [0, 1, 2, 3, 4].map(|index| vm(index).port_name());
            let more = ["a.n.m", "a.n.net1.n.ovn", "a.n.net1.n.ovn.red"].map(Into::into);
            let name = names.into_iter().chain(more).nth(name);
            let name = name.unwrap_or_else(|| format!("foreign{slot}"));
            let (port, switch) = (uuid(2, slot), uuid(1, switch));
            let taken = tables.port_named(&name).is_some_and(|(other, _)| other != port);
            if tables.switches.contains_key(&switch) && !taken {
                tables.put_port(switch, port, foreign(name, holds));
            }
        }
        Step::ForeignGoes(slot) => tables.remove_port(uuid(2, slot)),
        Step::RouterPort { slot, name, networks } => {
            let row = router_port(name, networks);
            if tables.router_ports.iter().all(|(other, port)| *other == uuid(3, slot) || port.name != row.name) {
                tables.router_ports.insert(uuid(3, slot), row);
            }
        }
        Step::RouterPortGoes(slot) => drop(tables.router_ports.remove(&uuid(3, slot))),
        Step::RouterPortReplaced { old, new, networks } => {
            if !tables.router_ports.contains_key(&uuid(3, new))
                && let Some(gone) = tables.router_ports.remove(&uuid(3, old))
            {
                let row = LogicalRouterPort { name: gone.name, ..router_port(0, networks) };
                tables.router_ports.insert(uuid(3, new), row);
            }
        }
        Step::Switch { slot, name, config: index } => {
            let row = tables.switches.entry(uuid(1, slot)).or_default();
            row.name = NAMES[name].into();
            row.other_config = config(index);
        }
        Step::SwitchGoes(slot) => drop(tables.switches.remove(&uuid(1, slot))),
        Step::SwitchAnew(slot) => {
            let (old, new) = (uuid(1, slot), uuid(1, slot + 16));
            for (old, new) in [(old, new), (new, old)] {
                if let Some(row) = tables.switches.remove(&old) {
                    tables.switches.insert(new, LogicalSwitch { ports: Default::default(), ..row });
                    break;
                }
            }
        }
        Step::PortGoes(index) => {
            if let Some(port) = ours_of(tables, &vm(index)) {
                tables.remove_port(port);
            }
        }
        Step::Service(edit) => services::apply(tables, edit),
        Step::Meddle(index, what) => {
            if let Some(row) = ours_of(tables, &vm(index)).and_then(|port| tables.ports.get_mut(&port)) {
                meddle(row, what);
            }
        }
        Step::MeddleDhcp(what) => meddle_dhcp(tables, what),
        other => unreachable!("{other:?} is Kubernetes'"),
    }
}

/// All that is dirty is done, so many VMs a transaction; then everything holds.
fn rest(world: &mut World, vms: usize) {
    world.settle(vms);
    rules::no_two_of_ours_share_anything(&world.tables);
    world.a_sweep_changes_no_row();
}

/// Histories of one run: `make soak` has them by the hundred thousand.
fn cases() -> u32 {
    std::env::var("OVN_KUBEVIRT_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

/// So many cases, from a seed that is shown when one of them fails.
pub(super) fn quick(cases: u32) -> Config {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(RandomState::new().hash_one(cases)),
        fixed => fixed,
    };
    println!("again: PROPTEST_RNG_SEED={rng_seed}, and as many cases");
    Config { rng_seed, ..config }
}

proptest! {
    #![proptest_config(quick(cases()))]

    /// Checked at every transaction (see [`World::edit`] and [`World::transact`]): the server
    /// takes it, only our rows change, no port is given an address of another, leases are kept,
    /// the index agrees with the rows. At every rest: no two of our ports share an address or a MAC,
    /// and a decision about every VM, without an event, changes no row.
    #[test]
    fn in_every_history_the_rules_hold_and_no_work_is_left_undone(
        blue in 0..CONFIGS, red in 0..CONFIGS, order in 0..1000usize,
        policy in proptest::option::of(policy_rules::flags()), with_southbound in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new([("blue", config(blue)), ("red", config(red))]);
        if with_southbound {
            world = world.with_southbound();
        }
        world.order = order;
        world.resting = order % 3 > 0;
        policy.into_iter().for_each(|policy| world.reconfigure(policy));
        for (namespace, nad, switch) in [("n", "net1", "blue"), ("m", "net1", "red"), ("n", "net2", "red")] {
            world.nad(namespace, nad, Some(switch));
        }
        steps.into_iter().for_each(|step| take(&mut world, step));
        rest(&mut world, 2);
        super::waking::a_waiting_vm_is_decided_again_when_the_cause_changes(&world, order);
    }
}

/// The world after changes in any order, cut into transactions in any way.
fn heard(changes: Vec<(usize, Change)>, leases: &[(usize, u8)]) -> World {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/27"), ("exclude_ips", "10.0.0.1..10.0.0.9")]))]);
    world.edit(|tables| {
        for (index, host) in leases {
            let (vm, text) = (vm(*index), format!("02:00:00:00:01:{host:02x} 10.0.0.{host}"));
            let external_ids = map([
                (keys::VENDOR, keys::OUR_VENDOR),
                (keys::INSTANCE, INSTANCE),
                (keys::VM, &vm.to_string()),
                (keys::NETWORK, "default"),
            ]);
            let row = LogicalSwitchPort {
                name: vm.port_name(),
                addresses: Elements::from_iter([text]),
                external_ids,
                ..Default::default()
            };
            tables.put_port(uuid(1, 0), port_uuid(INSTANCE, &vm.port_name()), row);
        }
    });
    world.dirty = crate::plan::Queue::default();
    for (vms, change) in changes {
        world.hear(change);
        if vms > 0 {
            world.settle(vms);
        }
    }
    rest(&mut world, 3);
    world
}

/// The objects of VMs that run, in this order, with a rest after some of them.
fn changes_of(templates: &[Template], order: &[(usize, usize)]) -> Vec<(usize, Change)> {
    let change = |object: usize| {
        let (vm, template, node) = (vm(object / 3), &templates[object / 3], format!("n{}", object / 3));
        match object % 3 {
            0 => vm_change(&vm, "vm", template),
            1 => run_change(&vm, "run", template, Some(&node), None),
            _ => pod_change(&vm, &format!("pod{object}"), "run", Some(&node), true),
        }
    };
    order.iter().map(|(object, rest)| (*rest, change(*object))).collect()
}

fn any_order() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let rests = proptest::collection::vec(0..4usize, 15);
    (Just((0..15).collect::<Vec<usize>>()).prop_shuffle(), rests)
        .prop_map(|(objects, rests)| objects.into_iter().zip(rests).collect())
}

proptest! {
    #![proptest_config(quick(60))]

    #[test]
    fn requests_and_leases_come_out_the_same_in_any_order(order in any_order()) {
        let request = |host: u8| Template::new([("ip_address", format!("10.0.0.{host}").as_str())]);
        let templates = [request(2), request(3), Template::new([]), Template::new([]), request(6)];
        let leases = [(2, 20), (3, 21), (4, 22)];
        let in_turn: Vec<(usize, usize)> = (0..15).map(|object| (object, 1)).collect();
        let expected = heard(changes_of(&templates, &in_turn), &leases);
        let found = heard(changes_of(&templates, &order), &leases);
        prop_assert_eq!(&found.tables, &expected.tables);
        prop_assert_eq!(found.addresses(&vm(2)), Some("02:00:00:00:01:14 10.0.0.20".to_owned()));
        prop_assert_eq!(found.addresses(&vm(4)), Some("02:00:00:00:01:16 10.0.0.6".to_owned()));
    }

    #[test]
    fn chosen_addresses_are_the_lowest_in_any_order(order in any_order()) {
        let templates = [(); 5].map(|()| Template::new([]));
        let found = heard(changes_of(&templates, &order), &[]);
        let mut addresses: Vec<String> = (0..5).filter_map(|index| found.addresses(&vm(index))).collect();
        addresses.sort();
        let expected: Vec<String> = (10..15).map(|host| format!("0a:58:0a:00:00:{host:02x} 10.0.0.{host}")).collect();
        prop_assert_eq!(addresses, expected);
    }
}
