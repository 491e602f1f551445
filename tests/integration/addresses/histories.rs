//! Histories of wishes, runs, restarts of the service, edits of `exclude_ips`, foreign writers, marks and names that are
//! wiped, a label that comes and goes, a switch that is made anew, and chassis that come, go and double, on a small subnet of a
//! real database, compared with a plain set after every round.
//!
//! The writing path runs inside the test and is fed as the watches would. A round is a few things that happen at once;
//! then all is waited for to come to rest. What happens in a round follows from the history's seed and the round's number
//! alone, so that rounds can be left out: a history that fails is made as short as possible before it is told.
//!
//! - `OVN_KUBEVIRT_HISTORIES`: how many (15).
//! - `OVN_KUBEVIRT_HISTORY`: this one alone, as in `7`, or some of its rounds, as in `7:0,3,12`.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ovn_kubevirt::contract::VmKey;
use ovn_kubevirt::contract::annotations::PORTS_ANNOTATION;
use ovn_kubevirt::controller::Report;
use ovn_kubevirt::kubevirt::{AnnotatedPort, Change, Kind, PortsAnnotation};
use ovn_kubevirt::plan::VmStatus;
use serde_json::{Value, json};

use self::model::{Between, HOSTS, Machine, State, Wish, host, pools};
use super::{IP_ADDRESS, IP_POOL, SWITCH};
use crate::support::in_process::{self, InProcess};
use crate::support::{Northbound, Port, Stage};
use futures::StreamExt as _;

const HISTORIES: u64 = 15;
const ROUNDS: u64 = 40;
/// Histories that run at the same time, each with its own server.
const AT_ONCE: usize = 4;
/// More than there are addresses, with the foreign ports and what is excluded.
const VMS: u64 = 11;
const FOREIGN_PORTS: u64 = 4;
/// How long a round may take to come to rest, and how long a failed history may be shortened.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORTENING: Duration = Duration::from_secs(60);
/// The chassis rows that the node of all VMs may have.
const CHASSIS: [&str; 2] = ["c1", "c2"];
/// A VM and the switch that it has alone.
const BARRIER: &str = "barrier";

/// Numbers that follow from a seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let at = usize::try_from(self.below(of.len() as u64)).expect("few");
        of[at].clone()
    }

    fn address(&mut self) -> IpAddr {
        host(u8::try_from(self.below(16)).expect("small"))
    }

    fn wish(&mut self) -> Wish {
        let mut wish = Wish::default();
        if self.below(3) == 0 {
            wish.addresses.push(self.address());
        }
        if self.below(5) == 0 {
            wish.addresses.push(self.pick(&["fd00::2", "fd00::3", "fd00::10"]).parse().expect("an address"));
        }
        if self.below(3) == 0 {
            wish.pool = Some(self.pick(&pools().collect::<Vec<_>>()));
        }
        wish
    }
}

/// A history as far as it has come.
struct History {
    northbound: Arc<Northbound>,
    service: Option<InProcess>,
    state: State,
    between: Between,
    /// `nb_cfg` as the last foreign transaction left it.
    nb_cfg: i64,
    barriers: u64,
    created: u64,
    /// What the owners of VMs were told last, and may not see yet.
    reported: BTreeMap<String, Vec<AnnotatedPort>>,
    /// The namespace has its label.
    selected: bool,
    told: String,
}

