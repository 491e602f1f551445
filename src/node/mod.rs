//! `ovn-kubevirt node`: on each node, the last mile from a launcher pod's interface to its port.
//!
//! A CNI that plugs a pod into OVN's bridge should set `external_ids:iface-id` of the OVS interface to the port's name. Some
//! do not (ovs-cni up to 0.39.0), and this mode of the program sets it for them.
//!
//! ```text
//!   watch of this node's pods --changes--> +-------+ --a transaction an interface--> link's connection -> Open_vSwitch
//!                                          | agent |                                      |
//!   replica (reader task) ----changed----> +-------+ <--------------outcome---------------+
//!                                              |
//!                                           notices
//!                                              v
//!                                          notifier --> Events on the pod
//! ```
//!
//! The service writes two keys of `Interface:external_ids` in the local database, each time behind guards that the row is
//! the one that was read. It removes only values that it has set, and only once the pods and the replica are known as a
//! whole. [`core`] decides; it is called again for each change.

mod agent;
pub mod core;
mod link;
mod metrics;
mod notifier;
mod status;

pub use agent::{Agent, AgentError, AgentSettings};
pub use link::{SwitchLink, follow_switch};
pub use metrics::NodeMetrics;
pub use notifier::{NOTICES_AHEAD, notify};
pub use status::NodeStatus;
