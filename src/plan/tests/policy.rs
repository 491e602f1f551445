//! The operator's policy by example, with the safe defaults.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::examples::{at, db, foreign, made, plain, waits_in_vain, web};
use super::objects::Template;
use super::server::Tables;
use super::world::{World, map, uuid};
use crate::contract::{VmKey, keys};
use crate::intent::{Namespaces, Permissions, Policy, Retention};
use crate::kubevirt::Change;
use crate::ovn::{LogicalSwitch, LogicalSwitchPort};
use crate::plan::{Claims, Fault, Problem, RowChange, decide};

/// The switches blue, the default, and red, under the defaults of the flags.
fn world() -> World {
    let blue = map([("subnet", "10.0.0.0/24"), ("exclude_ips", "10.0.0.5..10.0.0.9")]);
    let mut world = World::new([("blue", blue), ("red", map([("subnet", "10.1.0.0/24")]))]);
    world.settings.policy = Policy::default();
    world
}

fn third() -> VmKey {
    VmKey::new("m", "third")
}

fn ip(world: &World, vm: &VmKey) -> Option<String> {
    world.addresses(vm).map(|text| text.split_once(' ').map_or(text.clone(), |(_, ip)| ip.to_owned()))
}

/// The operator writes on a switch.
fn state(world: &mut World, switch: u8, key: &str, value: &str) {
    world.edit(|tables| {
        tables.switches.get_mut(&uuid(1, switch)).expect("the switch").external_ids.insert(key, value);
    });
    world.settle(100);
}

fn from(pool: &str) -> Template {
    Template::new([("ip_pool", pool)])
}

fn on(switch: &str) -> Template {
    Template::new([("logical_switch", switch)])
}

/// The reasons that a webhook gets for a VM that is applied, and those of the VM once it has its port.
fn applied(world: &mut World, vm: &VmKey, template: Template) -> [Vec<(&'static str, Fault)>; 2] {
    world.apply(vm, template);
    let decision = world.look_at(vm);
    world.settle(100);
    let first = decision.status.problems().map(|problem| (problem.reason(), problem.fault())).collect();
    [first, reasons(world, vm)]
}

/// The reason and the fault of each problem.
fn reasons(world: &World, vm: &VmKey) -> Vec<(&'static str, Fault)> {
    world.problems(vm).iter().map(|problem| (problem.reason(), problem.fault())).collect()
}

fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::default();
    change(&mut policy);
    policy
}

#[test]
fn an_excluded_address_and_the_first_host_address_need_the_operators_word() {
    let mut world = world();
    made(&mut world, &web(), at("10.0.0.5"));
    let refused = "10.0.0.5 cannot be requested on the logical switch blue: exclude_ips names it, and --allow of \
        ovn-kubevirt does not have \"excluded\". Choose other addresses, or have the operator add \"excluded\" there.";
    waits_in_vain(&world, &web(), refused);
    assert_eq!(reasons(&world, &web()), [("RequestNotAllowed", Fault::Owner)]);
    made(&mut world, &db(), at("10.0.0.1"));
    let refused = "10.0.0.1 cannot be requested on the logical switch blue: it is the first host address, and --allow of \
        ovn-kubevirt does not have \"first\". Choose other addresses, or have the operator add \"first\" there.";
    waits_in_vain(&world, &db(), refused);
    made(&mut world, &third(), at("10.0.0.20"));
    assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.20"));
    // The row of the switch is the stronger one, and the VMs wait for it.
    state(&mut world, 0, keys::ALLOW, "explicit,first");
    assert_eq!((ip(&world, &web()), ip(&world, &db()).as_deref()), (None, Some("10.0.0.1")));
    assert!(world.complaints(&web())[0].contains("external_ids:ovn-kubevirt.io/allow of the logical switch blue"));
    state(&mut world, 0, keys::ALLOW, "explicit,excluded");
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.5"));
    // The lease stays without a problem.
    state(&mut world, 0, keys::ALLOW, "");
    assert_eq!((ip(&world, &web()).as_deref(), ip(&world, &db()).as_deref()), (Some("10.0.0.5"), Some("10.0.0.1")));
    assert_eq!((reasons(&world, &web()), reasons(&world, &db())), (vec![], vec![]));
    made(&mut world, &VmKey::new("n", "fourth"), at("10.0.0.30"));
    assert_eq!(reasons(&world, &VmKey::new("n", "fourth")), [("RequestNotAllowed", Fault::Owner)]);
}

