//! Every interleaving of two migrations, their failures, a lagging northd, stray RARPs and restarts of this service:
//! not a sample, but each reachable state once, with each event that can happen in it.
//!
//! A state is plain data. Each decision starts a new service from it, as a restart at that moment would;
//! the memory of a service that keeps running ([`Settling`]) is a part of the state, and a restart loses it.
//!
//! ```text
//!  a migration: 1 target pod -> 2 scheduled -> 3 handed off -> 4 the guest runs there -> 5 the VMI says so
//!               -> 6 node moved -> 7 Succeeded -> 8 source pod ended
//!               Failed or cancelled in 1, 2, 3; post-copy, Failed with the guest in 4, 5
//! ```
//!
//! Where chassis rows change, too, each node's chassis has a name of its own and the node's as its hostname. A row is
//! deleted with its ovn-controller, and a node that was reinstalled has a second one with the same hostname.

mod networks;
mod rows;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::json;
use uuid::Uuid;

use super::objects::{Template, pod_change, run_change, vm_change};
use super::world::{port_changes, settings};
use crate::contract::{VmKey, keys};
use crate::intent::VmIntent;
use crate::kubevirt::{Change, Cluster, Namespace};
use crate::ovn::{Chassis, LogicalSwitch, LogicalSwitchPort, NbGlobal, Northbound, PortBinding, Southbound};
use crate::plan::decide::decide_intent;
use crate::plan::{Claims, Seen, Settling, Snapshot};

/// The objects in Kubernetes: VMIMs, pods, and of the VMI its node and the launcher that is ready.
type Objects = ([Option<bool>; 2], [Option<Pod>; 3], u8, Option<u8>);

const SWITCH: Uuid = Uuid::from_u128(1);
const PORT: Uuid = Uuid::from_u128(2);
/// Restarts of the service in one history, at any moments.
const RESTARTS: u8 = 2;

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    NotBegun,
    /// 1 to 8, as the picture above has them.
    At(u8),
    /// Its VMIM has ended without success, or is gone, and its target pod is still there.
    Ending,
    Ended,
}

/// A launcher pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pod {
    node: Option<u8>,
    live: bool,
}

/// Where northd has the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Binding {
    /// `None`: on no chassis, or on one without a row (the reference is weak).
    main: Option<u8>,
    additional: Option<u8>,
    activated: Option<u8>,
}

/// The service's memory of collapses, as in [`Settling`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Memory {
    first: Option<i64>,
    collapsed: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// The target of the second migration: a third node, or the first one.
    back: bool,
    with_southbound: bool,
    stages: [Stage; 2],
    /// VMIMs: none, under way, or ended.
    vmims: [Option<bool>; 2],
    /// The first launcher, and the targets.
    pods: [Option<Pod>; 3],
    /// The pod that the guest runs in; `None`: it has ended.
    guest: Option<u8>,
    /// The node in the VMI's status, and the launcher with the guest that the VMI has as ready.
    node: u8,
    ready: Option<u8>,
    requested: Vec<u8>,
    /// A collapse that northd has not seen.
    unprocessed: bool,
    binding: Binding,
    nb_cfg: i64,
    sb_cfg: i64,
    memory: Memory,
    restarts: u8,
    /// How often chassis rows may still be created, deleted or duplicated. `None`: they do not change.
    faults: Option<u8>,
    /// Which nodes have a chassis row, and which of them has a second one.
    rows: [bool; 3],
    doubled: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Go(usize),
    Fail(usize),
    Cancel(usize),
    Look,
    Restart,
    Northd,
    /// A RARP of any sender is seen on the additional chassis.
    Rarp,
    /// A node's chassis row is deleted, or inserted again.
    Row(u8),
    /// A node has a second row, or has it no more.
    Double(u8),
}

const EVENTS: [Event; 16] = [
    Event::Go(0),
    Event::Go(1),
    Event::Fail(0),
    Event::Fail(1),
    Event::Cancel(0),
    Event::Cancel(1),
    Event::Look,
    Event::Restart,
    Event::Northd,
    Event::Rarp,
    Event::Row(0),
    Event::Row(1),
    Event::Row(2),
    Event::Double(0),
    Event::Double(1),
    Event::Double(2),
];

