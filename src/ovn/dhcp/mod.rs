//! DHCP options: what an owner or an operator writes, as typed values, and as the `options` of a row in `DHCP_Options`.
//!
//! northd copies the `options` into a logical flow as they are, and ovn-controller reads that flow with the lexer of
//! OVN's expressions. One key or value that it cannot read takes DHCP from every port that shares the row, and only
//! ovn-controller's log shows it; a number that is too large is cut to its low bits without a word. So a text is parsed
//! once, by the options' names and types, and encoded from the values: what is written cannot be misread.
//!
//! ```text
//! an annotation ── text ── entries ── value, by the type of the OptionTable ── DhcpOptions ── encode ── the row
//!                                                                                   ^
//!                                                    the switch's own values ── set_default, check
//! ```
//!
//! The names and types are those of the southbound tables `DHCP_Options` and `DHCPv6_Options`, which northd fills with
//! what its version supports, or else those of the oldest supported OVN.

mod bounds;
mod domain;
mod error;
mod hostname;
mod supported;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use macaddr::MacAddr6;

pub use self::error::{NumberFault, OptionError, OptionFault};
pub use self::hostname::hostname;
pub(super) use self::supported::SupportedOptions;
pub use self::table::{Family, OptionTable, OptionType};
pub use self::value::{DomainName, Route, Text, Value};
use crate::ovsdb::Map;

/// The options of one row of `DHCP_Options`: each has a value that OVN can send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpOptions {
    family: Family,
    options: BTreeMap<String, Value>,
}

impl DhcpOptions {
    /// No options.
    pub fn new(family: Family) -> Self {
        Self { family, options: BTreeMap::new() }
    }

    /// Reads options as `name=value`, with `,`, `;` or white space between: Kube-OVN's form
    /// (`lease_time=3600;dns_server={1.1.1.1,8.8.8.8}`) and that of `ovn-nbctl`. Several values have braces around
    /// them, and strings have double quotes.
    pub fn parse(text: &str, family: Family, table: &OptionTable) -> Result<Self, OptionError> {
        let mut this = Self::new(family);
        for entry in text::entries(text) {
            let (name, raw) = entry.map_err(|(name, fault)| OptionError::new(family, name, fault))?;
            let error = |fault| OptionError::new(family, name, fault);
            let kind = table.kind(family, name).map_err(error)?;
            if this.options.contains_key(name) {
                return Err(error(OptionFault::Twice));
            }
            let raw = raw.ok_or_else(|| error(OptionFault::Empty))?;
            let value = value::read(&raw, family, name, kind).map_err(error)?;
            this.options.insert(name.to_owned(), value);
        }
        this.check()?;
        Ok(this)
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Returns true if there are no options.
    pub fn is_empty(&self) -> bool {
        self.options.is_empty()
    }

    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.options.get(name)
    }

    /// The options in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.options.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Sets an option that is not set. An empty list of addresses sets none. [`DhcpOptions::check`] is to follow.
    pub fn set_default(&mut self, name: &str, value: Value) {
        if !value.is_empty_list() && !self.options.contains_key(name) {
            self.options.insert(name.to_owned(), value);
        }
    }

    /// Takes an option out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.options.remove(name)
    }

    /// DHCPv4's `server_id`: the address that answers come from.
    pub fn server_ip(&self) -> Option<Ipv4Addr> {
        match self.options.get("server_id") {
            Some(Value::Ipv4(addresses)) => addresses.first().copied(),
            _ => None,
        }
    }

    /// The MAC that answers come from: DHCPv4's `server_mac`, or DHCPv6's `server_id`.
    pub fn server_mac(&self) -> Option<MacAddr6> {
        let name = if self.family == Family::V4 { "server_mac" } else { "server_id" };
        match self.options.get(name) {
            Some(Value::Mac(mac)) => Some(*mac),
            _ => None,
        }
    }

    /// Checks what concerns several options: the order of `T1`, `T2` and `lease_time`, and the size of the answer.
    pub fn check(&self) -> Result<(), OptionError> {
        bounds::check_order(self)?;
        bounds::check_size(self)
    }

    /// The column `options` of the row.
    pub fn encode(&self) -> Map {
        self.options.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect()
    }
}

/// The text that [`DhcpOptions::parse`] reads: `name=value` with semicolons between.
impl fmt::Display for DhcpOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.options.iter().enumerate() {
            let before = if index > 0 { ";" } else { "" };
            write!(formatter, "{before}{name}={value}")?;
        }
        Ok(())
    }
}
