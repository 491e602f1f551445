//! One port's change as operations, exactly.

use uuid::Uuid;

use super::server::Tables;
use super::world::{map, uuid};
use crate::ovn::{Elements, LogicalSwitch, LogicalSwitchPort};
use crate::ovsdb::{Datum, Mutation, Mutator, Operation};
use crate::plan::{Placed, PortChange};

const PORT: &str = "Logical_Switch_Port";
const SWITCH: &str = "Logical_Switch";

fn blue() -> Uuid {
    uuid(1, 0)
}
fn red() -> Uuid {
    uuid(1, 1)
}
fn port() -> Uuid {
    uuid(2, 0)
}

fn row() -> LogicalSwitchPort {
    LogicalSwitchPort {
        name: "vm.ns".into(),
        addresses: Elements::from_iter(["0a:58:0a:10:00:02 10.16.0.2".to_owned()]),
        port_security: Elements::from_iter(["0a:58:0a:10:00:02 10.16.0.2".to_owned()]),
        options: map([("requested-chassis", "n1")]),
        external_ids: map([("vendor", "ovn-kubevirt"), ("ovn-kubevirt.io/vm", "ns/vm")]),
        ..Default::default()
    }
}

fn change(before: Option<(Uuid, LogicalSwitchPort)>, after: Option<(Uuid, LogicalSwitchPort)>) -> PortChange {
    let placed = |(switch, row)| Placed { switch, row };
    PortChange { uuid: port(), before: before.map(placed), after: after.map(placed) }
}

fn refer(switch: Uuid, mutator: Mutator) -> Operation {
    let mutation = Mutation { column: "ports", mutator, value: Datum::Set(vec![port().into()]) };
    Operation::Mutate { table: SWITCH, uuid: switch, mutations: vec![mutation] }
}

#[test]
fn a_new_port_is_inserted_and_its_switch_refers_to_it() {
    let insert = Operation::Insert {
        table: PORT,
        uuid: port(),
        row: vec![
            ("name", Datum::One("vm.ns".into())),
            ("addresses", Datum::texts(["0a:58:0a:10:00:02 10.16.0.2"])),
            ("port_security", Datum::texts(["0a:58:0a:10:00:02 10.16.0.2"])),
            ("options", Datum::map([("requested-chassis", "n1")])),
            ("external_ids", Datum::map([("ovn-kubevirt.io/vm", "ns/vm"), ("vendor", "ovn-kubevirt")])),
        ],
    };
    let operations = change(None, Some((blue(), row()))).operations();
    assert_eq!(operations, [insert, refer(blue(), Mutator::Insert)]);
}

#[test]
fn a_deleted_port_is_removed_from_its_switch_too() {
    let operations = change(Some((blue(), row())), None).operations();
    assert_eq!(operations, [refer(blue(), Mutator::Delete), Operation::Delete { table: PORT, uuid: port() }]);
}

#[test]
fn a_port_that_moves_is_let_go_by_one_switch_and_taken_by_the_other() {
    let operations = change(Some((blue(), row())), Some((red(), row()))).operations();
    assert_eq!(operations, [refer(blue(), Mutator::Delete), refer(red(), Mutator::Insert)]);
}

#[test]
fn only_the_columns_and_keys_that_change_are_written() {
    let mut after = row();
    after.addresses = Elements::from_iter(["0a:58:0a:10:00:02 10.16.0.15".to_owned()]);
    after.options = map([("requested-chassis", "n2")]);
    after.external_ids.insert("ovn-kubevirt.io/vm-uid", "u2");
    let update = Operation::Update {
        table: PORT,
        uuid: port(),
        row: vec![("addresses", Datum::texts(["0a:58:0a:10:00:02 10.16.0.15"]))],
    };
    let mutations = vec![
        Mutation { column: "options", mutator: Mutator::Delete, value: Datum::texts(["requested-chassis"]) },
        Mutation { column: "options", mutator: Mutator::Insert, value: Datum::map([("requested-chassis", "n2")]) },
        Mutation {
            column: "external_ids",
            mutator: Mutator::Insert,
            value: Datum::map([("ovn-kubevirt.io/vm-uid", "u2")]),
        },
    ];
    let mutate = Operation::Mutate { table: PORT, uuid: port(), mutations };
    assert_eq!(change(Some((blue(), row())), Some((blue(), after))).operations(), [update, mutate]);
    let same = change(Some((blue(), row())), Some((blue(), row())));
    assert!(same.is_empty() && same.operations().is_empty());
}

#[test]
fn a_removed_key_is_deleted_alone() {
    let mut after = row();
    after.options = map([]);
    let mutation = Mutation { column: "options", mutator: Mutator::Delete, value: Datum::texts(["requested-chassis"]) };
    let mutate = Operation::Mutate { table: PORT, uuid: port(), mutations: vec![mutation] };
    assert_eq!(change(Some((blue(), row())), Some((blue(), after))).operations(), [mutate]);
}

#[test]
fn changes_by_others_since_the_replica_was_read_are_kept() {
    let mut tables = Tables::default();
    for (switch, name) in [(blue(), "blue"), (red(), "red")] {
        tables.switches.insert(switch, LogicalSwitch { name: name.into(), ..Default::default() });
    }
    let mut unseen = row();
    unseen.options.insert("mcast_flood", "true");
    unseen.external_ids.insert("owner", "somebody");
    tables.put_port(blue(), port(), unseen);
    tables.put_port(blue(), uuid(2, 1), LogicalSwitchPort { name: "foreign".into(), ..Default::default() });
    let mut after = row();
    after.options = map([("requested-chassis", "n2")]);
    after.external_ids.insert("ovn-kubevirt.io/vm", "ns/other");
    tables.transact(&change(Some((blue(), row())), Some((red(), after))).operations());
    let mut expected = row();
    expected.options = map([("mcast_flood", "true"), ("requested-chassis", "n2")]);
    expected.external_ids =
        map([("owner", "somebody"), ("vendor", "ovn-kubevirt"), ("ovn-kubevirt.io/vm", "ns/other")]);
    assert_eq!(tables.ports[&port()], expected);
    assert_eq!(tables.switch_of(&port()), Some(red()));
    assert_eq!(tables.switch_of(&uuid(2, 1)), Some(blue()));
}

#[test]
fn a_port_takes_addresses_where_it_did_not_have_them() {
    let other = || LogicalSwitchPort { addresses: Elements::from_iter(["0a:58:0a:10:00:03".to_owned()]), ..row() };
    let none = || LogicalSwitchPort { addresses: Elements::default(), ..row() };
    let bound = LogicalSwitchPort { options: map([("requested-chassis", "n2")]), ..row() };
    let (on_blue, on_red) = (|row| Some((blue(), row)), |row| Some((red(), row)));
    for (before, after, takes) in [
        (None, on_blue(row()), true),
        (on_blue(row()), on_blue(other()), true),
        (on_blue(none()), on_blue(row()), true),
        (on_blue(row()), on_red(row()), true),
        (on_blue(row()), on_blue(bound), false),
        (on_blue(row()), on_blue(none()), false),
        (on_blue(row()), None, false),
    ] {
        let change = change(before, after);
        assert_eq!(change.takes_addresses(), takes, "{change:?}");
    }
}