#[test]
fn a_reservation_for_the_next_start_stands_like_a_lease() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    state(&mut world, 0, keys::ALLOW, "explicit,excluded");
    made(&mut world, &web(), at("10.0.0.5"));
    state(&mut world, 0, keys::ALLOW, "");
    assert_eq!((ip(&world, &web()).as_deref(), reasons(&world, &web())), (Some("10.0.0.2"), vec![]));
    world.restart(&web(), "n1");
    assert_eq!((ip(&world, &web()).as_deref(), reasons(&world, &web())), (Some("10.0.0.5"), vec![]));
}

#[test]
fn a_pool_is_confined_to_the_addresses_that_the_operator_opens() {
    let mut world = world();
    made(&mut world, &web(), from("10.0.0.0/28"));
    made(&mut world, &db(), from("10.0.0.4..10.0.0.10"));
    assert_eq!((ip(&world, &web()).as_deref(), ip(&world, &db()).as_deref()), (Some("10.0.0.2"), Some("10.0.0.4")));
    made(&mut world, &third(), from("10.0.0.6..10.0.0.8"));
    let refused = "ip_pool (10.0.0.6..10.0.0.8) cannot be requested on the logical switch blue: exclude_ips names its \
        addresses, and --allow of ovn-kubevirt does not have \"excluded\". Choose other addresses, or have the operator add \
        \"excluded\" there.";
    waits_in_vain(&world, &third(), refused);
    made(&mut world, &third(), from("10.0.0.1"));
    assert!(world.complaints(&third())[0].contains("--allow of ovn-kubevirt does not have \"first\""));
    made(&mut world, &third(), from("10.0.0.6..10.0.0.8"));
    state(&mut world, 0, keys::ALLOW, "explicit, excluded");
    assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.6"));
    // The lease is in the pool: it stays under any policy.
    state(&mut world, 0, keys::ALLOW, "");
    assert_eq!((ip(&world, &third()).as_deref(), reasons(&world, &third())), (Some("10.0.0.6"), vec![]));
}

#[test]
fn beside_ovns_own_addresses_a_pool_in_exclude_ips_needs_the_permission_and_the_message_says_so() {
    let mut world = world();
    world.edit(|tables| foreign(tables, 1, "lease", &["dynamic"]));
    made(&mut world, &web(), plain());
    assert!(matches!(&world.problems(&web())[..], [Problem::PoolRequired { rule: Some(_), .. }]));
    let complaint = &world.complaints(&web())[0];
    assert!(complaint.ends_with(", once the operator has added \"excluded\" to --allow."), "{complaint}");
    made(&mut world, &web(), from("10.0.0.6..10.0.0.8"));
    assert_eq!(reasons(&world, &web()), [("RequestNotAllowed", Fault::Owner)]);
    state(&mut world, 0, keys::ALLOW, "explicit,excluded");
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.6"));
}

#[test]
fn a_switch_serves_the_namespaces_that_its_row_names_however_it_is_requested() {
    let mut world = world();
    state(&mut world, 1, keys::NAMESPACES, "m");
    world.nad("n", "net1", Some("red"));
    let refused = "The namespace n may not use the logical switch red: external_ids:ovn-kubevirt.io/namespaces of the switch \
        does not name it. Choose another switch, or have the operator add the namespace there.";
    made(&mut world, &web(), on("red"));
    waits_in_vain(&world, &web(), refused);
    assert_eq!(reasons(&world, &web()), [("SwitchNotAllowed", Fault::Owner)]);
    made(&mut world, &db(), Template::default().with([("a", "net1")]));
    waits_in_vain(&world, &db(), refused);
    world.namespace("n", Some("red"));
    made(&mut world, &db(), plain());
    waits_in_vain(&world, &db(), refused);
    // Of several, the first that may be used.
    world.namespace("n", Some("red,blue"));
    world.settle(100);
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.0.0.2"));
    made(&mut world, &third(), on("red"));
    assert_eq!(ip(&world, &third()).as_deref(), Some("10.1.0.2"));
    state(&mut world, 1, keys::NAMESPACES, "m, n");
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.1.0.3"));
}

