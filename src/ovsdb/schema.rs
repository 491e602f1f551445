//! The server's schema, compared with the columns that we need (RFC 7047 section 3.2).

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;

use super::column::{Atomic, Kind};
use super::row::TableSpec;

/// The part of a database's schema that a client needs.
#[derive(Debug, Deserialize)]
pub struct Schema {
    /// The database's name.
    pub name: String,
    /// Its version, `x.y.z`.
    pub version: String,
    tables: HashMap<String, TableSchema>,
}

#[derive(Debug, Deserialize)]
struct TableSchema {
    columns: HashMap<String, ColumnSchema>,
}

#[derive(Debug, Deserialize)]
struct ColumnSchema {
    #[serde(rename = "type")]
    kind: TypeSchema,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TypeSchema {
    Atomic(String),
    Full {
        key: BaseType,
        value: Option<BaseType>,
        #[serde(default = "one")]
        min: u64,
        max: Option<Max>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BaseType {
    Atomic(String),
    Full {
        #[serde(rename = "type")]
        atomic: String,
    },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Max {
    Number(u64),
    Unlimited(Unlimited),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unlimited {
    Unlimited,
}

fn one() -> u64 {
    1
}

/// The parts that the server's schema lacks. Names all of them, so that an operator upgrades once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {database} schema {version} of the server does not fit: {}; this service needs OVN 22.03 or newer: upgrade ovn-central and convert the database",
    problems.join(", ")
)]
pub struct SchemaError {
    /// The database.
    pub database: String,
    /// The server's schema version.
    pub version: String,
    /// One entry for each table or column.
    pub problems: Vec<String>,
}

impl BaseType {
    fn atomic(&self) -> Option<Atomic> {
        let (Self::Atomic(name) | Self::Full { atomic: name }) = self;
        atomic(name)
    }
}

fn atomic(name: &str) -> Option<Atomic> {
    match name {
        "string" => Some(Atomic::String),
        "integer" => Some(Atomic::Integer),
        "boolean" => Some(Atomic::Boolean),
        "uuid" => Some(Atomic::Uuid),
        _ => None,
    }
}

impl TypeSchema {
    /// Our type; `None` for a type that our columns do not use.
    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Atomic(name) => atomic(name).map(Kind::One),
            Self::Full { key, value: Some(value), .. } => Some(Kind::Map(key.atomic()?, value.atomic()?)),
            Self::Full { key, value: None, min, max } => {
                let key = key.atomic()?;
                match (min, max) {
                    (1, None | Some(Max::Number(1))) => Some(Kind::One(key)),
                    (0, None | Some(Max::Number(1))) => Some(Kind::Optional(key)),
                    (_, Some(Max::Number(_) | Max::Unlimited(Unlimited::Unlimited)) | None) => Some(Kind::Set(key)),
                }
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(atomic) => write!(formatter, "one {atomic:?}"),
            Self::Optional(atomic) => write!(formatter, "an optional {atomic:?}"),
            Self::Set(atomic) => write!(formatter, "a set of {atomic:?}"),
            Self::Map(key, value) => write!(formatter, "a map of {key:?} to {value:?}"),
        }
    }
}

/// A column of a table that an older server may lack, by both names.
pub type OptionalColumn = (&'static str, &'static str);

impl Schema {
    /// Returns those of these tables that the schema has with every column that we decode, but for those that may be
    /// missing. An older or newer OVN may lack some.
    pub fn present(&self, optional: &[TableSpec], columns: &[OptionalColumn]) -> Vec<TableSpec> {
        let fits = |table: &TableSpec| self.check_but(std::slice::from_ref(table), columns).is_ok();
        optional.iter().copied().filter(fits).collect()
    }

    /// Returns true if the table has the column, of any type.
    pub fn has(&self, table: &str, column: &str) -> bool {
        self.tables.get(table).is_some_and(|table| table.columns.contains_key(column))
    }

    /// The version as numbers, which compare as versions do (RFC 7047 section 3.1: `x.y.z`). `None` if it has another
    /// form.
    pub fn number(&self) -> Option<[u32; 3]> {
        let mut parts = self.version.split('.').map(str::parse);
        let number = [parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?];
        parts.next().is_none().then_some(number)
    }

    /// Checks that every table and column exists with the type that we decode.
    pub fn check(&self, needed: &[TableSpec]) -> Result<(), SchemaError> {
        self.check_but(needed, &[])
    }

    /// As [`Self::check`], where these columns may be missing.
    pub fn check_but(&self, needed: &[TableSpec], optional: &[OptionalColumn]) -> Result<(), SchemaError> {
        let mut problems = Vec::new();
        for TableSpec { name: table, columns } in needed {
            let Some(present) = self.tables.get(*table) else {
                problems.push(format!("table {table} is missing"));
                continue;
            };
            for column in *columns {
                match present.columns.get(column.name).map(|column| column.kind.kind()) {
                    None if optional.contains(&(*table, column.name)) => {}
                    None => problems.push(format!("column {table}.{} is missing", column.name)),
                    Some(Some(kind)) if kind == column.kind => {}
                    Some(Some(kind)) => {
                        problems.push(format!("column {table}.{} is {kind}, not {}", column.name, column.kind));
                    }
                    Some(None) => problems.push(format!("column {table}.{} is not {}", column.name, column.kind)),
                }
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(SchemaError { database: self.name.clone(), version: self.version.clone(), problems })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ovsdb::row::ColumnSpec;

    const SCHEMA: &str = r#"{"name":"DB","version":"1.2.3","tables":{"T":{"columns":{
        "s":{"type":"string"},
        "o":{"type":{"key":{"type":"boolean"},"min":0,"max":1}},
        "r":{"type":{"key":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"}},
        "m":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}}}}}"#;

    fn schema() -> Schema {
        serde_json::from_str(SCHEMA).expect("a schema")
    }

    fn check_but(
        table: &'static str,
        name: &'static str,
        kind: Kind,
        optional: &[OptionalColumn],
    ) -> Result<(), Vec<String>> {
        let columns: &'static [ColumnSpec] = Box::leak(Box::new([ColumnSpec { name, kind }]));
        schema().check_but(&[TableSpec { name: table, columns }], optional).map_err(|error| error.problems)
    }

    fn check(table: &'static str, name: &'static str, kind: Kind) -> Result<(), Vec<String>> {
        check_but(table, name, kind, &[])
    }

    #[test]
    fn an_optional_column_may_be_missing_and_may_not_be_of_another_type() {
        let string = Kind::One(Atomic::String);
        assert_eq!(check_but("T", "x", string, &[("T", "x")]), Ok(()));
        assert!(check_but("T", "x", string, &[("U", "x")]).is_err());
        assert!(check_but("T", "o", string, &[("T", "o")]).is_err());
        assert!(schema().has("T", "s") && !schema().has("T", "x") && !schema().has("U", "s"));
    }

    #[test]
    fn versions_compare_as_numbers() {
        let number = |version: &str| Schema { version: version.to_owned(), ..schema() }.number();
        assert_eq!(number("20.27.0"), Some([20, 27, 0]));
        assert!(number("6.10.0") > number("6.9.1") && number("7.0.0") > number("6.10.0"));
        assert!(["", "7", "7.0", "7.0.0.1", "7.x.0"].iter().all(|version| number(version).is_none()));
    }

    #[test]
    fn columns_of_the_right_type_pass() {
        assert_eq!(check("T", "s", Kind::One(Atomic::String)), Ok(()));
        assert_eq!(check("T", "o", Kind::Optional(Atomic::Boolean)), Ok(()));
        assert_eq!(check("T", "r", Kind::Set(Atomic::Uuid)), Ok(()));
        assert_eq!(check("T", "m", Kind::Map(Atomic::String, Atomic::String)), Ok(()));
    }

    #[test]
    fn missing_columns_and_columns_of_another_type_are_named() {
        let problem = |table, column, kind| check(table, column, kind).expect_err("a problem").remove(0);
        assert_eq!(problem("U", "s", Kind::One(Atomic::String)), "table U is missing");
        assert_eq!(problem("T", "x", Kind::One(Atomic::String)), "column T.x is missing");
        assert_eq!(problem("T", "o", Kind::One(Atomic::Boolean)), "column T.o is an optional Boolean, not one Boolean");
    }
}
