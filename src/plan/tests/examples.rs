//! The contract by example: one VM, or two, with its row and the message for its owner.

use super::objects::Template;
use super::server::Tables;
use super::world::{INSTANCE, World, map, uuid};
use crate::contract::{VmKey, keys, port_uuid};
use crate::ovn::{Elements, LogicalSwitchPort};

pub(super) fn web() -> VmKey {
    VmKey::new("n", "web")
}
pub(super) fn db() -> VmKey {
    VmKey::new("n", "db")
}

pub(super) fn world() -> World {
    World::new([("blue", map([("subnet", "10.16.0.0/16")]))])
}

fn tiny() -> World {
    World::new([("blue", map([("subnet", "10.0.0.0/29"), ("exclude_ips", "10.0.0.4..10.0.0.6")]))])
}

pub(super) fn plain() -> Template {
    Template::new([])
}
pub(super) fn at(ip: &str) -> Template {
    Template::new([("ip_address", ip)])
}

/// A VM that does not run.
pub(super) fn made(world: &mut World, vm: &VmKey, template: Template) {
    world.apply(vm, template);
    world.settle(100);
}

/// A port of another program on the first switch.
pub(super) fn foreign(tables: &mut Tables, slot: u8, name: &str, addresses: &[&str]) {
    let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
    let row = LogicalSwitchPort { name: name.into(), addresses, ..Default::default() };
    tables.put_port(uuid(1, 0), uuid(2, slot), row);
}

fn configure(world: &mut World, key: &str, value: &str) {
    world.edit(|tables| {
        let switch = tables.switches.get_mut(&uuid(1, 0)).expect("the first switch");
        switch.other_config.insert(key, value);
    });
    world.settle(100);
}

pub(super) fn waits_in_vain(world: &World, vm: &VmKey, complaint: &str) {
    assert_eq!((world.complaints(vm), world.row(vm)), (vec![complaint.to_owned()], None));
}

#[test]
fn the_first_vm_gets_the_lowest_address_and_a_row_as_in_the_contract() {
    let mut world = world();
    world.run(&web(), plain(), "node-a");
    let text = || Elements::from_iter(["0a:58:0a:10:00:02 10.16.0.2".to_owned()]);
    let expected = LogicalSwitchPort {
        name: "web.n".into(),
        kind: String::new(),
        addresses: text(),
        dynamic_addresses: None,
        port_security: text(),
        dhcpv4_options: None,
        dhcpv6_options: None,
        options: map([("requested-chassis", "node-a")]),
        external_ids: map([
            ("vendor", "ovn-kubevirt"),
            ("ovn-kubevirt.io/instance", "default"),
            ("ovn-kubevirt.io/vm", "n/web"),
            ("ovn-kubevirt.io/vm-uid", "vm-1"),
            ("ovn-kubevirt.io/network", "default"),
        ]),
    };
    assert_eq!(world.row(&web()), Some((port_uuid(INSTANCE, "web.n"), expected)));
    assert_eq!(world.tables.switch_of(&port_uuid(INSTANCE, "web.n")), Some(uuid(1, 0)));
}

#[test]
fn a_static_address_is_given_as_it_is_requested() {
    let mut world = world();
    made(&mut world, &web(), at("10.16.0.15"));
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:0f 10.16.0.15"));
    let request = Template::new([("ip_address", "10.16.0.16"), ("mac_address", "02:00:00:00:00:AB")]);
    made(&mut world, &db(), request);
    assert_eq!(world.addresses(&db()).as_deref(), Some("02:00:00:00:00:ab 10.16.0.16"));
}

#[test]
fn an_excluded_address_is_given_when_requested_and_never_chosen() {
    let mut world = world();
    configure(&mut world, "exclude_ips", "10.16.0.1..10.16.0.9");
    made(&mut world, &web(), at("10.16.0.5"));
    made(&mut world, &db(), plain());
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:05 10.16.0.5"));
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:0a 10.16.0.10"));
}

