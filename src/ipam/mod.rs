//! Addresses: what a switch's subnet is, which of its addresses are held, and the lowest free one.
//!
//! Pure. There is no store here: a [`Pool`] is an index over the ports of one switch, kept by
//! whoever keeps the replica and rebuilt from the rows at any start.

mod address_pool;
mod addresses;
mod exclusions;
mod holders;
mod pool;
mod ranges;
pub(crate) mod spelling;
mod subnet;

pub use address_pool::{AddressPool, BadPool};
pub use addresses::AddressSet;
pub use holders::Holders;
pub use pool::Pool;
pub use ranges::RangeSet;
pub use subnet::{Block, Span, Subnet, SubnetError, Unread};
