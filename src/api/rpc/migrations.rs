//! `migrations.list`: the live migrations that have not ended.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{Failure, Reason};
use super::method::Method;
use super::model::{Binding, Migrating, MigrationStep, Migrations, NoParams, Port, PortState};
use super::ports::read;
use super::sources::Api;
use super::view::Chosen;
use crate::contract::VmKey;
use crate::intent::{Placement, Seat, VmIntent};
use crate::kubevirt::VmObjects;

/// The limit for the answer of the writer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most migrations in an answer. KubeVirt lets five run at a time, unless its operator allows more.
const MOST: usize = 2_000;
/// VMs whose ports are read under one lock.
const AT_ONCE: usize = 64;

/// `migrations.list`
pub(super) struct List;

impl Method for List {
    const NAME: &'static str = "migrations.list";
    const SUMMARY: &'static str = "Lists the live migrations that have not ended, with the steps of their ports.";
    const ERRORS: &'static [Reason] = &[Reason::NotReady, Reason::TimedOut];
    type Params = NoParams;
    type Answer = Migrations;

    async fn call(api: Arc<Api>, NoParams {}: NoParams) -> Result<Migrations, Failure> {
        let anyone = VmKey::new("", "");
        let asked = api.sources.asker.ask(&anyone, PATIENCE, |moment| {
            let (cluster, northbound) = (moment.snapshot.cluster, moment.snapshot.northbound);
            let is_ours = |vm: &&VmKey| cluster.served_vm(vm).is_some() || northbound.ports_of(vm).next().is_some();
            let ours = cluster.migrating().filter(is_ours).take(MOST);
            let found = ours.filter_map(|vm| Some((vm.clone(), cluster.vm(vm)?, moment.snapshot.intent(vm)?)));
            ControlFlow::Break(found.flat_map(|(vm, objects, intent)| facts(&vm, objects, &intent)).collect::<Vec<_>>())
        });
        let facts = asked.await?;
        let mut migrations = Vec::with_capacity(facts.len());
        for facts in facts.chunks(AT_ONCE) {
            for facts in facts.iter().cloned() {
                let ports = read(api.replicas(), &Chosen::default(), &[Arc::new(facts.vm.clone())]);
                let step = step(&ports, &facts);
                let Facts { vm, migration, phase, source, target, arrived: _, apart: _ } = facts;
                let VmKey { namespace, name: vm } = vm;
                migrations.push(Migrating { namespace, vm, migration, phase, source, target, step, ports });
            }
            tokio::task::yield_now().await;
        }
        Ok(Migrations { migrations })
    }
}

/// What Kubernetes tells of a migration.
#[derive(Clone)]
struct Facts {
    vm: VmKey,
    migration: String,
    phase: String,
    source: Option<String>,
    target: Option<String>,
    /// The guest is ready on the target.
    arrived: bool,
    /// The ports that do not move from chassis to chassis.
    apart: Arc<[Apart]>,
}

/// A port that one launcher pod of the migration lacks.
struct Apart {
    network: String,
    coming: bool,
    /// The beginning of the port's name, which tells the ports of a NIC apart that changes its network.
    base_name: String,
    part: Part,
}

/// The part of a port in a migration, by the launcher pods that have its NIC.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Both.
    Moves,
    /// The target's alone: the migration plugs the NIC, or brings it to another network.
    Comes,
    /// At most the source's: the migration unplugs the NIC, or takes it from its network.
    Stays,
}

impl Facts {
    fn part(&self, port: &Port) -> Part {
        let is_it = |apart: &&Apart| {
            let name = port.port.as_deref().unwrap_or_default();
            apart.network == port.network && apart.coming == port.coming && name.starts_with(&apart.base_name)
        };
        self.apart.iter().find(is_it).map_or(Part::Moves, |apart| apart.part)
    }
}

fn facts(vm: &VmKey, objects: &VmObjects, intent: &VmIntent) -> Vec<Facts> {
    let (home, target) = match &intent.placement {
        Placement::On { home, target, arrived: _ } => (Some(home.clone()), target.clone()),
        Placement::Keep | Placement::KeepHome | Placement::Unbound => (None, None),
    };
    let apart: Arc<[Apart]> = target.as_ref().map(|target| apart(intent, target)).unwrap_or_default().into();
    let ready_on = objects.run.as_ref().and_then(|run| run.domain_ready_on.as_ref());
    let launcher = ready_on.and_then(|pod| objects.launchers.get(pod));
    let under_way = objects.migrations.iter().filter(|(_, migration)| !migration.finished);
    under_way
        .map(|(name, migration)| {
            // The state of an earlier migration stays on the VMI.
            let arrived = launcher.is_some_and(|launcher| launcher.migration.as_ref() == Some(&migration.uid));
            let source = objects.run.as_ref().and_then(|run| run.node.clone());
            Facts {
                vm: vm.clone(),
                migration: name.clone(),
                phase: migration.phase.clone(),
                source: if arrived { source } else { home.clone() },
                target: if arrived { home.clone() } else { target.clone() },
                arrived,
                apart: Arc::clone(&apart),
            }
        })
        .collect()
}

/// The ports of a VM that moves to the node `target`, but for those that move with it.
fn apart(intent: &VmIntent, target: &str) -> Vec<Apart> {
    let of_ports = intent.ports.iter().map(|nic| (&nic.network, nic.seat, nic.base_name.as_str(), &nic.placement));
    let of_others = intent.apart.iter().map(|(network, placement)| (network, Seat::Assumed, "", placement));
    let apart = of_ports.chain(of_others).filter_map(|(network, seat, base_name, placement)| {
        let part = match placement {
            Placement::On { target: Some(_), .. } => return None,
            Placement::On { home, .. } if home == target => Part::Comes,
            _ => Part::Stays,
        };
        let (network, base_name) = (network.clone(), base_name.to_owned());
        Some(Apart { network, coming: seat == Seat::Coming, base_name, part })
    });
    apart.collect()
}

fn step(ports: &[Port], facts: &Facts) -> MigrationStep {
    let standing = ports.iter().filter(|port| port.port.is_some()).map(|port| (port, facts.part(port)));
    let standing: Vec<(&Port, Part)> = standing.filter(|(_, part)| *part != Part::Stays).collect();
    let is_open = |(port, part): &(&Port, Part)| {
        port.state == if *part == Part::Comes { PortState::Bound } else { PortState::Moving }
    };
    let is_claimed = |(port, part): &(&Port, Part)| match port.binding {
        Some(Binding::Moving { .. }) => *part == Part::Moves,
        Some(Binding::Bound { .. }) => *part == Part::Comes,
        _ => false,
    };
    // What comes is on one chassis, which has nothing to activate.
    let mut moving = standing.iter().filter(|(_, part)| *part == Part::Moves).peekable();
    let moves = moving.peek().is_some();
    let mut is_activated =
        || moving.all(|(port, _)| matches!(port.binding, Some(Binding::Moving { activated: true, .. })));
    match (facts.arrived, &facts.target) {
        (true, _) => MigrationStep::Arrived,
        (false, None) => MigrationStep::Waiting,
        (false, Some(_)) if !standing.iter().all(is_open) => MigrationStep::Opening,
        (false, Some(_)) if standing.is_empty() || !standing.iter().all(is_claimed) => MigrationStep::Open,
        (false, Some(_)) if moves && is_activated() => MigrationStep::Activated,
        (false, Some(_)) => MigrationStep::Claimed,
    }
}