#[test]
fn an_edit_on_a_running_vm_is_reserved_and_the_next_start_applies_it() {
    let mut world = world();
    world.run(&web(), plain(), "node-a");
    made(&mut world, &web(), at("10.16.0.15"));
    let (port, row) = world.row(&web()).expect("its port");
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
    assert_eq!(row.external_ids.get(keys::NEXT_ADDRESSES), Some("0a:58:0a:10:00:02 10.16.0.15"));
    // Neither the reserved address nor the old one is allocated meanwhile.
    made(&mut world, &db(), at("10.16.0.15"));
    let held = "10.16.0.15 on the logical switch blue is held by the VM n/web (port web.n). \
        Choose another address, or wait: it is granted as soon as it is free.";
    waits_in_vain(&world, &db(), held);
    made(&mut world, &db(), at("10.16.0.2"));
    assert_eq!(world.row(&db()), None);
    world.restart(&web(), "node-b");
    let (same, row) = world.row(&web()).expect("its port");
    assert_eq!(same, port);
    assert_eq!(row.addresses, Elements::from_iter(["0a:58:0a:10:00:02 10.16.0.15".to_owned()]));
    assert_eq!(row.port_security, row.addresses);
    assert_eq!(row.external_ids.get(keys::NEXT_ADDRESSES), None);
    assert_eq!(row.options, map([("requested-chassis", "node-b")]));
    // The old address is free, and the VM that waited for it has it; the MAC stayed with the first VM.
    assert_eq!(world.addresses(&db()).map(|text| text.ends_with(" 10.16.0.2")), Some(true));
}

#[test]
fn an_edit_that_is_reverted_releases_its_reservation() {
    let mut world = world();
    world.run(&web(), plain(), "node-a");
    made(&mut world, &db(), at("10.16.0.15"));
    world.destroy(&db());
    made(&mut world, &web(), at("10.16.0.15"));
    made(&mut world, &db(), at("10.16.0.15"));
    assert_eq!(world.row(&db()), None);
    made(&mut world, &web(), plain());
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:0f 10.16.0.15"));
}

#[test]
fn a_reservation_outlives_a_mistyped_switch() {
    let mut world = world();
    world.run(&web(), plain(), "node-a");
    made(&mut world, &web(), at("10.16.0.15"));
    let reserved = world.row(&web());
    configure(&mut world, "subnet", "10.16.0.0");
    assert_eq!(world.row(&web()), reserved);
    world.restart(&web(), "node-a");
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.15"));
}

#[test]
fn a_lease_is_kept_through_every_state_of_the_vm_and_its_subnet() {
    let mut world = tiny();
    world.run(&web(), plain(), "n1");
    world.run(&db(), plain(), "n1");
    let (port, lease) = (world.row(&web()).expect("its port").0, world.addresses(&web()));
    assert_eq!(lease.as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
    let told = |world: &World, chassis: Option<&str>, messages: &[&str]| {
        let (found, row) = world.row(&web()).expect("its port");
        assert_eq!((found, world.addresses(&web())), (port, lease.clone()));
        assert_eq!(row.port_security, row.addresses);
        assert_eq!(row.options.get("requested-chassis"), chassis);
        assert_eq!(world.complaints(&web()), messages);
    };
    let check = |world: &World, chassis| told(world, chassis, &[]);
    // A restart on a full subnet.
    world.restart(&web(), "n2");
    check(&world, Some("n2"));
    // Another launcher of the same run: it moves when the guest is ready there.
    world.launch(&web(), Some("n3"));
    world.settle(100);
    check(&world, Some("n2"));
    world.ready(&web());
    world.remove_launcher(&web());
    world.settle(100);
    check(&world, Some("n3"));
    // Stopped: bound nowhere once its launcher is gone.
    world.stop(&web());
    world.settle(100);
    check(&world, Some("n3"));
    world.remove_launcher(&web());
    world.settle(100);
    check(&world, None);
    // The switch says something else of its addresses.
    configure(&mut world, "exclude_ips", "10.0.0.2..10.0.0.3");
    let excluded = "The VM keeps 10.0.0.2, which exclude_ips of the logical switch blue now names. Remove the address from \
        exclude_ips, or stop the VM and request another with the annotation ip_address to renumber it.";
    told(&world, None, &[excluded]);
    configure(&mut world, "exclude_ips", "");
    configure(&mut world, "subnet", "10.9.0.0/24");
    let outside = "The VM keeps 10.0.0.2, which is now outside the subnet of the logical switch blue (10.9.0.0/24). \
        Stop the VM and request another address with the annotation ip_address to renumber it.";
    told(&world, None, &[outside]);
    configure(&mut world, "subnet", "nonsense");
    check(&world, None);
    world.restart(&web(), "n1");
    check(&world, Some("n1"));
}

#[test]
fn a_deleted_vms_address_is_not_given_away_while_its_launcher_may_run() {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/30")]))]);
    world.run(&web(), plain(), "n1");
    made(&mut world, &db(), plain());
    let full = "The subnet of the logical switch blue (10.0.0.0/30) has no free IPv4 address. \
        Delete VMs, shrink exclude_ips or enlarge the subnet.";
    waits_in_vain(&world, &db(), full);
    let (port, row) = world.row(&web()).expect("its port");
    for step in [World::delete, World::stop, World::end_launcher] {
        step(&mut world, &web());
        world.settle(100);
        let (same, now) = world.row(&web()).expect("its port");
        assert_eq!((same, &now.addresses, &now.options), (port, &row.addresses, &row.options));
        waits_in_vain(&world, &db(), full);
    }
    world.remove_launcher(&web());
    world.settle(100);
    assert_eq!(world.row(&web()), None);
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:00:00:02 10.0.0.2"));
}

#[test]
fn a_port_whose_nic_was_taken_off_the_template_stays_while_its_launcher_may_run() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    let lease = world.addresses(&web());
    made(&mut world, &web(), Template::default());
    world.stop(&web());
    world.settle(100);
    assert_eq!(world.addresses(&web()), lease);
    world.remove_launcher(&web());
    world.settle(100);
    assert_eq!(world.row(&web()), None);
}

