//! The names that this service shares with others: of VMs, NADs and ports, of the keys of rows, and of annotations.
//!
//! The ground floor. Every other module may use these names, and this one uses no other module. `docs/contract.md`
//! lists the same names for operators and for other programs.

pub mod annotations;
pub mod keys;
mod nad;
mod names;
mod pod_interface;
mod port_name;
mod vm;

pub use keys::{cluster_key, epoch_key, epoch_number};
pub use nad::NadKey;
pub use names::{NAME_ROWS, name_row, name_row_uuid};
pub use pod_interface::{FIRST_INTERFACE, is_hashed, pod_interface};
pub(crate) use port_name::begins_as_a_port_of;
pub use port_name::{dhcp_uuid, port_uuid};
pub use vm::VmKey;
