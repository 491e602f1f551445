//! `requested-chassis` where chassis rows are deleted, inserted and duplicated, and with an OVN that takes one chassis only.
//!
//! Each decision is that of a service that has just been restarted: from the row, the objects and the
//! southbound alone.

use serde_json::json;
use uuid::Uuid;

use super::objects::{Template, pod_change, run_change, vm_change};
use super::world::settings;
use crate::contract::{VmKey, keys, port_uuid};
use crate::intent::{Settings, Strategy, VmIntent};
use crate::kubevirt::{Change, Cluster, Namespace};
use crate::ovn::{Chassis, LogicalSwitch, LogicalSwitchPort, NbGlobal, Northbound, PortBinding, Southbound, Wake};
use crate::ovsdb::{Replica, Schema};
use crate::plan::decide::decide_intent;
use crate::plan::{Claims, Decision, Problem, RowChange, Seen, Settling, Snapshot};

const SWITCH: Uuid = Uuid::from_u128(1);
/// Chassis with the names of the nodes, and chassis with names of their own.
const NAMED: [(&str, &str); 3] = [("n1", "n1.example"), ("n2", "n2.example"), ("n3", "n3.example")];
const NUMBERED: [(&str, &str); 3] = [("id-1", "n1"), ("id-2", "n2.example"), ("id-3", "n3")];

fn vm() -> VmKey {
    VmKey::new("n", "vm")
}

/// A VM on a node, or on its way to another, its port as it stands, and the chassis rows.
struct Scene {
    cluster: Cluster,
    northbound: Northbound,
    southbound: Southbound,
    strategy: Strategy,
}

impl Scene {
    /// The VM runs on n1; its port asks for these chassis.
    fn new(requested: &str, rows: &[(&str, &str)]) -> Self {
        let mut scene = Self {
            cluster: Cluster::default(),
            northbound: Northbound::new("default"),
            southbound: Southbound::default(),
            strategy: Strategy::Rarp,
        };
        let namespace = json!({"name": "n"});
        scene.cluster.apply(Change::Namespace(Box::new(serde_json::from_value(namespace).expect("metadata"))));
        for node in ["n1", "n2", "n3"] {
            scene.node(node, None);
        }
        scene.cluster.apply(vm_change(&vm(), "u", &Template::new([])));
        scene.runs_on("n1");
        let other_config = [("subnet", "10.0.0.0/24")].into_iter().collect();
        scene.northbound.put_switch(SWITCH, LogicalSwitch { name: "blue".into(), other_config, ..Default::default() });
        scene.northbound.put_global(NbGlobal::default());
        scene.asks_for(requested);
        rows.iter().for_each(|(name, hostname)| scene.row(name, hostname));
        scene
    }

    fn node(&mut self, name: &str, chassis: Option<&str>) {
        let metadata = json!({"name": name, "annotations": {"ovn-kubevirt.io/chassis": chassis.unwrap_or_default()}});
        self.cluster.apply(Change::Node(Box::new(serde_json::from_value(metadata).expect("metadata"))));
    }

    fn runs_on(&mut self, node: &str) {
        self.cluster.apply(run_change(&vm(), "run", &Template::new([]), Some(node), None));
        self.cluster.apply(pod_change(&vm(), &format!("launcher-{node}"), "run", Some(node), true));
    }

    /// A live migration has a target launcher there.
    fn migrates_to(&mut self, node: &str) {
        let Change::Launcher(mut pod) = pod_change(&vm(), &format!("launcher-{node}"), "run", Some(node), true) else {
            return;
        };
        pod.metadata.labels.get_or_insert_default().insert("kubevirt.io/migrationJobUID".into(), "m".into());
        self.cluster.apply(Change::Launcher(pod));
        let object = json!({"metadata": {"name": "m", "namespace": "n", "uid": "m"},
            "spec": {"vmiName": "vm"}, "status": {"phase": "Running"}});
        self.cluster.apply(Change::Migration(Box::new(serde_json::from_value(object).expect("a VMIM"))));
    }

    /// The guest is ready on the target.
    fn ready_on(&mut self, node: &str) {
        let launcher = format!("launcher-{node}");
        self.cluster.apply(run_change(&vm(), "run", &Template::new([]), Some("n1"), Some(&launcher)));
    }

    fn row(&mut self, name: &str, hostname: &str) {
        let chassis = Chassis { name: name.to_owned(), hostname: hostname.to_owned() };
        self.southbound.put_chassis(number(name), chassis);
    }

    fn row_goes(&mut self, name: &str) {
        self.southbound.remove_chassis(number(name));
    }

