//! The changes that the names of VMs depend on, for the task that writes them. They are noted while that task leads.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::index::Index;
use super::rows::{Dns, LogicalSwitchPort};
use crate::contract::VmKey;
use crate::hash::FastSet;
use crate::ovsdb::Watcher;

/// The changes since they were last taken.
#[derive(Debug, Default)]
pub struct NameChanges {
    /// VMs with a port of ours that came, went, moved to another switch, or has other addresses or marks.
    pub vms: BTreeSet<VmKey>,
    /// Those ports.
    pub ports: FastSet<Uuid>,
    /// Rows of `DNS`, of whatever owner.
    pub rows: BTreeSet<Uuid>,
    /// Switches that came or went, or that refer to other rows of `DNS`.
    pub switches: BTreeSet<Uuid>,
}

impl NameChanges {
    /// Returns true if nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.vms.is_empty() && self.rows.is_empty() && self.switches.is_empty()
    }
}

impl Index {
    /// Notes a port of ours.
    pub(super) fn note_names_of(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        if let Some(names) = &mut self.names
            && let Some(owner) = row.owner(&uuid, &self.instance)
        {
            names.vms.insert(owner.vm);
            names.ports.insert(uuid);
        }
    }

    /// Notes a port that has changed, if the change is one of those that names depend on.
    pub(super) fn note_names_changing(&mut self, uuid: Uuid, row: &LogicalSwitchPort, difference: &LogicalSwitchPort) {
        let LogicalSwitchPort { name, addresses, external_ids, .. } = difference;
        if let Some(names) = self.names.as_mut().filter(|_| !external_ids.map().is_empty()) {
            // It may become ours.
            names.ports.insert(uuid);
        }
        if !(name.is_empty() && addresses.is_empty() && external_ids.map().is_empty()) {
            self.note_names_of(uuid, row);
        }
    }

    /// Notes the owner that a changed port has now.
    pub(super) fn note_names_changed(&mut self, uuid: Uuid, row: &LogicalSwitchPort) {
        if self.names.as_ref().is_some_and(|names| names.ports.contains(&uuid)) {
            self.note_names_of(uuid, row);
        }
    }

    /// Notes a switch.
    pub(super) fn note_names_on(&mut self, switch: Uuid) {
        if let Some(names) = &mut self.names {
            names.switches.insert(switch);
        }
    }
}

/// Watches the rows of `DNS`.
pub(super) struct DnsWatcher<'a>(pub(super) &'a mut Index);

impl DnsWatcher<'_> {
    fn note(&mut self, uuid: Uuid) {
        if let Some(names) = &mut self.0.names {
            names.rows.insert(uuid);
        }
    }
}

impl Watcher<Dns> for DnsWatcher<'_> {
    fn added(&mut self, uuid: Uuid, _: &Dns) {
        self.note(uuid);
    }
    fn changing(&mut self, _: Uuid, _: &Dns, _: &Dns) {}
    fn changed(&mut self, uuid: Uuid, _: &Dns) {
        self.note(uuid);
    }
    fn removed(&mut self, uuid: Uuid, _: &Dns) {
        self.note(uuid);
    }
}