#[test]
fn the_flag_is_for_switches_without_a_list_and_a_list_that_cannot_be_read_allows_no_namespace() {
    let mut world = world();
    let only_m = Namespaces::Only(["m".to_owned()].into());
    world.reconfigure(policy(|policy| drop(policy.switch_namespaces.insert("blue".into(), only_m))));
    made(&mut world, &web(), plain());
    let refused = "The namespace n may not use the logical switch blue: --switch-namespaces of ovn-kubevirt does not name \
        it. Choose another switch, or have the operator add the namespace there.";
    waits_in_vain(&world, &web(), refused);
    state(&mut world, 0, keys::NAMESPACES, "*");
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
    state(&mut world, 0, keys::NAMESPACES, "n m");
    made(&mut world, &db(), plain());
    let unread = "external_ids:ovn-kubevirt.io/namespaces of the logical switch blue has \"n m\", which is not the name of a \
        namespace, so no namespace gets a new port there. Write names with commas between, or *.";
    waits_in_vain(&world, &db(), unread);
    // A port that stands keeps its addresses, and reports the list as well.
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
    assert_eq!(reasons(&world, &web()), [("SwitchSettingUnread", Fault::Operator)]);
    state(&mut world, 0, keys::NAMESPACES, "n");
    state(&mut world, 0, keys::ALLOW, "explicit,exclude");
    assert_eq!(ip(&world, &db()).as_deref(), Some("10.0.0.3"));
    assert_eq!(reasons(&world, &db()), [("SwitchSettingUnread", Fault::Operator)]);
}

#[test]
fn a_vm_that_holds_a_lease_on_a_switch_that_is_closed_to_it_starts_and_moves_to_no_other() {
    let mut world = world();
    world.nad("n", "net1", Some("blue"));
    made(&mut world, &web(), Template::default().with([("a", "net1")]));
    state(&mut world, 0, keys::NAMESPACES, "m");
    state(&mut world, 1, keys::NAMESPACES, "m");
    world.restart_from_stop(&web(), "n1");
    assert_eq!((ip(&world, &web()).as_deref(), reasons(&world, &web())), (Some("10.0.0.2"), vec![]));
    world.stop(&web());
    world.end_launcher(&web());
    world.remove_launcher(&web());
    // Its owner did not ask for this.
    world.nad("n", "net1", Some("red"));
    world.settle(100);
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
    assert_eq!(reasons(&world, &web()), [("SwitchNotAllowed", Fault::Operator)]);
    made(&mut world, &web(), on("red").with([("a", "net1")]).annotated("a.ovn.kubernetes.io/logical_switch", "red"));
    assert!(reasons(&world, &web()).contains(&("SwitchNotAllowed", Fault::Owner)));
    state(&mut world, 1, keys::NAMESPACES, "n");
    assert!(world.problems(&web()).is_empty());
}

#[test]
fn a_namespace_gets_as_many_ports_as_the_operator_allows_also_within_one_transaction() {
    let mut world = world();
    world.reconfigure(policy(|policy| policy.max_nics = Some(2)));
    let vms = ["a", "b", "c", "d"].map(|name| VmKey::new("n", name));
    for vm in &vms {
        world.apply(vm, plain());
    }
    made(&mut world, &third(), plain());
    let served = |world: &World| vms.iter().filter(|vm| world.row(vm).is_some()).count();
    assert_eq!((served(&world), world.row(&third()).is_some()), (2, true));
    let full = "The namespace n has as many ports on OVN as --max-nics of ovn-kubevirt allows (2). Delete VMs or NICs in the \
        namespace, or have the operator raise --max-nics: the port is made as soon as there is room.";
    let waiting: Vec<&VmKey> = vms.iter().filter(|vm| world.row(vm).is_none()).collect();
    waiting.iter().for_each(|vm| waits_in_vain(&world, vm, full));
    world.destroy(vms.iter().find(|vm| world.row(vm).is_some()).expect("one"));
    assert_eq!(served(&world), 2, "the place is taken as soon as it is free");
    world.a_sweep_changes_no_row();
}

