//! The phases by example: objects as the watches show them, and commits as the writer makes them.

use std::time::Duration;

use super::*;
use crate::contract::keys;
use crate::controller::Metrics;
use crate::kubevirt::{Launcher, Migration, PodNetworks, Reported, Run};
use crate::ovn::LogicalSwitchPort;
use crate::plan::Placed;
use uuid::Uuid;

/// A migration, followed from the beginning.
struct Course {
    metrics: Metrics,
    migrations: Migrations,
    vm: VmKey,
    begin: Instant,
    /// The chassis of its port.
    chassis: &'static str,
    has_port: bool,
    two: bool,
}

impl Course {
    fn new() -> Self {
        let metrics = Metrics::default();
        let migrations = Migrations::new(metrics.migrations());
        let (vm, begin) = (VmKey::new("n", "vm"), Instant::now());
        Self { metrics, migrations, vm, begin, chassis: "hv1", has_port: true, two: true }
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.begin + Duration::from_millis(milliseconds)
    }

    /// A watch event after so many milliseconds.
    fn event(&mut self, milliseconds: u64, objects: Option<&VmObjects>) {
        let at = self.at(milliseconds);
        self.look(objects, Some(at));
    }

    fn look(&mut self, objects: Option<&VmObjects>, at: Option<Instant>) {
        let ports = match self.chassis.contains(',') {
            _ if !self.has_port => Ports::None,
            true => Ports::Open,
            false => Ports::Single,
        };
        self.migrations.look(&self.vm, objects, (ports, self.two), at);
    }

    /// A commit after so many milliseconds.
    fn commit(&mut self, milliseconds: u64, chassis: &'static str) {
        let placed = |chassis: &'static str| Placed {
            switch: Uuid::nil(),
            row: LogicalSwitchPort {
                options: [(keys::REQUESTED_CHASSIS, chassis)].into_iter().collect(),
                ..LogicalSwitchPort::default()
            },
        };
        let before = std::mem::replace(&mut self.chassis, chassis);
        let change = PortChange { uuid: Uuid::nil(), before: Some(placed(before)), after: Some(placed(chassis)) };
        let at = self.at(milliseconds);
        self.migrations.committed(&self.vm, &change, at);
    }

    /// The number of migrations under way by phase.
    fn phases(&self) -> [usize; 4] {
        self.migrations.under_way.by_phase(self.begin).map(|(count, _)| count)
    }

    /// The sum of the durations of a phase in milliseconds, and their number.
    fn duration(&self, phase: &str) -> (u64, u64) {
        let of = |part: &str| {
            let begin = format!("ovn_kubevirt_migration_phase_duration_seconds_{part}{{phase=\"{phase}\"}} ");
            let text = self.metrics.text();
            let value = text.lines().find_map(|line| line.strip_prefix(&begin)).expect("a sample").to_owned();
            value.parse::<f64>().expect("a number")
        };
        ((of("sum") * 1e3).round() as u64, of("count") as u64)
    }

    fn ended(&self, outcome: &str) -> bool {
        let line = format!("ovn_kubevirt_migrations_ended_total{{outcome=\"{outcome}\"}} 1\n");
        self.phases() == [0; 4] && self.metrics.text().contains(&line)
    }
}

/// A VM on `n1` with a migration to `n2`.
fn objects(ready: bool, finished: bool) -> VmObjects {
    let launcher = |node: &str, created, migration: Option<&str>| Launcher {
        run_uid: "r".into(),
        node: Some(node.into()),
        live: true,
        created,
        migration: migration.map(Into::into),
        networks: PodNetworks::default(),
    };
    let run = Run {
        uid: "r".into(),
        vm_uid: None,
        template: Err("not read here".into()),
        node: Some("n1".into()),
        domain_ready_on: ready.then(|| "target".into()),
        reported: Reported::default(),
    };
    let launchers = [("source", launcher("n1", 1, None)), ("target", launcher("n2", 2, Some("m")))];
    VmObjects {
        run: Some(run),
        launchers: launchers.into_iter().map(|(name, launcher)| (name.to_owned(), launcher)).collect(),
        migrations: [("migration".to_owned(), Migration { uid: "m".into(), phase: String::new(), finished })].into(),
        ..VmObjects::default()
    }
}

