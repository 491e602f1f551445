//! One candidate, step by step. Several on one Lease are in [`fleet`].

use std::time::Duration;

use super::election::{Candidacy, Election, Failure, Leadership, Loss, Moment, Purpose, Request, Step};
use super::object::{Lease, LeaseSpec};
use super::timing::LeaseTiming;

mod fleet;

const STANDS: Candidacy = Candidacy { stands: true, stopping: false };
/// The greatest number of transitions that Kubernetes accepts.
const MOST: u64 = i32::MAX as u64;
const WITHDRAWN: Candidacy = Candidacy { stands: false, stopping: false };
const STOPPING: Candidacy = Candidacy { stands: true, stopping: true };
/// The latest answer to a release.
const SOON: Duration = Duration::from_millis(200);

fn at(milliseconds: u64) -> Moment {
    Moment::from_millis(milliseconds)
}

fn election() -> Election {
    Election::new("me".to_owned(), LeaseTiming::default())
}

fn lease(version: u64, holder: Option<&str>, transitions: i64) -> Lease {
    let spec = LeaseSpec {
        holder_identity: holder.map(ToOwned::to_owned),
        lease_duration_seconds: Some(15),
        acquire_time: None,
        renew_time: Some(format!("the write of {version}")),
        lease_transitions: Some(transitions),
    };
    let mut lease = Lease { spec, ..Lease::default() };
    lease.metadata.resource_version = Some(version.to_string());
    lease
}

/// The Lease that a step writes.
fn write(step: Step) -> (Purpose, Lease) {
    match step.request {
        Some(Request::Write(purpose, lease)) => (purpose, *lease),
        other => panic!("no write: {other:?}, {:?}", step.wake),
    }
}

/// The Lease as the API server stores it.
fn stored(mut lease: Lease, version: u64) -> Lease {
    lease.metadata.resource_version = Some(version.to_string());
    lease.spec.renew_time = Some(format!("the write of {version}"));
    lease
}

/// Leads term 4 since the moment `sent`, at which version 11 was written.
fn leader(sent: Moment) -> Election {
    let mut election = election();
    assert_eq!(election.next(sent, STANDS).request, Some(Request::Read));
    election.read(sent, Some(lease(10, None, 3)));
    let (purpose, draft) = write(election.next(sent + SOON, STANDS));
    assert_eq!((purpose, draft.transitions(), draft.version()), (Purpose::Acquire, 4, Some(10)));
    election.written(sent + SOON, stored(draft, 11));
    election.next(sent + SOON, STANDS);
    assert_eq!(election.leadership(), Leadership::Leader { transitions: 4 });
    election
}

fn follows(election: &Election, leader: &str) -> bool {
    election.leadership() == Leadership::Follower { leader: Some(leader.to_owned()) }
}

#[test]
fn a_missing_lease_is_created() {
    let mut election = election();
    assert_eq!(election.next(at(0), STANDS).request, Some(Request::Read));
    election.read(at(1), None);
    let (purpose, draft) = write(election.next(at(1) + SOON, STANDS));
    let spec = LeaseSpec {
        holder_identity: Some("me".to_owned()),
        lease_duration_seconds: Some(15),
        lease_transitions: Some(1),
        ..LeaseSpec::default()
    };
    assert_eq!((purpose, draft.clone()), (Purpose::Acquire, Lease { spec, ..Lease::default() }));
    election.written(at(300), stored(draft, 7));
    assert_eq!(election.leadership(), Leadership::Leader { transitions: 1 });
}

#[test]
fn a_candidate_that_does_not_stand_sends_no_request() {
    let mut election = election();
    for candidacy in [WITHDRAWN, STOPPING] {
        let step = election.next(at(0), candidacy);
        assert_eq!((step.request, step.wake), (None, None));
        assert!(election.is_released());
    }
    election.watched(at(1), Some(lease(5, Some("other"), 2)));
    assert_eq!(election.next(at(60_000), WITHDRAWN).request, None);
    assert!(follows(&election, "other"));
}

#[test]
fn a_leader_renews_every_retry_period_and_keeps_the_rest_of_the_object() {
    let mut election = leader(at(0));
    let mut labelled = lease(12, Some("me"), 4);
    labelled.metadata.labels = Some([("team".to_owned(), "net".to_owned())].into());
    labelled.spec.renew_time = Some("the write of 11".to_owned());
    election.watched(at(1_000), Some(labelled.clone()));
    let wake = election.next(at(1_000), STANDS);
    assert_eq!((wake.request, wake.wake), (None, Some(at(2_200))), "the acquisition was sent at 200");
    let (purpose, draft) = write(election.next(at(2_200), STANDS));
    assert_eq!(purpose, Purpose::Renew);
    assert_eq!(draft, labelled);
}