fn vm() -> VmKey {
    VmKey::new("n", "vm")
}

fn name(node: u8) -> String {
    format!("n{node}")
}

fn number(name: &str) -> u8 {
    name[1..].parse().expect("a node's number")
}

impl State {
    fn first(with_southbound: bool, back: bool) -> Self {
        Self {
            back,
            with_southbound,
            stages: [Stage::NotBegun; 2],
            vmims: [None; 2],
            pods: [Some(Pod { node: Some(0), live: true }), None, None],
            guest: Some(0),
            node: 0,
            ready: None,
            requested: vec![0],
            unprocessed: false,
            binding: Binding { main: Some(0), additional: None, activated: None },
            nb_cfg: 0,
            sb_cfg: 0,
            memory: Memory::default(),
            restarts: 0,
            faults: None,
            rows: [true; 3],
            doubled: None,
        }
    }

    /// The state after an event, where it can happen.
    fn after(&self, event: Event) -> Option<Self> {
        let mut next = self.clone();
        let happens = match event {
            Event::Go(migration) => next.go(migration),
            Event::Fail(migration) => next.fail(migration),
            Event::Cancel(migration) => next.cancel(migration),
            Event::Look => {
                next.look();
                true
            }
            Event::Restart => {
                next.restarts += 1;
                next.memory = Memory::default();
                next.restarts <= RESTARTS
            }
            Event::Northd => {
                next.northd();
                true
            }
            Event::Rarp => {
                next.binding.activated = next.binding.additional;
                true
            }
            Event::Row(node) => next.row(node),
            Event::Double(node) => next.double(node),
        };
        next.count_from_here();
        (happens && next != *self).then_some(next)
    }

    /// Only the differences of counters matter: states that differ in nothing else are one state.
    fn count_from_here(&mut self) {
        let from = std::mem::take(&mut self.sb_cfg);
        self.nb_cfg -= from;
        // Values that northd has passed already are equal.
        self.memory.first = self.memory.first.map(|first| (first - from).max(0));
        self.memory.collapsed = self.memory.collapsed.map(|nb_cfg| nb_cfg - from);
    }

