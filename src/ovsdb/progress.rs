//! The last known index of a cluster's log, and the distinction between a member that lags and a cluster that was
//! rolled back.
//!
//! A member with a shorter log than the part already read must not be read: rows that it lacks would look deleted.
//! But after the files of a whole cluster were replaced by an older copy (a restored backup, a snapshot of its
//! volumes), all members stay behind. Time distinguishes the two cases, given the member's own report:
//!
//! ```text
//!   behind, leads, in touch with its majority       a leader has every committed entry (Raft paper, 5.4.1), so it was
//!                                                    deposed and does not know it yet, or the cluster was rolled back
//!   behind, follows, in touch with its leader        it lags, or the cluster was rolled back
//! ```
//!
//! A wrong verdict costs a full dump and a false warning: no transaction is sent before an epoch has been raised, and a
//! deposed leader cannot commit that.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::member::{Member, Model};

/// A leader that is cut off from the others notices within one election timer (ovsdb-server(1),
/// `cluster/change-election-timer`: 1 s unless the operator has changed it), and the next election takes one or two
/// more. A leader that stays behind for several times as long is not about to be deposed.
pub(super) const LEADER_LAGS_FOR: Duration = Duration::from_secs(8);
/// A follower may need seconds for a snapshot of a database of hundreds of megabytes. Its verdict counts only where no
/// leader is reachable: on a local socket, and for a database that is only read.
pub(super) const FOLLOWER_LAGS_FOR: Duration = Duration::from_secs(60);

/// The verdict on a member's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not behind.
    Current,
    /// It is behind this index.
    Behind(i64),
    /// It and the whole cluster are behind this index.
    RolledBack(i64),
}

/// The cluster's last known index, and the time since when members are behind it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    cluster: Option<Uuid>,
    index: i64,
    /// The time since when every leader was behind, at every try.
    leader_behind: Option<Instant>,
    /// The time since when every follower was behind.
    follower_behind: Option<Instant>,
}

impl Progress {
    /// Compares the log of a member that reaches its cluster.
    pub(super) fn compare(&mut self, member: &Member, now: Instant) -> Verdict {
        let Model::Clustered { cluster, index } = member.model else { return Verdict::Current };
        if cluster != self.cluster || index >= self.index {
            return Verdict::Current;
        }
        if !member.connected {
            return Verdict::Behind(self.index);
        }
        let (since, patience) = if member.leader {
            (self.leader_behind.get_or_insert(now), LEADER_LAGS_FOR)
        } else {
            (self.follower_behind.get_or_insert(now), FOLLOWER_LAGS_FOR)
        };
        if now.saturating_duration_since(*since) < patience {
            return Verdict::Behind(self.index);
        }
        let before = self.index;
        *self = Self { cluster, index, ..Self::default() };
        Verdict::RolledBack(before)
    }

    /// Records a round in which no place could be used, and whether a leader or a follower was behind in it. A state
    /// that did not last for the whole time is no sign of a rollback.
    pub(super) fn tried_all(&mut self, leader_behind: bool, follower_behind: bool) {
        if !leader_behind {
            self.leader_behind = None;
        }
        if !follower_behind {
            self.follower_behind = None;
        }
    }

    /// Records the index of a member that was read.
    pub(super) fn note(&mut self, member: Option<Member>) {
        let Some(Member { model: Model::Clustered { cluster, index }, .. }) = member else { return };
        let before = if cluster == self.cluster { self.index } else { i64::MIN };
        *self = Self { cluster, index: index.max(before), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Option<Uuid> = Some(Uuid::from_u128(7));

    fn member(index: i64, connected: bool, leader: bool) -> Member {
        Member { model: Model::Clustered { cluster: CLUSTER, index }, connected, leader }
    }

    fn seen(index: i64) -> Progress {
        let mut progress = Progress::default();
        progress.note(Some(member(index, true, true)));
        progress
    }

    #[test]
    fn a_leader_that_stays_behind_for_longer_than_a_change_of_leader_takes_was_rolled_back() {
        let (start, mut progress) = (Instant::now(), seen(100));
        let at = |progress: &mut Progress, after| progress.compare(&member(40, true, true), start + after);
        assert_eq!(at(&mut progress, Duration::ZERO), Verdict::Behind(100));
        assert_eq!(at(&mut progress, LEADER_LAGS_FOR - Duration::from_millis(1)), Verdict::Behind(100));
        assert_eq!(at(&mut progress, LEADER_LAGS_FOR), Verdict::RolledBack(100));
        // Reported once: this is the cluster's index from now on.
        assert_eq!(at(&mut progress, LEADER_LAGS_FOR), Verdict::Current);
        assert_eq!(progress.compare(&member(39, true, true), start), Verdict::Behind(40));
    }

    #[test]
    fn a_leader_that_is_deposed_meanwhile_was_not_rolled_back() {
        let (start, mut progress) = (Instant::now(), seen(100));
        assert_eq!(progress.compare(&member(40, true, true), start), Verdict::Behind(100));
        // At the next try it no longer leads.
        progress.tried_all(false, true);
        assert_eq!(progress.compare(&member(40, true, true), start + LEADER_LAGS_FOR), Verdict::Behind(100));
        // Or another member can be used.
        progress.note(Some(member(101, true, true)));
        assert_eq!(progress.compare(&member(40, true, true), start + LEADER_LAGS_FOR * 2), Verdict::Behind(101));
    }

    #[test]
    fn a_follower_that_lags_is_refused_for_longer_and_a_disconnected_one_for_ever() {
        let (start, mut progress) = (Instant::now(), seen(100));
        for after in [Duration::ZERO, LEADER_LAGS_FOR, FOLLOWER_LAGS_FOR - Duration::from_millis(1)] {
            assert_eq!(progress.compare(&member(40, true, false), start + after), Verdict::Behind(100));
        }
        // A member that reaches no other gives no evidence about the cluster.
        let cut_off = progress.compare(&member(40, false, true), start + FOLLOWER_LAGS_FOR * 9);
        assert_eq!(cut_off, Verdict::Behind(100));
        assert_eq!(progress.compare(&member(99, true, false), start + FOLLOWER_LAGS_FOR), Verdict::RolledBack(100));
    }

    #[test]
    fn another_cluster_a_standalone_server_and_an_equal_index_are_not_behind() {
        let (now, mut progress) = (Instant::now(), seen(100));
        let other =
            Member { model: Model::Clustered { cluster: Some(Uuid::nil()), index: 1 }, ..member(1, true, true) };
        let alone = Member { model: Model::Standalone, ..member(1, true, true) };
        for current in [other, alone, member(100, true, false), member(101, true, false)] {
            assert_eq!(progress.compare(&current, now), Verdict::Current);
        }
    }
}
