//! The consequences of a transaction's outcome.

use tokio::time::Instant;

use super::batch::{Batch, Flight, Planned, Record};
use super::{FIRST_RETRY, LAST_RETRY, Retry, UNKNOWN_BEFORE_PARTS, Writer};
use crate::contract::{VmKey, keys};
use crate::controller::reporter::Subject;
use crate::ovsdb::{Outcome, RejectionKind};
use crate::plan::{DhcpChange, Placed, PortChange, Problem, RouterPortChange, RowChange};

impl Writer {
    /// Takes in the answer to the transaction in flight, and sends the next if it is prepared. The answered one has to
    /// be finished after that.
    pub(super) fn answered(&mut self, outcome: &Outcome) -> Option<Batch> {
        // The reader applies a transaction's changes before it delivers the answer.
        self.take_northbound_changes();
        // Changes that have arrived go before the prepared transaction: a migration waits for one transaction, never
        // for two.
        if let Ok(change) = self.changes.try_recv() {
            self.take_changes(change);
        }
        let Flight { batch, sent, .. } = self.in_flight.take()?;
        self.counts.ended(outcome, self.is_repeated(outcome, &batch.vms), sent.elapsed());
        let clean = matches!(outcome, Outcome::Committed { missed, .. } if missed.is_empty());
        if !clean {
            // It was prepared for another outcome.
            self.pipeline.drop_prepared();
        }
        self.pipeline.answered();
        if clean && let Some(office) = self.office().filter(|_| self.can_plan()) {
            self.send_prepared(&office);
        }
        Some(batch)
    }

    /// Acts on the outcome, and records the statuses of its VMs.
    pub(super) fn finish(&mut self, outcome: Outcome, batch: Batch) {
        if matches!(outcome, Outcome::Committed { .. } | Outcome::Rejected(_) | Outcome::Raced) {
            self.unknown_in_a_row = 0;
        }
        let Batch { office, vms, owners, part, sync, collected, .. } = batch;
        if !matches!(outcome, Outcome::Committed { .. }) {
            vms.iter().for_each(|planned| self.wait_again(planned));
        }
        match outcome {
            Outcome::Committed { results: _, missed } => {
                collected.iter().for_each(log_dhcp);
                self.committed(vms, &owners, &missed, sync);
            }
            Outcome::Fenced => {
                office.lose();
                vms.into_iter().for_each(|planned| self.dirty(planned.vm));
            }
            Outcome::Raced if vms.is_empty() => tracing::debug!("a port refers to DHCP options that were unused"),
            Outcome::Raced => {
                tracing::debug!(vms = vms.len(), "another instance took addresses meanwhile; deciding again");
                vms.into_iter().for_each(|planned| self.dirty(planned.vm));
            }
            Outcome::NotSent => vms.into_iter().for_each(|planned| self.dirty(planned.vm)),
            Outcome::Unknown(reason) => {
                // The link raises the epoch and syncs again before the next decision.
                tracing::warn!(
                    vms = vms.len(),
                    reason,
                    "the outcome of a transaction is unknown; looking again after the next sync"
                );
                self.unknown_in_a_row += 1;
                self.settling.forget();
                let keys = vms.into_iter().map(|planned| planned.vm);
                if !part && self.unknown_in_a_row < UNKNOWN_BEFORE_PARTS {
                    keys.for_each(|vm| self.dirty(vm));
                } else if let Some(vm) = self.pipeline.refused(keys.collect(), None) {
                    // The database, and not the network, may have ended the connection because of this VM.
                    self.refused(vm, &format!("the connection broke when its port was written: {reason}"));
                }
            }
            // The server may repeat a transaction by itself after a change of its cluster's leader, and find its own
            // first rows: it is done, and the VMs are decided again.
            ref rejected if self.is_repeated(rejected, &vms) => {
                vms.into_iter().for_each(|planned| self.dirty(planned.vm));
            }
            Outcome::Rejected(rejection) => {
                let culprit = rejection.operation.and_then(|operation| owners.get(operation));
                let culprit = culprit.and_then(|owner| vms.get(*owner)).map(|planned| planned.vm.clone());
                let keys = vms.into_iter().map(|planned| planned.vm).collect();
                if let Some(vm) = self.pipeline.refused(keys, culprit.as_ref()) {
                    self.refused(vm, &rejection.to_string());
                }
            }
        }
    }