    fn claimed_by(&mut self, name: &str) {
        let chassis = Some(Uuid::from_u128(number(name)));
        self.southbound.put_binding(PortBinding { logical_port: "vm.n".into(), chassis, ..PortBinding::default() });
    }

    fn claimed_beside(&mut self, main: &str, additional: &str) {
        let [main, additional] = [main, additional].map(|name| Uuid::from_u128(number(name)));
        self.southbound.put_binding(PortBinding {
            logical_port: "vm.n".into(),
            chassis: Some(main),
            additional_chassis: [additional].into_iter().collect(),
            ..PortBinding::default()
        });
    }

    fn asks_for(&mut self, requested: &str) {
        let strategy = requested.contains(',').then_some(("activation-strategy", "rarp"));
        let requested = (!requested.is_empty()).then_some(("requested-chassis", requested));
        let marks = [
            ("vendor", "ovn-kubevirt"),
            ("ovn-kubevirt.io/instance", "default"),
            ("ovn-kubevirt.io/vm", "n/vm"),
            ("ovn-kubevirt.io/vm-uid", "u"),
            ("ovn-kubevirt.io/network", "default"),
        ];
        let addresses = ["0a:58:0a:00:00:02 10.0.0.2".to_owned()];
        let row = LogicalSwitchPort {
            name: "vm.n".into(),
            addresses: addresses.clone().into_iter().collect(),
            port_security: addresses.into_iter().collect(),
            options: requested.into_iter().chain(strategy).collect(),
            external_ids: marks.into_iter().collect(),
            ..LogicalSwitchPort::default()
        };
        let uuid = port_uuid("default", "vm.n");
        self.northbound.put_port(uuid, row);
        self.northbound.place_port(uuid, Some(SWITCH));
    }

    fn plan(&self, seen: Seen<'_>) -> Decision {
        let objects = self.cluster.vm(&vm()).expect("the VM");
        let intent = VmIntent::of(&vm(), objects, &Namespace::default(), &settings());
        let settings = Settings { strategy: self.strategy, ..settings() };
        let snapshot = Snapshot::new(&self.northbound, &self.cluster, seen, &settings, 0);
        decide_intent(&snapshot, &Claims::default(), &intent, snapshot.objects(&intent.vm))
    }

    /// The chassis that the port requests after a decision, and its problems.
    fn decided(&self, seen: Seen<'_>) -> (String, Vec<Problem>) {
        let plan = self.plan(seen);
        let present = self.northbound.port_named("vm.n").expect("the port").row;
        let change = plan.rows.first().and_then(RowChange::as_port);
        let row = change.map_or(present, |change| &change.after.as_ref().expect("it stays").row);
        let requested = row.options.get(keys::REQUESTED_CHASSIS).unwrap_or_default().to_owned();
        let strategy = row.options.get(keys::ACTIVATION_STRATEGY);
        assert_eq!(strategy, self.strategy.name().filter(|_| requested.contains(',')), "{requested}");
        (requested, plan.status.problems().cloned().collect())
    }

    /// The same with the southbound in sync, and away since it was like this: both see the same rows.
    fn look(&self) -> (String, Vec<Problem>) {
        let now = self.decided(Seen::Now(&self.southbound));
        if self.northbound.port_named("vm.n").expect("the port").row.options.get(keys::REQUESTED_CHASSIS)
            == Some(now.0.as_str())
        {
            assert_eq!(self.decided(Seen::Before(&self.southbound)), now);
        }
        now
    }

    /// Looks, and the port is as it was decided.
    fn looks(&mut self) -> (String, Vec<Problem>) {
        let decided = self.look();
        self.asks_for(&decided.0);
        decided
    }

    /// The northbound's server has this version of the schema.
    fn northbound_is(&mut self, version: &str) {
        self.northbound.note_schema(&schema(version, "{}"));
    }

    fn southbound_is(&mut self, version: &str, tables: &str) {
        self.southbound.note_schema(&schema(version, tables));
    }
}

