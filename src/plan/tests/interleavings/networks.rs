//! Two migrations of a VM whose networks are edited meanwhile: the guest on one network, target pods on another, edits
//! that are taken back and edits that come in between, a rival for the addresses, and a database that is lost. A restart of
//! the service is no case of its own: every decision is made by a service that has just started.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::json;
use uuid::Uuid;

use super::{Objects, Stage, State, name, number, vm};
use crate::contract::{keys, port_uuid};
use crate::intent::VmIntent;
use crate::kubevirt::{AnnotatedPort, Change, Cluster, Namespace, PortsAnnotation};
use crate::ovn::{Addresses, Chassis, LogicalSwitch, LogicalSwitchPort, Northbound, RequestedChassis, Southbound};
use crate::plan::decide::decide_intent;
use crate::plan::tests::objects::{Pod, Template, launcher_change, run_change, told_vm_change};
use crate::plan::tests::world::{port_changes, settings};
use crate::plan::{Claims, Seen, Snapshot};

/// The objects in Kubernetes: the migrations, the spec, the networks of each launcher, and the VM's annotation.
type Told = (Objects, usize, [usize; 3], [Option<u8>; NETWORKS]);

const NETWORKS: usize = 3;
const NADS: [&str; NETWORKS] = ["net0", "net1", "net2"];
const NIC: &str = "data";
/// The guest's MAC, on every network.
const MAC: &str = "0a:58:0a:00:00:02";
/// Edits of the network in one history, unless `OVN_KUBEVIRT_EDITS` says more.
const EDITS: u8 = 1;

/// A row of the NIC: the last byte of its address, and its chassis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    ip: u8,
    requested: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Networks {
    /// The migrations; their own port does not matter here.
    base: State,
    /// The network that the VM and its instance name.
    spec: usize,
    /// The network that each launcher is plugged to.
    on: [usize; 3],
    /// Edits that may still come.
    edits: u8,
    rows: [Option<Row>; NETWORKS],
    /// The addresses in the VM's annotation.
    told: [Option<u8>; NETWORKS],
    /// Another VM has the lowest address of each network that was free when it came.
    rivals: Option<[u8; NETWORKS]>,
    /// The rows may be lost, once; otherwise a rival may come.
    may_lose: bool,
    lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Go(usize),
    Fail(usize),
    Cancel(usize),
    Edit(usize),
    Look,
    Rival,
    /// All rows of the VM are lost.
    Lose,
}

const EVENTS: [Event; 12] = [
    Event::Go(0),
    Event::Go(1),
    Event::Fail(0),
    Event::Fail(1),
    Event::Cancel(0),
    Event::Cancel(1),
    Event::Edit(0),
    Event::Edit(1),
    Event::Edit(2),
    Event::Look,
    Event::Rival,
    Event::Lose,
];

fn switch(network: usize) -> Uuid {
    Uuid::from_u128(100 + u128::try_from(network).expect("few"))
}

fn port(network: usize) -> String {
    format!("vm.n.{}.n.ovn", NADS[network])
}

fn addresses(network: usize, ip: u8) -> Addresses {
    format!("{MAC} 10.{network}.0.{ip}").parse().expect("addresses")
}

fn template(network: usize) -> Template {
    Template { network: None, ..Template::new([]) }.with([(NIC, NADS[network])])
}

impl Networks {
    fn first(back: bool, may_lose: bool) -> Self {
        let edits = std::env::var("OVN_KUBEVIRT_EDITS").ok().and_then(|edits| edits.parse().ok()).unwrap_or(EDITS);
        let mut rows = [None, None, None];
        rows[0] = Some(Row { ip: 2, requested: vec![0] });
        let told = [Some(2), None, None];
        let base = State::first(true, back);
        Self { base, spec: 0, on: [0; 3], edits, rows, told, rivals: None, may_lose, lost: false }
    }

