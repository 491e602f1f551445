//! Live migrations against a model of northd and of the guest: two and more, in any interleaving with
//! failures, a lagging northd and restarts of this service.
//!
//! ```text
//!  KubeVirt: VMIM, target pod, its node, domain-ready, node moved, Succeeded, source pod ends
//!            or, at any point, Failed or cancelled
//!  service:  decides about the VM, or is restarted
//!  northd:   takes the port's options into the southbound; the mark of an activation stays there for
//!            as long as any additional chassis remains
//!  guest:    announces itself by RARP on the node that it runs on
//! ```

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::json;
use uuid::Uuid;

use super::objects::{Template, pod_change, run_change, vm_change};
use super::world::{port_changes, settings};
use crate::contract::{VmKey, keys};
use crate::intent::VmIntent;
use crate::kubevirt::{Change, Cluster, Kind, Namespace};
use crate::ovn::{Chassis, LogicalSwitch, LogicalSwitchPort, NbGlobal, Northbound, PortBinding, Southbound};
use crate::plan::decide::decide_intent;
use crate::plan::{Claims, RowChange, Seen, Settling, Snapshot};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The migration under way continues, or the next one begins.
    Kubevirt,
    /// It fails.
    Fail,
    /// Its VMIM is deleted.
    Cancel,
    /// The service decides about the VM.
    Look,
    /// The service is restarted.
    Restart,
    /// northd does its work.
    Northd,
    /// The guest announces itself.
    Rarp,
}

/// A migration that is under way.
#[derive(Debug, Clone)]
struct Moving {
    number: usize,
    target: usize,
    stage: usize,
}

/// The binding of the port by northd.
#[derive(Debug, Clone, Default, PartialEq)]
struct Binding {
    main: String,
    additional: Option<String>,
    activated: Option<String>,
}

struct Model {
    with_southbound: bool,
    cluster: Cluster,
    northbound: Northbound,
    southbound: Southbound,
    settling: Settling,
    global: NbGlobal,
    binding: Binding,
    /// The node that the guest runs on, and its launcher pod.
    home: usize,
    source_pod: String,
    moving: Option<Moving>,
    /// The guest runs on the target, and the VMI does not say so yet.
    ready_on: Option<String>,
    migrations: usize,
}

const SWITCH: Uuid = Uuid::from_u128(1);

fn vm() -> VmKey {
    VmKey::new("n", "vm")
}

fn node(number: usize) -> String {
    format!("n{number}")
}

impl Model {
    fn new(with_southbound: bool) -> Self {
        let mut model = Self {
            with_southbound,
            cluster: Cluster::default(),
            northbound: Northbound::new("default"),
            southbound: Southbound::default(),
            settling: Settling::default(),
            global: NbGlobal::default(),
            binding: Binding::default(),
            home: 0,
            source_pod: "launcher-0".into(),
            moving: None,
            ready_on: None,
            migrations: 0,
        };
        for number in 0..3 {
            model.southbound.put_chassis(number as u128 + 1, Chassis { name: node(number), hostname: String::new() });
        }
        let other_config = [("subnet", "10.0.0.0/24")].into_iter().collect();
        model.northbound.put_switch(SWITCH, LogicalSwitch { name: "blue".into(), other_config, ..Default::default() });
        model.northbound.put_global(model.global.clone());
        model
            .cluster
            .apply(Change::Namespace(Box::new(serde_json::from_value(json!({"name": "n"})).expect("a namespace"))));
        model.cluster.apply(vm_change(&vm(), "u", &Template::new([])));
        model.tell_run();
        model.tell_pod("launcher-0", Some(0), true, None);
        model.look();
        model.northd();
        model
    }

    fn tell_run(&mut self) {
        let (home, ready) = (node(self.home), self.ready_on.clone());
        let change = run_change(&vm(), "run", &Template::new([]), Some(&home), ready.as_deref());
        self.cluster.apply(change);
    }

    fn tell_pod(&mut self, name: &str, on: Option<usize>, live: bool, migration: Option<usize>) {
        let on = on.map(node);
        let Change::Launcher(mut pod) = pod_change(&vm(), name, "run", on.as_deref(), live) else { return };
        if let (Some(labels), Some(number)) = (pod.metadata.labels.as_mut(), migration) {
            labels.insert("kubevirt.io/migrationJobUID".into(), format!("m{number}"));
        }
        self.cluster.apply(Change::Launcher(pod));
    }

    fn tell_migration(&mut self, number: usize, phase: &str) {
        let object = json!({"metadata": {"name": format!("m{number}"), "namespace": "n", "uid": format!("m{number}")},
            "spec": {"vmiName": "vm"}, "status": {"phase": phase}});
        self.cluster.apply(Change::Migration(Box::new(serde_json::from_value(object).expect("a VMIM"))));
    }

