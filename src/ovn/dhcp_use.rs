//! The use of the rows of `DHCP_Options`: the ports that refer to each, the rows of ours without any, and those that
//! another program has edited.

use uuid::Uuid;

use super::rows::LogicalSwitchPort;
use crate::hash::{FastMap, FastSet};

/// The rows of `DHCP_Options` by their use.
#[derive(Debug, Default)]
pub(super) struct DhcpUse {
    /// The number of ports that refer to a row of any owner.
    users: FastMap<Uuid, u32>,
    /// Rows of ours.
    ours: FastSet<Uuid>,
    /// Rows of ours to which no port refers.
    unused: FastSet<Uuid>,
    /// Rows of ours that another program has edited, since they were last taken.
    drifted: FastSet<Uuid>,
}

impl DhcpUse {
    /// A port refers to its rows.
    pub(super) fn refer(&mut self, port: &LogicalSwitchPort) {
        for row in port.dhcp_rows() {
            *self.users.entry(row).or_default() += 1;
            self.unused.remove(&row);
        }
    }

    /// A port refers to them no more.
    pub(super) fn release(&mut self, port: &LogicalSwitchPort) {
        for row in port.dhcp_rows() {
            let Some(users) = self.users.get_mut(&row) else { continue };
            *users -= 1;
            if *users == 0 {
                self.users.remove(&row);
                if self.ours.contains(&row) {
                    self.unused.insert(row);
                }
            }
        }
    }

    /// A row of ours is added.
    pub(super) fn enter(&mut self, row: Uuid) {
        self.ours.insert(row);
        if !self.users.contains_key(&row) {
            self.unused.insert(row);
        }
    }

    /// A row of ours is removed, or has lost its marks.
    pub(super) fn leave(&mut self, row: Uuid) {
        self.ours.remove(&row);
        self.unused.remove(&row);
    }

    /// Another program has edited a row of ours.
    pub(super) fn drift(&mut self, row: Uuid) {
        self.drifted.insert(row);
    }

    /// Takes the rows of ours that other programs have edited.
    pub(super) fn take_drifted(&mut self) -> FastSet<Uuid> {
        std::mem::take(&mut self.drifted)
    }

    /// Returns true if a row is ours.
    pub(super) fn is_ours(&self, row: &Uuid) -> bool {
        self.ours.contains(row)
    }

    /// The rows of ours to which no port refers.
    pub(super) fn unused(&self) -> impl Iterator<Item = Uuid> {
        self.unused.iter().copied()
    }

    /// The number of ports that refer to a row.
    pub(super) fn users(&self, row: &Uuid) -> u32 {
        self.users.get(row).copied().unwrap_or_default()
    }
}