    /// KubeVirt hands the VMI to one migration at a time; another one's target pod may be there already.
    fn is_handed_off(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, Stage::At(3..=7)))
    }

    fn go(&mut self, migration: usize) -> bool {
        let pod = migration + 1;
        match self.stages[migration] {
            Stage::NotBegun if migration == 1 && self.stages[0] == Stage::NotBegun => return false,
            Stage::NotBegun => {
                self.vmims[migration] = Some(true);
                self.pods[pod] = Some(Pod { node: None, live: true });
                self.stages[migration] = Stage::At(1);
            }
            Stage::At(1) => {
                let Some(target) = self.target(migration) else { return false };
                self.pods[pod] = Some(Pod { node: Some(target), live: true });
                self.stages[migration] = Stage::At(2);
            }
            Stage::At(2) if self.is_handed_off() || self.guest.is_none() => return false,
            Stage::At(2) => self.stages[migration] = Stage::At(3),
            Stage::At(3) => {
                self.guest = self.node_of(pod);
                self.stages[migration] = Stage::At(4);
            }
            Stage::At(4) => {
                self.ready = u8::try_from(pod).ok();
                self.stages[migration] = Stage::At(5);
            }
            Stage::At(5) => {
                self.node = self.node_of(pod).expect("a scheduled target");
                self.stages[migration] = Stage::At(6);
            }
            Stage::At(6) => {
                self.vmims[migration] = Some(false);
                self.stages[migration] = Stage::At(7);
            }
            Stage::At(7) => {
                let source = (0..3).find(|other| *other != pod && self.is_source(*other));
                self.pods[source.expect("the source's launcher")] = None;
                self.stages[migration] = Stage::At(8);
            }
            Stage::Ending => {
                self.pods[pod] = None;
                self.stages[migration] = Stage::Ended;
            }
            Stage::At(_) | Stage::Ended => return false,
        }
        true
    }

    /// Where a target pod is scheduled: never beside another launcher of the VM.
    fn target(&self, migration: usize) -> Option<u8> {
        let node = match (migration, self.back) {
            (0, _) => 1,
            (_, false) => 2,
            // There and back; or, after a failure, to the same node once more.
            (_, true) if self.node == 1 => 0,
            (_, true) => 1,
        };
        let free = self.pods.iter().flatten().all(|pod| pod.node != Some(node));
        (free && self.guest.is_some()).then_some(node)
    }

    fn node_of(&self, pod: usize) -> Option<u8> {
        self.pods[pod].and_then(|pod| pod.node)
    }

    /// The launcher that a guest has left: no migration's waiting target.
    fn is_source(&self, pod: usize) -> bool {
        let waits = pod > 0 && matches!(self.stages[pod - 1], Stage::At(1..=3) | Stage::Ending);
        self.pods[pod].is_some() && !waits
    }

    fn fail(&mut self, migration: usize) -> bool {
        match self.stages[migration] {
            Stage::At(1..=3) => {}
            // Post-copy: the guest ends with it, and all its launchers.
            Stage::At(4 | 5) => {
                self.guest = None;
                self.pods.iter_mut().flatten().for_each(|pod| pod.live = false);
            }
            _ => return false,
        }
        self.vmims[migration] = Some(false);
        self.stages[migration] = Stage::Ending;
        true
    }

    fn cancel(&mut self, migration: usize) -> bool {
        if !matches!(self.stages[migration], Stage::At(1..=3)) {
            return false;
        }
        self.vmims[migration] = None;
        self.stages[migration] = Stage::Ending;
        true
    }

    fn northd(&mut self) {
        // One that it does not know is skipped, and the next takes its place.
        let mut known = self.requested.iter().copied().filter(|node| self.has_row(*node));
        let (main, additional) = (known.next(), known.next());
        let left = self.binding.activated.filter(|_| additional.is_some());
        // A target with a row that is deleted and inserted again between two rounds of northd is the same target.
        let returned = self.faults.is_some() && left == additional;
        let opened = left.is_some() && additional != self.binding.additional && !returned;
        assert!(!opened, "{additional:?} is open before its guest: {left:?} is left of the one before\n{self:#?}");
        // Asked for nowhere, the port is claimed where the guest's interface is.
        let claimed = self.guest.filter(|node| self.requested.is_empty() && self.has_row(*node));
        self.binding = Binding { main: main.or(claimed), additional, activated: left };
        self.sb_cfg = self.nb_cfg;
        self.unprocessed = false;
        self.memory.collapsed = self.memory.collapsed.filter(|nb_cfg| *nb_cfg > self.sb_cfg);
    }

    fn look(&mut self) {
        let (cluster, northbound, southbound, mut settling) =
            (self.cluster(), self.northbound(), self.southbound(), Settling::default());
        self.memory.first.into_iter().for_each(|first| settling.committed(first, []));
        self.memory.collapsed.into_iter().for_each(|nb_cfg| settling.committed(nb_cfg, [PORT]));
        let southbound = if self.with_southbound { Seen::Now(&southbound) } else { Seen::Never(&settling) };
        let settings = settings();
        let intent = VmIntent::of(&vm(), cluster.vm(&vm()).expect("the VM"), &Namespace::default(), &settings);
        let snapshot = Snapshot::new(&northbound, &cluster, southbound, &settings, 0);
        let plan = decide_intent(&snapshot, &Claims::default(), &intent, snapshot.objects(&intent.vm));
        let before = self.requested.clone();
        let mut collapses = false;
        for change in &port_changes(&plan.rows) {
            collapses |= change.collapses();
            let row = &change.after.as_ref().expect("no port goes while a launcher is there").row;
            let requested = row.options.get(keys::REQUESTED_CHASSIS);
            assert!(requested.is_some() || self.faults.is_some(), "it stays bound");
            let requested = requested.into_iter().flat_map(|requested| requested.split(','));
            self.requested = requested.map(|name| self.chassis_named(name)).collect();
            let strategy = row.options.get(keys::ACTIVATION_STRATEGY);
            assert_eq!(strategy, (self.requested.len() == 2).then_some("rarp"), "{self:#?}");
        }
        if plan.waits.northd && !self.with_southbound {
            self.nb_cfg += 1;
            self.memory.first.get_or_insert(self.nb_cfg);
            if collapses {
                self.memory.collapsed = Some(self.nb_cfg);
            }
        }
        self.unprocessed |= collapses;
        self.judge_rows(&before);
        self.judge(before.len());
    }

    /// The laws after every decision.
    fn judge(&self, before: usize) {
        let requested = &self.requested;
        // A chassis without a row and with a name of its own may belong to any node without one: no port is bound there.
        let unsure = |node: &u8| !self.has_row(*node) && self.home().is_some_and(|home| !self.has_row(home));
        if self.faults.is_some() && requested.first().is_none_or(unsure) {
            assert!(requested.len() < 2, "{self:#?}");
            return;
        }
        assert!(requested.len() <= 2, "{self:#?}");
        if before < 2 && requested.len() == 2 {
            // The southbound has more information than a counter: a collapse of a list that northd never saw needs no wait.
            let processed = self.with_southbound || !self.unprocessed;
            let clean = self.binding.additional.is_none() && self.binding.activated.is_none();
            assert!(processed && clean, "a second chassis on an unprocessed collapse\n{self:#?}");
        }
        let Some(guest) = self.guest else {
            assert_eq!(requested.len(), 1, "no guest can arrive any more\n{self:#?}");
            return;
        };
        if let Some(arriving) = self.stages.iter().position(|stage| *stage == Stage::At(4)) {
            // It runs there, and KubeVirt has not said so yet.
            assert_eq!(requested[0], self.node, "{self:#?}");
            assert!(requested.len() == 1 || requested[1] == guest || self.other_target(arriving), "{self:#?}");
        } else {
            assert_eq!(requested[0], guest, "the guest's own node comes first\n{self:#?}");
        }
    }

    /// Another migration's target is ready beside this one's: it may be the one that is open.
    fn other_target(&self, migration: usize) -> bool {
        matches!(self.stages[1 - migration], Stage::At(2))
    }

    /// The laws once the service and northd have no work left and KubeVirt is at rest.
    fn rests(&self) {
        let rows = self.rows == [true; 3] && self.doubled.is_none();
        // A guest that ended while its port was bound nowhere leaves no port to bind.
        if !rows || (self.guest.is_none() && self.requested.is_empty()) {
            return;
        }
        let waits = |stage: &Stage| matches!(stage, Stage::At(2 | 3));
        let arrived = self.stages.iter().any(|stage| matches!(stage, Stage::At(4)));
        if self.guest.is_some() && self.stages.iter().any(waits) {
            assert_eq!(self.requested.len(), 2, "the target is prepared\n{self:#?}");
        } else if !arrived {
            let home = self.guest.unwrap_or(self.requested[0]);
            assert_eq!(self.requested, [home], "one chassis at the end\n{self:#?}");
            assert_eq!(self.binding, Binding { main: Some(home), additional: None, activated: None });
        }
    }
}