    /// The next thing that KubeVirt's controllers write.
    fn kubevirt(&mut self) {
        let Some(mut moving) = self.moving.take() else {
            self.migrations += 1;
            let number = self.migrations;
            // There and back, and on to a third.
            let target = (self.home + 1 + number % 2) % 3;
            self.tell_migration(number, "Pending");
            self.moving = Some(Moving { number, target, stage: 0 });
            return;
        };
        let (number, target) = (moving.number, moving.target);
        let pod = format!("launcher-{number}");
        moving.stage += 1;
        match moving.stage {
            1 => {
                self.tell_migration(number, "Scheduling");
                self.tell_pod(&pod, None, true, Some(number));
            }
            2 => self.tell_pod(&pod, Some(target), true, Some(number)),
            3 => self.tell_migration(number, "Running"),
            4 => {
                // The cut-over: from now on the guest runs there.
                self.ready_on = Some(pod);
                self.tell_run();
            }
            5 => {
                self.home = target;
                self.tell_run();
            }
            6 => self.tell_migration(number, "Succeeded"),
            _ => {
                let old = std::mem::replace(&mut self.source_pod, pod);
                self.remove_pod(&old);
                return;
            }
        }
        self.moving = Some(moving);
    }

    fn remove_pod(&mut self, name: &str) {
        let metadata = json!({"name": name, "namespace": "n"});
        let metadata = serde_json::from_value(metadata).expect("metadata");
        self.cluster.apply(Change::Gone(Kind::Launcher, Box::new(metadata)));
    }

    /// The migration ends before its cut-over: the target's pod ends, and is deleted then.
    fn fail(&mut self, cancelled: bool) {
        let Some(moving) = self.moving.take_if(|moving| moving.stage < 4) else { return };
        let number = moving.number;
        if cancelled {
            let metadata = json!({"name": format!("m{number}"), "namespace": "n"});
            let metadata = serde_json::from_value(metadata).expect("metadata");
            self.cluster.apply(Change::Gone(Kind::Migration, Box::new(metadata)));
        } else {
            self.tell_migration(number, "Failed");
        }
        if moving.stage >= 1 {
            self.remove_pod(&format!("launcher-{number}"));
        }
    }

    /// Where the guest is.
    fn guest(&self) -> usize {
        match &self.moving {
            Some(moving) if moving.stage >= 4 => moving.target,
            _ => self.home,
        }
    }

    fn look(&mut self) {
        let objects = self.cluster.vm(&vm()).expect("the VM");
        let intent = VmIntent::of(&vm(), objects, &Namespace::default(), &settings());
        let southbound = if self.with_southbound { Seen::Now(&self.southbound) } else { Seen::Never(&self.settling) };
        let settings = settings();
        let snapshot = Snapshot::new(&self.northbound, &self.cluster, southbound, &settings, 0);
        let plan = decide_intent(&snapshot, &Claims::default(), &intent, snapshot.objects(&intent.vm));
        let collapsed: Vec<Uuid> = plan.rows.iter().filter(|change| change.collapses()).map(RowChange::uuid).collect();
        for change in port_changes(&plan.rows) {
            let row = change.after.expect("no port goes").row;
            self.northbound.put_port(change.uuid, row);
            self.northbound.place_port(change.uuid, Some(SWITCH));
        }
        if plan.waits.northd {
            self.global.nb_cfg += 1;
            self.northbound.put_global(self.global.clone());
            self.settling.committed(self.global.nb_cfg, collapsed);
        }
        self.after_a_look();
    }

    fn row(&self) -> &LogicalSwitchPort {
        self.northbound.port_named("vm.n").expect("the port").row
    }

    fn requested(&self) -> Vec<&str> {
        self.row().options.get(keys::REQUESTED_CHASSIS).expect("it is bound").split(',').collect()
    }

    /// The laws after every decision of the service.
    fn after_a_look(&self) {
        let requested = self.requested();
        assert!(requested.len() <= 2, "{requested:?}");
        // All that KubeVirt has said is known to the service.
        assert_eq!(requested[0], node(self.guest()), "the guest's own node comes first");
        let strategy = self.row().options.get(keys::ACTIVATION_STRATEGY);
        assert_eq!(strategy, (requested.len() == 2).then_some("rarp"), "{requested:?}");
    }

    fn northd(&mut self) {
        let requested = self.requested();
        let (main, additional) = (requested[0].to_owned(), requested.get(1).map(|chassis| (*chassis).to_owned()));
        if additional.is_none() {
            self.binding.activated = None;
        }
        self.binding.main = main;
        if self.binding.additional != additional {
            let opened = self.binding.activated.is_some() && additional.is_some();
            assert!(!opened, "{additional:?} is open before its guest: {:?} is left", self.binding.activated);
        }
        self.binding.additional = additional;
        self.global.sb_cfg = self.global.nb_cfg;
        self.northbound.put_global(self.global.clone());
        self.settling.processed(self.global.sb_cfg);
        self.tell_southbound();
    }

