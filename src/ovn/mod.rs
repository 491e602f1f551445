//! OVN's databases as types: rows, names, addresses, and the replicas with their indexes.
//!
//! Pure: decisions on these rows are made elsewhere, and nothing here is sent.

mod addresses;
mod answering;
pub mod dhcp;
mod dhcp_use;
mod elements;
mod features;
mod index;
mod marks;
mod naming;
mod northbound;
mod port_state;
mod prepared;
mod requested_chassis;
mod rows;
mod secured;
mod services;
mod southbound;
mod watchers;

pub(crate) use addresses::mac_text;
pub use addresses::{AddressError, Addresses};
pub use elements::Elements;
pub use features::Multichassis;
pub use index::{Changes, Rest, Wake};
pub use marks::{Owner, PortMarks};
pub use naming::NameChanges;
pub use northbound::{Gateway, Northbound, PortRef, SwitchUse};
pub use port_state::PortState;
pub use requested_chassis::RequestedChassis;
pub use rows::{
    Chassis, DhcpOptions, Dns, ForwardingGroup, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort,
    LogicalSwitch, LogicalSwitchPort, Nat, NbGlobal, PortBinding, PortHealthCheck, StaticMacBinding,
};
pub use secured::Secured;
pub use southbound::{Bound, NodeChassis, Southbound, SouthboundChanges};
