//! The time of the next write of names.
//!
//! A write comes at the earliest one interval after the last. Within that bound it waits for company: until 100 ports
//! have changed, or until no port has changed for a fifth of the interval, which is the end of a storm; and at the latest
//! until two intervals after the first change. So a single VM has its name after a fifth of the interval, and in a storm there is
//! one write for 100 ports, or one in two intervals, whichever comes first.

use std::time::Duration;

use tokio::time::Instant;

/// In a storm, a write waits for this many changed ports.
const PORTS: usize = 100;
/// The part of the interval without a change that ends a storm.
const CALM: u32 = 5;
/// The intervals that a change waits at most, where the last write is long ago.
const LATEST: u32 = 2;

/// The changes that have not been written.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    written: Option<Instant>,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    first: Instant,
    last: Instant,
    ports: usize,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, written: None, waiting: None }
    }

    /// So many ports have changed, or none of them and something else.
    pub(super) fn changed(&mut self, ports: usize, now: Instant) {
        let waiting = self.waiting.get_or_insert(Waiting { first: now, last: now, ports: 0 });
        waiting.last = now;
        waiting.ports += ports;
    }

    /// All that waited is sent.
    pub(super) fn written(&mut self, now: Instant) {
        self.written = Some(now);
        self.waiting = None;
    }

    /// Nothing that waited makes a difference.
    pub(super) fn settled(&mut self) {
        self.waiting = None;
    }

    /// The time since which a change waits.
    pub(super) fn since(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.first)
    }

    /// The time of the next write; `None` while nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        let Waiting { first, last, ports } = self.waiting.as_ref()?;
        let ready =
            if *ports >= PORTS { *last } else { (*last + self.interval / CALM).min(*first + self.interval * LATEST) };
        Some(self.written.map_or(ready, |written| ready.max(written + self.interval)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// The times of writes, in tenths of a second, for changes of so many ports at such times.
    fn writes(changes: &[(u64, usize)]) -> Vec<u64> {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL);
        let mut changes = changes.iter().peekable();
        let mut written = Vec::new();
        for tenth in 0..2_000 {
            let now = start + Duration::from_millis(tenth * 100);
            while let Some((_, ports)) = changes.next_if(|(at, _)| *at == tenth) {
                pace.changed(*ports, now);
            }
            if pace.due().is_some_and(|due| due <= now) {
                pace.written(now);
                written.push(tenth);
            }
        }
        assert!(pace.since().is_none());
        written
    }

    #[test]
    fn a_single_vm_has_its_name_after_a_fifth_of_the_interval_and_the_next_after_the_interval() {
        assert_eq!(writes(&[(10, 1)]), [20]);
        assert_eq!(writes(&[(10, 1), (25, 1)]), [20, 70]);
        assert_eq!(writes(&[(10, 1), (300, 1)]), [20, 310]);
        // What is no port waits alike.
        assert_eq!(writes(&[(10, 0)]), [20]);
    }

    #[test]
    fn a_storm_has_one_write_for_each_hundred_ports_and_never_two_in_an_interval() {
        // 300 ports in three seconds.
        let storm: Vec<_> = (0..30).map(|tenth| (tenth, 10)).collect();
        assert_eq!(writes(&storm), [9, 59]);
        // Ten ports a second for half a minute: a write each ten seconds has a hundred of them.
        let storm: Vec<_> = (0..300).map(|tenth| (tenth, 1)).collect();
        assert_eq!(writes(&storm), [99, 199, 299]);
        // 100 a second: one write for each interval.
        let storm: Vec<_> = (0..200).map(|tenth| (tenth, 10)).collect();
        assert_eq!(writes(&storm), [9, 59, 109, 159, 209]);
    }

    #[test]
    fn a_change_in_a_slow_storm_waits_for_two_intervals_at_most() {
        let storm: Vec<_> = (0..60).map(|number| (number * 5, 1)).collect();
        let written = writes(&storm);
        assert_eq!(written, [100, 205, 305]);
    }

    #[test]
    fn what_makes_no_difference_is_forgotten() {
        let now = Instant::now();
        let mut pace = Pace::new(INTERVAL);
        assert_eq!(pace.due(), None);
        pace.changed(1, now);
        assert_eq!((pace.since(), pace.due()), (Some(now), Some(now + INTERVAL / 5)));
        pace.settled();
        assert_eq!((pace.since(), pace.due()), (None, None));
    }
}
