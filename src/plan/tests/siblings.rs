//! NICs of one VM that affect each other, by example.

use super::attachments::{held, world};
use super::examples::{made, plain, web};
use super::nics::crossed;
use super::objects::Template;
use super::world::map;
use crate::plan::Problem;

/// Only the NICs a and b on one NAD.
fn two() -> Template {
    Template::default().with([("a", "net1"), ("b", "net1")])
}

#[test]
fn an_address_requested_for_one_nic_is_not_allocated_to_another() {
    let on_two = plain().with([("a", "net3")]).annotated("a.ovn.kubernetes.io/ip_address", "10.0.0.2");
    let on_one = two().annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.2");
    // A MAC that another NIC requests is not generated either.
    let mac = two().annotated("b.ovn.kubernetes.io/mac_address", "0a:58:0a:01:00:02");
    for template in [on_two, on_one, mac] {
        let mut world = world();
        made(&mut world, &web(), template);
        assert_eq!((world.complaints(&web()), held(&world, &web()).len()), (vec![], 2));
    }
}

#[test]
fn the_last_address_is_not_free_if_another_nic_requests_it() {
    let mut world = world();
    let pool = two().annotated("a.ovn.kubernetes.io/ip_pool", "10.1.0.9");
    made(&mut world, &web(), pool.annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.9"));
    let exhausted =
        Problem::PoolExhausted { pool: Box::new("10.1.0.9".parse().expect("a pool")), switch: "red".into() };
    assert_eq!((world.problems(&web()), held(&world, &web()).len()), (vec![exhausted], 1));
}

#[test]
fn a_reservation_for_one_nic_avoids_the_request_of_another() {
    let mut world = world();
    world.run(&web(), two(), "n1");
    let pool = two().annotated("a.ovn.kubernetes.io/ip_pool", "10.1.0.20..10.1.0.21");
    made(&mut world, &web(), pool.annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.20"));
    assert_eq!(world.complaints(&web()), [""; 0]);
}

#[test]
fn a_nic_that_gets_another_address_leaves_the_old_one_to_the_nic_that_requests_it() {
    let mut world = world();
    made(&mut world, &web(), two());
    let pool = two().annotated("a.ovn.kubernetes.io/ip_pool", "10.1.0.20..10.1.0.21");
    made(&mut world, &web(), pool.annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.2"));
    assert_eq!(world.complaints(&web()), [""; 0]);
    assert_eq!(held(&world, &web())["b"], "0a:58:0a:01:00:03 10.1.0.2");
}

#[test]
fn an_impossible_exchange_names_the_holder_in_the_way() {
    // a requests the address of b and the MAC of another VM.
    let mut world = world();
    made(&mut world, &web(), crossed("10.1.0.2", "10.1.0.3"));
    made(&mut world, &super::examples::db(), two().annotated("a.ovn.kubernetes.io/mac_address", "02:00:00:00:00:09"));
    let before = held(&world, &web());
    let edited = crossed("10.1.0.3", "10.1.0.2").annotated("a.ovn.kubernetes.io/mac_address", "02:00:00:00:00:09");
    made(&mut world, &web(), edited);
    assert_eq!(held(&world, &web()), before);
    let told = world.complaints(&web());
    assert!(
        told.iter().any(|text| text.starts_with("10.1.0.3 on the logical switch red is held by the VM n/web")),
        "{told:#?}"
    );
}

#[test]
fn a_nic_that_cannot_move_to_a_switch_exchanges_no_address_there() {
    // default has 10.0.0.2 on blue; on a switch of the same subnet, a has it, and no other IPv4 address is free.
    let subnet = [("subnet", "10.0.0.0/29"), ("exclude_ips", "10.0.0.4..10.0.0.6"), ("ipv6_prefix", "fd00::/125")];
    let mut world = super::world::World::new([("blue", map(subnet)), ("red", map(subnet))]);
    world.nad("n", "net1", Some("red"));
    let nics = |template: Template| template.with([("a", "net1"), ("b", "net1")]);
    made(&mut world, &web(), nics(plain()));
    let before = held(&world, &web());
    let moved = Template::new([("logical_switch", "red"), ("ip_address", "fd00::2")]);
    made(&mut world, &web(), nics(moved));
    assert_eq!(held(&world, &web()), before);
    let told = world.complaints(&web());
    assert!(
        told.iter()
            .any(|text| text.starts_with("fd00::2 on the logical switch red is held by the VM n/web (port web.n.net1")),
        "{told:#?}"
    );
}