#[test]
fn an_ipv6_switch_and_a_dual_stack_one_are_served_in_their_families() {
    let prefix = ("ipv6_prefix", "fd00:10:16::");
    let mut world = World::new([("blue", map([prefix])), ("dual", map([("subnet", "10.16.0.0/16"), prefix]))]);
    made(&mut world, &web(), plain());
    let text = world.addresses(&web()).expect("its port");
    let (mac, ip) = text.split_once(' ').expect("a MAC and an address");
    assert!(mac.starts_with("0a:58:") && ip == "fd00:10:16::2", "{text}");
    let dual = [("logical_switch", "dual")];
    made(&mut world, &db(), Template::new(dual));
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2 fd00:10:16::2"));
    let third = VmKey::new("m", "third");
    made(&mut world, &third, Template::new([dual[0], ("ip_address", "fd00:10:16::BEEF")]));
    assert_eq!(world.addresses(&third).as_deref(), Some("0a:58:0a:10:00:03 10.16.0.3 fd00:10:16::beef"));
}

#[test]
fn a_family_that_the_switch_gains_is_not_forced_upon_a_lease() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    let lease = world.addresses(&web());
    configure(&mut world, "ipv6_prefix", "fd00::");
    world.restart(&web(), "n1");
    assert_eq!(world.addresses(&web()), lease);
}

#[test]
fn a_stopped_vm_moves_to_the_switch_that_it_names_and_a_running_one_at_its_next_start() {
    let config = |subnet| map([("subnet", subnet)]);
    let mut world = World::new([("blue", config("10.16.0.0/16")), ("red", config("10.17.0.0/16"))]);
    world.run(&web(), plain(), "n1");
    let red = Template::new([("logical_switch", "red")]);
    made(&mut world, &web(), red);
    let deferred = "The VM runs on the logical switch blue, and the requested switch red takes effect at its next start. \
        No action is needed; a restart of the VM applies the change.";
    assert_eq!(world.complaints(&web()), [deferred]);
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:10:00:02 10.16.0.2"));
    world.stop(&web());
    world.remove_launcher(&web());
    world.settle(100);
    let (port, _) = world.row(&web()).expect("its port");
    assert_eq!(port, port_uuid(INSTANCE, "web.n"));
    assert_eq!(world.tables.switch_of(&port), Some(uuid(1, 1)));
    assert_eq!(world.addresses(&web()).as_deref(), Some("0a:58:0a:11:00:02 10.17.0.2"));
    assert_eq!(world.complaints(&web()), [""; 0]);
}

#[test]
fn the_port_of_a_namespace_that_names_another_switch_later_stays() {
    let config = |subnet| map([("subnet", subnet)]);
    let mut world = World::new([("blue", config("10.16.0.0/16")), ("red", config("10.17.0.0/16"))]);
    made(&mut world, &web(), plain());
    let row = world.row(&web());
    world.namespace("n", Some("red"));
    world.settle(100);
    made(&mut world, &db(), plain());
    assert_eq!(world.row(&web()), row);
    assert_eq!(world.addresses(&db()).as_deref(), Some("0a:58:0a:11:00:02 10.17.0.2"));
}
