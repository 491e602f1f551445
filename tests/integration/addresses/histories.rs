//! Histories of requests, runs, restarts of the service, edits of `exclude_ips`, foreign writers, marks and names that are
//! wiped, a label that is set and removed, a switch that is recreated, and chassis that are inserted, deleted and
//! duplicated, on a small subnet of a real database, compared with a plain set after every round.
//!
//! The writing path runs inside the test and is fed as the watches would. A round is a few events at once, and a wait
//! until the database is at rest. The events of a round follow from the history's seed and the round's number
//! alone, so that rounds can be left out: a history that fails is made as short as possible before it is printed.
//!
//! - `OVN_KUBEVIRT_HISTORIES`: how many (15).
//! - `OVN_KUBEVIRT_HISTORY`: this one alone, as in `7`, or some of its rounds, as in `7:0,3,12`.

mod acts;
mod changes;
mod model;
mod numbers;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ovn_kubevirt::contract::VmKey;
use ovn_kubevirt::controller::Report;
use ovn_kubevirt::kubevirt::{AnnotatedPort, Change, Kind, PortsAnnotation};
use ovn_kubevirt::plan::VmStatus;
use serde_json::{Value, json};

use self::changes::{annotations, changes_of, vm_change};
use self::model::{Between, Machine, State};
use self::numbers::Numbers;
use super::{IP_ADDRESS, SWITCH};
use crate::support::in_process::InProcess;
use crate::support::{Northbound, Port, Stage};

const HISTORIES: u64 = 15;
const ROUNDS: u64 = 40;
/// Histories that run at the same time, each with its own server.
const AT_ONCE: usize = 4;
/// More than there are addresses, with the foreign ports and the exclusions.
const VMS: u64 = 11;
const FOREIGN_PORTS: u64 = 4;
/// How long a round may take to come to rest, and how long a failed history may be shortened.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORTENING: Duration = Duration::from_secs(60);
/// The chassis rows that the node of all VMs may have.
const CHASSIS: [&str; 2] = ["c1", "c2"];
/// A VM and the switch that it has alone.
const BARRIER: &str = "barrier";

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
    /// The last status of each VM, which the watch may not have seen yet.
    statuses: BTreeMap<String, Vec<AnnotatedPort>>,
    /// The namespace has its label.
    selected: bool,
    /// All that has happened, for the message of a failure.
    log: String,
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
            statuses: BTreeMap::new(),
            selected: true,
            log: String::new(),
        };
        history.turn_chassis(CHASSIS[0]);
        history.start().await;
        history
    }

    /// The service, fed with all that is there.
    async fn start(&mut self) {
        let (remote, southbound) = (self.northbound.remote(), self.northbound.sb_remote());
        let options = InProcess::on(&remote).southbound(&southbound).default_switch("s").room(1_000);
        self.service = Some(options.address_rest(SHORTENING).start());
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
        self.service.as_ref().expect("it runs").send([change]).await;
    }

    /// A transaction of another program, and a mark by which the replica shows that it has it.
    fn transact(&mut self, mut operations: Vec<Value>) {
        operations.push(json!({"op": "mutate", "table": "NB_Global", "where": [], "mutations": [["nb_cfg", "+=", 1]]}));
        self.northbound.transact(Value::Array(operations));
        self.nb_cfg += 1;
    }

    /// The reporter has written the statuses, and the watch has seen them.
    async fn write_statuses(&mut self) -> Result<(), String> {
        for (vm, ports) in std::mem::take(&mut self.statuses) {
            let Some(machine) = self.state.machines.get_mut(&vm).filter(|machine| machine.vm.is_some()) else {
                continue;
            };
            let status = PortsAnnotation { instance: "default".to_owned(), uid: machine.uid.clone(), ports };
            machine.status = (!status.ports.is_empty()).then(|| status.text());
            let Machine { uid, vm: request, status, .. } = machine.clone();
            let text = annotations(&request.unwrap_or_default());
            self.send(vm_change(&vm, &uid, &text, status.as_deref())).await;
        }
        self.barrier(Instant::now() + PATIENCE).await
    }

    /// Waits until no row changes any more. A VM that is dirty when one barrier is committed is decided, and its rows are
    /// committed, no later than the next; the third is for VMs that gave way to others of their transaction.
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

    /// Waits until the writer has read all earlier changes, and has committed the port of a VM that changed after them.
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
        service.send([vm_change(BARRIER, BARRIER, &annotations, None)]).await;
        let barrier = VmKey::new("n", BARRIER);
        let passed = |status: &VmStatus| {
            let mut held = status.ports.iter().filter_map(|port| port.addresses);
            held.any(|addresses| addresses.ips().any(|ip| ip == address))
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, service.reports.recv()).await {
                Ok(Some(Report::Status { subject, status })) if *subject.vm() == barrier && passed(&status) => {
                    return Ok(());
                }
                Ok(Some(Report::Status { subject, status })) => {
                    self.statuses.insert(subject.vm().name.clone(), status.annotated());
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
            self.between.requests.insert(vm.clone(), machine.requests().cloned().collect());
            if machine.is_gone() {
                self.between.gone.insert(vm.clone());
            }
        }
        let _ = writeln!(self.log, "  round {round}");
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
        self.write_statuses().await
    }
}

/// The fault, its round, and all events until then.
struct Failure {
    round: u64,
    problem: String,
    log: String,
}

async fn run(seed: u64, rounds: &[u64]) -> Result<(), Failure> {
    let mut history = History::begin().await;
    for round in rounds {
        if let Err(problem) = history.round(seed, *round).await {
            let log = format!("{}  {:#?}", history.log, history.state.leases);
            return Err(Failure { round: *round, problem, log });
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
async fn any_history_allocates_no_address_twice_moves_no_lease_without_a_request_and_leaves_no_request_that_can_be_granted()
 {
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
            let (rounds, Failure { problem, log, .. }) = shortest(seed, &rounds, failure).await;
            let list = rounds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            panic!("{problem}\n{log}\nagain: OVN_KUBEVIRT_HISTORY={seed}:{list}");
        }
    }
}
