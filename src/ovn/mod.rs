//! OVN's databases as types: rows, names, addresses, and the northbound replica with its indexes.
//!
//! Pure: what is decided from these rows is decided elsewhere, and nothing here is sent.

mod addresses;
mod index;
mod names;
mod northbound;
mod rows;

pub(crate) use addresses::mac_text;
pub use addresses::{AddressError, Addresses};
pub use index::{Changes, Wake};
pub use names::{Owner, VmKey, keys, port_uuid};
pub use northbound::{Northbound, PortRef};
pub use rows::{LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, NbGlobal};
