//! Typed rows: one struct for each table, decoded in a single pass with only the columns in use.
//!
//! [`ovsdb_row!`](crate::ovsdb_row) declares a table once. It generates the struct, the monitor's column list, the
//! schema check, the decoder and the application of differences. No `serde_json::Value` is made on the way: at 100k
//! rows it would more than double the CPU and triple the memory.

use std::collections::hash_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use uuid::Uuid;

use super::column::{Kind, Word};
use crate::hash::{FastMap, FastSet};

/// A column's name, and the type that the schema must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The column's name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
}

/// A table and its monitored columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// The table's name.
    pub name: &'static str,
    /// The columns.
    pub columns: &'static [ColumnSpec],
}

/// The columns that a difference names: bit i for `COLUMNS[i]`.
pub type ColumnMask = u64;

/// A table's row. Implemented by [`ovsdb_row!`](crate::ovsdb_row) only.
pub trait Row: Default + PartialEq {
    /// The table and its columns.
    const TABLE: TableSpec;
    /// Decodes a row object; columns that it does not name keep their default.
    fn decode<'de, A: MapAccess<'de>>(columns: A) -> Result<(Self, ColumnMask), A::Error>;
    /// Applies a difference to the columns in the mask.
    fn apply(&mut self, difference: Self, mask: ColumnMask);
}

/// Declares the Rust type of an OVSDB table.
#[macro_export]
macro_rules! ovsdb_row {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident = $table:literal {
            $( $(#[$field_meta:meta])* $field:ident : $type:ty = $column:literal $(where $keep:path)?, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        $vis struct $name {
            $( $(#[$field_meta])* $vis $field: $type, )*
        }

        impl $crate::ovsdb::Row for $name {
            const TABLE: $crate::ovsdb::TableSpec = $crate::ovsdb::TableSpec {
                name: $table,
                columns: &[$( $crate::ovsdb::ColumnSpec {
                    name: $column,
                    kind: <$type as $crate::ovsdb::Column>::KIND,
                } ),*],
            };

            fn decode<'de, A: serde::de::MapAccess<'de>>(
                mut columns: A,
            ) -> Result<(Self, $crate::ovsdb::ColumnMask), A::Error> {
                let mut row = Self::default();
                let mut mask = 0;
                while let Some($crate::ovsdb::Word(column)) = columns.next_key()? {
                    let mut bit: $crate::ovsdb::ColumnMask = 1;
                    $(
                        if column == $column {
                            let seed = $crate::ovsdb::ColumnSeed::default()$(.keeping($keep))?;
                            row.$field = columns.next_value_seed(seed)?;
                            mask |= bit;
                            continue;
                        }
                        bit <<= 1;
                    )*
                    let _ = bit;
                    columns.next_value::<serde::de::IgnoredAny>()?;
                }
                Ok((row, mask))
            }

            fn apply(&mut self, difference: Self, mask: $crate::ovsdb::ColumnMask) {
                let mut bit: $crate::ovsdb::ColumnMask = 1;
                $(
                    if mask & bit != 0 {
                        $crate::ovsdb::Column::apply(&mut self.$field, difference.$field);
                    }
                    bit <<= 1;
                )*
                let _ = bit;
            }
        }
    };
}

/// Decodes one column's value; used by [`ovsdb_row!`](crate::ovsdb_row).
pub struct ColumnSeed<T> {
    keep: fn(&str) -> bool,
    column: PhantomData<T>,
}

impl<T> Default for ColumnSeed<T> {
    fn default() -> Self {
        Self { keep: |_| true, column: PhantomData }
    }
}

impl<T> ColumnSeed<T> {
    /// Keeps only the keys of a map for which `keep` is true.
    #[must_use]
    pub fn keeping(self, keep: fn(&str) -> bool) -> Self {
        Self { keep, ..self }
    }
}

impl<'de, T: super::column::Column> DeserializeSeed<'de> for ColumnSeed<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::decode_some(deserializer, self.keep)
    }
}

/// Receives every change of a [`Table`], so that indexes over it stay correct.
pub trait Watcher<R: Row> {
    /// A row was added.
    fn added(&mut self, uuid: Uuid, row: &R);
    /// A row is about to change by this difference.
    fn changing(&mut self, uuid: Uuid, row: &R, difference: &R);
    /// The row that was about to change has changed.
    fn changed(&mut self, uuid: Uuid, row: &R);
    /// A row was removed.
    fn removed(&mut self, uuid: Uuid, row: &R);
    /// A full dump has another row with the same UUID.
    fn replaced(&mut self, uuid: Uuid, row: &R, by: &R) {
        self.removed(uuid, row);
        self.added(uuid, by);
    }
}

/// The watcher of a table without an index.
#[derive(Debug, Default)]
pub struct Unwatched;

impl<R: Row> Watcher<R> for Unwatched {
    fn added(&mut self, _: Uuid, _: &R) {}
    fn changing(&mut self, _: Uuid, _: &R, _: &R) {}
    fn changed(&mut self, _: Uuid, _: &R) {}
    fn removed(&mut self, _: Uuid, _: &R) {}
}

/// The rows of one table.
#[derive(Debug)]
pub struct Table<R> {
    rows: FastMap<Uuid, R>,
    /// During a full dump: the former rows that it has not named yet.
    unconfirmed: FastSet<Uuid>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: FastMap::default(), unconfirmed: FastSet::default() }
    }
}

