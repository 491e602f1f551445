//! An OVSDB client (RFC 7047, ovsdb-server(7)). It is independent of VMs.
//!
//! ```text
//!              requests (mpsc)              bytes
//!  callers ------------------> writer task ------> ovsdb-server
//!     ^                            ^                    |
//!     | replies (oneshot)          | echo replies       | bytes
//!     +------------------------ reader task <-----------+
//!                                  | update3, applied under the lock
//!                                  v
//!                          Shared<Replica>  -- changed (Notify) --> the task that decides
//! ```
//!
//! The one reader applies updates before it delivers the reply that follows them, so a caller with a reply sees its own
//! write in the replica. The reader awaits only the socket: a client that awaits a write in its read loop falls from
//! 40k to 266 ports/s.

mod calls;
mod codec;
mod column;
mod connection;
mod draft;
mod member;
mod message;
mod operation;
mod probe;
mod progress;
mod reader;
mod remote;
mod replica;
mod row;
mod schema;
mod session;
mod stream;
mod text;
mod tls;

pub use calls::{ConnectionError, Terms};
pub use codec::{CodecError, Splitter};
pub use column::{Atomic, Column, Kind, WireUuid, Word};
pub use connection::Connection;
pub use draft::Draft;
pub use member::{Member, Model, Unfit};
pub use operation::{
    Atom, ColumnValue, Condition, Datum, Function, Mutation, Mutator, Operation, OperationResult, Outcome, Rejection,
    RejectionKind, Transaction, Until,
};
pub use remote::{Remote, RemoteError, Remotes};
pub use replica::{Replica, Shared, apply_updates};
pub use row::{ColumnMask, ColumnSeed, ColumnSpec, Row, Table, TableSpec, Unwatched, Watcher};
pub use schema::{OptionalColumn, Schema, SchemaError};
pub use session::{Session, SessionError, Target};
pub use text::{Map, Set};
pub use tls::{TlsError, TlsFiles};