#[test]
fn the_deadline_counts_from_the_start_of_the_last_successful_request() {
    let mut election = leader(at(0));
    let (_, draft) = write(election.next(at(2_200), STANDS));
    election.written(at(5_000), stored(draft, 12));
    let (_, _) = write(election.next(at(5_000), STANDS));
    election.failed(at(10_000), Failure::Unknown, at(2_000));
    assert_eq!(election.next(at(10_000), STANDS).wake, Some(at(12_000)));
    write(election.next(at(12_000), STANDS));
    let step = election.next(at(12_199), STANDS);
    assert_eq!((step.request, step.wake), (None, Some(at(12_200))));
    assert_eq!(election.leadership(), Leadership::Leader { transitions: 4 });
    election.next(at(12_200), STANDS);
    assert_eq!(election.leadership(), Leadership::Follower { leader: None });
    assert_eq!(election.loss(), Some(&Loss::Deadline(Duration::from_secs(10))));
    // The answer comes after all: a new term begins at once.
    election.written(at(12_300), lease(13, Some("me"), 4));
    assert_eq!(election.leadership(), Leadership::Follower { leader: None });
    let (purpose, draft) = write(election.next(at(12_300), STANDS));
    assert_eq!((purpose, draft.transitions(), draft.version()), (Purpose::Acquire, 5, Some(13)));
}

#[test]
fn the_first_deadline_counts_from_the_start_of_the_acquisition() {
    let mut election = election();
    election.next(at(0), STANDS);
    election.read(at(1), Some(lease(10, None, 3)));
    let (_, draft) = write(election.next(at(1_000), STANDS));
    election.written(at(5_000), stored(draft, 11));
    write(election.next(at(5_000), STANDS));
    assert_eq!(election.next(at(5_000), STANDS).wake, Some(at(11_000)));
    election.next(at(11_000), STANDS);
    assert_eq!(election.leadership(), Leadership::Follower { leader: None });
    // An answer after the deadline begins no term.
    election.written(at(11_001), lease(12, None, 4));
    let (_, draft) = write(election.next(at(12_000), STANDS));
    election.written(at(22_000), stored(draft, 13));
    election.next(at(22_000), STANDS);
    assert_eq!(election.leadership(), Leadership::Follower { leader: None });
}

#[test]
fn an_acquisition_begins_no_term_after_the_watch_has_reported_its_end() {
    for (later, leads) in [(lease(13, Some("other"), 9), false), (lease(13, Some("me"), 4), true)] {
        let mut election = election();
        election.next(at(0), STANDS);
        election.read(at(1), Some(lease(10, None, 3)));
        let (_, draft) = write(election.next(at(1_000), STANDS));
        election.watched(at(1_200), Some(later));
        election.written(at(1_300), stored(draft, 11));
        election.next(at(1_300), STANDS);
        assert_eq!(matches!(election.leadership(), Leadership::Leader { .. }), leads);
    }
}

#[test]
fn a_conflict_with_our_own_lost_answer_costs_no_term_and_one_with_another_does() {
    for (found, term) in [(lease(12, Some("me"), 4), Some(4)), (lease(12, Some("other"), 5), None)] {
        let mut election = leader(at(0));
        write(election.next(at(2_200), STANDS));
        election.failed(at(2_201), Failure::Conflict, at(100));
        assert_eq!(election.next(at(2_301), STANDS).request, Some(Request::Read));
        election.read(at(2_302), Some(found.clone()));
        let step = election.next(at(2_302), STANDS);
        match term {
            Some(transitions) => {
                assert_eq!(election.leadership(), Leadership::Leader { transitions });
                assert_eq!(write(step), (Purpose::Renew, found));
            }
            None => {
                assert!(follows(&election, "other"));
                assert_eq!(election.loss(), Some(&Loss::Taken("other".to_owned())));
                assert_eq!(step.request, None);
            }
        }
    }
}

