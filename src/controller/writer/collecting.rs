//! The deletion of rows in `DHCP_Options` that no port refers to any more.
//!
//! A row is shared by ports that come and go, so it stays for a while after its last one. It is deleted in a transaction of
//! its own, which waits on its being unused: a port that another program has referred to it meanwhile keeps it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Writer;
use super::batch::Batch;
use crate::controller::link::Office;
use crate::hash::FastSet;
use crate::plan::DhcpChange;

/// The most rows of a transaction: for each, the server looks at every port twice.
const ROWS: usize = 8;

/// Rows of ours to which no port refers.
#[derive(Debug)]
pub(super) struct Unused {
    /// The time since which each is unused, or since which it was last tried.
    since: HashMap<Uuid, Instant>,
    grace: Duration,
}

impl Unused {
    /// No rows; each stays for this long.
    pub(super) fn new(grace: Duration) -> Self {
        Self { since: HashMap::new(), grace }
    }

    /// Takes in the rows that are unused now.
    pub(super) fn see(&mut self, unused: impl Iterator<Item = Uuid>, now: Instant) {
        let mut unused = unused.peekable();
        if unused.peek().is_none() && self.since.is_empty() {
            return;
        }
        let unused: FastSet<Uuid> = unused.collect();
        self.since.retain(|row, _| unused.contains(row));
        for row in unused {
            self.since.entry(row).or_insert(now);
        }
    }

    /// The time at which the first is due.
    fn next(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + self.grace)
    }

    /// Takes the rows that are due, as many as a transaction may have. They are due again after a while, if they are still
    /// there.
    fn take_due(&mut self, now: Instant) -> Vec<Uuid> {
        let due = self.since.iter().filter(|(_, since)| **since + self.grace <= now).map(|(row, _)| *row);
        let due: Vec<Uuid> = due.take(ROWS).collect();
        for row in &due {
            self.since.insert(*row, now);
        }
        due
    }
}

impl Writer {
    /// The time of the next deletion, if this process may make one.
    pub(super) fn next_collection(&self) -> Option<Instant> {
        let is_free = self.pipeline.is_idle() && self.can_plan() && self.office().is_some();
        self.unused.next().filter(|_| is_free)
    }

    /// Deletes rows that have been unused for long enough.
    pub(super) fn collect(&mut self, office: &Arc<Office>) {
        if self.unused.next().is_none_or(|next| next > Instant::now()) {
            return;
        }
        let shared = Arc::clone(&self.northbound);
        let view = self.up_to_date(&shared);
        let due = self.unused.take_due(Instant::now());
        let unused = due.into_iter().filter(|row| view.users_of_dhcp_row(row) == 0);
        let changes: Vec<DhcpChange> = unused.filter_map(|row| DhcpChange::removal(&view, row)).collect();
        if changes.is_empty() {
            return;
        }
        self.pipeline.drop_prepared();
        let mut batch = Batch::new(office, &view, false);
        changes.into_iter().for_each(|change| batch.collect(change));
        self.pipeline.prepare(batch);
        self.launch(&view);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_due_after_its_grace_and_again_after_another_unless_a_port_comes() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut unused = Unused::new(Duration::from_secs(60));
        let [a, b] = [1, 2].map(Uuid::from_u128);
        unused.see([a].into_iter(), at(0));
        unused.see([a, b].into_iter(), at(50));
        assert_eq!((unused.next(), unused.take_due(at(59))), (Some(at(60)), vec![]));
        assert_eq!(unused.take_due(at(60)), [a]);
        // It was not deleted. The other gets a port, and loses it.
        unused.see([a].into_iter(), at(70));
        unused.see([a, b].into_iter(), at(90));
        assert_eq!((unused.take_due(at(119)), unused.take_due(at(120))), (vec![], vec![a]));
        unused.see([b].into_iter(), at(121));
        assert_eq!((unused.next(), unused.take_due(at(150))), (Some(at(150)), vec![b]));
        unused.see([].into_iter(), at(151));
        assert_eq!(unused.next(), None);
    }
}
