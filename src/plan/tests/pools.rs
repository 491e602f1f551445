//! Pools of a VM's owner, OVN's own IPAM beside us, addresses that rest and that are retained.

use super::examples::{at, db, made, plain, waits_in_vain, web};
use super::objects::Template;
use super::world::{World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::intent::Retention;
use crate::ovn::{Elements, LogicalSwitchPort};

fn small() -> World {
    World::new([("blue", map([("subnet", "10.0.0.0/28"), ("exclude_ips", "10.0.0.1..10.0.0.4")]))])
}

fn from(pool: &str) -> Template {
    Template::new([("ip_pool", pool)])
}

fn third() -> VmKey {
    VmKey::new("m", "third")
}

fn ip(world: &World, vm: &VmKey) -> Option<String> {
    world.addresses(vm).map(|text| text.split_once(' ').map_or(text.clone(), |(_, ip)| ip.to_owned()))
}

#[test]
fn an_address_is_allocated_from_the_pool_even_if_excluded_and_a_full_pool_is_reported() {
    let mut world = small();
    made(&mut world, &web(), from("10.0.0.2, 10.0.0.9..10.0.0.9"));
    made(&mut world, &db(), from("10.0.0.2,10.0.0.9"));
    assert_eq!((ip(&world, &web()).as_deref(), ip(&world, &db()).as_deref()), (Some("10.0.0.2"), Some("10.0.0.9")));
    made(&mut world, &third(), from("10.0.0.2,10.0.0.9"));
    let full = "No address of ip_pool (10.0.0.2, 10.0.0.9) is free on the logical switch blue. \
        Delete VMs, or add addresses to the pool.";
    waits_in_vain(&world, &third(), full);
    world.destroy(&web());
    assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.2"));
    let outside = "No address of ip_pool (10.9.0.0..10.9.255.255) can be used on the logical switch blue: its subnet is \
        10.0.0.0/28. Choose addresses in the subnet.";
    made(&mut world, &web(), from("10.9.0.0/16"));
    waits_in_vain(&world, &web(), outside);
}

#[test]
fn a_pool_that_changes_moves_a_stopped_vm_at_once_and_a_running_one_at_its_next_start() {
    let mut world = small();
    made(&mut world, &web(), plain());
    made(&mut world, &web(), from("10.0.0.5..10.0.0.6"));
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.5"), "it fits already");
    made(&mut world, &web(), from("10.0.0.8..10.0.0.9"));
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.8"));
    world.run(&web(), from("10.0.0.8..10.0.0.9"), "n1");
    made(&mut world, &web(), from("10.0.0.11..10.0.0.12"));
    let next = |world: &World| {
        let (_, row) = world.row(&web()).expect("its port");
        row.external_ids.get(keys::NEXT_ADDRESSES).map(ToOwned::to_owned)
    };
    assert_eq!(
        (ip(&world, &web()).as_deref(), next(&world).as_deref()),
        (Some("10.0.0.8"), Some("0a:58:0a:00:00:05 10.0.0.11"))
    );
    // The reservation counts as held, and stays after another decision.
    made(&mut world, &db(), at("10.0.0.11"));
    assert_eq!(ip(&world, &db()), None);
    world.mark(web());
    world.settle(1);
    assert_eq!(next(&world).as_deref(), Some("0a:58:0a:00:00:05 10.0.0.11"));
    world.restart(&web(), "n1");
    assert_eq!((ip(&world, &web()).as_deref(), next(&world)), (Some("10.0.0.11"), None));
}

#[test]
fn a_vm_whose_new_pool_is_full_starts_with_the_address_that_it_has() {
    let mut world = small();
    made(&mut world, &web(), plain());
    made(&mut world, &db(), at("10.0.0.9"));
    made(&mut world, &web(), from("10.0.0.9"));
    world.restart_from_stop(&web(), "n1");
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.5"));
    assert!(
        world.complaints(&web())[0].contains("10.0.0.5, which is not in ip_pool (10.0.0.9), while it runs"),
        "{:?}",
        world.complaints(&web())
    );
    // Its guest runs: an address that becomes free now is for its next start.
    world.destroy(&db());
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.5"));
    world.stop(&web());
    world.remove_launcher(&web());
    world.restart_from_stop(&web(), "n1");
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.9"));
}

#[test]
fn beside_ovns_own_ipam_only_a_pool_that_is_excluded_is_chosen_from() {
    let mut world = small();
    world.edit(|tables| {
        let addresses = Elements::from_iter(["dynamic".to_owned()]);
        let row = LogicalSwitchPort { name: "lease".into(), addresses, ..Default::default() };
        tables.put_port(uuid(1, 0), uuid(2, 0), row);
    });
    made(&mut world, &web(), plain());
    let required = "OVN itself allocates addresses to ports of the logical switch blue (such as lease) and might allocate the \
        address of the VM again. Request addresses that exclude_ips of the switch names, with the annotation ip_pool or \
        ip_address.";
    waits_in_vain(&world, &web(), required);
    made(&mut world, &db(), from("10.0.0.4..10.0.0.5"));
    let beyond = "OVN itself allocates addresses to ports of the logical switch blue (such as lease) and might allocate those \
        of ip_pool (10.0.0.4..10.0.0.5), which are not all in exclude_ips. Add all of them to exclude_ips of the switch, or \
        choose addresses that it names.";
    waits_in_vain(&world, &db(), beyond);
    made(&mut world, &third(), from("10.0.0.2..10.0.0.4"));
    assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.2"));
    // The last such port is deleted.
    world.edit(|tables| tables.remove_port(uuid(2, 0)));
    world.settle(100);
    assert_eq!((ip(&world, &web()).as_deref(), ip(&world, &db()).as_deref()), (Some("10.0.0.5"), Some("10.0.0.4")));
}

#[test]
fn a_released_address_rests_unless_it_is_requested_or_no_other_is_free() {
    let mut world = World::new([("blue", map([("subnet", "10.0.0.0/29")]))]);
    world.resting = true;
    made(&mut world, &web(), plain());
    world.destroy(&web());
    made(&mut world, &db(), plain());
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.0.0.3"));
    world.pass(60);
    made(&mut world, &third(), plain());
    assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.2"));
    world.destroy(&third());
    made(&mut world, &web(), at("10.0.0.2"));
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
    world.destroy(&web());
    for (index, expected) in ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"].into_iter().enumerate() {
        let vm = VmKey::new("n", format!("vm{index}"));
        made(&mut world, &vm, plain());
        assert_eq!(ip(&world, &vm).as_deref(), Some(expected));
    }
}

