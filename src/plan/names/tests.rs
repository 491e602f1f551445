//! Names by example, and against a plain model: ports and rows of others come, go and change at random, writes are lost, and
//! what stands in the end is what a reader of the contract would write by hand.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::contract::keys;
use crate::ovn::{Dns, LogicalSwitch, LogicalSwitchPort};
use crate::ovsdb::{Atom, Datum, Map, Mutator, Operation};

const INSTANCE: &str = "default";

fn switch(number: u128) -> Uuid {
    Uuid::from_u128(0x1000 + number)
}

fn domain() -> DnsDomain {
    "vm.test".parse().expect("a domain")
}

/// A northbound with switches, as a server would have it.
struct World {
    view: Northbound,
    names: Names,
}

/// A port: its VM, network, switch, addresses and name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nic {
    vm: VmKey,
    network: String,
    switch: u128,
    ips: Vec<IpAddr>,
    is_of_pod: bool,
    is_retained: bool,
}

fn nic(vm: &str, network: &str, on: u128, ips: &[&str]) -> Nic {
    let (namespace, name) = vm.split_once('/').expect("a namespace and a name");
    let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
    let is_of_pod = network == "default";
    Nic { vm: VmKey::new(namespace, name), network: network.to_owned(), switch: on, ips, is_of_pod, is_retained: false }
}

impl Nic {
    fn name(&self) -> String {
        let plain = self.vm.port_name();
        if self.is_of_pod { plain } else { format!("{plain}.{}.nads.ovn", self.network.to_lowercase()) }
    }

    fn uuid(&self) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_DNS, format!("{}/{}", self.vm, self.network).as_bytes())
    }

    fn row(&self) -> LogicalSwitchPort {
        let vm = self.vm.to_string();
        let mut marks = vec![
            (keys::VENDOR, keys::OUR_VENDOR),
            (keys::INSTANCE, INSTANCE),
            (keys::VM, &vm),
            (keys::NETWORK, &self.network),
        ];
        if self.is_retained {
            marks.push((keys::RETAINED_UNTIL, "forever"));
        }
        let ips: String = self.ips.iter().map(|ip| format!(" {ip}")).collect();
        LogicalSwitchPort {
            name: self.name(),
            addresses: [format!("0a:58:00:00:00:01{ips}")].into_iter().collect(),
            external_ids: marks.into_iter().collect(),
            ..LogicalSwitchPort::default()
        }
    }
}

impl World {
    fn new(switches: u128) -> Self {
        let mut view = Northbound::new(INSTANCE).with_names();
        view.track_names(true);
        for number in 0..switches {
            let row = LogicalSwitch { name: format!("s{number}"), ..LogicalSwitch::default() };
            view.put_switch(switch(number), row);
        }
        Self { view, names: Names::new(INSTANCE, domain()) }
    }

    fn put(&mut self, nic: &Nic) {
        self.view.put_port(nic.uuid(), nic.row());
        self.view.place_port(nic.uuid(), Some(switch(nic.switch)));
    }

    fn remove(&mut self, nic: &Nic) {
        self.view.place_port(nic.uuid(), None);
    }

    /// A row of another owner on a switch; `None` removes it.
    fn foreign(&mut self, number: u128, on: u128, row: Option<Dns>) {
        let uuid = Uuid::from_u128(0x2000 + number);
        let mut refers = self.view.switch(&switch(on)).cloned().expect("a switch");
        match row {
            Some(_) => refers.dns_records.insert(uuid),
            None => refers.dns_records.remove(&uuid),
        };
        self.view.put_dns(uuid, row);
        self.view.put_switch(switch(on), refers);
    }

    /// The differences that there are now.
    fn differences(&mut self) -> Vec<NamesChange> {
        let changes = self.view.take_name_changes();
        self.names.take(&self.view, &changes);
        let mut differences = Vec::new();
        while !self.names.is_settled() {
            differences.extend(self.names.next(&self.view, 3));
        }
        differences
    }