#[test]
fn the_last_nic_beyond_max_nics_is_refused_in_every_decision() {
    let mut world = world();
    ["net1", "net2"].iter().for_each(|nad| world.nad("n", nad, Some("red")));
    world.reconfigure(policy(|policy| policy.max_nics = Some(2)));
    world.apply(&web(), plain().with([("a", "net1"), ("b", "net2")]));
    let decision = decide(&world.snapshot(), &Claims::default(), &web());
    let refused = decision.status.problems().map(Problem::reason).collect::<Vec<_>>();
    assert_eq!((decision.rows.len(), decision.waits.batch, refused), (2, false, vec!["TooManyNics"]));
    world.settle(100);
    assert_eq!(world.problems(&web()), [Problem::TooManyNics { namespace: "n".into(), limit: 2 }]);
}

#[test]
fn a_missing_nad_gives_no_port_and_removes_no_port() {
    let mut world = world();
    let template = || {
        let template = Template::default().with([("a", "net1")]);
        template.annotated("a.ovn.kubernetes.io/logical_switch", "red")
    };
    made(&mut world, &web(), template());
    let missing = "The network a gets no port: its NetworkAttachmentDefinition n/net1 does not exist. Create it or name \
        another; the port is made as soon as it exists.";
    waits_in_vain(&world, &web(), missing);
    assert_eq!(reasons(&world, &web()), [("NadNotFound", Fault::Operator)]);
    // A NIC without a switch counts as one of another system.
    made(&mut world, &db(), Template::default().with([("a", "net1")]));
    assert_eq!((reasons(&world, &db()), world.row(&db())), (vec![], None));
    world.nad("n", "net1", None);
    world.settle(100);
    assert_eq!((ip(&world, &web()).as_deref(), reasons(&world, &web())), (Some("10.1.0.2"), vec![]));
    world.nad_goes("n", "net1");
    world.settle(100);
    assert_eq!((ip(&world, &web()).as_deref(), reasons(&world, &web())), (Some("10.1.0.2"), vec![]));
}

/// The database loses the row of a VM.
fn lose(world: &mut World, vm: &VmKey) {
    let (row, _) = world.row(vm).expect("a row");
    world.edit(|tables| tables.remove_port(row));
    world.settle(100);
}

#[test]
fn a_switch_that_is_closed_to_a_vm_keeps_no_lost_lease_for_it() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    state(&mut world, 0, keys::NAMESPACES, "m");
    lose(&mut world, &web());
    assert_eq!(reasons(&world, &web()), [("SwitchNotAllowed", Fault::Owner)]);
    made(&mut world, &third(), at("10.0.0.2"));
    assert_eq!(ip(&world, &third()).as_deref(), Some("10.0.0.2"));
    state(&mut world, 0, keys::NAMESPACES, "*");
    assert_eq!((ip(&world, &web()).as_deref(), ip(&world, &third()).as_deref()), (Some("10.0.0.3"), Some("10.0.0.2")));
}

#[test]
fn a_lost_lease_is_kept_from_the_moment_that_its_switch_opens_to_its_vm() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    state(&mut world, 0, keys::NAMESPACES, "m");
    let (row, _) = world.row(&web()).expect("a row");
    world.edit(|tables| tables.remove_port(row));
    world.apply(&third(), plain());
    world.apply(&db(), plain());
    let next = |world: &World, vm: &VmKey| match &world.look_at(vm).rows[..] {
        [RowChange::Port(change)] => change.after.as_ref().map(|after| after.row.addresses.iter().collect::<String>()),
        rows => panic!("{rows:?}"),
    };
    assert_eq!(
        next(&world, &third()).as_deref(),
        Some("0a:58:0a:00:00:02 10.0.0.2"),
        "it keeps nothing on a closed switch"
    );
    let opened = |namespaces: &'static str| {
        move |tables: &mut Tables| {
            tables.switches.get_mut(&uuid(1, 0)).expect("blue").external_ids.insert(keys::NAMESPACES, namespaces);
        }
    };
    for namespaces in ["m,n", "*"] {
        world.edit(opened(namespaces));
        for vm in [third(), db()] {
            assert_eq!(next(&world, &vm).as_deref(), Some("0a:58:0a:00:00:03 10.0.0.3"), "{namespaces} {vm}");
        }
    }
    world.settle(100);
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
}

