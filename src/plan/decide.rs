//! The decision for one VM.

use uuid::Uuid;

use super::change::PortChange;
use super::claims::Claims;
use super::port::{PortDecision, report_of};
use super::problem::Problem;
use super::remarks::Remarks;
use super::report::PortReport;
use super::retention::Release;
use super::siblings::{Crossed, Named, share_nothing};
use super::snapshot::Snapshot;
use super::view::View;
use super::vm_rows::VmRows;
use crate::intent::VmIntent;
use crate::kubevirt::VmObjects;
use crate::ovn::{Northbound, VmKey, Wake};

/// What is decided for one VM: rows to be written, and what its owner is told.
#[derive(Debug, Default)]
pub struct Decision {
    /// Changes of rows; empty ones are left out.
    pub rows: Vec<PortChange>,
    /// Its ports, for its owner.
    pub status: Vec<PortReport>,
    /// When it is to be decided again.
    pub waits: Waits,
    /// The addresses, MACs and names that it takes.
    pub claims: Claims,
}

/// What a VM waits for.
#[derive(Debug, Default)]
pub struct Waits {
    /// What in the databases.
    pub wakes: Vec<Wake>,
    /// It clashed with another VM of the same transaction: to be decided again after it.
    pub batch: bool,
    /// `NB_Global:nb_cfg` is to be raised with its changes, or alone: northd's progress matters.
    pub northd: bool,
    /// In seconds since the epoch.
    pub due: Option<i64>,
}

/// Decides for a VM, which need not be there any more: its rows, its status and what it waits for. `claims` is what the
/// transaction has given to others.
pub fn decide(snapshot: &Snapshot<'_>, claims: &Claims, vm: &VmKey) -> Decision {
    let Some(objects) = snapshot.objects(vm) else { return released(snapshot, vm) };
    let intent = snapshot.intent_of(vm, objects);
    // The annotation of a VM without ports here may be a namesake's that serves it on another database.
    if !intent.selected && snapshot.northbound.ports_of(vm).next().is_none() {
        return Decision::default();
    }
    let mut decision = decide_intent(snapshot, claims, &intent, Some(objects));
    decision.status.extend(unreadable(objects));
    decision
}

/// A VM's ports as they are.
pub fn present(northbound: &Northbound, vm: &VmKey) -> Vec<PortReport> {
    northbound.ports_of(vm).map(|(network, port)| report_of(northbound, network, port)).collect()
}

fn released(snapshot: &Snapshot<'_>, vm: &VmKey) -> Decision {
    let Release { changes, due } = snapshot.release(vm);
    Decision { rows: changes, waits: Waits { due, ..Waits::default() }, ..Decision::default() }
}

/// Decides for a VM that should have this, and of which Kubernetes has these objects.
pub(super) fn decide_intent(
    snapshot: &Snapshot<'_>,
    claims: &Claims,
    intent: &VmIntent,
    objects: Option<&VmObjects>,
) -> Decision {
    let rows = VmRows::new(snapshot.northbound, intent);
    let mut siblings: Vec<Uuid> = rows.all().map(|(_, port)| port.uuid).collect();
    siblings.sort_unstable();
    let named = Named::by(snapshot.northbound, intent, &rows);
    let told = objects.and_then(|objects| snapshot.told_where_it_matters(intent, objects, &rows));
    let view = |exchanging| View {
        snapshot,
        vm: &intent.vm,
        objects,
        batch: claims,
        own: Claims::default(),
        siblings: &siblings,
        exchanging,
        named: &named,
        told: told.as_ref(),
    };
    let crossed = Crossed::of(snapshot.northbound, intent, &rows);
    if !crossed.is_empty() {
        // One of its NICs requests what another has: where that one gives it up at the same time, they exchange it.
        let exchange = decide_ports(view(true), intent, &rows);
        let granted = crossed.is_granted(&exchange.status);
        if !exchange.waits.batch && granted && share_nothing(&rows, &exchange.rows) {
            return exchange;
        }
    }
    decide_ports(view(false), intent, &rows)
}