fn annotations(wish: &Wish) -> Value {
    let mut annotations = json!({});
    if !wish.addresses.is_empty() {
        annotations[IP_ADDRESS] = json!(wish.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    }
    if let Some(pool) = wish.pool {
        annotations[IP_POOL] = json!(pool);
    }
    annotations
}

fn object<T: serde::de::DeserializeOwned>(object: Value) -> Box<T> {
    Box::new(serde_json::from_value(object).expect("an object"))
}

fn vm_change(vm: &str, uid: &str, annotations: &Value, told: Option<&str>) -> Change {
    let reported = told.map(|text| json!({PORTS_ANNOTATION: text}));
    Change::Vm(object(json!({"metadata": {"name": vm, "namespace": "n", "uid": uid, "annotations": reported},
        "spec": {"template": {"metadata": {"annotations": annotations}}}})))
}

fn run_change(vm: &str, uid: &str, wish: &Wish) -> Change {
    Change::Run(object(
        json!({"metadata": {"name": vm, "namespace": "n", "uid": uid, "annotations": annotations(wish)},
        "status": {"nodeName": "n1"}}),
    ))
}

fn pod_change(vm: &str, pod: &str, run: &str) -> Change {
    let owner = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": vm, "uid": run,
        "controller": true});
    Change::Launcher(object(
        json!({"metadata": {"name": pod, "namespace": "n", "labels": {"kubevirt.io": "virt-launcher"},
        "ownerReferences": [owner]}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}),
    ))
}

fn gone(kind: Kind, name: &str) -> Change {
    Change::Gone(kind, object(json!({"name": name, "namespace": "n"})))
}

impl History {
    async fn begin() -> Self {
        let northbound = Stage::build("histories")
            .without_default_switch()
            .switch_with("s", &[("subnet", "10.0.0.0/28"), ("ipv6_prefix", "fd00::")])
            .switch(BARRIER, "10.1.0.0/24")
            .southbound()
            .northbound()
            .await;
        let (state, between) = (State::default(), Between::default());
        let mut history = Self {
            northbound,
            service: None,
            state,
            between,
            nb_cfg: 0,
            barriers: 0,
            created: 0,
            reported: BTreeMap::new(),
            selected: true,
            told: String::new(),
        };
        history.turn_chassis(CHASSIS[0]);
        history.start().await;
        history
    }

    /// The service, told of all that is there.
    async fn start(&mut self) {
        let (remote, southbound) = (self.northbound.remote(), self.northbound.sb_remote());
        self.service = Some(in_process::start_beside(Some(&southbound), &remote, true, "s", 1_000, SHORTENING));
        self.select(self.selected).await;
        for (vm, machine) in self.state.machines.clone() {
            for change in changes_of(&vm, &machine) {
                self.send(change).await;
            }
        }
        for kind in Kind::ALL {
            self.send(Change::ListEnds(kind)).await;
        }
    }

    async fn send(&self, change: Change) {
        let service = self.service.as_ref().expect("it runs");
        service.changes.send(change).await.expect("the writer runs");
    }

    /// A transaction of somebody else's, and a mark by which the replica shows that it has it.
    fn transact(&mut self, mut operations: Vec<Value>) {
        operations.push(json!({"op": "mutate", "table": "NB_Global", "where": [], "mutations": [["nb_cfg", "+=", 1]]}));
        self.northbound.transact(Value::Array(operations));
        self.nb_cfg += 1;
    }

    /// One thing that happens.
    async fn act(&mut self, numbers: &mut Numbers) {
        let vm = format!("vm-{}", numbers.below(VMS));
        match numbers.below(26) {
            0..=6 => self.apply(&vm, numbers.wish()).await,
            7..=9 => self.start_vm(&vm).await,
            10..=11 => self.stop_vm(&vm, numbers.below(3) > 0).await,
            12 => self.end_launchers(&vm).await,
            13..=14 => self.delete_vm(&vm, numbers.below(4) > 0).await,
            15..=16 => self.write_foreign(&format!("foreign-{}", numbers.below(FOREIGN_PORTS)), numbers),
            17 => self.exclude(numbers),
            18 => self.restart().await,
            19 if numbers.below(2) == 0 => self.overwrite(&vm),
            19 => self.delete_row(&vm),
            20..=21 => self.wipe(&vm, numbers),
            22 => self.select(false).await,
            _ => self.turn_chassis(numbers.pick(&CHASSIS)),
        }
    }

    fn machine(&mut self, vm: &str) -> &mut Machine {
        self.state.machines.entry(vm.to_owned()).or_default()
    }

