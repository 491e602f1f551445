//! The changes to make on a node: a function of its launcher pods and of its OVS interfaces.
//!
//! Pure. [`Pods`] follows the watch, [`LocalSwitch`] is the replica, [`decide`] compares the two. It is asked again whenever
//! one of them changes, so that a restart at any moment makes no difference: the values that this service has set carry a
//! [`Mark`] in the row itself.

mod change;
mod decide;
mod mark;
mod pods;
mod problem;
mod vswitch;

#[cfg(test)]
mod tests;

pub use change::{Change, Edit};
pub use decide::{Decision, decide};
pub use mark::Mark;
pub use pods::{Life, Nics, NodePod, PodRef, Pods};
pub use problem::{Notice, Problem};
pub use vswitch::{Bridge, Interface, LocalSwitch, OpenVswitch, Plugged, Port};
