//! Decisions: from a snapshot to changes of rows and to the status that owners are told.
//!
//! Pure. [`decide`] is a function of a [`Snapshot`], of the claims that the transaction has granted to other VMs
//! ([`Claims`]), and of a VM. Every caller gets the same [`Decision`]. Deciding again from the same state gives the
//! same rows, and gives no rows once they are written.
//!
//! ```text
//!   claims, change, lease, problem, message, status    values
//!   fabric, lost, snapshot                             the known state
//!   remarks, vm_rows, siblings, view                   one VM's view of it
//!   addresses, switches, policy, security, chassis, binding, dhcp,
//!   ownership, retaking, retention, advertising        steps of a decision
//!   port --> decide --> schedule                       a NIC, a VM, a transaction
//!   names                                              the names of VMs, which are written apart
//! ```
//!
//! The next transaction is decided while one is in flight: [`Pipeline`] assigns VMs to transactions and reports when a
//! prepared transaction is out of date; [`Claims::of`] collects the claims in flight; [`Expectation`] tells our own
//! commit from changes by others.

mod addresses;
mod advertising;
mod batch;
mod binding;
mod change;
mod chassis;
mod claims;
mod decide;
mod dhcp;
mod expectation;
mod fabric;
mod lease;
mod lost;
mod message;
mod names;
mod ownership;
mod pipeline;
mod policy;
mod port;
mod problem;
mod remarks;
mod retaking;
mod retention;
mod schedule;
mod security;
mod siblings;
mod snapshot;
mod status;
mod switch_policy;
mod switches;
mod view;
mod vm_rows;

pub use batch::{Queue, Turn};
pub use change::{DhcpChange, Placed, PortChange, RouterPortChange, RowChange};
pub use claims::Claims;
pub use decide::{Decision, Waits, decide, decide_for, present};
pub use expectation::{Expectation, Freed};
pub use fabric::{Seen, Settling};
pub use lost::{LastLease, Looked, Lost};
pub use names::{DnsDomain, DomainError, LeftOut, Names, NamesChange, operations as name_operations};
pub use pipeline::{OfKeys, Pipeline};
pub use problem::{AllowRule, Fault, Holder, Problem, Requested};
pub use schedule::{Filled, fill};
pub use snapshot::{Held, Snapshot};
pub use status::{DhcpFamilies, PortStatus, VmStatus};

#[cfg(test)]
mod tests;