#[test]
fn a_closed_namesake_of_a_switch_takes_no_lost_lease_from_the_open_one() {
    let mut world = world();
    world.run(&web(), plain(), "n1");
    let (row, _) = world.row(&web()).expect("a row");
    world.edit(|tables| {
        let blue = tables.switches[&uuid(1, 0)].clone();
        let mut namesake = LogicalSwitch { ports: Default::default(), ..blue };
        namesake.external_ids.insert(keys::NAMESPACES, "m");
        tables.switches.insert(uuid(1, 16), namesake);
        tables.remove_port(row);
    });
    world.edit(|tables| drop(tables.switches.remove(&uuid(1, 16))));
    world.apply(&db(), plain());
    let rows = world.look_at(&db()).rows;
    let [RowChange::Port(change)] = &rows[..] else { panic!("{rows:?}") };
    let addresses: String = change.after.as_ref().expect("a port").row.addresses.iter().collect();
    assert_eq!(addresses, "0a:58:0a:00:00:03 10.0.0.3");
}

#[test]
fn a_recreated_vm_gets_a_kept_address_again_only_with_the_operators_permission() {
    let mut world = world();
    world.resting = true;
    state(&mut world, 0, keys::ALLOW, "explicit,first");
    made(&mut world, &web(), at("10.0.0.1"));
    state(&mut world, 0, keys::ALLOW, "explicit");
    world.destroy(&web());
    made(&mut world, &web(), plain());
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
}

#[test]
fn port_security_returns_when_the_operator_withdraws_the_word_whatever_the_vm_is_like() {
    let mut world = world();
    state(&mut world, 0, keys::ALLOW, "explicit,port-security-off");
    made(&mut world, &web(), Template::new([("port_security", "false")]));
    assert!(world.row(&web()).is_some_and(|(_, row)| row.port_security.is_empty()));
    let (name, namespace, uid) = (Some(web().name), Some(web().namespace), world.present[&web()].uid.clone());
    let metadata = ObjectMeta { name, namespace, uid: Some(uid), ..ObjectMeta::default() };
    world.hear(Change::UnreadableVm(Box::new(metadata), "a field of another type".into()));
    let secured = |world: &World| {
        let [RowChange::Port(change)] = &world.look_at(&web()).rows[..] else { return None };
        change.after.as_ref().map(|after| (after.row.addresses.clone(), after.row.port_security.clone()))
    };
    assert_eq!(secured(&world), None, "nothing changes");
    let blue = uuid(1, 0);
    world.edit(|tables| drop(tables.switches.get_mut(&blue).expect("blue").external_ids.insert(keys::ALLOW, "none")));
    let (addresses, port_security) = secured(&world).expect("a change");
    assert!(!addresses.is_empty() && addresses == port_security, "{addresses:?} {port_security:?}");
}

#[test]
fn a_nic_whose_row_and_nad_are_lost_has_its_lease_again_when_the_nad_returns() {
    for named_by_the_vm in [true, false] {
        let mut world = world();
        world.nad("n", "net1", Some("red"));
        let template = || Template::default().with([("a", "net1")]);
        let named = || template().annotated("a.ovn.kubernetes.io/logical_switch", "red");
        made(&mut world, &db(), template());
        made(&mut world, &web(), if named_by_the_vm { named() } else { template() });
        world.destroy(&db());
        world.nad_goes("n", "net1");
        lose(&mut world, &web());
        assert_eq!(reasons(&world, &web()), [("NadNotFound", Fault::Operator)]);
        world.nad("n", "net1", Some("red"));
        world.settle(100);
        assert_eq!((ip(&world, &web()).as_deref(), reasons(&world, &web())), (Some("10.1.0.3"), vec![]));
    }
}

fn days(days: u64) -> Retention {
    Retention::For(Duration::from_secs(days * 86_400))
}

fn retained_until(world: &World) -> Option<String> {
    let (_, LogicalSwitchPort { external_ids, .. }) = world.row(&web())?;
    external_ids.get(keys::RETAINED_UNTIL).map(ToOwned::to_owned)
}

