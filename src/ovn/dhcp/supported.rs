//! The southbound's own tables of DHCP options: what its version of OVN supports.

use serde::de::MapAccess;

use super::table::{Family, OptionTable};
use crate::ovn::rows::{SupportedDhcpv4Option, SupportedDhcpv6Option};
use crate::ovsdb::{Row, Table, TableSpec, Unwatched};

/// The rows, and the table that is made of them.
#[derive(Debug, Default)]
pub(in crate::ovn) struct SupportedOptions {
    v4: Table<SupportedDhcpv4Option>,
    v6: Table<SupportedDhcpv6Option>,
    table: OptionTable,
    /// Rows have changed since the last [`SupportedOptions::settle`].
    changed: bool,
}

impl SupportedOptions {
    pub(in crate::ovn) const OPTIONAL: [TableSpec; 2] = [SupportedDhcpv4Option::TABLE, SupportedDhcpv6Option::TABLE];

    /// The options; those that are built in as long as there are no rows.
    pub(in crate::ovn) fn table(&self) -> &OptionTable {
        &self.table
    }

    pub(in crate::ovn) fn begin_dump(&mut self) {
        self.v4.begin_dump();
        self.v6.begin_dump();
    }

    pub(in crate::ovn) fn end_dump(&mut self) {
        self.v4.end_dump(&mut Unwatched);
        self.v6.end_dump(&mut Unwatched);
        self.changed = true;
    }

    pub(in crate::ovn) fn apply_v4<'de, A: MapAccess<'de>>(&mut self, updates: A) -> Result<(), A::Error> {
        self.changed = true;
        self.v4.apply(updates, &mut Unwatched)
    }

    pub(in crate::ovn) fn apply_v6<'de, A: MapAccess<'de>>(&mut self, updates: A) -> Result<(), A::Error> {
        self.changed = true;
        self.v6.apply(updates, &mut Unwatched)
    }

    /// Evaluates an update after its last row. Returns true if other options are supported now.
    pub(in crate::ovn) fn settle(&mut self) -> bool {
        if !std::mem::take(&mut self.changed) {
            return false;
        }
        let v4 = self.v4.iter().map(|(_, row)| (Family::V4, row.name.as_str(), row.kind.as_str()));
        let v6 = self.v6.iter().map(|(_, row)| (Family::V6, row.name.as_str(), row.kind.as_str()));
        let table = OptionTable::of_southbound(v4.chain(v6));
        let is_other = table != self.table;
        self.table = table;
        is_other
    }
}
