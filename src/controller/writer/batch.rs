//! One transaction: its VMs, their changes of rows, and the bytes for the server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use crate::contract::{VmKey, keys};
use crate::controller::backlog::Since;
use crate::controller::link::Office;
use crate::controller::reporter::Subject;
use crate::hash::FastMap;
use crate::ovn::{Changes, LogicalSwitchPort, NbGlobal, Northbound};
use crate::ovsdb::{Condition, Datum, Draft, Function, Mutation, Mutator, Operation, Outcome, Row, Until};
use crate::plan::{DhcpChange, Expectation, Freed, OfKeys, RowChange, VmStatus};

/// The rows of a transaction. Larger transactions take longer for each row, as measured with ports (1,000: 20k/s,
/// 100: 26k/s).
const ROWS: usize = 100;

/// The VMs of one transaction, and the actions for its outcome.
pub(super) struct Batch {
    /// The office with the epoch that fences it.
    pub(super) office: Arc<Office>,
    pub(super) vms: Vec<Planned>,
    places: FastMap<VmKey, usize>,
    /// Rows of `DHCP_Options` that are deleted, in a transaction without VMs.
    pub(super) collected: Vec<RowChange>,
    /// Rows of `DHCP_Options` that it makes.
    dhcp_rows: Vec<Uuid>,
    /// For each operation, the index of its VM in `vms`.
    pub(super) owners: Vec<usize>,
    rows: usize,
    /// It is a part of a transaction that failed.
    pub(super) part: bool,
    /// It raises `nb_cfg`, so that northd's progress becomes visible.
    pub(super) sync: bool,
    /// The value of [`Northbound::foreign_changes`] when the first VM was decided.
    foreign_changes: u64,
    draft: Draft,
}

pub(super) struct Planned {
    pub(super) vm: VmKey,
    /// The VM is decided again after this transaction.
    pub(super) again: bool,
    pub(super) changes: Vec<RowChange>,
    /// Recorded after the commit.
    pub(super) record: Option<Record>,
    /// It waits for a change that this transaction may cause.
    pub(super) waits: bool,
    pub(super) expectation: Expectation,
    /// Since when it has waited; set when it goes into flight.
    pub(super) since: Option<Since>,
}

/// A record for the ledger.
pub(super) enum Record {
    /// The status, and the object to report it on.
    Status(Option<Subject>, VmStatus),
    /// The VM is gone, with its former ports.
    Released(Vec<LogicalSwitchPort>),
}

impl OfKeys<VmKey> for Batch {
    fn keys(&self) -> impl DoubleEndedIterator<Item = &VmKey> {
        self.vms.iter().map(|planned| &planned.vm)
    }
}

impl Batch {
    /// An empty batch, decided on this replica.
    pub(super) fn new(office: &Arc<Office>, view: &Northbound, part: bool) -> Self {
        Self {
            office: Arc::clone(office),
            vms: Vec::new(),
            places: FastMap::default(),
            collected: Vec::new(),
            dhcp_rows: Vec::new(),
            owners: Vec::new(),
            rows: 0,
            part,
            sync: false,
            foreign_changes: view.foreign_changes(),
            draft: office.connection.draft(Some(&office.epoch.fence)),
        }
    }

    /// Returns true if there is room for another VM after this many more rows.
    pub(super) fn has_room_after(&self, rows: usize) -> bool {
        self.rows + rows < ROWS
    }

    /// The VM that was added first.
    pub(super) fn first(&self) -> Option<&VmKey> {
        self.vms.first().map(|planned| &planned.vm)
    }

    /// Returns true if there is no operation to send.
    pub(super) fn is_empty(&self) -> bool {
        self.draft.is_empty() && !self.sync
    }

    /// Returns true if only our rows have changed since it was decided.
    pub(super) fn is_of(&self, view: &Northbound) -> bool {
        self.foreign_changes == view.foreign_changes()
    }

    /// Returns true if it may be sent: only our rows have changed, and none that it makes is there by now. The rows of
    /// `DHCP_Options` are shared, so another transaction may have made one.
    pub(super) fn is_right(&self, view: &Northbound) -> bool {
        self.is_of(view) && self.dhcp_rows.iter().all(|row| view.dhcp_row(row).is_none())
    }

