//! The decision for one VM.

use uuid::Uuid;

use super::advertising::Advertising;
use super::change::RowChange;
use super::claims::Claims;
use super::port::{PortDecision, status_of};
use super::problem::Problem;
use super::remarks::Remarks;
use super::retention::Release;
use super::siblings::{Crossed, Named, share_nothing};
use super::snapshot::Snapshot;
use super::status::{PortStatus, VmStatus};
use super::switches::with_switches_there;
use super::view::View;
use super::vm_rows::VmRows;
use crate::contract::VmKey;
use crate::intent::{Placement, Seat, VmIntent};
use crate::kubevirt::VmObjects;
use crate::ovn::{Addresses, Northbound, Wake};

/// The decision for one VM: rows to write, and the status for its owner.
#[derive(Debug, Default)]
pub struct Decision {
    /// Changes of rows; empty ones are left out.
    pub rows: Vec<RowChange>,
    /// The status of the VM once the rows are written.
    pub status: VmStatus,
    /// When to decide again.
    pub waits: Waits,
    /// The addresses, MACs and names that it claims.
    pub claims: Claims,
}

/// The conditions on which a VM is decided again.
#[derive(Debug, Default)]
pub struct Waits {
    /// Changes in the databases.
    pub wakes: Vec<Wake>,
    /// It conflicts with another VM of the same transaction, and is decided again after that transaction.
    pub batch: bool,
    /// Raise `NB_Global:nb_cfg` with its changes, or alone: northd's progress matters.
    pub northd: bool,
    /// In seconds since the epoch.
    pub due: Option<i64>,
}

/// Decides for a VM, which may have been deleted: its rows, its status and its waits. `claims` holds the claims that
/// the transaction has granted to other VMs.
pub fn decide(snapshot: &Snapshot<'_>, claims: &Claims, vm: &VmKey) -> Decision {
    match snapshot.objects(vm) {
        Some(objects) => decide_for(snapshot, claims, vm, objects),
        None => released(snapshot, vm),
    }
}

/// Decides for a VM as if it had these objects in Kubernetes.
pub fn decide_for(snapshot: &Snapshot<'_>, claims: &Claims, vm: &VmKey, objects: &VmObjects) -> Decision {
    let is_selected = snapshot.cluster.namespace(&vm.namespace).is_some();
    // The annotation of a VM without ports here may belong to a namesake that is served on another database.
    if !is_selected && snapshot.northbound.ports_of(vm).next().is_none() {
        return Decision::default();
    }
    let intent = snapshot.intent_of(vm, objects);
    let mut decision = decide_intent(snapshot, claims, &intent, Some(objects));
    decision.status.problems.extend(unreadable(objects));
    decision
}

/// Gives the status of a VM as its rows alone tell it.
pub fn present(northbound: &Northbound, vm: &VmKey) -> VmStatus {
    let ports = northbound.ports_of(vm).map(|(network, port)| status_of(northbound, network, port)).collect();
    VmStatus { ports, ..VmStatus::default() }
}

fn released(snapshot: &Snapshot<'_>, vm: &VmKey) -> Decision {
    let Release { changes, due, wakes } = snapshot.release(vm);
    let rows = changes.into_iter().map(RowChange::Port).collect();
    Decision { rows, waits: Waits { due, wakes, ..Waits::default() }, ..Decision::default() }
}

/// Decides for a VM from its intent and its objects in Kubernetes.
pub(super) fn decide_intent(
    snapshot: &Snapshot<'_>,
    claims: &Claims,
    intent: &VmIntent,
    objects: Option<&VmObjects>,
) -> Decision {
    let rows = VmRows::new(snapshot.northbound, intent);
    let told = objects.and_then(|objects| snapshot.told_where_it_matters(intent, objects, &rows));
    let there = with_switches_there(snapshot.northbound, intent, &rows, told.as_ref());
    let intent = there.as_ref().unwrap_or(intent);
    let rows = VmRows::new(snapshot.northbound, intent);
    let mut siblings: Vec<Uuid> = rows.all().map(|(_, port)| port.uuid).collect();
    siblings.sort_unstable();
    let named = Named::by(snapshot.northbound, intent, &rows);
    let alone = Claims::default();
    let view = |claims, exchanging| View {
        snapshot,
        vm: &intent.vm,
        objects,
        batch: claims,
        own: Claims::default(),
        siblings: &siblings,
        exchanging,
        named: &named,
        told: told.as_ref(),
        guests: Vec::new(),
    };
    let crossed = Crossed::of(snapshot.northbound, intent, &rows);
    if !crossed.is_empty() {
        // A NIC requests a claim that another NIC of the VM holds. If the other releases it at the same time, they
        // exchange.
        let is_possible = |exchange: &Decision| {
            !exchange.waits.batch && crossed.is_granted(&exchange.status.ports) && share_nothing(&rows, &exchange.rows)
        };
        let exchange = decide_ports(view(claims, true), intent, &rows);
        if is_possible(&exchange) {
            return exchange;
        }
        let in_the_way = exchange.waits.batch && is_possible(&decide_ports(view(&alone, true), intent, &rows));
        let mut decision = decide_ports(view(claims, false), intent, &rows);
        // The transaction determines if they exchange.
        decision.waits.batch |= in_the_way;
        return decision;
    }
    decide_ports(view(claims, false), intent, &rows)
}