    fn after(&self, event: Event) -> Option<Self> {
        let mut next = self.clone();
        let happens = match event {
            Event::Go(migration) => {
                let begins = self.base.stages[migration] == Stage::NotBegun;
                let goes = next.base.go(migration);
                if begins && goes {
                    next.on[migration + 1] = self.spec;
                }
                goes
            }
            Event::Fail(migration) => next.base.fail(migration),
            Event::Cancel(migration) => next.base.cancel(migration),
            Event::Edit(network) => {
                next.edits = self.edits.saturating_sub(1);
                next.spec = network;
                self.edits > 0 && self.base.guest.is_some()
            }
            // A guest that has ended has one port, which moves like that of any VM that is stopped.
            Event::Look if self.base.guest.is_none() => false,
            Event::Look => {
                next.look();
                true
            }
            Event::Rival => {
                // A lost address is kept for its VM.
                let held = |network: usize| self.rows[network].as_ref().map(|row| row.ip).or(self.told[network]);
                next.rivals = Some([0, 1, 2].map(|network| if held(network) == Some(2) { 3 } else { 2 }));
                self.rivals.is_none() && !self.may_lose
            }
            Event::Lose => {
                next.rows = [None, None, None];
                next.lost = true;
                self.may_lose && !self.lost
            }
        };
        (happens && next != *self).then_some(next)
    }

    fn look(&mut self) {
        let (cluster, northbound, southbound) = (self.cluster(), self.northbound(), southbound());
        let settings = settings();
        let objects = cluster.vm(&vm()).expect("the VM");
        let intent = VmIntent::of(&vm(), objects, &Namespace::default(), &settings);
        let snapshot = Snapshot::new(&northbound, &cluster, Seen::Now(&southbound), &settings, 0);
        let plan = decide_intent(&snapshot, &Claims::default(), &intent, Some(objects));
        let before = self.rows.clone();
        for change in &port_changes(&plan.rows) {
            let network = (0..NETWORKS).find(|network| change.uuid == port_uuid("default", &port(*network)));
            let network = network.expect("a row of the NIC");
            self.rows[network] = change.after.as_ref().map(|after| {
                assert_eq!(
                    (after.switch, after.row.name.as_str()),
                    (switch(network), port(network).as_str()),
                    "{self:#?}"
                );
                let held: Addresses = after.row.addresses.iter().next().expect("addresses").parse().expect("addresses");
                let ip = held.ipv4.expect("an address").octets()[3];
                assert_eq!(held, addresses(network, ip), "the guest keeps its MAC\n{self:#?}");
                let requested = RequestedChassis::of(&after.row.options);
                let requested: Vec<u8> = requested.all().map(number).collect();
                let strategy = after.row.options.get(keys::ACTIVATION_STRATEGY);
                assert_eq!(strategy, (requested.len() == 2).then_some("rarp"), "{self:#?}");
                Row { ip, requested }
            });
        }
        self.judge(&before);
        self.told = [0, 1, 2].map(|network| self.rows[network].as_ref().map(|row| row.ip));
    }

    /// The launcher of the guest, as far as KubeVirt has said.
    fn home(&self) -> Option<usize> {
        let is_live = |pod: &usize| self.base.pods[*pod].is_some_and(|pod| pod.live && pod.node.is_some());
        let ready = self.base.ready.map(usize::from).filter(is_live);
        let there = |pod: &usize| is_live(pod) && self.base.node_of(*pod) == Some(self.base.node);
        ready.or_else(|| (0..3).find(there))
    }

    /// The launchers that wait for the guest.
    fn waiting(&self) -> impl Iterator<Item = usize> {
        let waits = |pod: &usize| {
            let is_live = self.base.pods[*pod].is_some_and(|pod| pod.live);
            is_live && self.base.vmims[pod - 1] == Some(true) && Some(*pod) != self.home()
        };
        (1..3).filter(waits)
    }