// --- the state as the service sees it ---
impl State {
    /// Reading objects costs more than all else, and the same ones come in many states.
    fn cluster(&self) -> Rc<Cluster> {
        thread_local!(static KNOWN: RefCell<HashMap<Objects, Rc<Cluster>>> = RefCell::default());
        let objects = (self.vmims, self.pods, self.node, self.ready);
        KNOWN.with_borrow_mut(|known| Rc::clone(known.entry(objects).or_insert_with(|| Rc::new(self.read_cluster()))))
    }

    fn read_cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        cluster.apply(Change::Namespace(Box::new(serde_json::from_value(json!({"name": "n"})).expect("metadata"))));
        cluster.apply(vm_change(&vm(), "u", &Template::new([])));
        let ready = self.ready.map(|pod| format!("launcher-{pod}"));
        cluster.apply(run_change(&vm(), "run", &Template::new([]), Some(&name(self.node)), ready.as_deref()));
        for (number, pod) in self.pods.iter().enumerate() {
            let Some(pod) = pod else { continue };
            let node = pod.node.map(name);
            let launcher = format!("launcher-{number}");
            let Change::Launcher(mut object) = pod_change(&vm(), &launcher, "run", node.as_deref(), pod.live) else {
                continue;
            };
            if number > 0 {
                let labels = object.metadata.labels.get_or_insert_with(BTreeMap::new);
                labels.insert("kubevirt.io/migrationJobUID".into(), format!("m{}", number - 1));
            }
            cluster.apply(Change::Launcher(object));
        }
        for (number, vmim) in self.vmims.iter().enumerate() {
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
        let other_config = [("subnet", "10.0.0.0/24")].into_iter().collect();
        northbound.put_switch(SWITCH, LogicalSwitch { name: "blue".into(), other_config, ..Default::default() });
        northbound.put_global(NbGlobal { nb_cfg: self.nb_cfg, sb_cfg: self.sb_cfg, ..NbGlobal::default() });
        let requested = self.requested.iter().map(|node| self.chassis(*node)).collect::<Vec<_>>().join(",");
        let strategy = (self.requested.len() == 2).then_some(("activation-strategy", "rarp"));
        let requested = (!requested.is_empty()).then_some(("requested-chassis", requested.as_str()));
        let options = requested.into_iter().chain(strategy).collect();
        let marks = [
            ("vendor", "ovn-kubevirt"),
            ("ovn-kubevirt.io/instance", "default"),
            ("ovn-kubevirt.io/vm", "n/vm"),
            ("ovn-kubevirt.io/vm-uid", "u"),
            ("ovn-kubevirt.io/network", "default"),
        ];
        let row = LogicalSwitchPort {
            name: "vm.n".into(),
            addresses: ["0a:58:0a:00:00:02 10.0.0.2".to_owned()].into_iter().collect(),
            port_security: ["0a:58:0a:00:00:02 10.0.0.2".to_owned()].into_iter().collect(),
            options,
            external_ids: marks.into_iter().collect(),
            ..LogicalSwitchPort::default()
        };
        northbound.put_port(PORT, row);
        northbound.place_port(PORT, Some(SWITCH));
        northbound
    }