#[test]
fn a_late_event_of_the_watch_is_ignored() {
    let mut election = leader(at(0));
    election.watched(at(300), Some(lease(9, Some("other"), 3)));
    election.watched(at(300), Some(lease(10, None, 3)));
    assert_eq!(election.leadership(), Leadership::Leader { transitions: 4 });
    // An absence has no version, so the next renewal is sent at once.
    election.watched(at(400), None);
    assert_eq!(election.leadership(), Leadership::Leader { transitions: 4 });
    assert_eq!(write(election.next(at(400), STANDS)).0, Purpose::Renew);
    // A follower reads the Lease.
    let mut election = self::election();
    election.next(at(0), STANDS);
    election.read(at(1), Some(lease(10, Some("other"), 3)));
    election.watched(at(300), None);
    assert_eq!(election.next(at(300), STANDS).request, Some(Request::Read));
    assert!(follows(&election, "other"));
}

#[test]
fn another_holder_reported_by_the_watch_ends_the_term_at_once() {
    let mut election = leader(at(0));
    election.watched(at(300), Some(lease(12, Some("other"), 5)));
    assert!(follows(&election, "other"));
    // Also in the middle of a renewal.
    let mut election = leader(at(0));
    write(election.next(at(2_200), STANDS));
    election.watched(at(2_300), Some(lease(12, Some("other"), 5)));
    assert!(follows(&election, "other"));
    election.failed(at(2_400), Failure::Conflict, at(100));
    assert!(follows(&election, "other"));
}

#[test]
fn a_deleted_lease_is_created_again_as_a_new_term() {
    let mut election = leader(at(0));
    election.watched(at(300), None);
    write(election.next(at(300), STANDS));
    election.failed(at(301), Failure::Conflict, at(100));
    assert_eq!(election.next(at(401), STANDS).request, Some(Request::Read));
    election.read(at(402), None);
    assert_eq!(election.loss(), Some(&Loss::Deleted));
    assert_eq!(election.leadership(), Leadership::Follower { leader: None });
    let (purpose, draft) = write(election.next(at(402) + SOON, STANDS));
    assert_eq!((purpose, draft.transitions(), draft.version()), (Purpose::Acquire, 5, None));
}

#[test]
fn a_leader_repairs_a_drift_of_its_lease() {
    let mut election = leader(at(0));
    let mut changed = lease(12, Some("me"), 4);
    changed.spec.lease_duration_seconds = Some(1);
    election.watched(at(300), Some(changed));
    let (purpose, draft) = write(election.next(at(300), STANDS));
    assert_eq!((purpose, draft.duration()), (Purpose::Renew, Some(Duration::from_secs(15))));
    // A changed term or an empty holder ends our term.
    for altered in [lease(12, Some("me"), 9), lease(12, None, 9)] {
        let mut election = leader(at(0));
        election.watched(at(300), Some(altered));
        assert_eq!(election.loss(), Some(&Loss::Altered));
        let (purpose, draft) = write(election.next(at(300) + SOON, STANDS));
        assert_eq!((purpose, draft.transitions()), (Purpose::Acquire, 10));
    }
}

#[test]
fn a_leader_that_no_longer_stands_releases_the_lease_at_once() {
    for (candidacy, loss) in [(WITHDRAWN, Loss::Withdrawn), (STOPPING, Loss::Stopping)] {
        let mut election = leader(at(0));
        // Even during a renewal, which may come before or after the release.
        write(election.next(at(2_200), STANDS));
        let (purpose, draft) = write(election.next(at(2_250), candidacy));
        assert_eq!(election.leadership(), Leadership::Follower { leader: None });
        assert_eq!(election.loss(), Some(&loss));
        assert_eq!((purpose, draft.version()), (Purpose::Release, Some(11)));
        assert_eq!((draft.holder(), draft.duration(), draft.transitions()), (None, Some(Duration::from_secs(1)), 4));
        assert!(!election.is_released());
        election.failed(at(2_260), Failure::Conflict, at(100));
        assert!(!election.is_released());
        assert_eq!(election.next(at(2_360), candidacy).request, Some(Request::Read));
        election.read(at(2_361), Some(lease(12, Some("me"), 4)));
        let (purpose, draft) = write(election.next(at(2_361), candidacy));
        assert_eq!((purpose, draft.version()), (Purpose::Release, Some(12)));
        election.written(at(2_370), stored(draft, 13));
        assert!(election.is_released());
        assert_eq!(election.next(at(60_000), candidacy).request, None);
    }
}

