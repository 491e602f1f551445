//! The northbound as a RAFT cluster of three real servers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::super::eventually::{POLL_EVERY, eventually};
use super::super::netns::Hosts;
use super::super::ovsdb_server::{OvsdbServer, Seat};
use super::super::raft_log::{self, Committed};
use super::{Northbound, Port, directory};

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

    /// The same with each member on a host of its own, joined to the others by a cable that [`cut_off`](Self::cut_off)
    /// takes out. The test reaches all of them all the time. Network namespaces need root.
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

    /// Copies the files of all members as they are at one moment, for [`roll_back`](Self::roll_back). The cluster is away
    /// meanwhile.
    pub async fn copy_files(&self) {
        self.replace_files(|file, copy| (file, copy)).await;
    }

    /// Puts the copies of all members' files back: the same cluster, with an older log.
    pub async fn roll_back(&self) {
        self.replace_files(|file, copy| (copy, file)).await;
    }

    async fn replace_files(&self, from_to: impl Fn(PathBuf, PathBuf) -> (PathBuf, PathBuf)) {
        for server in &self.servers {
            server.stop().await;
        }
        for server in &self.servers {
            let (from, to) = from_to(server.file("db"), server.file("copy"));
            std::fs::copy(&from, &to).unwrap_or_else(|error| panic!("{} is copied: {error}", from.display()));
        }
        for server in &self.servers {
            server.start_again().await;
        }
    }

    /// The members of the cluster, or the one server.
    pub fn members(&self) -> &[OvsdbServer] {
        &self.servers
    }

    /// The logical switch ports of a member, sorted by name: [`ports`](Self::ports) asks the leader.
    #[track_caller]
    pub fn ports_on(&self, member: usize) -> Vec<Port> {
        Port::all_of(&self.servers[member])
    }

    /// Waits until every member has the same rows in every table.
    pub async fn members_agree(&self) {
        let tables = self.server().tables();
        eventually("all members have the same rows", async || {
            let first = Self::dump_of(&self.servers[0], &tables)?;
            for (member, server) in self.servers.iter().enumerate().skip(1) {
                let other = Self::dump_of(server, &tables)?;
                if other != first {
                    return Err(format!("member 0:\n{first}\nmember {member}:\n{other}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// All transactions of the cluster in their order, as a member has them in its file.
    #[track_caller]
    pub fn committed(&self, member: usize) -> Vec<Committed> {
        raft_log::committed(&self.servers[member].file("db"))
    }

    /// Which member leads, once one does that the test can speak with.
    #[track_caller]
    pub fn leader(&self) -> usize {
        self.leader_among(|_| true)
    }

    /// The same, of those that `fits` says may.
    #[track_caller]
    pub fn leader_among(&self, fits: impl Fn(usize) -> bool) -> usize {
        let deadline = Instant::now() + LEADER_WITHIN;
        loop {
            match self.leader_now(&fits) {
                Ok(leader) => return leader,
                Err(state) => assert!(Instant::now() < deadline, "no member leads: {state}"),
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// The leading member, according to the members themselves. One that is frozen or cut off is not asked: it does not
    /// know yet that it is deposed.
    fn leader_now(&self, fits: impl Fn(usize) -> bool) -> Result<usize, String> {
        if self.servers.len() == 1 {
            return Ok(0);
        }
        let memberships = self.servers.iter().enumerate().map(|(member, server)| {
            if !fits(member) || !server.answers() || self.is_cut_off(member) {
                return Err("not asked".to_owned());
            }
            server.membership()
        });
        let memberships: Vec<Result<Value, String>> = memberships.collect();
        let leads = |row: &Result<Value, String>| {
            row.as_ref().is_ok_and(|row| row["leader"] == true && row["connected"] == true)
        };
        memberships.iter().position(leads).ok_or_else(|| format!("{memberships:#?}"))
    }

    /// Waits until another member than this one leads.
    pub async fn leader_other_than(&self, member: usize) -> usize {
        let what = format!("another than member {member} leads");
        eventually(&what, async || self.leader_now(|other| other != member)).await
    }

    /// Has another member lead, and says which. A leader hands over in peace to the first other one in the order of
    /// their random ids (OVS 3.1), so that two members take turns and the third never leads.
    #[track_caller]
    pub fn move_leader(&self) -> usize {
        let old = self.leader();
        self.hand_over(old);
        self.leader_among(|member| member != old)
    }

    /// Has that member lead: by a handover where the leader would hand over to it, and otherwise by an election, while
    /// which the leader is not heard and the third member waits longer.
    pub async fn move_leader_to(&self, member: usize) {
        eventually(&format!("member {member} leads"), async || {
            let leader = self.leader_now(|_| true)?;
            if leader == member {
                return Ok(());
            }
            self.hand_over(leader);
            let leader = self.leader_other_than(leader).await;
            if leader == member {
                return Ok(());
            }
            let third = (0..self.servers.len()).find(|other| ![leader, member].contains(other));
            self.fail(third.expect("a cluster of three"), "delay-election");
            self.silence(leader);
            let next = self.leader_other_than(leader).await;
            self.fail(third.expect("a cluster of three"), "clear");
            self.reconnect(leader);
            // The status of the silenced member is stale until it knows the new leader.
            eventually("the old leader follows", async || {
                let row = self.servers[leader].membership()?;
                if row["leader"] == false && row["connected"] == true { Ok(()) } else { Err(row.to_string()) }
            })
            .await;
            if next == member { Ok(()) } else { Err(format!("member {next} leads")) }
        })
        .await;
    }

    /// Cuts a member off from the others, while its clients still reach it: takes the cable out where members have
    /// hosts of their own, and else has the server neither send nor receive RAFT messages.
    #[track_caller]
    pub fn cut_off(&self, member: usize) {
        match &self.hosts {
            Some(hosts) => {
                self.cut_members().insert(member);
                hosts.cut(member + 1);
            }
            None => self.silence(member),
        }
    }

    /// Ends a [`cut_off`](Self::cut_off).
    #[track_caller]
    pub fn reconnect(&self, member: usize) {
        if let Some(hosts) = &self.hosts {
            hosts.join(member + 1);
        }
        self.fail(member, "clear");
        self.cut_members().remove(&member);
    }

    fn silence(&self, member: usize) {
        self.cut_members().insert(member);
        self.fail(member, "stop-raft-rpc");
    }

    #[track_caller]
    fn hand_over(&self, leader: usize) {
        self.fail(leader, "transfer-leadership");
    }

    #[track_caller]
    fn fail(&self, member: usize, how: &str) {
        self.servers[member].appctl(&["cluster/failure-test", how]);
    }

    fn is_cut_off(&self, member: usize) -> bool {
        self.cut_members().contains(&member)
    }

    fn cut_members(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.cut_off.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
