//! The running service: watches in, transactions out, reports back.
//!
//! ```text
//!   watches (a task a kind) --changes--> +--------+ --transactions--> link's connection -> NB
//!                                        | writer |                        |
//!   replica (reader task) ---changed---> +--------+ <------outcome---------+
//!                                            |
//!                                         status of a VM
//!                                            v
//!                                         ledger --> metrics
//!                                            |
//!                                            v
//!                                        reporter --> Events and the annotation on the VM
//! ```
//!
//! Only the writer decides and writes ports. The names of VMs are written by a task of their own (`names`), behind the same fence.
//! Every event only names a VM to decide; the decision follows from the state of
//! the watches and of the replica.

mod asking;
mod backlog;
mod changed;
mod epoch;
mod following;
mod holding;
mod identity;
mod kubernetes;
mod lease;
mod ledger;
mod link;
mod metrics;
mod migrations;
mod names;
mod reporter;
mod southbound;
mod status;
mod timetable;
mod waiting;
mod watches;
mod writer;

pub use asking::{Asker, Moment, Questions, Unanswered};
pub use backlog::Arrival;
pub use changed::{Changed, Sets};
pub use epoch::{Epoch, EpochError};
pub(crate) use following::{Followed, follow};
pub use holding::Holding;
pub use identity::{ClusterIdentity, OtherCluster, identify_cluster};
pub use kubernetes::{ApiServer, Health, probe_api_server};
pub(crate) use kubernetes::{NewEvent, Refusal, Watches, create_event};
pub(crate) use kubernetes::{chain, kind_name};
pub use lease::{Candidacy, Leadership, LeaseError, LeaseOptions, LeaseTiming, keep_lease};
pub use ledger::Ledger;
pub use link::{Link, LinkSettings, Linker, Office};
pub use metrics::{Metrics, Observed};
pub(crate) use metrics::{of_process, text};
pub use names::{NameWriter, NamesSettings};
pub use reporter::{PaceMetrics, Report, Reporter, Subject};
pub use southbound::follow_southbound;
pub use status::{Standing, Status, Unready};
pub use watches::{WatchError, watch_all, watch_pods_of_node};
pub use writer::{CHANGES_AHEAD, SouthboundFeed, Writer, WriterError, WriterSettings};