    /// The laws after every decision.
    fn judge(&self, before: &[Option<Row>; NETWORKS]) {
        let Some(home) = self.home().filter(|_| self.base.guest.is_some()) else { return };
        let node = self.base.node_of(home).expect("a node");
        let guests = self.rows[self.on[home]].as_ref().unwrap_or_else(|| panic!("the guest has no port\n{self:#?}"));
        assert_eq!(guests.requested.first(), Some(&node), "the guest's port is where the guest is\n{self:#?}");
        for network in 0..NETWORKS {
            let is_prepared = || self.waiting().any(|pod| self.on[pod] == network);
            let is_asked_for = self.on[home] == network || self.spec == network || is_prepared();
            let Some(row) = &self.rows[network] else {
                assert!(!is_asked_for, "{} has no port\n{self:#?}", NADS[network]);
                continue;
            };
            assert!(is_asked_for, "the port on {} is left over\n{self:#?}", NADS[network]);
            assert!(row.requested.len() < 2 || network == self.on[home], "a new port with two chassis\n{self:#?}");
            for chassis in &row.requested {
                let there = |pod: &usize| {
                    self.base.pods[*pod].is_some_and(|pod| pod.live && pod.node == Some(*chassis))
                        && (*pod == home || self.waiting().any(|waiting| waiting == *pod))
                };
                let plugged = (0..3).find(there).map(|pod| self.on[pod]);
                assert_eq!(plugged, Some(network), "{} is bound where no pod has it\n{self:#?}", NADS[network]);
            }
            // From try to try, and after a loss.
            let had = before[network].as_ref().map(|row| row.ip).or(self.told[network].filter(|_| self.lost));
            assert!(had.is_none_or(|ip| ip == row.ip), "the address on {} changes\n{self:#?}", NADS[network]);
        }
    }

    /// The laws once the service and KubeVirt have no work left.
    fn rests(&self) {
        let Some(home) = self.home().filter(|_| self.base.guest.is_some()) else { return };
        if self.waiting().next().is_some() || self.base.stages.contains(&Stage::At(4)) {
            return;
        }
        let node = self.base.node_of(home).expect("a node");
        for (network, nad) in NADS.iter().enumerate() {
            let requested = self.rows[network].as_ref().map(|row| row.requested.clone());
            let expected = match network {
                _ if network == self.on[home] => Some(vec![node]),
                _ if network == self.spec => Some(Vec::new()),
                _ => None,
            };
            assert_eq!(requested, expected, "{nad} at rest\n{self:#?}");
        }
    }
}

// --- the state as the service sees it ---
impl Networks {
    /// The same objects come in many states.
    fn cluster(&self) -> Rc<Cluster> {
        thread_local!(static KNOWN: RefCell<HashMap<Told, Rc<Cluster>>> = RefCell::default());
        let State { vmims, pods, node, ready, .. } = self.base;
        let told = ((vmims, pods, node, ready), self.spec, self.on, self.told);
        KNOWN.with_borrow_mut(|known| Rc::clone(known.entry(told).or_insert_with(|| Rc::new(self.read_cluster()))))
    }

