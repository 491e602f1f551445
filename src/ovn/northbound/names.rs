//! The names of VMs in the northbound: the rows of `DNS`, which are read only where names are written.

use uuid::Uuid;

use super::Northbound;
use crate::ovn::marks::is_marked;
use crate::ovn::naming::NameChanges;
use crate::ovn::rows::{Dns, LogicalSwitch};
use crate::ovsdb::Row;

impl Northbound {
    /// The replica reads the names, too.
    #[must_use]
    pub fn with_names(self) -> Self {
        Self { reads_names: true, ..self }
    }

    /// Returns true if a column is read only where names are written.
    pub(super) fn is_for_names(table: &str, column: &str) -> bool {
        table == Dns::TABLE.name || table == LogicalSwitch::TABLE.name && column == "dns_records"
    }

    /// Begins to note the changes that names depend on, or ends it.
    pub fn track_names(&mut self, tracks: bool) {
        self.index.names = tracks.then(NameChanges::default);
    }

    /// The changes since the last call of `take_name_changes`; `None` while they are not noted.
    pub fn name_changes(&self) -> Option<&NameChanges> {
        self.index.names.as_ref()
    }

    /// Takes the changes since the last call.
    pub fn take_name_changes(&mut self) -> NameChanges {
        self.index.names.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A row of `DNS`.
    pub fn dns(&self, uuid: &Uuid) -> Option<&Dns> {
        self.dns.get(uuid)
    }

    /// The rows of `DNS` with the marks of this instance. It scans the table.
    pub fn own_dns(&self) -> impl Iterator<Item = Uuid> {
        let rows = self.dns.iter().filter(|(_, row)| is_marked(&row.external_ids, &self.index.instance));
        rows.map(|(uuid, _)| *uuid)
    }

    /// Returns true if a row has the marks of this instance.
    pub fn is_own_dns(&self, row: &Dns) -> bool {
        is_marked(&row.external_ids, &self.index.instance)
    }

    /// Returns true if the server's schema has `DNS:options` (OVN 24.03).
    pub fn has_dns_options(&self) -> bool {
        self.has_dns_options
    }
}

/// Puts rows in place without a server, for the tests of the pure core.
#[cfg(test)]
impl Northbound {
    pub(crate) fn put_dns(&mut self, uuid: Uuid, row: Option<Dns>) {
        let Self { dns, index, .. } = self;
        let watcher = &mut crate::ovn::naming::DnsWatcher(index);
        match row {
            Some(row) => dns.put(uuid, row, watcher),
            None => dns.remove(uuid, watcher),
        }
    }

    pub(crate) fn with_dns_options(self) -> Self {
        Self { has_dns_options: true, ..self }
    }

    /// The rows of `DNS`, with their UUIDs.
    pub(crate) fn all_dns(&self) -> impl Iterator<Item = (&Uuid, &Dns)> {
        self.dns.iter()
    }
}
