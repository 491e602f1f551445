//! What to write: from intents and the northbound replica to changes of rows, and what to tell.
//!
//! Pure. [`decide`] is a function of a [`Snapshot`], of what the transaction has given to others ([`Claims`]), and of a VM:
//! whoever asks gets the same [`Decision`]. Deciding anew from the same state gives the same rows, and after they are
//! written it gives none.
//!
//! ```text
//!   claims, change, lease, problem, report     values
//!   fabric, lost, snapshot            what is known
//!   remarks, vm_rows, siblings, view  one VM's view of it
//!   addresses, switches, chassis, binding, ownership, retaking, retention     steps of a decision
//!   port --> decide --> schedule      a NIC, a VM, a transaction
//! ```
//!
//! The next transaction is planned while one is in flight: [`Pipeline`] says which VMs go into which, and when what was
//! prepared is worth nothing any more; [`Claims::of`] has what is on its way; [`Expectation`] tells our own commit from
//! what others did.

mod addresses;
mod batch;
mod binding;
mod change;
mod chassis;
mod claims;
mod decide;
mod expectation;
mod fabric;
mod lease;
mod lost;
mod message;
mod ownership;
mod pipeline;
mod port;
mod problem;
mod remarks;
mod report;
mod retaking;
mod retention;
mod schedule;
mod siblings;
mod snapshot;
mod status;
mod switches;
mod view;
mod vm_rows;

pub use batch::{Queue, Turn};
pub use change::{Placed, PortChange};
pub use claims::Claims;
pub use decide::{Decision, Waits, decide, present};
pub use expectation::{Expectation, Freed};
pub use fabric::{Seen, Settling};
pub use lost::{LastLease, Looked, Lost};
pub use pipeline::{OfKeys, Pipeline};
pub use problem::{Fault, Holder, Problem};
pub use report::PortReport;
pub use schedule::{Filled, fill};
pub use snapshot::{Held, Snapshot};

#[cfg(test)]
mod tests;
