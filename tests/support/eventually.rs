//! Waiting for a condition, never for a time: poll every few milliseconds up to a deadline, and print the last state.
//!
//! A test that fails here prints the condition in a sentence, the place in the test, and the last state, so that
//! it need not be run again.
//!
//! A look is `async || ...` or `|| async { ... }`. The bound is `FnMut() -> Future` and not `AsyncFnMut`: a wait on the
//! latter cannot be spawned, since its future is not declared `Send`.

use std::fmt::{Debug, Display};
use std::panic::Location;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// The pause between two looks.
pub const POLL_EVERY: Duration = Duration::from_millis(10);

/// How long a condition may take unless `OVN_KUBEVIRT_TEST_DEADLINE` (seconds) says otherwise: far more than it needs,
/// so that a loaded machine fails no test.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// The deadline of this run.
pub fn deadline() -> Duration {
    static DEADLINE: OnceLock<Duration> = OnceLock::new();
    *DEADLINE.get_or_init(|| match std::env::var("OVN_KUBEVIRT_TEST_DEADLINE") {
        Ok(seconds) => Duration::from_secs(
            seconds
                .parse()
                .unwrap_or_else(|_| panic!("OVN_KUBEVIRT_TEST_DEADLINE={seconds:?} is no number of seconds")),
        ),
        Err(_) => DEFAULT_DEADLINE,
    })
}

/// Polls `look` until it says `Ok`, and gives back its value; an `Err` is the state seen instead.
///
/// A look that hangs (a frozen server) is cut off at the deadline too.
///
/// # Panics
/// At the [`deadline`], with the sentence of the condition, the caller's place and the last state.
#[track_caller]
pub fn eventually<T, E, F, Fut>(condition: &str, look: F) -> impl Future<Output = T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    within(deadline(), condition, look)
}

/// As [`eventually`], with a deadline of its own: for a condition whose speed is part of the claim.
///
/// # Panics
/// When `limit` has passed.
#[track_caller]
pub fn within<T, E, F, Fut>(limit: Duration, condition: &str, mut look: F) -> impl Future<Output = T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let place = Location::caller();
    async move {
        let end = Instant::now() + limit;
        let mut last_seen: Option<String> = None;
        loop {
            match timeout_at(end, look()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(state)) if Instant::now() < end => last_seen = Some(state.to_string()),
                Ok(Err(state)) => {
                    panic!("{place}: not within {limit:?}: {condition}\n  last seen: {state}")
                }
                Err(_) => panic!(
                    "{place}: not within {limit:?}: {condition}\n  the last look did not come back; before it: {}",
                    last_seen.as_deref().unwrap_or("nothing")
                ),
            }
            sleep(POLL_EVERY).await;
        }
    }
}

/// Asserts that `look` says `Ok` all through `duration`.
///
/// # Panics
/// At the first `Err`, with the sentence of the condition, the caller's place, the state and when it was seen.
#[track_caller]
pub fn holds_for<T, E, F, Fut>(condition: &str, duration: Duration, mut look: F) -> impl Future<Output = ()>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let place = Location::caller();
    async move {
        let start = Instant::now();
        loop {
            if let Err(state) = look().await {
                panic!("{place}: did not hold for {duration:?}: {condition}\n  after {:?}: {state}", start.elapsed());
            }
            if start.elapsed() >= duration {
                return;
            }
            sleep(POLL_EVERY).await;
        }
    }
}

/// Asserts that `look` finds nothing all through `duration`.
///
/// # Panics
/// At the first `Some`, with its value.
#[track_caller]
pub fn never<T, F, Fut>(what: &str, duration: Duration, mut look: F) -> impl Future<Output = ()>
where
    T: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let place = Location::caller();
    async move {
        let start = Instant::now();
        loop {
            if let Some(found) = look().await {
                panic!("{place}: happened after {:?}, and never should: {what}\n  {found:?}", start.elapsed());
            }
            if start.elapsed() >= duration {
                return;
            }
            sleep(POLL_EVERY).await;
        }
    }
}
