//! What a server says of itself and of the database we want from it: the `_Server` database
//! (ovsdb-server(7), "Database Schema"; `_server.ovsschema`).

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
        /// Whether a member is in touch with a majority, or a relay with its source.
        connected: bool = "connected",
        /// Whether a member leads its cluster. True for a standalone database.
        leader: bool = "leader",
        /// A member's last log entry that it has applied.
        index: Option<i64> = "index",
        /// The cluster.
        cid: Option<Uuid> = "cid",
    }
}

/// How a server has a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Alone.
    Standalone,
    /// As a member of a RAFT cluster.
    Clustered {
        /// Which cluster; none before the member has joined.
        cluster: Option<Uuid>,
        /// The last log entry that it has applied.
        index: i64,
    },
    /// As a copy of another server's.
    Relay,
}

/// A server, as far as one database is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// How it has the database.
    pub model: Model,
    /// Whether it is in touch with those that it has it from.
    pub connected: bool,
    /// Whether it is the one through which to write. So is a standalone server.
    pub leader: bool,
}

/// Why a server is of no use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It does not have the database.
    #[error("the server has no such database")]
    NoDatabase,
    /// A member that has not joined its cluster yet.
    #[error("the server has not joined its cluster yet")]
    NotJoined,
    /// A member or a relay that is out of touch with the others.
    #[error("the server is out of touch with its cluster")]
    Disconnected,
    /// A member that does not lead.
    #[error("the server does not lead its cluster")]
    NotLeader,
    /// A relay, where the leader is wanted.
    #[error("the server is a relay: name the cluster's members, or give --nb-leader-only=false")]
    Relay,
    /// What it has is older than what was read before.
    #[error("the server is at log index {index}, behind {seen}, which was read before")]
    Behind {
        /// How far it is.
        index: i64,
        /// How far the one before was.
        seen: i64,
        /// Whether it says that it leads.
        leader: bool,
    },
}

impl Member {
    /// Whether the database can be read here and, where `leader_only`, written.
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
    /// What it says of one database.
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
    fn a_leader_in_touch_is_fit_and_a_follower_only_where_none_is_asked_for() {
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