#[test]
fn the_addresses_of_a_deleted_vm_are_retained_for_the_requested_time() {
    let mut world = small();
    let retained = || Template::new([("ip_address", "10.0.0.9")]).annotated("ovn-kubevirt.io/retain", "20s");
    world.run(&web(), retained(), "n1");
    made(&mut world, &web(), at("10.0.0.10").annotated("ovn-kubevirt.io/retain", "20s"));
    world.now = 1_000;
    world.destroy(&web());
    let (_, row) = world.row(&web()).expect("it is kept");
    assert_eq!(row.external_ids.get(keys::RETAINED_UNTIL), Some("1970-01-01T00:17:00Z"));
    assert_eq!((row.external_ids.get(keys::NEXT_ADDRESSES), row.options.get("requested-chassis")), (None, None));
    made(&mut world, &db(), at("10.0.0.9"));
    assert!(world.complaints(&db())[0].contains("the VM n/web (port web.n)"), "{:?}", world.complaints(&db()));
    // One of its name has them again.
    made(&mut world, &web(), plain().annotated("ovn-kubevirt.io/retain", "20s"));
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.9"));
    assert_eq!(world.row(&web()).expect("its port").1.external_ids.get(keys::RETAINED_UNTIL), None);
    world.destroy(&web());
    world.pass(19);
    world.settle(1);
    assert!(world.row(&web()).is_some());
    world.pass(1);
    world.settle(1);
    assert_eq!((world.row(&web()), ip(&world, &db()).as_deref()), (None, Some("10.0.0.9")));
}

#[test]
fn retention_may_be_for_ever_by_the_operators_word_and_not_at_all_by_the_owners() {
    let mut world = small();
    world.settings.default_retain = Retention::Forever;
    made(&mut world, &web(), plain());
    made(&mut world, &db(), plain().annotated("ovn-kubevirt.io/retain", "0s"));
    world.destroy(&web());
    world.destroy(&db());
    world.pass(1_000_000_000);
    world.settle(100);
    assert_eq!(world.row(&db()), None);
    let (_, row) = world.row(&web()).expect("it is kept");
    assert_eq!(row.external_ids.get(keys::RETAINED_UNTIL), Some("forever"));
}

#[test]
fn an_address_of_a_port_that_moves_does_not_rest_on_the_new_switch() {
    for order in 0..12 {
        let switch = |name| (name, map([("subnet", "10.0.0.0/29")]));
        let mut world = World::new([switch("blue"), switch("red")]);
        world.resting = true;
        let on = |switch, ip| Template::new([("logical_switch", switch), ("ip_address", ip)]);
        made(&mut world, &web(), on("red", "10.0.0.2"));
        // Its row and its place are two tables of one update, in any order.
        world.order = order;
        made(&mut world, &web(), on("blue", "10.0.0.5"));
        made(&mut world, &db(), Template::new([("logical_switch", "blue")]));
        assert_eq!(ip(&world, &db()).as_deref(), Some("10.0.0.2"));
        made(&mut world, &third(), Template::new([("logical_switch", "red")]));
        assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.3"), "what it left rests");
    }
}

#[test]
fn a_pool_outside_the_switch_is_reported_before_a_full_pool() {
    let mut world = small();
    made(&mut world, &db(), at("10.0.0.9"));
    made(&mut world, &third(), from("10.0.0.9,fd00::2"));
    let told = world.complaints(&third());
    assert!(told.len() == 1 && told[0].contains("can be used on the logical switch blue: its subnet is"), "{told:?}");
}

#[test]
fn a_released_address_rests_even_if_a_moving_port_seems_to_hold_it() {
    for order in 0..42 {
        let switch = |name| (name, map([("subnet", "10.0.0.0/29")]));
        let mut world = World::new([switch("blue"), switch("red")]);
        world.resting = true;
        made(&mut world, &db(), Template::new([("logical_switch", "blue"), ("ip_address", "10.0.0.2")]));
        let on = |switch| Template::new([("logical_switch", switch)]).with([("second", "net1")]);
        world.nad("n", "net1", Some("red"));
        made(&mut world, &web(), on("red"));
        world.order = order;
        world.nad("n", "net1", Some("blue"));
        made(&mut world, &web(), on("blue"));
        let vm = web();
        let of_web = world.northbound.ports_of(&vm).filter_map(|(_, port)| port.row.addresses.iter().next());
        let of_web = of_web.filter_map(|text| Some(text.split_once(' ')?.1.to_owned()));
        assert_eq!(of_web.collect::<Vec<_>>(), ["10.0.0.3", "10.0.0.4"]);
        made(&mut world, &third(), Template::new([("logical_switch", "red")]));
        assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.4"), "what it left rests (order {order})");
    }
}