impl<R: Row> Table<R> {
    /// A row by its UUID.
    pub fn get(&self, uuid: &Uuid) -> Option<&R> {
        self.rows.get(uuid)
    }

    /// All rows, in arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = (&Uuid, &R)> {
        self.rows.iter()
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns true if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A full dump follows: rows that it does not name will be deleted.
    pub fn begin_dump(&mut self) {
        self.unconfirmed = self.rows.keys().copied().collect();
    }

    /// The dump is over.
    pub fn end_dump(&mut self, watcher: &mut impl Watcher<R>) {
        for uuid in std::mem::take(&mut self.unconfirmed) {
            self.remove(uuid, watcher);
        }
    }

    /// Inserts or replaces a row. An equal row is no change.
    pub fn put(&mut self, uuid: Uuid, row: R, watcher: &mut impl Watcher<R>) {
        if !self.unconfirmed.is_empty() {
            self.unconfirmed.remove(&uuid);
        }
        match self.rows.entry(uuid) {
            Entry::Occupied(present) if *present.get() == row => {}
            Entry::Occupied(mut present) => {
                watcher.replaced(uuid, present.get(), &row);
                present.insert(row);
            }
            Entry::Vacant(free) => watcher.added(uuid, free.insert(row)),
        }
    }

    /// Reserves capacity for this many rows in all.
    pub fn reserve(&mut self, rows: usize) {
        self.rows.reserve(rows.saturating_sub(self.rows.len()));
    }

    /// Removes a row.
    pub fn remove(&mut self, uuid: Uuid, watcher: &mut impl Watcher<R>) {
        if let Some(row) = self.rows.remove(&uuid) {
            watcher.removed(uuid, &row);
        }
    }

    fn modify(&mut self, uuid: Uuid, difference: R, mask: ColumnMask, watcher: &mut impl Watcher<R>) -> bool {
        let Some(row) = self.rows.get_mut(&uuid) else { return false };
        watcher.changing(uuid, row, &difference);
        row.apply(difference, mask);
        watcher.changed(uuid, row);
        true
    }

    /// Applies the `<table-update2>` of one table while it is decoded.
    pub fn apply<'de, A: MapAccess<'de>>(
        &mut self,
        mut updates: A,
        watcher: &mut impl Watcher<R>,
    ) -> Result<(), A::Error> {
        while let Some(uuid) = updates.next_key::<Uuid>()? {
            match updates.next_value::<RowUpdate<R>>()? {
                RowUpdate::Present(row) => self.put(uuid, row, watcher),
                RowUpdate::Gone => self.remove(uuid, watcher),
                RowUpdate::Modified(difference, mask) => {
                    if !self.modify(uuid, difference, mask, watcher) {
                        return Err(A::Error::custom(format_args!(
                            "the server modified row {uuid} of {}, which it never sent",
                            R::TABLE.name
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}

/// A `<row-update2>`.
enum RowUpdate<R> {
    Present(R),
    Modified(R, ColumnMask),
    Gone,
}

impl<'de, R: Row> Deserialize<'de> for RowUpdate<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UpdateVisitor<R>(PhantomData<R>);
        impl<'de, R: Row> Visitor<'de> for UpdateVisitor<R> {
            type Value = RowUpdate<R>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a row-update2 object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RowUpdate<R>, A::Error> {
                let mut update = None;
                while let Some(Word(kind)) = map.next_key()? {
                    update = Some(match &*kind {
                        "initial" | "insert" => RowUpdate::Present(map.next_value::<Decoded<R>>()?.row),
                        "modify" => {
                            let Decoded { row, mask } = map.next_value()?;
                            RowUpdate::Modified(row, mask)
                        }
                        "delete" => {
                            map.next_value::<IgnoredAny>()?;
                            RowUpdate::Gone
                        }
                        other => {
                            return Err(A::Error::unknown_variant(other, &["initial", "insert", "modify", "delete"]));
                        }
                    });
                }
                update.ok_or_else(|| A::Error::custom("an empty row-update2"))
            }
        }
        deserializer.deserialize_map(UpdateVisitor(PhantomData))
    }
}

struct Decoded<R> {
    row: R,
    mask: ColumnMask,
}

impl<'de, R: Row> Deserialize<'de> for Decoded<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor<R>(PhantomData<R>);
        impl<'de, R: Row> Visitor<'de> for RowVisitor<R> {
            type Value = Decoded<R>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a row of {}", R::TABLE.name)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Decoded<R>, A::Error> {
                R::decode(map).map(|(row, mask)| Decoded { row, mask })
            }
        }
        deserializer.deserialize_map(RowVisitor(PhantomData))
    }
}