    /// The transaction is committed: records the statuses, and marks VMs that are to be decided again.
    fn committed(&mut self, mut vms: Vec<Planned>, owners: &[usize], missed: &[usize], sync: bool) {
        let rows: usize = vms.iter().map(|planned| planned.changes.len()).sum();
        let now = Instant::now();
        self.counts.rows.observe(rows as f64);
        tracing::debug!(rows, operations = owners.len(), "transaction committed");
        for planned in &mut vms {
            self.retries.remove(&planned.vm);
        }
        if sync {
            let collapsed = vms.iter().flat_map(|planned| &planned.changes).filter(|change| change.collapses());
            self.settling.committed(self.northbound.read().nb_cfg(), collapsed.map(RowChange::uuid));
        }
        for index in missed {
            // The row was deleted before the write: the VM is decided again.
            if let Some(planned) = owners.get(*index).and_then(|owner| vms.get_mut(*owner)) {
                planned.again = true;
                planned.record = None;
            }
        }
        for Planned { vm, again, changes, record, since, .. } in vms {
            if let Some(event) = since.and_then(|since| since.event).filter(|_| !changes.is_empty()) {
                self.counts.event_to_commit.observe(now.saturating_duration_since(event).as_secs_f64());
            }
            for change in &changes {
                log_change(&vm, change);
                change.as_port().into_iter().for_each(|port| self.migrations.committed(&vm, port, now));
            }
            record.into_iter().for_each(|record| self.record(&vm, record));
            if self.lost.has(&vm) {
                // It has its row again.
                self.look_for_lost(&vm);
            }
            if again {
                self.dirty(vm);
            }
        }
    }

    /// Returns true if the server found the transaction's own rows: it is refused, and every new row exists.
    fn is_repeated(&self, outcome: &Outcome, vms: &[Planned]) -> bool {
        let Outcome::Rejected(rejection) = outcome else { return false };
        if rejection.kind != RejectionKind::DuplicateUuid {
            return false;
        }
        let view = self.northbound.read();
        let mut made = vms.iter().flat_map(|planned| &planned.changes).filter(|change| change.creates());
        made.all(|change| change.is_present(&view))
    }

    /// The server refused a VM's own transaction: its owner gets a problem, and it is tried again later.
    fn refused(&mut self, vm: VmKey, rejection: &str) {
        let delay = self.retries.get(&vm).map_or(FIRST_RETRY, |retry| (retry.delay * 2).min(LAST_RETRY));
        tracing::warn!(%vm, error = rejection, retry_in = ?delay, "the northbound database refused the port");
        self.retries.insert(vm.clone(), Retry { at: Instant::now() + delay, delay });
        self.backlog.take(&vm);
        let Some(objects) = self.cluster.vm(&vm) else { return };
        let subject = Subject::of(&vm, objects);
        let mut status = crate::plan::present(&self.northbound.read(), &vm);
        status.problems.push(Problem::Rejected(rejection.to_owned()));
        self.record(&vm, Record::Status(subject, status));
    }
}

/// Returns true if a port is retained: its VM is gone, and its addresses are reserved.
pub(super) fn is_retained(placed: &Placed) -> bool {
    placed.row.external_ids.get(keys::RETAINED_UNTIL).is_some()
}

/// Logs one line for each decision.
fn log_change(vm: &VmKey, change: &RowChange) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    match change {
        RowChange::Port(change) => log_port(vm, change),
        RowChange::RouterPort(RouterPortChange { uuid: _, name, add }) => {
            let keys = add.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
            tracing::info!(
                namespace = vm.namespace,
                vm = vm.name,
                router_port = name,
                keys,
                "router advertises itself"
            );
        }
        RowChange::Dhcp(_) => log_dhcp(change),
    }
}

fn log_dhcp(change: &RowChange) {
    let RowChange::Dhcp(DhcpChange { uuid, before, after }) = change else { return };
    let Some(row) = after.as_ref().or(before.as_ref()) else { return };
    let switch = row.external_ids.get(keys::DHCP_SWITCH).unwrap_or_default();
    let line = match (before, after) {
        (None, _) => "DHCP options made",
        (Some(_), Some(_)) => "DHCP options restored: another program had edited them",
        (Some(_), None) => "DHCP options deleted: no port refers to them",
    };
    tracing::info!(row = %uuid, switch, cidr = row.cidr, "{line}");
}

fn log_port(vm: &VmKey, change: &PortChange) {
    let row = change.after.as_ref().or(change.before.as_ref()).map(|placed| &placed.row);
    let Some(row) = row else { return };
    let addresses = row.addresses.iter().collect::<Vec<_>>().join(", ");
    let chassis = row.options.get(keys::REQUESTED_CHASSIS).unwrap_or_default();
    let line = match (&change.before, &change.after) {
        (None, _) => "port made",
        (Some(before), Some(after)) if is_retained(after) && !is_retained(before) => "port retained: its VM is gone",
        (Some(_), Some(_)) => "port changed",
        (Some(_), None) => "port released",
    };
    tracing::info!(namespace = vm.namespace, vm = vm.name, port = row.name, addresses, chassis, "{line}");
}