/// Decides for all ports of a VM, one after the other.
fn decide_ports<'a>(mut view: View<'a>, intent: &'a VmIntent, rows: &VmRows<'a, '_>) -> Decision {
    let mut decided = Decision::default();
    let mut taken = Vec::new();
    for nic in &intent.ports {
        let names = nic.names();
        let port = view.port_of(intent, nic, &names, rows, &taken);
        taken.extend(port.map(|port| port.uuid));
        let mut port = view.decide_nic(intent, nic, &names, port);
        view.own.extend(std::mem::take(&mut port.claims));
        decided.take(port);
    }
    taken.sort_unstable();
    left_over(&view, intent, rows, &taken).into_iter().for_each(|port| decided.take(port));
    if !decided.status.is_empty() {
        decided.status.extend(of_the_whole(intent));
    }
    decided.waits.northd |= decided.rows.iter().any(PortChange::collapses);
    decided.claims = view.own;
    decided
}

/// Decides for the VM's rows that no NIC has `taken`.
fn left_over<'a>(view: &View<'a>, intent: &VmIntent, rows: &VmRows<'a, '_>, taken: &[Uuid]) -> Vec<PortDecision> {
    let runs = intent.ports.iter().any(|nic| nic.life.has_guest());
    let mut networks: Vec<&str> = intent.ports.iter().map(|nic| nic.network.as_str()).collect();
    networks.sort_unstable();
    let mut left = Vec::new();
    for (network, port) in rows.all().filter(|(_, port)| taken.binary_search(&port.uuid).is_err()) {
        if networks.binary_search(&network).is_ok() || view.snapshot.may_be_anothers(&intent.vm, &port) {
            // Somebody copied our marks onto another row: it goes with the VM, and not before.
            continue;
        }
        left.push(match &intent.untouched {
            // What a guest runs on may be a row whose mark is lost.
            Some(untouched) if !(untouched.contains(network) || network.is_empty() && runs) => {
                PortDecision::removal(port)
            }
            // Where a guest may run, and which VM the port belongs to, holds for ports that stay, too.
            _ => view.keep(intent, port, None, report_of(view.northbound(), network, port), Remarks::default()),
        });
    }
    left
}

impl Decision {
    /// Adds what is decided for one port.
    fn take(&mut self, port: PortDecision) {
        let PortDecision { change, report, remarks: Remarks { problems: _, wakes, batch, northd }, claims: _ } = port;
        self.rows.extend(change.filter(|change| !change.is_empty()));
        self.status.extend(report);
        self.waits.wakes.extend(wakes);
        self.waits.batch |= batch;
        self.waits.northd |= northd;
    }
}

/// What is wrong with a VM as a whole, for one that has a NIC of ours: the others are not ours to judge.
fn of_the_whole(intent: &VmIntent) -> Option<PortReport> {
    let VmIntent { invalid, unserved, unmatched, misplaced, .. } = intent;
    let mut problems: Vec<Problem> = invalid.iter().cloned().map(Problem::Invalid).collect();
    problems.extend((!intent.selected).then(|| Problem::NamespaceNotSelected(intent.vm.namespace.clone())));
    problems.extend((!unserved.is_empty()).then(|| Problem::Unserved(unserved.clone())));
    problems.extend((!unmatched.is_empty()).then(|| Problem::Unmatched(unmatched.clone())));
    problems.extend(misplaced.iter().cloned().map(Problem::Misplaced));
    (!problems.is_empty()).then(|| PortReport { problems, ..PortReport::default() })
}

/// An object that cannot be read is a problem of the VM as a whole.
fn unreadable(objects: &VmObjects) -> Option<PortReport> {
    let of_run = objects.run.as_ref().and_then(|run| run.template.as_ref().err());
    let of_vm = objects.vm.as_ref().and_then(|vm| vm.template.as_ref().err());
    let error = of_vm.or(of_run)?;
    Some(PortReport::of_vm(Problem::Unreadable(error.clone())))
}
