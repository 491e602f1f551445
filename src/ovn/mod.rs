//! OVN's databases as types: rows, names, addresses, and the replicas with their indexes.
//!
//! Pure: decisions on these rows are made elsewhere, and nothing here is sent.

mod addresses;
mod answering;
mod elements;
mod features;
mod index;
mod marks;
mod northbound;
mod requested_chassis;
mod rows;
mod services;
mod southbound;
mod watchers;

pub(crate) use addresses::mac_text;
pub use addresses::{AddressError, Addresses};
pub use elements::Elements;
pub use features::Multichassis;
pub use index::{Changes, Rest, Wake};
pub use marks::{Owner, PortMarks};
pub use northbound::{Northbound, PortRef};
pub use requested_chassis::RequestedChassis;
pub use rows::{
    Chassis, DhcpOptions, ForwardingGroup, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort,
    LogicalSwitch, LogicalSwitchPort, Nat, NbGlobal, PortBinding, PortHealthCheck, StaticMacBinding,
};
pub use southbound::{Bound, NodeChassis, Southbound, SouthboundChanges};
