//! Allocations and releases in a pool: the cost of the lowest free address by the number of held ones, in nanoseconds each.
//!
//! No server is part of it. A pool of so many leases, in one run from the subnet's beginning, as a switch has them; then
//! the address is taken that is the lowest free one, or a lease somewhere is released, by turns.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

#[allow(dead_code, reason = "each bench uses a part of it")]
mod common;

use common::machine::Busy;
use common::{is_test, median};
use ovn_kubevirt::ipam::{AddressSet, Pool, RangeSet, Subnet};

/// Allocations, and as many releases.
const COUNT: u32 = 1_000_000;
const ROUNDS: usize = 3;

fn main() {
    if is_test() {
        return;
    }
    println!("a million allocations and releases, ns each, medians of {ROUNDS}");
    println!(
        "{:<26}{:>10}{:>12}{:>12}{:>16}{:>14}",
        "", "leases", "allocate", "release", "a set of all", "no free one"
    );
    let busy = Busy::begin();
    for (name, subnet) in [("10.0.0.0/8", ipv4()), ("fd00::/64", ipv6())] {
        for leases in [1, 100_000, 1_000_000] {
            let rounds: Vec<[f64; 4]> = (0..ROUNDS).map(|_| round(&subnet, name == "10.0.0.0/8", leases)).collect();
            let of = |index: usize| median(rounds.iter().map(|round| round[index]).collect());
            let [allocate, release, plain, full] = [0, 1, 2, 3].map(of);
            println!("{name:<26}{leases:>10}{allocate:>12.0}{release:>12.0}{plain:>16.0}{full:>14.0}");
        }
    }
    println!("machine: {}", busy.end());
}

fn ipv4() -> Subnet {
    Subnet::new(Some("10.0.0.0/8"), Some("10.0.0.1"), None, []).expect("a subnet")
}

fn ipv6() -> Subnet {
    Subnet::new(None, None, Some("fd00::"), []).expect("a subnet")
}

/// Nanoseconds an allocation, a release, an allocation by a search in a sorted set of all addresses that are held (a
/// sample), and the answer that a full range has none.
fn round(subnet: &Subnet, is_ipv4: bool, leases: u32) -> [f64; 4] {
    let (given, services) = (RangeSet::default(), AddressSet::default());
    let spans = subnet.spans(is_ipv4, None);
    let mut pool = Pool::default();
    let mut held: Vec<IpAddr> = Vec::new();
    let take = |pool: &mut Pool<u32>, held: &mut Vec<IpAddr>| {
        let address = pool.lowest_free(&spans, &[&given], &services).expect("a free address");
        pool.hold(address, 0);
        held.push(address);
    };
    (0..leases).for_each(|_| take(&mut pool, &mut held));
    let (plain, full) = (plain(&held), full(subnet, is_ipv4, &pool));
    let (mut allocating, mut releasing) = (0, 0);
    let mut random = 1_u64;
    // By turns of a hundred, so that the clock's cost does not count.
    for _ in 0..COUNT / 100 {
        let begin = Instant::now();
        (0..100).for_each(|_| take(&mut pool, &mut held));
        allocating += begin.elapsed().as_nanos();
        let gone: Vec<IpAddr> = (0..100).map(|_| held.swap_remove(next(&mut random) as usize % held.len())).collect();
        let begin = Instant::now();
        for address in &gone {
            pool.release(*address, &0);
        }
        releasing += begin.elapsed().as_nanos();
    }
    let each = |nanoseconds: u128| nanoseconds as f64 / f64::from(COUNT);
    [each(allocating), each(releasing), plain, full]
}

/// The lowest free address by going through a sorted set, as the simplest program does.
fn plain(held: &[IpAddr]) -> f64 {
    let held: BTreeSet<IpAddr> = held.iter().copied().collect();
    let begin = Instant::now();
    let samples = 20;
    for _ in 0..samples {
        let gap = held.iter().zip(held.iter().skip(1)).find(|(one, next)| number(**one) + 1 != number(**next));
        std::hint::black_box(gap);
    }
    begin.elapsed().as_nanos() as f64 / f64::from(samples)
}

/// The cost to find that a range is full: as long as the longest held run.
fn full(subnet: &Subnet, is_ipv4: bool, pool: &Pool<u32>) -> f64 {
    let lowest = subnet.spans(is_ipv4, None);
    let end = pool.lowest_free(&lowest, &[], &AddressSet::default()).expect("a free address");
    let first = if is_ipv4 { IpAddr::from(Ipv4Addr::new(10, 0, 0, 2)) } else { "fd00::2".parse().expect("an address") };
    if number(first) >= number(end) {
        return 0.0;
    }
    let last = number(end) - 1;
    let last = if is_ipv4 { IpAddr::from(Ipv4Addr::from(last as u32)) } else { std::net::Ipv6Addr::from(last).into() };
    let range = format!("{first}..{last}").parse().expect("a pool");
    let spans = subnet.spans(is_ipv4, Some(&range));
    let begin = Instant::now();
    let samples = 10_000;
    for _ in 0..samples {
        let none = pool.lowest_free(&spans, &[], &AddressSet::default());
        assert_eq!(std::hint::black_box(none), None);
    }
    begin.elapsed().as_nanos() as f64 / f64::from(samples)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// A xorshift: any will do.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