/// Decides for all ports of a VM in order.
fn decide_ports<'a>(mut view: View<'a>, intent: &'a VmIntent, rows: &VmRows<'a, '_>) -> Decision {
    let mut decided = Decision::default();
    let mut taken = Vec::new();
    for nic in &intent.ports {
        let names = view.names_of(nic);
        let port = view.port_of(intent, nic, &names, rows, &taken);
        taken.extend(port.map(|port| port.uuid));
        let mut port = view.decide_nic(intent, nic, &names, port);
        view.own.extend(std::mem::take(&mut port.claims));
        if let Some(status) = &mut port.status {
            status.nads.clone_from(&nic.nads);
            status.coming = nic.seat == Seat::Coming;
            let of_guest = status.guest.as_ref().and_then(|guest| guest.addresses.parse().ok()).or(status.addresses);
            let Advertising { change, problem } = view.advertise(status);
            status.problems.extend(problem);
            if let Some(change) = change {
                view.own.add_router_port(change.uuid());
                decided.rows.push(change);
            }
            let is_to_move = |_: &Addresses| nic.seat == Seat::Left;
            view.guests.extend(of_guest.filter(is_to_move).map(|it| (nic.network.as_str(), it.mac)));
        }
        decided.take(port);
        decided.waits.wakes.extend(nic.life.has_dhcp_options().then_some(Wake::DhcpOptions));
    }
    taken.sort_unstable();
    let (left, strays) = left_over(&view, intent, rows, &taken, &decided.status.ports);
    left.into_iter().for_each(|port| decided.take(port));
    decided.status.strays = strays;
    if !decided.status.is_empty() {
        // Other VMs are outside our scope.
        decided.status.problems = of_the_whole(intent);
        decided.status.problems.extend(view.retains_too_long(intent));
    }
    decided.waits.northd |= decided.rows.iter().any(RowChange::collapses);
    decided.claims = view.own;
    decided
}

/// Decides for the VM's rows that are not in `taken`, the rows of its NICs. True if rows with marks of the VM are left alone.
fn left_over<'a>(
    view: &View<'a>,
    intent: &VmIntent,
    rows: &VmRows<'a, '_>,
    taken: &[Uuid],
    decided: &[PortStatus],
) -> (Vec<PortDecision>, bool) {
    let runs = intent.ports.iter().any(|nic| nic.life.has_guest());
    let mut networks: Vec<&str> = intent.ports.iter().map(|nic| nic.network.as_str()).collect();
    networks.sort_unstable();
    let (mut left, mut strays) = (Vec::new(), false);
    for (network, port) in rows.all().filter(|(_, port)| taken.binary_search(&port.uuid).is_err()) {
        if networks.binary_search(&network).is_ok() {
            if view.is_left_behind(intent, rows, (network, &port), decided) {
                left.push(PortDecision::removal(port));
                continue;
            }
            // A copy of our marks on another row: the row is deleted with the VM, not earlier.
            strays = true;
            continue;
        }
        if view.snapshot.may_be_anothers(&intent.vm, &port) {
            strays = true;
            let (change, wakes) = view.snapshot.decide_stray(&intent.vm, port);
            let remarks = Remarks { wakes, ..Remarks::default() };
            left.push(PortDecision { change, remarks, ..PortDecision::default() });
            continue;
        }
        // Without a list of the NICs, only one row of a network can be the guest's, and none is moved.
        let is_one_of_several = intent.untouched.is_none() && rows.of(network).nth(1).is_some();
        let placement = intent.apart.get(network).unwrap_or(&intent.placement);
        let placement = if is_one_of_several { &Placement::Keep } else { placement };
        left.push(match &intent.untouched {
            // A guest may be using a row that lost its mark.
            Some(untouched) if !(untouched.contains(network) || network.is_empty() && runs) => {
                PortDecision::removal(port)
            }
            // Chassis binding and the marks of the VM apply to ports that stay, too.
            _ => {
                let status = status_of(view.northbound(), network, port);
                view.keep(intent, (port, placement), None, status, Remarks::default())
            }
        });
    }
    (left, strays)
}

impl Decision {
    /// Adds the decision for one port.
    fn take(&mut self, port: PortDecision) {
        let PortDecision { change, dhcp, status, remarks: Remarks { problems: _, wakes, batch, northd }, claims: _ } =
            port;
        self.rows.extend(dhcp.into_iter().map(RowChange::Dhcp));
        self.rows.extend(change.filter(|change| !change.is_empty()).map(RowChange::Port));
        self.status.ports.extend(status);
        self.waits.wakes.extend(wakes);
        self.waits.batch |= batch;
        self.waits.northd |= northd;
    }
}

/// Collects the problems of a VM as a whole.
fn of_the_whole(intent: &VmIntent) -> Vec<Problem> {
    let VmIntent { invalid, unserved, unmatched, misplaced, .. } = intent;
    let mut problems: Vec<Problem> = invalid.iter().cloned().map(Problem::Invalid).collect();
    problems.extend((!intent.selected).then(|| Problem::NamespaceNotSelected(intent.vm.namespace.clone())));
    problems.extend((!unserved.is_empty()).then(|| Problem::Unserved(unserved.clone())));
    problems.extend((!unmatched.is_empty()).then(|| Problem::Unmatched(unmatched.clone())));
    problems.extend(misplaced.iter().cloned().map(Problem::Misplaced));
    problems
}

/// An object that cannot be read is a problem of the VM as a whole.
fn unreadable(objects: &VmObjects) -> Option<Problem> {
    let of_run = objects.run.as_ref().and_then(|run| run.template.as_ref().err());
    let of_vm = objects.vm.as_ref().and_then(|vm| vm.template.as_ref().err());
    of_vm.or(of_run).cloned().map(Problem::Unreadable)
}