    /// Writes all differences. Returns the number of their records.
    fn write(&mut self) -> usize {
        let differences = self.differences();
        operations(&differences).iter().for_each(|operation| self.execute(operation));
        assert_eq!(self.differences(), [], "what is written makes no difference");
        differences.iter().map(NamesChange::records).sum()
    }

    /// As a server does it.
    fn execute(&mut self, operation: &Operation) {
        match operation {
            Operation::Insert { table: "DNS", uuid, row } => {
                assert!(self.view.dns(uuid).is_none(), "a duplicate: {operation:?}");
                let mut dns = Dns::default();
                for (column, value) in row {
                    let Datum::Map(pairs) = value else { panic!("{operation:?}") };
                    *column_of(&mut dns, column) = pairs.iter().cloned().collect();
                }
                self.view.put_dns(*uuid, Some(dns));
            }
            Operation::Mutate { table: "DNS", uuid, mutations } => {
                let mut dns = self.view.dns(uuid).cloned().expect("the row is there");
                for mutation in mutations {
                    let map = column_of(&mut dns, mutation.column);
                    match (mutation.mutator, &mutation.value) {
                        (Mutator::Delete, Datum::Set(keys)) => keys.iter().for_each(|key| match key {
                            Atom::Text(key) => drop(map.remove(key).expect("a removed key is there")),
                            other => panic!("{other:?}"),
                        }),
                        (Mutator::Insert, Datum::Map(pairs)) => pairs.iter().for_each(|(key, value)| {
                            assert_eq!(map.insert(key, value), None, "an insert leaves {key} alone");
                        }),
                        other => panic!("{other:?}"),
                    }
                }
                self.view.put_dns(*uuid, Some(dns));
            }
            Operation::Delete { table: "DNS", uuid } => {
                assert!(self.view.dns(uuid).is_some(), "{operation:?}");
                self.view.put_dns(*uuid, None);
                let referring: Vec<Uuid> = self.view.switches().map(|(switch, _)| *switch).collect();
                for switch in referring {
                    let mut row = self.view.switch(&switch).cloned().expect("a switch");
                    if row.dns_records.remove(uuid) {
                        self.view.put_switch(switch, row);
                    }
                }
            }
            Operation::Mutate { table: "Logical_Switch", uuid, mutations } => {
                let mut row = self.view.switch(uuid).cloned().expect("the switch is there");
                let [mutation] = &mutations[..] else { panic!("{operation:?}") };
                assert_eq!((mutation.column, mutation.mutator), ("dns_records", Mutator::Insert));
                let Datum::Set(rows) = &mutation.value else { panic!("{operation:?}") };
                for atom in rows {
                    let Atom::Uuid(dns) = atom else { panic!("{operation:?}") };
                    assert!(self.view.dns(dns).is_some(), "a reference to no row");
                    assert!(row.dns_records.insert(*dns), "a reference that is there");
                }
                self.view.put_switch(*uuid, row);
            }
            other => panic!("names have no business with {other:?}"),
        }
    }

    /// What a guest on the switch can look up in our rows.
    fn records(&self, on: u128) -> BTreeMap<String, String> {
        let row = self.view.switch(&switch(on)).expect("a switch");
        let ours = row.dns_records.iter().filter_map(|uuid| self.view.dns(uuid));
        let ours = ours.filter(|row| self.view.is_own_dns(row));
        ours.flat_map(|row| row.records.iter()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[track_caller]
    fn has(&self, on: u128, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(self.records(on), expected);
    }

    fn left_out(&self) -> Vec<(String, LeftOut)> {
        self.names.left_out().map(|(name, reason)| (name.to_owned(), reason.clone())).collect()
    }
}

fn column_of<'a>(row: &'a mut Dns, column: &str) -> &'a mut Map {
    match column {
        "records" => &mut row.records,
        "external_ids" => &mut row.external_ids,
        "options" => &mut row.options,
        other => panic!("names have no column {other}"),
    }
}