    fn read_cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        let metadata = |value| Box::new(serde_json::from_value(value).expect("metadata"));
        cluster.apply(Change::Namespace(metadata(json!({"name": "n"}))));
        for (network, nad) in NADS.iter().enumerate() {
            let annotations = json!({"ovn.kubernetes.io/logical_switch": format!("switch{network}")});
            cluster.apply(Change::Nad(metadata(json!({"namespace": "n", "name": nad, "annotations": annotations}))));
        }
        let told = (0..NETWORKS).filter_map(|network| {
            let held = addresses(network, self.told[network]?);
            Some(AnnotatedPort {
                network: NIC.into(),
                port: Some(port(network)),
                switch: Some(format!("switch{network}")),
                mac: Some(MAC.into()),
                ips: held.ips().map(|ip| ip.to_string()).collect(),
                state: "Assigned".into(),
                ..AnnotatedPort::default()
            })
        });
        let told = PortsAnnotation { instance: "default".into(), uid: "u".into(), ports: told.collect() };
        cluster.apply(told_vm_change(&vm(), "u", &template(self.spec), Some(&told.text())));
        let ready = self.base.ready.map(|pod| format!("launcher-{pod}"));
        let node = name(self.base.node);
        cluster.apply(run_change(&vm(), "run", &template(self.spec), Some(&node), ready.as_deref()));
        for (number, pod) in self.base.pods.iter().enumerate() {
            let Some(pod) = pod else { continue };
            cluster.apply(launcher_change(
                &vm(),
                &Pod {
                    name: format!("launcher-{number}"),
                    run: "run".into(),
                    node: pod.node.map(name),
                    live: pod.live,
                    migration: number.checked_sub(1).map(|migration| format!("m{migration}")),
                    networks: template(self.on[number]).plugged(),
                    ports: BTreeMap::new(),
                },
            ));
        }
        for (number, vmim) in self.base.vmims.iter().enumerate() {
            let Some(under_way) = vmim else { continue };
            let id = format!("m{number}");
            let phase = if *under_way { "Running" } else { "Succeeded" };
            let object = json!({"metadata": {"name": id, "namespace": "n", "uid": id},
                "spec": {"vmiName": "vm"}, "status": {"phase": phase}});
            cluster.apply(Change::Migration(Box::new(serde_json::from_value(object).expect("a VMIM"))));
        }
        cluster
    }

    fn northbound(&self) -> Northbound {
        let mut northbound = Northbound::new("default");
        for network in 0..NETWORKS {
            let subnet = format!("10.{network}.0.0/24");
            let other_config = [("subnet", subnet.as_str())].into_iter().collect();
            let row = LogicalSwitch { name: format!("switch{network}"), other_config, ..Default::default() };
            northbound.put_switch(switch(network), row);
            if let Some(rivals) = self.rivals {
                let rival = format!("02:00:00:00:0{network}:01 10.{network}.0.{}", rivals[network]);
                let addresses = [rival].into_iter().collect();
                let uuid = Uuid::from_u128(200 + u128::try_from(network).expect("few"));
                let row = LogicalSwitchPort { name: format!("rival{network}"), addresses, ..Default::default() };
                northbound.put_port(uuid, row);
                northbound.place_port(uuid, Some(switch(network)));
            }
            let Some(Row { ip, requested }) = &self.rows[network] else { continue };
            let chassis: Vec<String> = requested.iter().copied().map(name).collect();
            let chassis = chassis.join(",");
            let strategy = (requested.len() == 2).then_some(("activation-strategy", "rarp"));
            let requested = (!chassis.is_empty()).then_some(("requested-chassis", chassis.as_str()));
            let marks = [
                ("vendor", "ovn-kubevirt"),
                ("ovn-kubevirt.io/instance", "default"),
                ("ovn-kubevirt.io/vm", "n/vm"),
                ("ovn-kubevirt.io/vm-uid", "u"),
                ("ovn-kubevirt.io/network", NIC),
            ];
            let held = addresses(network, *ip).to_string();
            let row = LogicalSwitchPort {
                name: port(network),
                addresses: [held.clone()].into_iter().collect(),
                port_security: [held].into_iter().collect(),
                options: requested.into_iter().chain(strategy).collect(),
                external_ids: marks.into_iter().collect(),
                ..LogicalSwitchPort::default()
            };
            let uuid = port_uuid("default", &row.name);
            northbound.put_port(uuid, row);
            northbound.place_port(uuid, Some(switch(network)));
        }
        northbound
    }
}

fn southbound() -> Southbound {
    let mut southbound = Southbound::default();
    for node in 0..3 {
        southbound.put_chassis(u128::from(node) + 1, Chassis { name: name(node), hostname: name(node) });
    }
    southbound
}

/// How many histories lead on from a state; each state is checked once.
fn histories(state: &Networks, known: &mut HashMap<Networks, u128>) -> u128 {
    if let Some(known) = known.get(state) {
        return *known;
    }
    let (mut count, mut at_rest) = (0_u128, true);
    for event in EVENTS {
        let Some(next) = state.after(event) else { continue };
        at_rest &= event != Event::Look;
        count = count.saturating_add(histories(&next, known));
    }
    if at_rest {
        state.rests();
    }
    let count = count.max(1);
    known.insert(state.clone(), count);
    count
}

fn all(back: bool, may_lose: bool) {
    let mut known = HashMap::new();
    let count = histories(&Networks::first(back, may_lose), &mut known);
    println!("{} states, {count} histories (back: {back}, rows may be lost: {may_lose})", known.len());
    assert!(known.len() > 1_000 && count > 1_000_000, "{} states, {count} histories", known.len());
}

#[test]
fn every_interleaving_of_edits_a_rival_and_two_migrations_there_and_back() {
    all(true, false);
}

#[test]
fn every_interleaving_of_edits_a_rival_and_two_migrations_on_to_a_third_node() {
    all(false, false);
}

#[test]
fn every_interleaving_of_edits_a_lost_database_and_two_migrations_there_and_back() {
    all(true, true);
}

#[test]
fn every_interleaving_of_edits_a_lost_database_and_two_migrations_on_to_a_third_node() {
    all(false, true);
}