    /// All its changes.
    pub(super) fn changes(&self) -> impl Iterator<Item = &RowChange> {
        self.vms.iter().flat_map(|planned| &planned.changes).chain(&self.collected)
    }

    /// Deletes a row of `DHCP_Options`, unless a port refers to it by then: the transaction fails as a whole.
    pub(super) fn collect(&mut self, change: DhcpChange) {
        change.guards().iter().for_each(|guard| self.draft.guard(guard));
        change.operations().iter().for_each(|operation| self.draft.push(operation));
        self.collected.push(change.into());
    }

    /// Adds a VM with its changes.
    pub(super) fn add(&mut self, planned: Planned) {
        let place = self.vms.len();
        for operation in planned.changes.iter().flat_map(RowChange::operations) {
            self.draft.push(&operation);
            self.owners.push(place);
        }
        self.rows += planned.changes.len();
        let made = planned.changes.iter().filter(|change| change.creates() && change.as_port().is_none());
        self.dhcp_rows.extend(made.map(RowChange::uuid));
        self.places.insert(planned.vm.clone(), place);
        self.vms.push(planned);
    }

    /// Returns the VMs that may wait for one of these changes. `None` if another program made one of them.
    pub(super) fn unexplained(&self, view: &Northbound, changes: &Changes) -> Option<Vec<VmKey>> {
        if !self.is_of(view) {
            return None;
        }
        let mut unexplained = Vec::new();
        for vm in &changes.vms {
            let planned = self.places.get(vm).and_then(|place| self.vms.get(*place))?;
            if !planned.expectation.is_met(view, vm, &planned.changes) {
                return None;
            }
            if planned.waits {
                unexplained.push(vm.clone());
            }
        }
        Some(unexplained)
    }

    /// Sends it.
    pub(super) fn send(mut self, view: &Northbound) -> Flight {
        if self.sync
            && let Some(global) = view.global()
        {
            self.draft.push(&raise_nb_cfg(global));
        }
        if self.changes().any(RowChange::takes_addresses) {
            view.other_instances().for_each(|instance| self.draft.guard(&addresses_stand(view, instance)));
        }
        let draft = std::mem::replace(&mut self.draft, self.office.connection.draft(None));
        let answer = Box::pin(self.office.connection.send_draft(draft));
        let freed = Freed::by(self.changes());
        Flight { answer, batch: self, freed, disturbed: false, sent: Instant::now(), oldest: None }
    }
}

/// A transaction that has been sent.
pub(super) struct Flight {
    answer: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    pub(super) batch: Batch,
    /// The addresses that it frees.
    pub(super) freed: Freed,
    /// Another program wrote in the meantime.
    pub(super) disturbed: bool,
    /// The time at which it was sent.
    pub(super) sent: Instant,
    /// The time since which the first of its VMs has waited.
    pub(super) oldest: Option<Instant>,
}

/// Waits for the transaction in flight, if there is one.
pub(super) async fn outcome(flight: &mut Option<Flight>) -> Outcome {
    match flight {
        Some(flight) => flight.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

/// A wait for the addresses of another instance's ports to be as this replica shows them. Two instances may allocate
/// the same address at the same moment, each behind its own fence: the second transaction fails, and its VMs are
/// decided again.
fn addresses_stand(view: &Northbound, instance: &str) -> Operation {
    let addresses = |row: &LogicalSwitchPort| vec![("addresses", Datum::texts(row.addresses.iter()))];
    Operation::Wait {
        table: LogicalSwitchPort::TABLE.name,
        conditions: vec![Condition {
            column: "external_ids",
            function: Function::Includes,
            value: Datum::map([(keys::INSTANCE, instance)]),
        }],
        columns: vec!["addresses"],
        until: Until::Equal,
        rows: view.marked_with(instance).map(addresses).collect(),
    }
}

/// Raises `nb_cfg` by one: northd writes it to `sb_cfg` once it has processed this transaction.
fn raise_nb_cfg(global: Uuid) -> Operation {
    let mutations = vec![Mutation { column: "nb_cfg", mutator: Mutator::Add, value: Datum::One(1_i64.into()) }];
    Operation::Mutate { table: NbGlobal::TABLE.name, uuid: global, mutations }
}