#[test]
fn addresses_stay_reserved_no_longer_than_the_operator_allows() {
    let mut world = world();
    let retained = |text| plain().annotated("ovn-kubevirt.io/retain", text);
    let told = |fault| vec![("RetainTooLong", fault)];
    // A VM that holds a lease must be able to start.
    assert_eq!(applied(&mut world, &web(), retained("forever")), [told(Fault::Owner), told(Fault::Operator)]);
    let mark = |world: &World| {
        world.row(&web()).and_then(|(_, row)| row.external_ids.get(keys::RETAIN).map(ToOwned::to_owned))
    };
    assert_eq!(mark(&world).as_deref(), Some("720h"));
    assert_eq!(applied(&mut world, &web(), retained("1000h")), [told(Fault::Operator), told(Fault::Operator)]);
    made(&mut world, &web(), retained("720h"));
    assert_eq!((reasons(&world, &web()), mark(&world).as_deref()), (vec![], Some("720h")));
    // The operator's own default is within the bound.
    world.settings.default_retain = Retention::Forever;
    made(&mut world, &web(), retained("forever"));
    assert_eq!((reasons(&world, &web()), mark(&world).as_deref()), (vec![], Some("forever")));
}

#[test]
fn a_retention_of_before_ends_a_whole_bound_after_it_is_first_seen() {
    let mut world = world();
    world.reconfigure(policy(|policy| policy.max_retain = Retention::Forever));
    made(&mut world, &web(), plain().annotated("ovn-kubevirt.io/retain", "forever"));
    world.destroy(&web());
    assert_eq!(retained_until(&world).as_deref(), Some("forever"));
    let day = 86_400;
    world.pass(100 * day);
    world.reconfigure(Policy::default());
    world.settle(100);
    assert_eq!(retained_until(&world).as_deref(), Some("1970-05-11T00:00:00Z"), "day 100 and 30 days");
    // A second decision does not postpone it; and a longer limit changes no row.
    world.pass(10 * day);
    world.reconfigure(policy(|policy| policy.max_retain = days(300)));
    world.settle(100);
    assert_eq!(retained_until(&world).as_deref(), Some("1970-05-11T00:00:00Z"));
    // A shorter one leaves the whole of it.
    world.reconfigure(policy(|policy| policy.max_retain = days(5)));
    world.settle(100);
    assert_eq!(retained_until(&world).as_deref(), Some("1970-04-26T00:00:00Z"), "day 110 and 5 days");
    world.pass(5 * day);
    world.settle(100);
    assert_eq!(world.row(&web()), None);
}

#[test]
fn a_forged_annotation_gets_no_address_that_the_operator_keeps() {
    let mut world = world();
    made(&mut world, &web(), on("nowhere"));
    let told = |world: &World| world.present[&web()].told.clone().expect("an annotation");
    let forged = told(&world).replace(
        "\"network\":\"default\"",
        "\"network\":\"default\",\"switch\":\"blue\",\"mac\":\"02:00:00:00:00:01\",\"ips\":[\"10.0.0.1\"],\"port\":\"web.n\"",
    );
    assert!(forged.contains("10.0.0.1"), "{forged}");
    world.present.get_mut(&web()).expect("it").told = Some(forged);
    made(&mut world, &web(), plain());
    assert_eq!(ip(&world, &web()).as_deref(), Some("10.0.0.2"));
}

#[test]
fn port_security_is_turned_off_where_the_switch_allows_it() {
    let mut world = world();
    let told = |fault| vec![("PortSecurityKept", fault)];
    let off = Template::new([("port_security", "false")]);
    assert_eq!(applied(&mut world, &web(), off), [told(Fault::Owner), told(Fault::Operator)]);
    state(&mut world, 0, keys::ALLOW, "port-security-off");
    let secured = |world: &World| world.row(&web()).map(|(_, row)| !row.port_security.is_empty());
    assert_eq!((secured(&world), reasons(&world, &web())), (Some(false), vec![]));
    // The permission is withdrawn: the operator wants the port secured, and the VM starts all the same.
    let withdraw = |tables: &mut Tables| {
        tables.switches.get_mut(&uuid(1, 0)).expect("blue").external_ids = Default::default();
    };
    world.edit(withdraw);
    world.settle(100);
    assert_eq!((secured(&world), reasons(&world, &web())), (Some(true), told(Fault::Operator)));
    world.reconfigure(policy(|policy| policy.allow = Permissions::all()));
    world.settle(100);
    assert_eq!((secured(&world), reasons(&world, &web())), (Some(false), vec![]));
}