    fn southbound(&self) -> Southbound {
        let mut southbound = Southbound::default();
        let chassis = |node: u8| Uuid::from_u128(u128::from(node) + 1);
        for node in (0..3).filter(|node| self.has_row(*node)) {
            let hostname = if self.faults.is_some() { name(node) } else { String::new() };
            southbound.put_chassis(u128::from(node) + 1, Chassis { name: self.chassis(node), hostname });
        }
        if let Some(node) = self.doubled {
            southbound.put_chassis(10, Chassis { name: format!("stale{node}"), hostname: name(node) });
        }
        let activated = self.binding.activated;
        let activated = activated.map(|node| (keys::ADDITIONAL_CHASSIS_ACTIVATED.to_owned(), self.chassis(node)));
        southbound.put_binding(PortBinding {
            logical_port: "vm.n".into(),
            chassis: self.binding.main.map(chassis),
            additional_chassis: self.binding.additional.into_iter().map(chassis).collect(),
            options: activated.into_iter().collect(),
            up: Some(true),
        });
        southbound
    }
}

/// Counts the histories from a state to one without a further step; each state is checked once.
fn histories(state: &State, known: &mut HashMap<State, u128>) -> u128 {
    if let Some(known) = known.get(state) {
        return *known;
    }
    let mut count = 0_u128;
    let mut at_rest = true;
    for event in EVENTS {
        let Some(next) = state.after(event) else { continue };
        at_rest &= !matches!(event, Event::Look | Event::Northd);
        count = count.saturating_add(histories(&next, known));
    }
    if at_rest {
        state.rests();
    }
    let count = count.max(1);
    known.insert(state.clone(), count);
    count
}

fn all(with_southbound: bool, back: bool) {
    all_from(&State::first(with_southbound, back));
}

fn all_from(first: &State) {
    let State { with_southbound, back, faults, .. } = first;
    let mut known = HashMap::new();
    let count = histories(first, &mut known);
    println!(
        "{} states, {count} histories (southbound read: {with_southbound}, back: {back}, rows: {faults:?})",
        known.len()
    );
    assert!(known.len() > 1_000 && count > 1_000_000, "{} states, {count} histories", known.len());
}

#[test]
fn every_interleaving_of_two_migrations_there_and_back() {
    all(false, true);
}

#[test]
fn every_interleaving_of_two_migrations_on_to_a_third_node() {
    all(false, false);
}

#[test]
fn every_interleaving_there_and_back_with_the_southbound_read() {
    all(true, true);
}

#[test]
fn every_interleaving_on_to_a_third_node_with_the_southbound_read() {
    all(true, false);
}