    /// Notes what has a say in this VM's lease from now on.
    fn note(&mut self, vm: &str, what: &str) {
        let machine = self.state.machines.get(vm).cloned().unwrap_or_default();
        self.between.wishes.entry(vm.to_owned()).or_default().extend(machine.wishes().cloned());
        if machine.is_gone() {
            self.between.gone.insert(vm.to_owned());
        }
        let _ = writeln!(self.told, "    {vm} {what}: {machine:?}");
    }

    fn uid(&mut self, of: &str) -> String {
        self.created += 1;
        format!("{of}-{}", self.created)
    }

    async fn apply(&mut self, vm: &str, wish: Wish) {
        if self.machine(vm).vm.is_none() {
            // Gone so far, even if something of it lingers: its row may be the old one or a new one.
            self.machine(vm).uid = self.uid("vm");
        }
        let text = annotations(&wish);
        self.machine(vm).vm = Some(wish);
        self.note(vm, "is applied");
        let Machine { uid, told, .. } = self.machine(vm).clone();
        self.send(vm_change(vm, &uid, &text, told.as_deref())).await;
    }

    async fn start_vm(&mut self, vm: &str) {
        let machine = self.machine(vm).clone();
        let (Some(wish), None) = (machine.vm, machine.run) else { return };
        let (run, pod) = (self.uid("run"), self.uid("pod"));
        self.machine(vm).run = Some((run.clone(), wish.clone()));
        self.machine(vm).pods.push((pod.clone(), run.clone()));
        self.note(vm, "is started");
        self.send(run_change(vm, &run, &wish)).await;
        self.send(pod_change(vm, &pod, &run)).await;
    }

    /// The VMI goes; its launcher may linger.
    async fn stop_vm(&mut self, vm: &str, whole: bool) {
        if self.machine(vm).run.take().is_none() {
            return;
        }
        if whole {
            self.end_launchers(vm).await;
        }
        self.note(vm, "is stopped");
        self.send(gone(Kind::Run, vm)).await;
    }

    async fn end_launchers(&mut self, vm: &str) {
        let run = self.machine(vm).run.as_ref().map(|(uid, _)| uid.clone());
        let (stay, end) = self.machine(vm).pods.drain(..).partition(|(_, of)| Some(of) == run.as_ref());
        self.machine(vm).pods = stay;
        let end: Vec<(String, String)> = end;
        for (pod, _) in end {
            self.send(gone(Kind::Launcher, &pod)).await;
        }
        self.note(vm, "has no old launcher");
    }

    async fn delete_vm(&mut self, vm: &str, whole: bool) {
        if self.machine(vm).vm.take().is_none() {
            return;
        }
        self.machine(vm).told = None;
        self.note(vm, "is deleted");
        self.send(gone(Kind::Vm, vm)).await;
        if whole {
            self.stop_vm(vm, true).await;
            self.end_launchers(vm).await;
        }
    }

