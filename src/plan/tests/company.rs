//! VMs in one transaction that obstruct each other, by example. The status of a VM in a transaction is the same as in a
//! transaction of its own: if the transaction is refused, no event would wake the VM.

use super::attachments;
use super::examples::{at, db, foreign, made, plain, web};
use super::nics::crossed;
use super::objects::Template;
use super::ownership::connect_a_router;
use super::rules::the_status_holds_without_the_other_vms;
use super::world::{World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::intent::Permissions;
use crate::plan::{Claims, Decision, Filled, Problem, fill};

/// The decision for the second of two VMs in one transaction.
fn beside(world: &World, first: &VmKey, second: &VmKey) -> Decision {
    let mut both = [first, second].into_iter().cloned();
    let Filled { decided, .. } = fill(&world.snapshot(), Claims::default(), None, |_| both.next());
    let [(_, before), (_, decision)] = <[_; 2]>::try_from(decided).expect("two decisions");
    assert!(!before.rows.is_empty(), "{first} has nothing to write: {before:#?}");
    decision
}

/// The VM is decided again after the transaction, or its status is the same alone.
fn holds_without_the_others(world: &World, vm: &VmKey, decision: &Decision) {
    if !decision.waits.batch {
        the_status_holds_without_the_other_vms(decision, &world.look_at(vm));
    }
}

/// Addresses rest, and the first VM of the test is gone: its address is left to its next row. Owners may no longer name
/// addresses.
fn left_behind(config: &[(&str, &str)], vm: &VmKey, template: Template) -> World {
    let mut world = World::new([("blue", config.iter().copied().collect())]);
    world.resting = true;
    made(&mut world, vm, template);
    assert!(world.row(vm).is_some(), "{:?}", world.complaints(vm));
    world.destroy(vm);
    world.edit(|tables| {
        let blue = tables.switches.get_mut(&uuid(1, 0)).expect("blue");
        blue.external_ids.insert(keys::ALLOW, "none");
    });
    world
}

fn from(pool: &str) -> Template {
    Template::new([("ip_pool", pool)])
}

#[test]
fn a_name_that_another_vm_claims_does_not_take_the_last_address_of_the_row_away() {
    // The port of m/a.n, and n/a's on its network m where a.n is taken, have one name.
    let (vm, namesake) = (VmKey::new("m", "a.n"), VmKey::new("n", "a"));
    let pool = "10.0.0.3..10.0.0.4";
    let mut world = left_behind(&[("subnet", "10.0.0.0/29")], &vm, from(pool));
    world.edit(|tables| foreign(tables, 1, "a.n", &["unknown"]));
    world.apply(&namesake, Template { network: Some("m".into()), ..plain() });
    world.apply(&vm, from(pool));
    let decision = beside(&world, &namesake, &vm);
    holds_without_the_others(&world, &vm, &decision);
}

#[test]
fn the_last_address_of_a_row_that_another_vm_gets_is_waited_for() {
    // The last one that is free.
    let mut world = left_behind(&[("subnet", "10.0.0.0/30")], &web(), from("10.0.0.2"));
    world.apply(&db(), plain());
    world.apply(&web(), from("10.0.0.2"));
    let decision = beside(&world, &db(), &web());
    holds_without_the_others(&world, &web(), &decision);
}

#[test]
fn an_exchange_that_another_vm_is_in_the_way_of_is_tried_again_after_it() {
    let mut world = attachments::world();
    made(&mut world, &web(), crossed("10.1.0.2", "10.1.0.3"));
    let mac = |template: Template| template.annotated("a.ovn.kubernetes.io/mac_address", "02:00:00:00:00:09");
    world.apply(&db(), mac(Template::default().with([("a", "net1")])));
    world.apply(&web(), mac(crossed("10.1.0.3", "10.1.0.2")));
    let decision = beside(&world, &db(), &web());
    holds_without_the_others(&world, &web(), &decision);
}

#[test]
fn an_address_that_was_removed_from_a_row_by_hand_is_waited_for_if_another_vm_gets_it() {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/30")]))]);
    world.resting = true;
    world.run(&web(), plain(), "n1");
    let (port, _) = world.row(&web()).expect("its port");
    world.edit(|tables| {
        let row = tables.ports.get_mut(&port).expect("its row");
        let mac: crate::ovn::Elements = ["0a:58:0a:00:00:02".to_owned()].into_iter().collect();
        (row.addresses, row.port_security) = (mac.clone(), mac);
    });
    assert!(world.look_at(&web()).rows.len() == 1, "alone, the guest gets its address back");
    world.apply(&db(), at("10.0.0.2"));
    let decision = beside(&world, &db(), &web());
    assert!(decision.waits.batch, "{decision:#?}");
}

#[test]
fn vms_wait_for_the_deletion_of_a_port_with_a_type_that_changes_their_status() {
    // The switch has no subnet of its own, and takes the networks of the router that the port connects.
    let mut world = World::new([("blue", map([("mac_only", "true")]))]);
    world.settings.policy.allow = Permissions::NONE;
    made(&mut world, &web(), plain());
    let (port, _) = world.row(&web()).expect("its port");
    connect_a_router(&mut world, port, &["10.0.0.1/29"]);
    made(&mut world, &db(), at("10.0.0.3"));
    assert!(world.complaints(&db())[0].contains("does not have \"explicit\""), "{:?}", world.complaints(&db()));
    world.delete(&web());
    // The world compares the decisions for db while the deletion is in flight with those after it.
    world.settle(100);
    assert_eq!(world.row(&web()), None);
    assert!(matches!(world.problems(&db())[..], [Problem::NoSubnet { .. }]), "{:?}", world.complaints(&db()));
}