#[test]
fn a_migration_that_arrives_is_timed_from_phase_to_phase() {
    let mut course = Course::new();
    course.event(0, Some(&objects(false, false)));
    assert_eq!(course.phases(), [1, 0, 0, 0]);
    course.event(5, Some(&objects(false, false)));
    course.commit(10, "hv1,hv2");
    assert_eq!((course.phases(), course.duration("scheduled")), ([0, 1, 0, 0], (10, 1)));
    course.event(60, Some(&objects(true, false)));
    assert_eq!((course.phases(), course.duration("open")), ([0, 0, 1, 0], (50, 1)));
    let age = course.migrations.under_way.by_phase(course.at(75))[Phase::Ready as usize].1;
    assert_eq!(age, Duration::from_millis(15));
    course.commit(80, "hv2");
    assert_eq!(course.duration("ready"), (20, 1));
    assert!(course.ended("arrived"), "{}", course.metrics.text());
    course.event(90, Some(&objects(true, true)));
    assert_eq!((course.phases(), course.duration("returning")), ([0; 4], (0, 0)));
}

#[test]
fn a_migration_that_fails_returns_once_the_port_is_closed_on_the_target() {
    let mut course = Course::new();
    course.event(0, Some(&objects(false, false)));
    course.commit(10, "hv1,hv2");
    course.event(30, Some(&objects(false, true)));
    assert_eq!(course.phases(), [0, 0, 0, 1]);
    course.commit(35, "hv1");
    assert_eq!((course.duration("returning"), course.duration("open")), ((5, 1), (0, 0)));
    assert!(course.ended("returned"));
}

#[test]
fn a_migration_that_fails_before_its_port_is_open_returns_at_once() {
    let mut course = Course::new();
    course.event(0, Some(&objects(false, false)));
    course.event(9, Some(&objects(false, true)));
    assert!(course.ended("returned"));
    assert_eq!(course.duration("scheduled"), (0, 0));
}

#[test]
fn a_vm_that_is_deleted_meanwhile_vanishes() {
    let mut course = Course::new();
    course.event(0, Some(&objects(false, false)));
    course.commit(10, "hv1,hv2");
    course.event(20, None);
    assert!(course.ended("vanished"));
    course.commit(30, "hv1");
    assert_eq!(course.phases(), [0; 4]);
}

#[test]
fn a_migration_that_began_under_another_leader_is_counted_and_its_unknown_phase_is_not_timed() {
    let mut course = Course::new();
    course.chassis = "hv1,hv2";
    course.look(Some(&objects(false, false)), None);
    assert_eq!(course.phases(), [0, 1, 0, 0]);
    course.event(60, Some(&objects(true, false)));
    course.commit(65, "hv2");
    assert_eq!((course.duration("open"), course.duration("ready")), ((0, 0), (5, 1)));
    assert!(course.ended("arrived"));
}

#[test]
fn where_a_port_has_one_chassis_at_a_time_no_target_waits_for_it() {
    let mut course = Course::new();
    course.two = false;
    course.event(0, Some(&objects(false, false)));
    assert_eq!(course.phases(), [0, 1, 0, 0]);
    course.event(60, Some(&objects(true, false)));
    course.commit(70, "hv2");
    assert_eq!((course.duration("scheduled"), course.duration("ready")), ((0, 0), (10, 1)));
    assert!(course.ended("arrived"));
}

#[test]
fn a_vm_without_ports_and_a_process_that_no_longer_leads_have_no_migrations() {
    let mut course = Course::new();
    course.has_port = false;
    course.event(0, Some(&objects(false, false)));
    assert_eq!(course.phases(), [0; 4]);
    course.has_port = true;
    course.event(5, Some(&objects(false, false)));
    assert!(course.migrations.has(&VmKey::new("n", "vm")));
    course.migrations.clear();
    assert!(course.phases() == [0; 4] && !course.migrations.has(&VmKey::new("n", "vm")));
}