    fn tell_southbound(&mut self) {
        let number = |name: &String| Uuid::from_u128(name[1..].parse::<u128>().expect("a number") + 1);
        let activated = self.binding.activated.iter();
        self.southbound.put_binding(PortBinding {
            logical_port: "vm.n".into(),
            chassis: Some(number(&self.binding.main)),
            additional_chassis: self.binding.additional.iter().map(number).collect(),
            options: activated
                .map(|chassis| (keys::ADDITIONAL_CHASSIS_ACTIVATED.to_owned(), chassis.clone()))
                .collect(),
            up: Some(true),
        });
    }

    fn rarp(&mut self) {
        let there = node(self.guest());
        if self.binding.additional.as_ref() == Some(&there) {
            self.binding.activated = Some(there);
            self.tell_southbound();
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Kubevirt => self.kubevirt(),
            Step::Fail => self.fail(false),
            Step::Cancel => self.fail(true),
            Step::Look => self.look(),
            Step::Restart => self.settling = Settling::default(),
            Step::Northd => self.northd(),
            Step::Rarp => self.rarp(),
        }
    }

    /// Everything comes to its end.
    fn finish(&mut self) {
        while self.moving.is_some() {
            self.kubevirt();
        }
        for _ in 0..3 {
            self.look();
            self.northd();
        }
        assert_eq!(self.requested(), [node(self.home)]);
        assert_eq!(self.binding, Binding { main: node(self.home), additional: None, activated: None });
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Kubevirt),
        1 => Just(Step::Fail),
        1 => Just(Step::Cancel),
        6 => Just(Step::Look),
        1 => Just(Step::Restart),
        4 => Just(Step::Northd),
        4 => Just(Step::Rarp),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(Config { cases: 3_000, ..Config::default() })]

    #[test]
    fn any_history_of_migrations_keeps_the_port_with_its_guest(with_southbound in any::<bool>(), steps in steps()) {
        let mut model = Model::new(with_southbound);
        steps.into_iter().for_each(|step| model.take(step));
        model.finish();
    }
}

/// A migration with a prompt service and northd: both chassis from the target's node on.
#[test]
fn a_target_is_prepared_as_soon_as_it_has_a_node_and_the_source_left_at_domain_ready() {
    for with_southbound in [false, true] {
        let mut model = Model::new(with_southbound);
        let mut seen = Vec::new();
        for _ in 0..8 {
            model.kubevirt();
            for _ in 0..2 {
                model.look();
                model.northd();
            }
            seen.push(model.requested().join(","));
        }
        assert_eq!(seen, ["n0", "n0", "n0,n2", "n0,n2", "n2", "n2", "n2", "n2"]);
    }
}

/// Measured: `hv1` and then `hv1,hv2` committed in a row left the old activation standing.
#[test]
fn a_second_target_waits_until_northd_has_seen_the_first_one_go() {
    for with_southbound in [false, true] {
        let mut model = Model::new(with_southbound);
        let settle = |model: &mut Model| {
            (0..2).for_each(|_| {
                model.look();
                model.northd();
            })
        };
        (0..3).for_each(|_| model.kubevirt());
        settle(&mut model);
        assert_eq!(model.requested(), ["n0", "n2"]);
        // The first one is activated and fails all the same; the next begins with northd asleep.
        model.binding.activated = Some("n2".into());
        model.tell_southbound();
        model.fail(false);
        (0..3).for_each(|_| model.kubevirt());
        model.look();
        model.look();
        assert_eq!(model.requested(), ["n0"], "the new target is not opened before the old one is gone");
        settle(&mut model);
        assert_eq!(model.requested(), ["n0", "n1"]);
    }
}

/// A restart, and the southbound has not been read yet: the home's chassis is known by its Node's annotation, the
/// target's is not.
#[test]
fn a_target_that_cannot_be_named_yet_stays_open() {
    let mut model = Model::new(true);
    let metadata = json!({"name": "n0", "annotations": {"ovn-kubevirt.io/chassis": "n0"}});
    model.cluster.apply(Change::Node(Box::new(serde_json::from_value(metadata).expect("metadata"))));
    (0..3).for_each(|_| model.kubevirt());
    model.look();
    assert_eq!(model.requested(), ["n0", "n2"]);
    let objects = model.cluster.vm(&vm()).expect("the VM");
    let intent = VmIntent::of(&vm(), objects, &Namespace::default(), &settings());
    let settings = settings();
    let snapshot = Snapshot::new(&model.northbound, &model.cluster, Seen::NotYet, &settings, 0);
    let plan = decide_intent(&snapshot, &Claims::default(), &intent, snapshot.objects(&intent.vm));
    assert!(plan.rows.is_empty(), "{plan:?}");
    assert_eq!(plan.waits.wakes, [crate::ovn::Wake::Southbound]);
}
