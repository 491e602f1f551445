//! What to write: from intents and the northbound replica to changes of rows, and what to tell.
//!
//! Pure. A [`Planner`] plans the VMs of one transaction, one after the other: what it has given to
//! one of them is not given to the next, though the replica does not have it yet. Planning anew from
//! the same state gives the same changes, and after they are applied it gives none.
//!
//! The next transaction is planned while one is in flight: [`Pipeline`] says which VMs go into which, and when what was
//! prepared is worth nothing any more; [`Planner::mind`] has a planner mind what is on its way; [`Expectation`] tells
//! our own commit from what others did.

mod addresses;
mod batch;
mod binding;
mod change;
mod chassis;
mod expectation;
mod lease;
mod lost;
mod message;
mod ownership;
mod pipeline;
mod planner;
mod problem;
mod report;
mod retaking;
mod retention;
mod siblings;
mod status;
mod vm_rows;

pub use batch::{Queue, Turn};
pub use binding::{Fabric, Seen, Settling};
pub use change::{Placed, PortChange};
pub use expectation::{Expectation, Freed};
pub use lost::{LastLease, Looked, Lost};
pub use pipeline::{OfKeys, Pipeline};
pub use planner::{Planner, VmPlan, present};
pub use problem::{Fault, Holder, Problem};
pub use report::PortReport;

#[cfg(test)]
mod tests;