    /// The operation that has a port collected.
    fn removal(&self, name: &str) -> Option<Value> {
        let found = self.northbound.transact(json!([{"op": "select", "table": "Logical_Switch_Port",
            "where": [["name", "==", name]], "columns": ["_uuid"]}]));
        let uuid = found[0]["rows"][0].get("_uuid")?;
        Some(json!({"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", "s"]],
            "mutations": [["ports", "delete", uuid]]}))
    }

    /// Somebody deletes a port of ours: it is made anew, if nobody waited for what it held.
    fn delete_row(&mut self, vm: &str) {
        let Some(operation) = self.removal(&format!("{vm}.n")) else { return };
        self.between.gone.insert(vm.to_owned());
        self.transact(vec![operation]);
        let _ = writeln!(self.told, "    the row of {vm} is deleted");
    }

    fn write_foreign(&mut self, name: &str, numbers: &mut Numbers) {
        let mut operations = Vec::new();
        if let Some(held) = self.state.foreign.remove(name) {
            self.between.let_go.extend(held);
            operations.extend(self.removal(name));
        } else {
            let held: BTreeSet<IpAddr> = (0..=numbers.below(2)).map(|_| numbers.address()).collect();
            let text = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let row = json!({"name": name, "addresses": format!("02:00:00:00:00:{:02x} {text}", numbers.below(256))});
            operations.push(json!({"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "lsp", "row": row}));
            operations.push(json!({"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", "s"]],
                "mutations": [["ports", "insert", ["named-uuid", "lsp"]]]}));
            self.state.foreign.insert(name.to_owned(), held);
        }
        self.transact(operations);
        let _ = writeln!(self.told, "    {name}: {:?}", self.state.foreign.get(name));
    }

    fn exclude(&mut self, numbers: &mut Numbers) {
        let from = u8::try_from(numbers.below(12)).expect("small");
        let to = from + u8::try_from(numbers.below(6)).expect("small");
        self.state.excluded = (from..=to).filter(|at| HOSTS.contains(at)).collect();
        self.between.excluded.push(self.state.excluded.clone());
        let text = format!("{}..{}", host(from), host(to));
        let config = json!(["map", [["subnet", "10.0.0.0/28"], ["ipv6_prefix", "fd00::"], ["exclude_ips", text]]]);
        self.transact(vec![json!({"op": "update", "table": "Logical_Switch", "where": [["name", "==", "s"]],
            "row": {"other_config": config}})]);
        let _ = writeln!(self.told, "    exclude_ips: {text}");
    }

    /// The namespace gets its label, or loses it.
    async fn select(&mut self, selected: bool) {
        self.selected = selected;
        let metadata = json!({"name": "n"});
        self.send(match selected {
            true => Change::Namespace(object(metadata)),
            false => Change::Gone(Kind::Namespace, object(metadata)),
        })
        .await;
        let _ = writeln!(self.told, "    the namespace is selected: {selected}");
    }

    /// A chassis row of the node appears, or goes.
    fn turn_chassis(&mut self, name: &'static str) {
        if self.state.chassis.remove(name) {
            self.northbound.remove_chassis(name);
            self.between.lost_chassis.insert(name.to_owned());
        } else {
            self.northbound.add_chassis(name, "n1");
            self.state.chassis.insert(name.to_owned());
        }
        let _ = writeln!(self.told, "    chassis: {:?}", self.state.chassis);
    }

    /// Somebody takes marks off a port of ours, renames it or gives it a type.
    fn wipe(&mut self, vm: &str, numbers: &mut Numbers) {
        let port = format!("{vm}.n");
        let marks = ["vendor", "ovn-kubevirt.io/instance", "ovn-kubevirt.io/vm", "ovn-kubevirt.io/network"];
        let mut operation = json!({"table": "Logical_Switch_Port", "where": [["name", "==", port]]});
        let what = match numbers.below(4) {
            0 => json!({"op": "mutate", "mutations": [["external_ids", "delete", ["set", marks]]]}),
            1 => {
                let mark = numbers.pick(&marks);
                json!({"op": "mutate", "mutations": [["external_ids", "delete", ["set", [mark]]]]})
            }
            2 => json!({"op": "update", "row": {"name": format!("{port}-renamed")}}),
            _ => json!({"op": "update", "row": {"type": "virtual"}}),
        };
        let _ = writeln!(self.told, "    {port}: {what}");
        for (key, value) in what.as_object().into_iter().flatten() {
            operation[key] = value.clone();
        }
        self.transact(vec![operation]);
    }

    /// The switch is deleted, and made anew with the same subnet.
    fn remake_switch(&mut self) {
        let config = json!(["map", [["subnet", "10.0.0.0/28"], ["ipv6_prefix", "fd00::"]]]);
        self.transact(vec![
            json!({"op": "delete", "table": "Logical_Switch", "where": [["name", "==", "s"]]}),
            json!({"op": "insert", "table": "Logical_Switch", "row": {"name": "s", "other_config": config}}),
        ]);
        self.between.remade = true;
        self.between.let_go.extend(std::mem::take(&mut self.state.foreign).into_values().flatten());
        self.state.excluded = BTreeSet::new();
        self.between.excluded.push(BTreeSet::new());
        let _ = writeln!(self.told, "    the switch is made anew");
    }

    /// The reporter has written what it was told, and the watch has seen it.
    async fn tell(&mut self) -> Result<(), String> {
        for (vm, ports) in std::mem::take(&mut self.reported) {
            let Some(machine) = self.state.machines.get_mut(&vm).filter(|machine| machine.vm.is_some()) else {
                continue;
            };
            let told = PortsAnnotation { instance: "default".to_owned(), uid: machine.uid.clone(), ports };
            machine.told = (!told.ports.is_empty()).then(|| told.text());
            let Machine { uid, vm: wish, told, .. } = machine.clone();
            let text = annotations(&wish.unwrap_or_default());
            self.send(vm_change(&vm, &uid, &text, told.as_deref())).await;
        }
        self.barrier(Instant::now() + PATIENCE).await
    }

    async fn restart(&mut self) {
        let _ = writeln!(self.told, "    the service starts anew");
        self.service = None;
        self.start().await;
    }

    /// Somebody overwrites what a port of ours holds.
    fn overwrite(&mut self, vm: &str) {
        let row = json!({"addresses": ["set", ["unknown"]]});
        self.transact(vec![json!({"op": "update", "table": "Logical_Switch_Port",
            "where": [["name", "==", format!("{vm}.n")]], "row": row})]);
        let _ = writeln!(self.told, "    the addresses of {vm} are overwritten");
    }

    /// Waits until nothing changes any more. What was dirty when one barrier was committed is planned no later than the
    /// next, and committed no later; another look is for those who gave way to others of their transaction.
    async fn rest(&mut self) -> Result<Vec<Port>, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen: Vec<Vec<Port>> = Vec::new();
        while Instant::now() < deadline {
            self.barrier(deadline).await?;
            let mut ports = self.northbound.ports();
            ports.retain(|port| port.switches != [BARRIER]);
            seen.push(ports);
            if let [.., first, second, third] = &seen[..]
                && first == second
                && second == third
            {
                return Ok(third.clone());
            }
        }
        Err(format!("it does not come to rest: {:#?}", seen.last()))
    }

    /// The writer has taken in what was there before, and has committed a VM's port that changed after it.
    async fn barrier(&mut self, deadline: Instant) -> Result<(), String> {
        let nb_cfg = self.nb_cfg;
        self.barriers += 1;
        let address = IpAddr::from([10, 1, 0, u8::try_from(1 + self.barriers % 250).expect("small")]);
        let annotations = json!({SWITCH: BARRIER, IP_ADDRESS: address.to_string()});
        let chassis = self.state.chassis.clone();
        let service = self.service.as_mut().expect("it runs");
        let southbound = service.southbound.clone().expect("it reads the southbound");
        let sees_chassis = || {
            let replica = southbound.replica.read();
            let in_sync = *southbound.in_sync.borrow() == Some(true);
            in_sync && CHASSIS.iter().all(|name| replica.has_chassis(name) == chassis.contains(*name))
        };
        while service.northbound.read().nb_cfg() < nb_cfg || !sees_chassis() {
            if Instant::now() > deadline {
                return Err(format!("the replicas do not see nb_cfg {nb_cfg} and the chassis {chassis:?}"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        service.changes.send(vm_change(BARRIER, BARRIER, &annotations, None)).await.expect("the writer runs");
        let barrier = VmKey::new("n", BARRIER);
        let passed = |status: &VmStatus| {
            status
                .ports
                .iter()
                .filter_map(|port| port.addresses)
                .any(|addresses| addresses.ips().any(|ip| ip == address))
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, service.reports.recv()).await {
                Ok(Some(Report::Status { subject, status })) if *subject.vm() == barrier && passed(&status) => {
                    return Ok(());
                }
                Ok(Some(Report::Status { subject, status })) => {
                    self.reported.insert(subject.vm().name.clone(), status.annotated());
                }
                Ok(Some(_)) => {}
                other => return Err(format!("the barrier does not pass: {other:?}")),
            }
        }
    }

    /// One round, and whether everything is as it should be at its end.
    async fn round(&mut self, seed: u64, round: u64) -> Result<(), String> {
        let mut numbers = Numbers(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let before = self.state.clone();
        self.between = Between::default();
        for (vm, machine) in &before.machines {
            self.between.wishes.insert(vm.clone(), machine.wishes().cloned().collect());
            if machine.is_gone() {
                self.between.gone.insert(vm.clone());
            }
        }
        let _ = writeln!(self.told, "  round {round}");
        // Every other round is of one thing alone, of which just one outcome is right.
        let things = if numbers.below(2) == 0 { 1 } else { 2 + numbers.below(8) };
        if things == 1 && numbers.below(8) == 0 {
            self.remake_switch();
        } else {
            for _ in 0..things {
                self.act(&mut numbers).await;
            }
        }
        if !self.selected {
            self.select(true).await;
        }
        let ports = self.rest().await?;
        self.state.read(&ports)?;
        self.state.check(&before, &self.between)?;
        self.tell().await
    }
}

/// All that the watches would tell of a VM.
fn changes_of(vm: &str, machine: &Machine) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(
        machine.vm.as_ref().map(|wish| vm_change(vm, &machine.uid, &annotations(wish), machine.told.as_deref())),
    );
    changes.extend(machine.run.as_ref().map(|(uid, wish)| run_change(vm, uid, wish)));
    changes.extend(machine.pods.iter().map(|(pod, run)| pod_change(vm, pod, run)));
    changes
}

/// What was wrong, after which round, and all that happened until then.
struct Failure {
    round: u64,
    problem: String,
    told: String,
}

async fn run(seed: u64, rounds: &[u64]) -> Result<(), Failure> {
    let mut history = History::begin().await;
    for round in rounds {
        if let Err(problem) = history.round(seed, *round).await {
            let told = format!("{}  {:#?}", history.told, history.state.leases);
            return Err(Failure { round: *round, problem, told });
        }
    }
    Ok(())
}

/// Leaves out every round without which it fails, too.
async fn shortest(seed: u64, rounds: &[u64], mut failure: Failure) -> (Vec<u64>, Failure) {
    let begun = Instant::now();
    let until = rounds.iter().position(|round| *round == failure.round).map_or(rounds.len(), |at| at + 1);
    let mut rounds = rounds[..until].to_vec();
    let mut at = 0;
    while at < rounds.len() && begun.elapsed() < SHORTENING {
        let mut fewer = rounds.clone();
        fewer.remove(at);
        match run(seed, &fewer).await {
            Err(other) => (rounds, failure) = (fewer, other),
            Ok(()) => at += 1,
        }
    }
    (rounds, failure)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_history_hands_no_address_out_twice_moves_no_lease_unasked_and_leaves_no_wish_that_can_be_had() {
    let all: Vec<u64> = (0..ROUNDS).collect();
    let (seeds, rounds) = match std::env::var("OVN_KUBEVIRT_HISTORY") {
        Ok(text) => {
            let (seed, rounds) = text.split_once(':').unwrap_or((&text, ""));
            let number = |text: &str| text.trim().parse::<u64>().expect("a number");
            let some: Vec<u64> = rounds.split(',').filter(|text| !text.is_empty()).map(number).collect();
            (vec![number(seed)], if some.is_empty() { all } else { some })
        }
        Err(_) => {
            let histories = std::env::var("OVN_KUBEVIRT_HISTORIES").ok().and_then(|text| text.parse().ok());
            ((0..histories.unwrap_or(HISTORIES)).collect(), all)
        }
    };
    let histories = futures::stream::iter(seeds).map(|seed| {
        let rounds = rounds.clone();
        async move { (seed, tokio::spawn(async move { run(seed, &rounds).await }).await.expect("no panic")) }
    });
    let mut histories = std::pin::pin!(histories.buffer_unordered(AT_ONCE));
    while let Some((seed, outcome)) = histories.next().await {
        if let Err(failure) = outcome {
            let (rounds, Failure { problem, told, .. }) = shortest(seed, &rounds, failure).await;
            let list = rounds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            panic!("{problem}\n{told}\nagain: OVN_KUBEVIRT_HISTORY={seed}:{list}");
        }
    }
}
