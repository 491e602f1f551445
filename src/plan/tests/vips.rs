//! Further addresses of a guest by example.

use super::examples::{db, foreign, made, plain, web};
use super::objects::Template;
use super::world::{World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::plan::Fault;

fn world() -> World {
    let mut world = World::new([("blue", map([("subnet", "10.16.0.0/16"), ("exclude_ips", "10.16.0.100")]))]);
    allow(&mut world, "explicit,vips");
    world
}

fn allow(world: &mut World, words: &str) {
    world.edit(|tables| {
        tables.switches.get_mut(&uuid(1, 0)).expect("blue").external_ids.insert(keys::ALLOW, words);
    });
    world.settle(100);
}

fn with(vips: &str) -> Template {
    Template::new([("port_vips", vips)])
}

fn security(world: &World, vm: &VmKey) -> String {
    let row = world.row(vm).map(|(_, row)| row.port_security.iter().collect::<Vec<_>>().join(";"));
    row.unwrap_or_default()
}

fn reasons(world: &World, vm: &VmKey) -> Vec<(&'static str, Fault)> {
    world.problems(vm).iter().map(|problem| (problem.reason(), problem.fault())).collect()
}

const WEB: &str = "0a:58:0a:10:00:02 10.16.0.2";
const DB: &str = "0a:58:0a:10:00:03 10.16.0.3";

#[test]
fn a_guest_may_speak_with_its_further_addresses_and_no_other_port_gets_them() {
    let mut world = world();
    made(&mut world, &web(), with("10.16.0.50 ,10.16.0.3"));
    assert_eq!(security(&world, &web()), format!("{WEB} 10.16.0.3/32 10.16.0.50/32"));
    assert_eq!(world.addresses(&web()).as_deref(), Some(WEB), "they are no addresses of the port");
    made(&mut world, &db(), plain());
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:04 10.16.0.4"));
    world.destroy(&db());
    made(&mut world, &db(), Template::new([("ip_address", "10.16.0.50")]));
    let held = "10.16.0.50 on the logical switch blue is held by the VM n/web (port web.n). Choose another address, or wait: \
        it is granted as soon as it is free.";
    assert_eq!((world.complaints(&db()), world.row(&db())), (vec![held.to_owned()], None));
    // It is free.
    made(&mut world, &web(), plain());
    assert_eq!(security(&world, &web()), WEB);
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:32 10.16.0.50"));
}

#[test]
fn vms_of_a_namespace_share_a_further_address_and_those_of_another_do_not() {
    let mut world = world();
    let stranger = VmKey::new("m", "web");
    world.apply(&web(), with("10.16.0.50"));
    world.apply(&db(), with("10.16.0.50"));
    world.apply(&stranger, with("10.16.0.50"));
    world.settle(100);
    assert_eq!(security(&world, &web()), format!("{WEB} 10.16.0.50/32"));
    assert_eq!(security(&world, &db()), format!("{DB} 10.16.0.50/32"));
    assert_eq!(security(&world, &stranger), "0a:58:0a:10:00:04 10.16.0.4");
    assert_eq!(reasons(&world, &stranger), [("AddressConflict", Fault::Owner)]);
    assert_eq!(world.northbound.switch_use(&uuid(1, 0)).conflicts, 0, "it is shared on purpose");
    world.destroy(&web());
    assert_eq!(reasons(&world, &stranger).len(), 1);
    world.destroy(&db());
    assert_eq!(security(&world, &stranger), "0a:58:0a:10:00:04 10.16.0.4 10.16.0.50/32");
    assert_eq!(reasons(&world, &stranger), []);
}

#[test]
fn what_another_port_has_and_what_may_not_be_named_is_left_out_and_told() {
    let mut world = world();
    world.edit(|tables| foreign(tables, 0, "lease", &["0a:00:00:00:00:01 10.16.0.9"]));
    made(&mut world, &web(), plain());
    made(&mut world, &db(), with("10.16.0.2,10.16.0.9,10.16.0.50,10.16.0.100,10.17.0.1"));
    assert_eq!(security(&world, &db()), format!("{DB} 10.16.0.50/32"));
    let owner = |reason| (reason, Fault::Owner);
    let expected = ["AddressConflict", "AddressConflict", "RequestNotAllowed", "InvalidRequest"].map(owner).to_vec();
    assert_eq!(reasons(&world, &db()), expected);
    allow(&mut world, "explicit,excluded,vips");
    assert_eq!(security(&world, &db()), format!("{DB} 10.16.0.50/32 10.16.0.100/32"));
    assert_eq!(reasons(&world, &db()).len(), 3);
}

#[test]
fn further_addresses_need_the_operators_word_and_go_with_it() {
    let mut world = world();
    allow(&mut world, "explicit");
    made(&mut world, &web(), with("10.16.0.50"));
    let complaint = "The guest may not speak with port_vips on the network default: \
        external_ids:ovn-kubevirt.io/allow of the logical switch blue does not have \"vips\". Remove the annotation \
        port_vips, or have the operator add \"vips\" there.";
    assert_eq!((world.complaints(&web()), security(&world, &web())), (vec![complaint.to_owned()], WEB.to_owned()));
    allow(&mut world, "explicit,vips");
    assert_eq!((security(&world, &web()), reasons(&world, &web())), (format!("{WEB} 10.16.0.50/32"), vec![]));
    // One that stands stays without the word to name an address, and while its request cannot be read.
    allow(&mut world, "vips");
    assert_eq!((security(&world, &web()), reasons(&world, &web())), (format!("{WEB} 10.16.0.50/32"), vec![]));
    made(&mut world, &web(), with("10.16.0.50;10.16.0.51"));
    assert_eq!(security(&world, &web()), format!("{WEB} 10.16.0.50/32"));
    assert_eq!(reasons(&world, &web()), [("InvalidRequest", Fault::Owner)]);
    allow(&mut world, "none");
    assert_eq!(security(&world, &web()), WEB);
    made(&mut world, &web(), with("10.16.0.50"));
    assert_eq!(reasons(&world, &web()), [("RequestNotAllowed", Fault::Operator)], "its owner may edit the VM");
}

#[test]
fn a_running_vm_gets_its_further_addresses_at_its_next_start_and_keeps_them_through_drift() {
    let mut world = world();
    world.run(&web(), plain(), "node-a");
    made(&mut world, &web(), with("10.16.0.50"));
    assert_eq!(security(&world, &web()), WEB);
    world.restart(&web(), "node-a");
    let secured = format!("{WEB} 10.16.0.50/32");
    assert_eq!(security(&world, &web()), secured);
    let (port, row) = world.row(&web()).expect("its port");
    world.edit(|tables| tables.ports.get_mut(&port).expect("it").addresses = crate::ovn::Elements::default());
    world.settle(100);
    assert_eq!((world.row(&web()), security(&world, &web())), (Some((port, row)), secured));
    let other = ["0a:58:0a:10:00:02 10.16.0.2 10.16.0.77/32"];
    world.edit(|tables| tables.ports.get_mut(&port).expect("it").port_security = other.into_iter().collect());
    world.settle(100);
    assert_eq!(security(&world, &web()), format!("{WEB} 10.16.0.50/32"));
}

#[test]
fn a_lost_row_gets_its_own_address_again_and_no_further_one() {
    let mut world = world();
    world.resting = true;
    made(&mut world, &db(), plain());
    made(&mut world, &web(), with("10.16.0.2,10.16.0.1"));
    world.destroy(&db());
    made(&mut world, &web(), with("10.16.0.2"));
    let (port, _) = world.row(&web()).expect("its port");
    let lease = world.addresses(&web());
    world.edit(|tables| tables.remove_port(port));
    world.settle(100);
    assert_eq!(world.addresses(&web()), lease);
}
