//! The state of a server and of the database that is read from it: the `_Server` database (ovsdb-server(7), "Database
//! Schema"; `_server.ovsschema`).

use serde::de::MapAccess;
use uuid::Uuid;

use super::replica::Replica;
use super::row::{Row, Table, TableSpec, Unwatched};

crate::ovsdb_row! {
    /// One of the databases that a server serves.
    pub(super) struct Database = "Database" {
        /// The database's name.
        name: String = "name",
        /// `standalone`, `clustered` or `relay`.
        model: String = "model",
        /// True if a member reaches a majority, or a relay its source.
        connected: bool = "connected",
        /// True if a member leads its cluster, and for a standalone database.
        leader: bool = "leader",
        /// The last log entry that a member has applied.
        index: Option<i64> = "index",
        /// The cluster.
        cid: Option<Uuid> = "cid",
    }
}

/// The service model of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// A single server.
    Standalone,
    /// As a member of a RAFT cluster.
    Clustered {
        /// The cluster; `None` before the member has joined.
        cluster: Option<Uuid>,
        /// The last log entry that it has applied.
        index: i64,
    },
    /// A copy of another server's database.
    Relay,
}

/// A server's state for one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The service model.
    pub model: Model,
    /// True if it reaches its cluster, or its source.
    pub connected: bool,
    /// True if transactions go through it. So it is for a standalone server.
    pub leader: bool,
}

/// The reason why a server cannot be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It lacks the database.
    #[error("the server has no such database")]
    NoDatabase,
    /// A member that has not joined its cluster yet.
    #[error("the server has not joined its cluster yet")]
    NotJoined,
    /// A member or a relay that does not reach the others.
    #[error("the server is out of touch with its cluster")]
    Disconnected,
    /// A member that is not the leader.
    #[error("the server does not lead its cluster")]
    NotLeader,
    /// A relay, where the leader is required.
    #[error("the server is a relay: name the cluster's members, or give --nb-leader-only=false")]
    Relay,
    /// Its log ends before the part that was read from another member.
    #[error("the server is at log index {index}, behind {seen}, which was read before")]
    Behind {
        /// Its log index.
        index: i64,
        /// The log index that was read before.
        seen: i64,
        /// True if it reports that it leads.
        leader: bool,
    },
}

impl Member {
    /// Checks that the database can be read here and, if `leader_only`, written.
    pub(super) fn check(&self, leader_only: bool) -> Result<(), Unfit> {
        match self.model {
            Model::Clustered { cluster: None, .. } => Err(Unfit::NotJoined),
            Model::Standalone => Ok(()),
            Model::Clustered { .. } | Model::Relay if !self.connected => Err(Unfit::Disconnected),
            Model::Relay if leader_only => Err(Unfit::Relay),
            Model::Clustered { .. } if leader_only && !self.leader => Err(Unfit::NotLeader),
            Model::Clustered { .. } | Model::Relay => Ok(()),
        }
    }
}

/// The `_Server` database of one server.
#[derive(Debug, Default)]
pub(super) struct Server {
    databases: Table<Database>,
}

impl Server {
    /// The server's report of one database.
    pub(super) fn member(&self, database: &str) -> Option<Member> {
        let (_, row) = self.databases.iter().find(|(_, row)| row.name == database)?;
        let model = match row.model.as_str() {
            "clustered" => Model::Clustered { cluster: row.cid, index: row.index.unwrap_or_default() },
            "relay" => Model::Relay,
            _ => Model::Standalone,
        };
        Some(Member { model, connected: row.connected, leader: row.leader })
    }
}

impl Replica for Server {
    const DATABASE: &'static str = "_Server";
    const TABLES: &'static [TableSpec] = &[Database::TABLE];

    fn begin_dump(&mut self) {
        self.databases.begin_dump();
    }

    fn end_dump(&mut self) {
        self.databases.end_dump(&mut Unwatched);
    }

    fn apply<'de, A: MapAccess<'de>>(&mut self, _table: &str, updates: A) -> Result<(), A::Error> {
        self.databases.apply(updates, &mut Unwatched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Option<Uuid> = Some(Uuid::from_u128(7));

    fn clustered(connected: bool, leader: bool) -> Member {
        Member { model: Model::Clustered { cluster: CLUSTER, index: 1 }, connected, leader }
    }

    #[test]
    fn a_leader_in_touch_is_fit_and_a_follower_only_if_the_leader_is_not_required() {
        assert_eq!(clustered(true, true).check(true), Ok(()));
        assert_eq!(clustered(true, false).check(false), Ok(()));
        assert_eq!(clustered(true, false).check(true), Err(Unfit::NotLeader));
        assert_eq!(clustered(false, true).check(false), Err(Unfit::Disconnected));
        let joining = Member { model: Model::Clustered { cluster: None, index: 0 }, ..clustered(false, false) };
        assert_eq!(joining.check(false), Err(Unfit::NotJoined));
    }

    #[test]
    fn a_standalone_server_is_always_fit_and_a_relay_never_the_leader() {
        assert_eq!(Member { model: Model::Standalone, connected: true, leader: true }.check(true), Ok(()));
        let relay = |connected| Member { model: Model::Relay, connected, leader: false };
        assert_eq!(relay(true).check(true), Err(Unfit::Relay));
        assert_eq!(relay(true).check(false), Ok(()));
        assert_eq!(relay(false).check(false), Err(Unfit::Disconnected));
    }
}
