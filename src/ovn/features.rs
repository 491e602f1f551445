//! The features of the present OVN for a port that migrates, derived from the schemas of its databases.
//!
//! `options:requested-chassis` takes a list since OVN 22.06, and `options:activation-strategy` came with 22.09 (and
//! 22.06.1). No northbound column came with either, so the schema versions are used:
//!
//! | OVN | northbound | southbound | | southbound column |
//! |---|---|---|---|---|
//! | 22.03 | 6.1.0 | 20.21.0 | one chassis | |
//! | 22.06 | 6.3.0 | 20.23.0 | a list | `Port_Binding.additional_chassis` |
//! | 22.09 | 6.3.0 | 20.25.0 | a list behind a strategy | `MAC_Binding.timestamp` |
//! | 22.12 | 7.0.0 | 20.27.0 | the same | |
//!
//! 22.06.0 and 22.06.1 have the same schemas and count as 22.06.0. The northbound alone does not distinguish 22.06 from
//! 22.09: with the southbound read (`--sb`) both are known.

use crate::ovsdb::Schema;

/// The support for `options:requested-chassis`; each variant includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Multichassis {
    /// One chassis: a list is an unknown name to northd, and the port is unbound.
    Single,
    /// A list of chassis, all of them open at once.
    List,
    /// A list, with the second one closed until `activation-strategy` opens it.
    #[default]
    Activated,
}

impl Multichassis {
    /// The support according to the northbound's schema; 6.3 belongs to both 22.06 and 22.09, and counts as the older
    /// one.
    pub fn of_northbound(schema: &Schema) -> Self {
        match schema.number() {
            Some(number) if number < [6, 3, 0] => Self::Single,
            Some(number) if number < [6, 4, 0] => Self::List,
            Some(_) | None => Self::Activated,
        }
    }

    /// The support according to the southbound's schema.
    pub fn of_southbound(schema: &Schema) -> Self {
        if !schema.has("Port_Binding", "additional_chassis") {
            return Self::Single;
        }
        let is_older = schema.number().is_some_and(|number| number < [20, 25, 0]);
        if is_older || !schema.has("MAC_Binding", "timestamp") { Self::List } else { Self::Activated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(version: &str, tables: &str) -> Schema {
        let text = format!(r#"{{"name":"DB","version":"{version}","tables":{tables}}}"#);
        serde_json::from_str(&text).expect("a schema")
    }

    #[test]
    fn the_northbounds_version_decides_which_features_are_certain() {
        use Multichassis::{Activated, List, Single};
        for (version, expected) in [
            ("5.34.1", Single),
            ("6.1.0", Single),
            ("6.2.0", Single),
            ("6.3.0", List),
            ("7.0.0", Activated),
            ("7.18.0", Activated),
            ("10.0.0", Activated),
        ] {
            assert_eq!(Multichassis::of_northbound(&schema(version, "{}")), expected, "{version}");
        }
    }

    #[test]
    fn the_southbounds_columns_and_version_tell_the_releases_apart() {
        const ALL: &str = r#"{"Port_Binding":{"columns":{"additional_chassis":{"type":"uuid"}}},
            "MAC_Binding":{"columns":{"timestamp":{"type":"integer"}}}}"#;
        const NO_TIMESTAMP: &str = r#"{"Port_Binding":{"columns":{"additional_chassis":{"type":"uuid"}}}}"#;
        const OLD: &str = r#"{"Port_Binding":{"columns":{}},"MAC_Binding":{"columns":{}}}"#;
        for (version, tables, expected) in [
            ("20.21.0", OLD, Multichassis::Single),
            ("20.23.0", NO_TIMESTAMP, Multichassis::List),
            ("20.23.0", ALL, Multichassis::List),
            ("20.25.0", ALL, Multichassis::Activated),
            ("20.41.0", ALL, Multichassis::Activated),
        ] {
            assert_eq!(Multichassis::of_southbound(&schema(version, tables)), expected, "{version}");
        }
    }
}