fn schema(version: &str, tables: &str) -> Schema {
    let text = format!(r#"{{"name":"DB","version":"{version}","tables":{tables}}}"#);
    serde_json::from_str(&text).expect("a schema")
}

fn number(name: &str) -> u128 {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u128()
}

fn gone(node: &str, chassis: &str) -> Vec<Problem> {
    vec![Problem::ChassisGone { node: node.into(), chassis: chassis.into() }]
}

fn not_found(node: &str) -> Vec<Problem> {
    vec![Problem::ChassisNotFound(node.into())]
}

fn several(node: &str, rows: &[&str], kept: Option<&str>) -> Vec<Problem> {
    let rows = rows.iter().map(|row| (*row).to_owned()).collect();
    vec![Problem::ChassisAmbiguous { node: node.into(), rows, kept: kept.map(Into::into) }]
}

#[test]
fn a_port_whose_vm_stays_keeps_its_chassis_when_the_row_goes() {
    for rows in [NAMED, NUMBERED] {
        let own = rows[0].0;
        let mut scene = Scene::new(own, &rows);
        assert_eq!(scene.look(), (own.to_owned(), vec![]));
        scene.row_goes(own);
        assert_eq!(scene.look(), (own.to_owned(), gone("n1", own)));
        // The whole southbound is wiped.
        rows.iter().for_each(|(name, _)| scene.row_goes(name));
        assert_eq!(scene.look(), (own.to_owned(), gone("n1", own)));
        // It fills again, this node last.
        rows.iter().rev().for_each(|(name, hostname)| {
            assert_eq!(scene.look(), (own.to_owned(), gone("n1", own)));
            scene.row(name, hostname);
        });
        assert_eq!(scene.look(), (own.to_owned(), vec![]));
    }
}

#[test]
fn a_node_that_returns_under_another_name_has_its_ports_follow() {
    let mut scene = Scene::new("id-1", &NUMBERED);
    scene.row_goes("id-1");
    assert_eq!(scene.looks().0, "id-1");
    scene.row("id-1-anew", "n1");
    assert_eq!(scene.looks(), ("id-1-anew".to_owned(), vec![]));
}

#[test]
fn a_vm_that_moves_to_a_node_without_a_chassis_is_unbound() {
    for rows in [NAMED, NUMBERED] {
        let mut scene = Scene::new(rows[0].0, &rows);
        scene.runs_on("n2");
        scene.row_goes(rows[1].0);
        assert_eq!(scene.looks(), (String::new(), not_found("n2")));
        // No chassis is kept from before the move.
        scene.row_goes(rows[0].0);
        assert_eq!(scene.looks(), (String::new(), not_found("n2")));
        scene.row(rows[1].0, rows[1].1);
        assert_eq!(scene.looks(), (rows[1].0.to_owned(), vec![]));
    }
}

/// The southbound is wiped, and meanwhile the VM moves.
#[test]
fn a_chassis_without_a_row_is_another_nodes_where_that_node_has_its_name_or_gets_a_row() {
    let mut scene = Scene::new("n1", &[]);
    scene.runs_on("n2");
    assert_eq!(scene.look(), (String::new(), not_found("n2")));
    // The node of this name is unknown: the port is bound nowhere until the chassis has a row.
    let mut scene = Scene::new("id-1", &[]);
    scene.runs_on("n2");
    assert_eq!(scene.looks(), ("id-1".to_owned(), gone("n2", "id-1")));
    scene.row("id-1", "n1");
    assert_eq!(scene.looks(), (String::new(), not_found("n2")));
}

fn not_ready(node: &str, chassis: &str) -> Vec<Problem> {
    vec![Problem::ChassisNotReady { node: node.into(), chassis: chassis.into(), port: "vm.n".into() }]
}

/// The problem of a guest that arrives before the chassis has claimed its port, and its end.
#[test]
fn a_guest_that_is_ready_before_its_chassis_is_reported_until_the_chassis_claims_the_port() {
    for rows in [NAMED, NUMBERED] {
        let [(n1, _), (n2, _), _] = rows;
        let both = format!("{n1},{n2}");
        let mut scene = Scene::new(n1, &rows);
        scene.claimed_by(n1);
        scene.migrates_to("n2");
        assert_eq!(scene.looks(), (both.clone(), vec![]), "the guest is not there yet");
        scene.ready_on("n2");
        let plan = scene.plan(Seen::Now(&scene.southbound));
        assert_eq!(plan.waits.wakes, [Wake::Claim("vm.n".into())]);
        assert_eq!(scene.decided(Seen::Now(&scene.southbound)), (n2.to_owned(), not_ready("n2", n2)));
        // It is not known while the southbound is away, or not read.
        assert_eq!(scene.decided(Seen::Before(&scene.southbound)), (n2.to_owned(), vec![]));
        assert_eq!(scene.decided(Seen::Never(&Settling::default())).1, vec![]);
        scene.asks_for(n2);
        assert_eq!(scene.decided(Seen::Now(&scene.southbound)).1, not_ready("n2", n2), "it is told until it is over");
        scene.claimed_by(n2);
        assert_eq!(scene.decided(Seen::Now(&scene.southbound)).1, vec![]);
    }
}

#[test]
fn a_guest_whose_chassis_has_claimed_the_port_beside_the_source_is_not_early() {
    let mut scene = Scene::new("n1,n2", &NAMED);
    scene.migrates_to("n2");
    scene.ready_on("n2");
    scene.claimed_beside("n1", "n2");
    assert_eq!(scene.decided(Seen::Now(&scene.southbound)), ("n2".to_owned(), vec![]));
    // With an OVN that takes one chassis, no chassis could have claimed it earlier.
    let mut scene = Scene::new("n1", &NAMED);
    scene.southbound_is("20.21.0", r#"{"Port_Binding":{"columns":{}},"MAC_Binding":{"columns":{}}}"#);
    scene.migrates_to("n2");
    scene.ready_on("n2");
    assert_eq!(scene.decided(Seen::Now(&scene.southbound)), ("n2".to_owned(), vec![]));
}

#[test]
fn a_list_stands_while_both_rows_are_there_and_is_written_again_when_both_are_back() {
    for rows in [NAMED, NUMBERED] {
        let [(n1, host1), (n2, host2), _] = rows;
        let both = format!("{n1},{n2}");
        let mut scene = Scene::new(&both, &rows);
        scene.migrates_to("n2");
        assert_eq!(scene.looks(), (both.clone(), vec![]));
        scene.row_goes(n2);
        assert_eq!(scene.looks(), (n1.to_owned(), not_found("n2")));
        scene.row(n2, host2);
        assert_eq!(scene.looks(), (both.clone(), vec![]));
        scene.row_goes(n1);
        assert_eq!(scene.looks(), (n1.to_owned(), gone("n1", n1)));
        scene.row(n1, host1);
        assert_eq!(scene.looks(), (both.clone(), vec![]));
        scene.row_goes(n1);
        scene.row_goes(n2);
        let told = [gone("n1", n1), not_found("n2")].concat();
        assert_eq!(scene.looks(), (n1.to_owned(), told));
    }
}

#[test]
fn a_guest_that_arrives_while_rows_are_away_has_its_port() {
    for rows in [NAMED, NUMBERED] {
        let [(n1, _), (n2, host2), _] = rows;
        // The source's row is away.
        let mut scene = Scene::new(&format!("{n1},{n2}"), &rows);
        scene.migrates_to("n2");
        scene.row_goes(n1);
        scene.looks();
        scene.ready_on("n2");
        scene.claimed_by(n2);
        assert_eq!(scene.looks(), (n2.to_owned(), vec![]));
        // The target's row goes at the moment of its arrival: it was in the list, and stays.
        let mut scene = Scene::new(&format!("{n1},{n2}"), &rows);
        scene.migrates_to("n2");
        scene.row_goes(n2);
        scene.ready_on("n2");
        assert_eq!(scene.looks(), (n2.to_owned(), gone("n2", n2)));
        scene.row(n2, host2);
        scene.claimed_by(n2);
        assert_eq!(scene.looks(), (n2.to_owned(), vec![]));
    }
}

#[test]
fn of_two_rows_of_one_node_the_port_keeps_the_one_that_it_has() {
    let mut scene = Scene::new("id-1", &NUMBERED);
    scene.row("id-1-anew", "n1");
    assert_eq!(scene.look(), ("id-1".to_owned(), several("n1", &["id-1", "id-1-anew"], Some("id-1"))));
    scene.migrates_to("n2");
    assert_eq!(scene.looks(), ("id-1,id-2".to_owned(), several("n1", &["id-1", "id-1-anew"], Some("id-1"))));
    // The target's node, too.
    scene.row("id-2-anew", "n2.example");
    let told =
        [several("n1", &["id-1", "id-1-anew"], Some("id-1")), several("n2", &["id-2", "id-2-anew"], Some("id-2"))];
    assert_eq!(scene.looks(), ("id-1,id-2".to_owned(), told.concat()));
    // The stale ones are deleted, or renamed.
    scene.row_goes("id-1");
    scene.row("id-2", "elsewhere.example");
    assert_eq!(scene.looks().0, "id-1-anew");
    let text = several("n1", &["a", "b"], Some("a"))[0].to_string();
    assert!(["n1", "a, b", "on a", "ovn-sbctl chassis-del"].iter().all(|words| text.contains(words)), "{text}");
}

#[test]
fn of_two_rows_of_one_node_a_port_without_either_takes_the_one_that_has_claimed_it() {
    for requested in ["", "id-2"] {
        let mut scene = Scene::new(requested, &NUMBERED);
        scene.row("id-1-anew", "n1");
        let rows = ["id-1", "id-1-anew"];
        let told = several("n1", &rows, None);
        assert_eq!(scene.looks(), (String::new(), told));
        assert_eq!(scene.plan(Seen::Now(&scene.southbound)).waits.wakes, [Wake::Claim("vm.n".into())]);
        // The chassis from before its move here does not count.
        scene.claimed_by("id-2");
        assert_eq!(scene.looks().0, "");
        scene.claimed_by("id-1-anew");
        assert_eq!(scene.looks(), ("id-1-anew".to_owned(), several("n1", &rows, Some("id-1-anew"))));
        scene.row_goes("id-1");
        assert_eq!(scene.looks(), ("id-1-anew".to_owned(), vec![]));
    }
}

#[test]
fn an_annotated_chassis_is_asked_for_without_a_row_and_listed_only_with_one() {
    let mut scene = Scene::new("id-1", &NUMBERED);
    scene.node("n1", Some("mine"));
    assert_eq!(scene.looks(), ("mine".to_owned(), gone("n1", "mine")));
    scene.migrates_to("n2");
    assert_eq!(scene.looks().0, "mine");
    assert!(scene.plan(Seen::Now(&scene.southbound)).waits.wakes.contains(&Wake::Chassis("mine".into())));
    scene.row("mine", "unheard.example");
    scene.node("n2", Some("yours"));
    assert_eq!(scene.looks(), ("mine".to_owned(), not_found("n2")));
    scene.row("yours", "");
    assert_eq!(scene.looks(), ("mine,yours".to_owned(), vec![]));
}

#[test]
fn without_a_southbound_and_before_it_is_read_no_chassis_disappears() {
    let mut scene = Scene::new("n1,n2", &[]);
    scene.migrates_to("n2");
    let settling = Settling::default();
    assert_eq!(scene.decided(Seen::Never(&settling)), ("n1,n2".to_owned(), vec![]));
    assert_eq!(scene.decided(Seen::NotYet), ("n1,n2".to_owned(), vec![]));
    scene.ready_on("n2");
    assert_eq!(scene.decided(Seen::Never(&settling)), ("n2".to_owned(), vec![]));
}

#[test]
fn an_ovn_that_takes_no_list_follows_the_guest_with_one_chassis() {
    const OLD: &str = r#"{"Port_Binding":{"columns":{}}}"#;
    const LISTS: &str = r#"{"Port_Binding":{"columns":{"additional_chassis":{"type":"uuid"}}}}"#;
    for with_southbound in [false, true] {
        for (northbound, southbound, tables, listed) in [
            ("6.1.0", "20.21.0", OLD, [false, false]),
            // 22.06, and without the southbound perhaps 22.09.
            ("6.3.0", "20.23.0", LISTS, [false, true]),
        ] {
            for (strategy, listed) in [Strategy::Rarp, Strategy::None].into_iter().zip(listed) {
                let mut scene = Scene::new("n1", &NAMED);
                scene.strategy = strategy;
                scene.northbound_is(northbound);
                scene.southbound_is(southbound, tables);
                scene.claimed_by("n1");
                scene.migrates_to("n2");
                let mut settling = Settling::default();
                settling.committed(0, []);
                let seen = || if with_southbound { Seen::Now(&scene.southbound) } else { Seen::Never(&settling) };
                let expected = if listed { "n1,n2" } else { "n1" };
                assert_eq!(scene.decided(seen()).0, expected, "{northbound} {strategy:?} {with_southbound}");
                // A list that an operator's rollback of OVN has left is taken back.
                scene.asks_for("n1,n2");
                let seen = || if with_southbound { Seen::Now(&scene.southbound) } else { Seen::Never(&settling) };
                assert_eq!(scene.decided(seen()).0, expected, "{northbound} {strategy:?} {with_southbound}");
                scene.ready_on("n2");
                let seen = || if with_southbound { Seen::Now(&scene.southbound) } else { Seen::Never(&settling) };
                assert_eq!(scene.decided(seen()).0, "n2", "{northbound} {strategy:?} {with_southbound}");
            }
        }
    }
}

/// 6.3.0 is the northbound's version of OVN 22.09, too: the southbound knows better.
#[test]
fn the_southbound_tells_an_ovn_22_09_from_a_22_06() {
    const NEW: &str = r#"{"Port_Binding":{"columns":{"additional_chassis":{"type":"uuid"}}},
        "MAC_Binding":{"columns":{"timestamp":{"type":"integer"}}}}"#;
    let mut scene = Scene::new("n1", &NAMED);
    scene.northbound_is("6.3.0");
    scene.southbound_is("20.25.0", NEW);
    scene.migrates_to("n2");
    assert_eq!(scene.look().0, "n1,n2");
}
