//! The shared parts of the benches: the servers of the tests' harness, the cost of a process, the load of the machine, big
//! databases made fast, and the printing of figures.

#[allow(dead_code, unused_imports, unreachable_pub, reason = "each target uses a part of the harness")]
#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

pub(crate) mod fill;
pub(crate) mod machine;
pub(crate) mod usage;

use std::time::Duration;

/// `cargo test --benches` runs a bench, too, where no measurement is wanted.
pub(crate) fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// A size or a number of rounds that a variable sets, for development: the default is the published one.
pub(crate) fn setting(variable: &str, default: &[usize]) -> Vec<usize> {
    let Ok(text) = std::env::var(variable) else { return default.to_vec() };
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no list of numbers"));
    text.split(',').map(number).collect()
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// As milliseconds.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
