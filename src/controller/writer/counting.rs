//! The writer's part in the metrics. No decision depends on it.

use tokio::time::Instant;

use super::batch::Planned;
use super::{Role, Writer};
use crate::contract::VmKey;
use crate::controller::migrations::Ports;
use crate::kubevirt::VmObjects;

impl Writer {
    /// Publishes the number of VMs that wait, and since when the first of them does.
    pub(super) fn tell_queue(&self) {
        let flight = self.in_flight.as_ref();
        let vms = self.backlog.len() + flight.map_or(0, |flight| flight.batch.vms.len());
        let oldest = flight.and_then(|flight| flight.oldest).into_iter().chain(self.backlog.oldest()).min();
        self.counts.queue(vms, oldest);
    }

    /// A VM in a transaction that is not committed waits again, since as long ago as before.
    pub(super) fn wait_again(&mut self, planned: &Planned) {
        // Without a sweep it is not queued again.
        if let Some(since) = planned.since.filter(|_| self.swept.is_some()) {
            self.backlog.enter(&planned.vm, since);
        }
    }

    /// Follows the live migration of a VM after a watch event, which arrived at `at`.
    pub(super) fn look_at_migration(&mut self, vm: &VmKey, at: Option<Instant>) {
        if self.swept != Some(Role::Leads) {
            return;
        }
        let ports = Ports::of(&self.northbound.read(), vm);
        let two = self.multichassis.is_some_and(|present| present >= self.settings.strategy.needs());
        self.migrations.look(vm, self.cluster.vm(vm), (ports, two), at);
    }

    /// Updates all live migrations: as this process begins to lead, and as the database can be read again. A transaction
    /// whose outcome was unknown may have ended one.
    pub(super) fn look_at_migrations(&mut self) {
        let migrates =
            |vm: &&VmKey| self.cluster.vm(vm).is_some_and(VmObjects::is_migrating) || self.migrations.has(vm);
        let migrating: Vec<VmKey> = self.cluster.vms().filter(migrates).cloned().collect();
        migrating.iter().for_each(|vm| self.look_at_migration(vm, None));
    }
}