fn dns(records: &[(&str, &str)], instance: Option<&str>) -> Dns {
    let marks = instance.map(|instance| [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, instance)]);
    let external_ids = marks.into_iter().flatten().collect();
    Dns { records: records.iter().copied().collect(), external_ids, ..Dns::default() }
}

#[test]
fn a_vm_has_its_name_by_its_pod_nic_and_each_nic_has_one() {
    let mut world = World::new(2);
    world.put(&nic("ns/testvm", "default", 0, &["10.16.0.5", "fd00::5"]));
    world.put(&nic("ns/testvm", "Blue_1", 1, &["10.17.0.9"]));
    // Two names and three reverse names on two switches, but no reverse name of another switch.
    assert_eq!(world.write(), 3 + 2 + 3 + 1);
    let forward = [
        ("testvm.ns.vm.test", "10.16.0.5 fd00::5"),
        ("default.testvm.ns.vm.test", "10.16.0.5 fd00::5"),
        ("blue_1.testvm.ns.vm.test", "10.17.0.9"),
    ];
    let reverse = [
        ("5.0.16.10.in-addr.arpa", "testvm.ns.vm.test"),
        ("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "testvm.ns.vm.test"),
    ];
    world.has(0, &[&forward[..], &reverse].concat());
    world.has(1, &[&forward[..], &[("9.0.17.10.in-addr.arpa", "blue_1.testvm.ns.vm.test")]].concat());
    assert_eq!(world.names.records(), 9);
    // The row has our marks, and the same UUID ever.
    let row = name_row_uuid(INSTANCE, &switch(0), name_row(&VmKey::new("ns", "testvm")));
    let marks: Map = [(keys::VENDOR, keys::OUR_VENDOR), (keys::INSTANCE, INSTANCE)].into_iter().collect();
    assert_eq!(world.view.dns(&row).map(|row| (&row.external_ids, row.options.is_empty())), Some((&marks, true)));
}

#[test]
fn a_vm_without_a_pod_nic_has_the_name_of_its_first_nic() {
    let mut world = World::new(1);
    world.put(&nic("ns/a", "red", 0, &["10.0.0.2"]));
    world.put(&nic("ns/a", "blue", 0, &["10.0.0.3"]));
    // A NIC without an address has no name.
    world.put(&nic("ns/a", "alpha", 0, &[]));
    world.write();
    world.has(
        0,
        &[
            ("a.ns.vm.test", "10.0.0.3"),
            ("blue.a.ns.vm.test", "10.0.0.3"),
            ("red.a.ns.vm.test", "10.0.0.2"),
            ("3.0.0.10.in-addr.arpa", "a.ns.vm.test"),
            ("2.0.0.10.in-addr.arpa", "red.a.ns.vm.test"),
        ],
    );
}

#[test]
fn a_change_writes_the_keys_that_differ_and_a_name_goes_with_the_lease() {
    let mut world = World::new(1);
    let mut first = nic("ns/a", "default", 0, &["10.0.0.2"]);
    world.put(&first);
    world.write();
    first.ips = vec!["10.0.0.7".parse().expect("an address")];
    world.put(&first);
    let differences = world.differences();
    let [operation] = &operations(&differences)[..] else { panic!("{differences:?}") };
    let Operation::Mutate { table: "DNS", mutations, .. } = operation else { panic!("{operation:?}") };
    let names = ["2.0.0.10.in-addr.arpa", "a.ns.vm.test", "default.a.ns.vm.test"];
    assert_eq!(mutations[0].value, Datum::texts(names));
    // A retained port has no name, and no row stays without records.
    world.names.again(&differences);
    first.is_retained = true;
    world.put(&first);
    assert_eq!(world.write(), 3);
    assert_eq!(world.view.all_dns().count(), 0);
    assert_eq!(world.view.switch(&switch(0)).map(|row| row.dns_records.len()), Some(0));
    // The VM is back.
    first.is_retained = false;
    world.put(&first);
    world.write();
    world.remove(&first);
    world.write();
    assert_eq!((world.view.all_dns().count(), world.names.records()), (0, 0));
}

#[test]
fn rows_that_another_program_edits_are_repaired_and_its_own_stay() {
    let mut world = World::new(2);
    world.put(&nic("ns/a", "default", 0, &["10.0.0.2"]));
    world.foreign(1, 0, Some(dns(&[("router.lan", "10.0.0.1")], None)));
    world.write();
    let before = world.records(0);
    let row = name_row_uuid(INSTANCE, &switch(0), name_row(&VmKey::new("ns", "a")));
    let written = world.view.dns(&row).cloned().expect("our row");
    let foreign = world.view.dns(&Uuid::from_u128(0x2001)).cloned();
    // A record that is added, one with another value, and none; without marks; without the reference; without the row.
    let mut edited = written.clone();
    edited.records.insert("b.ns.vm.test", "10.0.0.9");
    edited.records.insert("a.ns.vm.test", "10.0.0.9");
    let edits = [
        Some(edited),
        Some(Dns { records: Map::default(), ..written.clone() }),
        Some(Dns { external_ids: Map::default(), ..written.clone() }),
        None,
    ];
    for edit in edits {
        world.view.put_dns(row, edit.clone());
        assert_ne!(world.differences(), [], "{edit:?}");
        world.names.own_rows(&world.view);
        world.write();
        assert_eq!((world.view.dns(&row), &world.records(0)), (Some(&written), &before), "{edit:?}");
    }
    let mut unreferred = world.view.switch(&switch(0)).cloned().expect("a switch");
    unreferred.dns_records.remove(&row);
    world.view.put_switch(switch(0), unreferred);
    world.write();
    assert_eq!(world.records(0), before);
    // Another switch may refer to our row, as its operator likes.
    let mut referring = world.view.switch(&switch(1)).cloned().expect("a switch");
    referring.dns_records.insert(row);
    world.view.put_switch(switch(1), referring);
    assert_eq!(world.write(), 0);
    assert_eq!(world.records(1), before);
    assert_eq!(world.view.dns(&Uuid::from_u128(0x2001)), foreign.as_ref());
}

#[test]
fn a_row_of_ours_that_no_vm_needs_is_removed_at_the_start() {
    let mut world = World::new(1);
    world.foreign(1, 0, Some(dns(&[("old.ns.vm.test", "10.0.0.1")], Some(INSTANCE))));
    world.foreign(2, 0, Some(dns(&[("old.ns.vm.test", "10.0.0.1")], Some("other"))));
    world.foreign(3, 0, Some(dns(&[("old.ns.vm.test", "10.0.0.1")], None)));
    drop(world.view.take_name_changes());
    world.names.own_rows(&world.view);
    world.write();
    assert_eq!(world.view.all_dns().count(), 2);
}

#[test]
fn the_names_of_others_on_the_switch_are_theirs_for_as_long_as_they_are_there() {
    let mut world = World::new(2);
    world.put(&nic("ns/a", "default", 0, &["10.0.0.2"]));
    world.put(&nic("ns/a", "blue", 1, &["10.1.0.2"]));
    world.write();
    let before = world.records(0);
    world.foreign(1, 0, Some(dns(&[("A.ns.VM.test", "10.0.0.99"), ("2.0.0.10.in-addr.arpa", "x.lan")], None)));
    world.write();
    let lost: Vec<_> = before.keys().filter(|name| !world.records(0).contains_key(*name)).collect();
    assert_eq!(lost, ["2.0.0.10.in-addr.arpa", "a.ns.vm.test"]);
    assert!(world.records(1).contains_key("a.ns.vm.test"), "on another switch it is nobody's");
    let holder = LeftOut::Taken(format!("the row {} of DNS", Uuid::from_u128(0x2001)));
    let names = ["2.0.0.10.in-addr.arpa", "a.ns.vm.test"].map(|name| (name.to_owned(), holder.clone()));
    assert_eq!(world.left_out(), names);
    world.foreign(1, 0, None);
    world.write();
    assert_eq!((world.records(0), world.left_out()), (before, vec![]));
}

#[test]
fn two_instances_with_one_name_do_not_fight() {
    // The first to write keeps it.
    let name = "a.ns.vm.test";
    for other in ["aaa", "zzz"] {
        let mut world = World::new(1);
        world.foreign(1, 0, Some(dns(&[(name, "10.0.0.99")], Some(other))));
        world.put(&nic("ns/a", "default", 0, &["10.0.0.2"]));
        world.write();
        assert!(!world.records(0).contains_key(name), "{other} was first");
    }
    // Both have written it in the same moment.
    for (other, is_kept) in [("aaa", false), ("zzz", true)] {
        let mut world = World::new(1);
        world.put(&nic("ns/a", "default", 0, &["10.0.0.2"]));
        world.write();
        world.foreign(1, 0, Some(dns(&[(name, "10.0.0.99")], Some(other))));
        world.write();
        assert_eq!(world.records(0).contains_key(name), is_kept, "{other}");
    }
}

#[test]
fn the_name_of_a_vm_with_a_dot_is_stronger_than_that_of_a_nic() {
    let mut world = World::new(1);
    world.put(&nic("ns/b", "default", 0, &["10.0.0.2"]));
    world.put(&nic("ns/b", "a", 0, &["10.0.0.3"]));
    world.write();
    assert_eq!(world.records(0)["a.b.ns.vm.test"], "10.0.0.3");
    let dotted = nic("ns/a.b", "default", 0, &["10.0.0.4"]);
    world.put(&dotted);
    world.write();
    assert_eq!(world.records(0)["a.b.ns.vm.test"], "10.0.0.4");
    assert!(!world.records(0).contains_key("3.0.0.10.in-addr.arpa"), "no reverse name that leads elsewhere");
    assert_eq!(world.left_out(), [("a.b.ns.vm.test".to_owned(), LeftOut::OtherVm(VmKey::new("ns", "a.b")))]);
    world.remove(&dotted);
    world.write();
    assert_eq!((world.records(0)["a.b.ns.vm.test"].as_str(), world.left_out()), ("10.0.0.3", vec![]));
}

#[test]
fn a_name_beyond_the_limits_of_dns_is_left_out_alone() {
    let mut world = World::new(1);
    let long = "n".repeat(64);
    world.put(&nic("ns/a", "default", 0, &["10.0.0.2"]));
    world.put(&nic("ns/a", &long, 0, &["10.0.0.3"]));
    world.put(&nic(&format!("ns/{}", "v".repeat(64)), "default", 0, &["10.0.0.4"]));
    world.write();
    let three = ["2.0.0.10.in-addr.arpa", "a.ns.vm.test", "default.a.ns.vm.test"];
    assert_eq!(world.records(0).keys().collect::<Vec<_>>(), three);
    assert!(world.left_out().iter().all(|(_, reason)| *reason == LeftOut::NoName), "{:?}", world.left_out());
    assert_eq!(world.left_out().len(), 3);
}

#[test]
fn ovn_owns_the_names_where_its_schema_has_the_option() {
    let mut world = World::new(1);
    world.view = std::mem::replace(&mut world.view, Northbound::new("")).with_dns_options();
    world.put(&nic("ns/a", "default", 0, &["10.0.0.2"]));
    world.write();
    let row = name_row_uuid(INSTANCE, &switch(0), name_row(&VmKey::new("ns", "a")));
    let owned =
        |world: &World| world.view.dns(&row).and_then(|row| row.options.get(keys::OVN_OWNED).map(ToOwned::to_owned));
    assert_eq!(owned(&world).as_deref(), Some("true"));
    let mut edited = world.view.dns(&row).cloned().expect("our row");
    edited.options.insert(keys::OVN_OWNED, "false");
    world.view.put_dns(row, Some(edited));
    world.write();
    assert_eq!(owned(&world).as_deref(), Some("true"));
}

#[test]
fn a_migration_or_another_binding_is_no_change_of_a_name() {
    let mut world = World::new(1);
    let first = nic("ns/a", "default", 0, &["10.0.0.2"]);
    world.put(&first);
    world.write();
    let text = format!(
        r#"{{"Logical_Switch_Port":{{"{}":{{"modify":{{"options":["map",[["requested-chassis","hv1"]]]}}}}}}}}"#,
        first.uuid()
    );
    crate::ovsdb::apply_updates(&mut world.view, &text).expect("an update");
    assert!(world.view.name_changes().is_some_and(NameChanges::is_empty));
    let text = format!(
        r#"{{"Logical_Switch_Port":{{"{}":{{"modify":{{"addresses":["set",["0a:58:00:00:00:01 10.0.0.2","0a:58:00:00:00:01 10.0.0.3"]]}}}}}}}}"#,
        first.uuid()
    );
    crate::ovsdb::apply_updates(&mut world.view, &text).expect("an update");
    world.write();
    assert_eq!(world.records(0)["a.ns.vm.test"], "10.0.0.3");
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Put(Nic),
    Remove(Nic),
    Foreign(u128, u128, Option<String>),
    /// Another program edits our rows.
    Edit(usize, Option<(String, String)>),
    Unrefer(u128),
    Write,
    /// The write is computed, and never reaches the server.
    Lose,
    Restart,
}

fn names_of_few() -> impl Strategy<Value = (String, String)> {
    (prop::sample::select(vec!["a", "b", "a.b", "b.a"]), prop::sample::select(vec!["default", "a", "b"]))
        .prop_map(|(vm, network)| (format!("n/{vm}"), network.to_owned()))
}

fn nics() -> impl Strategy<Value = Nic> {
    let ips = prop::collection::vec(2_u8..6, 0..2);
    (names_of_few(), 0_u128..2, ips, any::<bool>()).prop_map(|((vm, network), on, ips, is_retained)| {
        let ips: Vec<String> = ips.iter().map(|last| format!("10.0.{on}.{last}")).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        Nic { is_retained: is_retained && ips.len() == 1, ..nic(&vm, &network, on, &ips) }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let foreign = prop::option::of(prop::sample::select(vec!["a.n.vm.test", "B.a.n.vm.test", "2.0.0.10.in-addr.arpa"]));
    let edit = prop::option::of((prop::sample::select(vec!["a.n.vm.test", "x"]), "[0-9]"));
    let step = prop_oneof![
        4 => nics().prop_map(Step::Put),
        2 => nics().prop_map(Step::Remove),
        1 => (0_u128..2, 0_u128..2, foreign).prop_map(|(row, on, name)| Step::Foreign(row, on, name.map(ToOwned::to_owned))),
        1 => (0_usize..4, edit).prop_map(|(row, edit)| Step::Edit(row, edit.map(|(key, value)| (key.to_owned(), value)))),
        1 => (0_u128..2).prop_map(Step::Unrefer),
        2 => Just(Step::Write),
        1 => Just(Step::Lose),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..30)
}

/// What a guest on a switch should find, from the ports alone: written in another way than the code.
fn expected(nics: &[Nic], foreign: &[(u128, u128, String)], on: u128) -> BTreeMap<String, String> {
    let mut sorted: Vec<&Nic> = nics.iter().filter(|nic| !nic.ips.is_empty() && !nic.is_retained).collect();
    sorted.sort_by_key(|nic| (nic.vm.clone(), nic.network.clone()));
    let vms: BTreeSet<&VmKey> = sorted.iter().map(|nic| &nic.vm).collect();
    let mut records = BTreeMap::new();
    let mut reverse: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for vm in &vms {
        let own: Vec<&&Nic> = sorted.iter().filter(|nic| nic.vm == **vm).collect();
        if own.iter().all(|nic| nic.switch != on) {
            continue;
        }
        let main = own.iter().find(|nic| nic.network == "default").unwrap_or(&own[0]);
        let of_vm = format!("{}.n.vm.test", vm.name);
        records.insert(of_vm.clone(), main.ips[0].to_string());
        for nic in &own {
            let is_taken = vms.iter().any(|other| other.name == format!("{}.{}", nic.network, vm.name));
            let of_nic = format!("{}.{of_vm}", nic.network);
            if !is_taken {
                records.insert(of_nic.clone(), nic.ips[0].to_string());
            }
            if nic.switch == on && (nic == main || !is_taken) {
                let IpAddr::V4(ip) = nic.ips[0] else { unreachable!() };
                let [a, b, c, d] = ip.octets();
                let name = if nic == main { of_vm.clone() } else { of_nic };
                reverse.entry(format!("{d}.{c}.{b}.{a}.in-addr.arpa")).or_default().insert(name);
            }
        }
    }
    // An address that two ports have is none of a name's business: either may have it.
    let single = reverse.into_iter().filter(|(_, names)| names.len() == 1);
    records.extend(single.map(|(key, names)| (key, names.into_iter().next().expect("one"))));
    records.retain(|name, _| !foreign.iter().any(|(_, there, taken)| *there == on && taken.to_lowercase() == *name));
    records
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_names_are_those_of_the_ports_in_the_end(steps in steps()) {
        let mut world = World::new(2);
        let (mut nics, mut foreign): (Vec<Nic>, Vec<(u128, u128, String)>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Put(nic) => {
                    world.put(&nic);
                    nics.retain(|present| present.uuid() != nic.uuid());
                    nics.push(nic);
                }
                Step::Remove(nic) => {
                    world.remove(&nic);
                    nics.retain(|present| present.uuid() != nic.uuid());
                }
                Step::Foreign(row, on, name) => {
                    let other = 1 - on;
                    world.foreign(row, other, None);
                    world.foreign(row, on, name.as_ref().map(|name| dns(&[(name, "10.9.9.9")], None)));
                    foreign.retain(|(present, _, _)| *present != row);
                    foreign.extend(name.map(|name| (row, on, name)));
                }
                Step::Edit(index, edit) => {
                    let Some(row) = world.view.own_dns().nth(index) else { continue };
                    let edited = edit.map(|(key, value)| {
                        let mut present = world.view.dns(&row).cloned().expect("our row");
                        present.records.insert(&key, value);
                        present
                    });
                    world.view.put_dns(row, edited);
                }
                Step::Unrefer(on) => {
                    let mut row = world.view.switch(&switch(on)).cloned().expect("a switch");
                    let theirs = |uuid: &Uuid| world.view.dns(uuid).is_some_and(|row| !world.view.is_own_dns(row));
                    row.dns_records.retain(theirs);
                    world.view.put_switch(switch(on), row);
                }
                Step::Write => drop(world.write()),
                Step::Lose => {
                    let lost = world.differences();
                    world.names.again(&lost);
                }
                Step::Restart => {
                    let wrote = world.write();
                    world.names = Names::new(INSTANCE, domain());
                    drop(world.view.take_name_changes());
                    let vms = world.view.vms().cloned().collect();
                    world.names.take(&world.view, &NameChanges { vms, ..NameChanges::default() });
                    world.names.own_rows(&world.view);
                    prop_assert_eq!(world.differences(), vec![], "after {} records", wrote);
                }
            }
        }
        world.write();
        for on in 0..2 {
            let expected = expected(&nics, &foreign, on);
            let mut records = world.records(on);
            records.retain(|name, _| !name.ends_with(".arpa") || expected.contains_key(name));
            prop_assert_eq!(records, expected);
        }
        let rows = world.view.all_dns().filter(|(_, row)| world.view.is_own_dns(row));
        prop_assert!(rows.into_iter().all(|(_, row)| !row.records.is_empty()));
        prop_assert_eq!(world.view.all_dns().count(), world.view.own_dns().count() + foreign.len());
    }
}