#[test]
fn a_release_that_conflicts_with_a_new_label_is_tried_again() {
    let mut election = leader(at(0));
    let (_, draft) = write(election.next(at(500), STOPPING));
    assert_eq!(draft.version(), Some(11));
    election.failed(at(501), Failure::Conflict, at(100));
    assert!(!election.is_released());
    assert_eq!(election.next(at(601), STOPPING).request, Some(Request::Read));
    election.read(at(602), Some(lease(12, Some("me"), 4)));
    let (purpose, draft) = write(election.next(at(602), STOPPING));
    assert_eq!((purpose, draft.version()), (Purpose::Release, Some(12)));
}

#[test]
fn an_acquisition_that_succeeds_too_late_is_released() {
    let mut election = election();
    election.next(at(0), STANDS);
    election.read(at(1), Some(lease(10, None, 3)));
    let (_, draft) = write(election.next(at(1) + SOON, STANDS));
    // It waits for the answer: the acquisition may have been carried out.
    assert_eq!(election.next(at(300), STOPPING).request, None);
    assert!(!election.is_released());
    election.written(at(400), stored(draft, 11));
    let step = election.next(at(400), STOPPING);
    assert_eq!(election.leadership(), Leadership::Follower { leader: None });
    assert_eq!(write(step).0, Purpose::Release);
    // Without an answer it reads the Lease.
    let mut election = self::election();
    election.next(at(0), STANDS);
    election.read(at(1), Some(lease(10, None, 3)));
    write(election.next(at(1) + SOON, STANDS));
    election.failed(at(5_000), Failure::Unknown, at(100));
    assert!(!election.is_released());
    assert_eq!(election.next(at(5_100), STOPPING).request, Some(Request::Read));
    election.read(at(5_200), Some(lease(11, Some("me"), 4)));
    assert_eq!(write(election.next(at(5_200), STOPPING)).0, Purpose::Release);
}

#[test]
fn a_follower_waits_on_its_own_clock_for_the_holders_duration_after_the_last_change() {
    let mut election = election();
    election.next(at(0), STANDS);
    let mut theirs = lease(10, Some("other"), 3);
    theirs.spec.lease_duration_seconds = Some(30);
    theirs.spec.renew_time = Some("9999-12-31T23:59:59.000000Z".to_owned());
    election.read(at(5), Some(theirs.clone()));
    assert!(follows(&election, "other"));
    // Seen again, with a new label: this is no renewal.
    theirs.metadata.resource_version = Some("11".to_owned());
    election.watched(at(20_000), Some(theirs.clone()));
    let expiry = expiry(&mut election, &theirs, at(20_000));
    assert!((at(30_005)..=at(31_005)).contains(&expiry), "{expiry:?}");
    // Renewed.
    theirs.metadata.resource_version = Some("12".to_owned());
    theirs.spec.renew_time = Some("1970-01-01T00:00:00.000000Z".to_owned());
    election.watched(at(30_004), Some(theirs.clone()));
    let expiry = self::expiry(&mut election, &theirs, at(30_004));
    assert!((at(60_004)..=at(61_004)).contains(&expiry), "{expiry:?}");
    let (purpose, draft) = write(election.next(expiry, STANDS));
    assert_eq!((purpose, draft.transitions(), draft.version()), (Purpose::Acquire, 4, Some(12)));
    assert_eq!(draft.duration(), Some(Duration::from_secs(15)));
}

/// The time at which a follower that sees no change takes the Lease. It reads the Lease from time to time.
fn expiry(election: &mut Election, lease: &Lease, mut now: Moment) -> Moment {
    loop {
        let mut wake = election.next(now, STANDS);
        match wake.request.take() {
            None => now = wake.wake.expect("a time"),
            Some(Request::Read) => drop(election.read(now, Some(lease.clone()))),
            Some(Request::Write(..)) => {
                election.failed(now, Failure::Refused, Duration::ZERO);
                return now;
            }
        }
    }
}

#[test]
fn a_released_lease_is_taken_at_once_and_the_lost_race_is_only_a_look() {
    let mut election = election();
    election.next(at(0), STANDS);
    election.read(at(5), Some(lease(10, Some("other"), 3)));
    election.watched(at(1_000), Some(lease(11, None, 3)));
    assert_eq!(election.leadership(), Leadership::Follower { leader: None });
    let wake = election.next(at(1_000), STANDS).wake.expect("a time");
    assert!(wake <= at(1_100), "{wake:?}");
    assert_eq!(write(election.next(wake, STANDS)).0, Purpose::Acquire);
    election.failed(at(1_200), Failure::Conflict, at(100));
    assert_eq!(election.next(at(1_300), STANDS).request, Some(Request::Read));
    election.read(at(1_301), Some(lease(12, Some("third"), 4)));
    assert_eq!(election.next(at(1_301), STANDS).request, None);
    assert!(follows(&election, "third"));
}

