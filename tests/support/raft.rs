//! The northbound as a RAFT cluster of three real servers.

use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::super::eventually::{POLL_EVERY, eventually};
use super::super::netns::Hosts;
use super::super::ovsdb_server::{OvsdbServer, Seat};
use super::{Northbound, directory};

/// Members of a cluster.
const MEMBERS: usize = 3;
/// An election takes a second or two.
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// Makes a cluster, and waits until all its members are in touch.
async fn members(dir: &TempDir, count: usize, seat: impl Fn(usize) -> Seat) -> Vec<OvsdbServer> {
    let mut servers: Vec<OvsdbServer> = Vec::new();
    let mut others = Vec::new();
    for member in 1..=count {
        let seat = seat(member);
        let address = seat.address.clone();
        let stem = format!("nb{member}");
        servers.push(OvsdbServer::create_member(dir.path(), &stem, "OVN_Northbound", seat, &others).await);
        others.push(address);
    }
    for server in &servers {
        eventually("a member is in touch with its cluster", async || {
            let row = server.membership()?;
            if row["connected"] == true { Ok(()) } else { Err(row.to_string()) }
        })
        .await;
    }
    servers
}

impl Northbound {
    /// The same on a RAFT cluster of three, each member with a unix socket of its own.
    pub async fn start_cluster() -> Self {
        Self::start_cluster_of(MEMBERS).await
    }

    /// The same of so many members. One alone is a cluster, too: it keeps a history of its transactions.
    pub async fn start_cluster_of(count: usize) -> Self {
        let dir = directory();
        let seat = |member: usize| {
            let address = format!("unix:{}", dir.path().join(format!("nb{member}.raft")).display());
            Seat { address, namespace: None }
        };
        let servers = members(&dir, count, seat).await;
        Self::with_servers(dir, servers, None)
    }

    /// The same with each member on a host of its own, which [`cut_off`](Self::cut_off) cuts off from the others. The
    /// test reaches all of them all the time.
    pub async fn start_cluster_on_hosts() -> Self {
        let dir = directory();
        let hosts = Hosts::new(MEMBERS);
        let seat = |member: usize| Seat {
            address: format!("tcp:{}:6643", Hosts::address(member)),
            namespace: Some(hosts.namespace(member)),
        };
        let servers = members(&dir, MEMBERS, seat).await;
        Self::with_servers(dir, servers, Some(hosts))
    }

    /// The members of the cluster, or the one server.
    pub fn members(&self) -> &[OvsdbServer] {
        &self.servers
    }

    /// Which member leads, once one does that runs and is in touch with a majority.
    #[track_caller]
    pub fn leader(&self) -> usize {
        self.leader_among(|_| true)
    }

    /// The same, of those that `fits` says may.
    #[track_caller]
    pub fn leader_among(&self, fits: impl Fn(usize) -> bool) -> usize {
        if self.servers.len() == 1 {
            return 0;
        }
        let deadline = Instant::now() + LEADER_WITHIN;
        loop {
            let memberships: Vec<_> = self
                .servers
                .iter()
                .enumerate()
                .map(|(member, server)| {
                    if fits(member) && server.is_running() { server.membership() } else { Err("not asked".to_owned()) }
                })
                .collect();
            let leads = |row: &Result<Value, String>| {
                row.as_ref().is_ok_and(|row| row["leader"] == true && row["connected"] == true)
            };
            if let Some(leader) = memberships.iter().position(leads) {
                return leader;
            }
            assert!(Instant::now() < deadline, "no member leads: {memberships:#?}");
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Has another member lead, and says which.
    #[track_caller]
    pub fn move_leader(&self) -> usize {
        let old = self.leader();
        self.servers[old].appctl(&["cluster/failure-test", "transfer-leadership"]);
        self.leader_among(|member| member != old)
    }

    /// Cuts a member's host off from the others'.
    pub fn cut_off(&self, member: usize) {
        self.hosts.as_ref().expect("a cluster made by start_cluster_on_hosts()").cut(member + 1);
    }

    /// Ends a [`cut_off`](Self::cut_off).
    pub fn reconnect(&self, member: usize) {
        self.hosts.as_ref().expect("a cluster made by start_cluster_on_hosts()").join(member + 1);
    }
}
