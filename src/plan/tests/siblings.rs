//! What NICs of one VM do to each other, by example.

use super::attachments::{held, world};
use super::examples::{made, plain, web};
use super::nics::crossed;
use super::objects::Template;
use super::world::map;
use crate::plan::Problem;

/// Nothing but the NICs a and b on one NAD.
fn two() -> Template {
    Template::default().with([("a", "net1"), ("b", "net1")])
}

#[test]
fn what_one_nic_names_another_does_not_choose() {
    let on_two = plain().with([("a", "net3")]).annotated("a.ovn.kubernetes.io/ip_address", "10.0.0.2");
    let on_one = two().annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.2");
    // Nor is a MAC made that another names.
    let mac = two().annotated("b.ovn.kubernetes.io/mac_address", "0a:58:0a:01:00:02");
    for template in [on_two, on_one, mac] {
        let mut world = world();
        made(&mut world, &web(), template);
        assert_eq!((world.complaints(&web()), held(&world, &web()).len()), (vec![], 2));
    }
}

#[test]
fn the_last_address_that_another_nic_names_is_no_free_one() {
    let mut world = world();
    let pool = two().annotated("a.ovn.kubernetes.io/ip_pool", "10.1.0.9");
    made(&mut world, &web(), pool.annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.9"));
    let exhausted =
        Problem::PoolExhausted { pool: Box::new("10.1.0.9".parse().expect("a pool")), switch: "red".into() };
    assert_eq!((world.problems(&web()), held(&world, &web()).len()), (vec![exhausted], 1));
}

#[test]
fn what_is_reserved_for_one_nic_is_not_what_another_names() {
    let mut world = world();
    world.run(&web(), two(), "n1");
    let pool = two().annotated("a.ovn.kubernetes.io/ip_pool", "10.1.0.20..10.1.0.21");
    made(&mut world, &web(), pool.annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.20"));
    assert_eq!(world.complaints(&web()), [""; 0]);
}

#[test]
fn a_nic_that_chooses_anew_leaves_what_it_had_to_the_one_that_names_it() {
    let mut world = world();
    made(&mut world, &web(), two());
    let pool = two().annotated("a.ovn.kubernetes.io/ip_pool", "10.1.0.20..10.1.0.21");
    made(&mut world, &web(), pool.annotated("b.ovn.kubernetes.io/ip_address", "10.1.0.2"));
    assert_eq!(world.complaints(&web()), [""; 0]);
    assert_eq!(held(&world, &web())["b"], "0a:58:0a:01:00:03 10.1.0.2");
}

#[test]
fn of_an_exchange_that_cannot_be_the_one_in_the_way_is_told() {
    // c has what a requests of b's, and more that a requests.
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
fn a_nic_that_cannot_come_to_a_switch_exchanges_nothing_there_by_what_it_has_on_another() {
    // default has 10.0.0.2 on blue; on a switch of the same subnet, a has it, and nothing else is free for a family.
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
