//! Address management: the subnet of a switch, its held addresses, and the lowest free one.
//!
//! Pure, without a store: a [`Pool`] is an index over the ports of one switch, kept by the owner of the replica and
//! rebuilt from the rows at every start.

mod address_pool;
mod addresses;
mod census;
mod exclusions;
mod holders;
mod pool;
mod ranges;
pub(crate) mod spelling;
mod subnet;
mod usage;

pub use address_pool::{AddressPool, BadPool};
pub use addresses::AddressSet;
pub use census::{Census, Counts, Use};
pub use holders::Holders;
pub use pool::Pool;
pub use ranges::RangeSet;
pub use subnet::{Block, Openness, Span, Subnet, SubnetError, Unread};
pub use usage::AddressUse;