#[test]
fn a_follower_reads_the_lease_when_the_watch_is_broken_or_silent() {
    let mut election = election();
    election.next(at(0), STANDS);
    election.read(at(5), Some(lease(10, Some("other"), 3)));
    // The watch should have reported two renewals.
    assert_eq!(election.next(at(5), STANDS).wake, Some(at(5_005)));
    assert_eq!(election.next(at(5_005), STANDS).request, Some(Request::Read));
    election.read(at(5_006), Some(lease(11, Some("other"), 3)));
    election.watch_broke();
    assert_eq!(election.next(at(5_006), STANDS).wake, Some(at(7_006)));
    assert_eq!(election.next(at(7_006), STANDS).request, Some(Request::Read));
    election.read(at(7_007), Some(lease(11, Some("other"), 3)));
    assert_eq!(election.next(at(7_007), STANDS).wake, Some(at(9_007)));
    // The watch reports again.
    election.watched(at(8_000), Some(lease(12, Some("other"), 3)));
    assert_eq!(election.next(at(8_000), STANDS).wake, Some(at(13_000)));
}

#[test]
fn an_invalid_lease_is_taken() {
    let named = |change: fn(&mut LeaseSpec)| {
        let mut garbage = lease(10, Some("other"), 3);
        change(&mut garbage.spec);
        garbage
    };
    let garbage = [
        (named(|spec| *spec = LeaseSpec::default()), 1),
        (named(|spec| spec.holder_identity = Some(String::new())), 4),
        (named(|spec| spec.lease_duration_seconds = None), 4),
        (named(|spec| spec.lease_duration_seconds = Some(-5)), 4),
        (named(|spec| spec.lease_duration_seconds = Some(0)), 4),
        (named(|spec| spec.lease_duration_seconds = Some(i32::MAX.into())), 4),
        (named(|spec| spec.lease_duration_seconds = Some(i64::MAX)), 4),
        (named(|spec| spec.lease_transitions = Some(-7)), 1),
        (named(|spec| spec.lease_transitions = Some(i64::MIN)), 1),
        (named(|spec| spec.lease_transitions = Some(i32::MAX.into())), MOST),
        (named(|spec| spec.lease_transitions = Some(i64::MAX)), MOST),
        (named(|spec| spec.renew_time = Some("9999-12-31T23:59:59.000000Z".to_owned())), 4),
        (named(|spec| spec.renew_time = None), 4),
    ];
    for (found, transitions) in garbage {
        let mut election = election();
        election.next(at(0), STANDS);
        election.read(at(0), Some(found.clone()));
        let expiry = expiry(&mut election, &found, at(0));
        assert!(expiry <= at(16_000), "{found:?}: {expiry:?}");
        let (purpose, draft) = write(election.next(expiry, STANDS));
        assert_eq!((purpose, draft.transitions()), (Purpose::Acquire, transitions), "{found:?}");
        election.written(expiry, stored(draft, 11));
        assert_eq!(election.leadership(), Leadership::Leader { transitions }, "{found:?}");
    }
}

#[test]
fn a_date_beyond_the_range_of_our_types_is_read() {
    let text = r#"{"metadata":{"name":"x","resourceVersion":"7"},
        "spec":{"holderIdentity":"a","renewTime":"9999-12-31T23:59:59.000000Z","strategy":"OldestEmulationVersion"}}"#;
    let lease: Lease = serde_json::from_str(text).expect("a Lease");
    assert_eq!((lease.holder(), lease.version()), (Some("a"), Some(7)));
    let without: Lease = serde_json::from_str(r#"{"metadata":{"name":"x"}}"#).expect("a Lease");
    assert_eq!(without.holder(), None);
}

#[test]
fn the_proportions_are_those_of_client_go() {
    let timing = LeaseTiming::default();
    let spans = [timing.lease(), timing.renew_deadline(), timing.retry_period(), timing.request_timeout()];
    assert_eq!(spans, [15, 10, 2, 5].map(Duration::from_secs));
    assert_eq!(LeaseTiming::of_seconds(0).lease(), Duration::from_secs(1));
    assert_eq!(LeaseTiming::of_seconds(u32::MAX).lease(), Duration::from_secs(600));
}
