use std::collections::BTreeMap;

use super::*;
use crate::kubevirt::{Launcher, Reported, Run, Vm};

fn template(annotations: &[(&str, &str)], spec: serde_json::Value) -> Template {
    Template {
        annotations: annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        spec: serde_json::from_value(spec).expect("a spec"),
    }
}

fn pod_network_spec(mac: Option<&str>) -> serde_json::Value {
    serde_json::json!({
        "domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}, "macAddress": mac}]}},
        "networks": [{"name": "default", "pod": {}}],
    })
}

fn vm(template: Template) -> Option<Vm> {
    Some(Vm { uid: "vm-uid".into(), template: Ok(template), reported: Reported::default() })
}

fn run(uid: &str, template: Template, node: Option<&str>) -> Option<Run> {
    Some(Run {
        uid: uid.into(),
        vm_uid: None,
        template: Ok(template),
        node: node.map(Into::into),
        domain_ready_on: None,
        reported: Reported::default(),
    })
}

fn launcher(run_uid: &str, node: Option<&str>, live: bool, created: i64) -> Launcher {
    Launcher { run_uid: run_uid.into(), node: node.map(Into::into), live, created, migration: None }
}

fn intent(objects: &VmObjects) -> Intent {
    let settings =
        Settings { default_switch: Some("ovn-default".into()), mac_prefix: [0x0a, 0x58], strategy: Strategy::Rarp };
    Intent::of(&VmKey::new("ns", "vm"), objects, &Namespace::default(), &settings)
}

#[test]
fn a_vm_without_networks_has_one_pod_nic_unless_it_says_otherwise() {
    let plain = VmObjects { vm: vm(template(&[], serde_json::json!({}))), ..Default::default() };
    assert_eq!(intent(&plain).nics[0].network, "default");
    let spec = serde_json::json!({"domain": {"devices": {"autoattachPodInterface": false}}});
    let without = VmObjects { vm: vm(template(&[], spec)), ..Default::default() };
    assert!(intent(&without).nics.is_empty());
    let spec = serde_json::json!({"networks": [{"name": "red", "multus": {"networkName": "net1"}}]});
    let multus = VmObjects { vm: vm(template(&[], spec)), ..Default::default() };
    assert!(intent(&multus).nics.is_empty());
}

#[test]
fn the_vmi_decides_what_is_in_force_and_the_template_what_comes_next() {
    let old = template(&[], pod_network_spec(None));
    let new = template(&[("ovn.kubernetes.io/ip_address", "10.16.0.15")], pod_network_spec(None));
    let objects = VmObjects { vm: vm(new), run: run("r1", old, None), ..Default::default() };
    let nic = &intent(&objects).nics[0];
    assert_eq!(nic.now, Ok(Wish::default()));
    let next = Wish { ipv4: Some([10, 16, 0, 15].into()), ..Default::default() };
    assert_eq!(nic.next, Some(Ok(next)));
    assert!(!nic.running && !nic.held_by_old_launcher);
}

#[test]
fn the_networks_own_annotation_is_the_strongest() {
    let annotations = [
        ("default.ovn.kubernetes.io/ip_address", "10.16.0.7,fd00::7"),
        ("ovn.kubernetes.io/ip_address", "10.16.0.8"),
        ("ovn.kubernetes.io/logical_switch", "blue"),
    ];
    let objects = VmObjects { vm: vm(template(&annotations, pod_network_spec(None))), ..Default::default() };
    let nic = &intent(&objects).nics[0];
    let wish = nic.now.clone().expect("a good wish");
    assert_eq!((wish.ipv4, wish.ipv6), (Some([10, 16, 0, 7].into()), "fd00::7".parse().ok()));
    assert_eq!(nic.switch, Some(SwitchWish { name: "blue".into(), explicit: true }));
}

#[test]
fn the_namespaces_switch_goes_before_the_default() {
    let objects = VmObjects { vm: vm(template(&[], pod_network_spec(None))), ..Default::default() };
    let settings =
        Settings { default_switch: Some("ovn-default".into()), mac_prefix: [0x0a, 0x58], strategy: Strategy::Rarp };
    let namespace = Namespace { switch: Some("team-a".into()) };
    let nic = Intent::of(&VmKey::new("ns", "vm"), &objects, &namespace, &settings).nics.remove(0);
    assert_eq!(nic.switch, Some(SwitchWish { name: "team-a".into(), explicit: false }));
    let nothing = Settings { default_switch: None, ..settings };
    let nic = Intent::of(&VmKey::new("ns", "vm"), &objects, &Namespace::default(), &nothing).nics.remove(0);
    assert_eq!(nic.switch, None);
}

#[test]
fn bad_wishes_name_the_key_and_the_value() {
    for value in ["10.16.0", "10.16.0.1,10.16.0.2", "10.16.0.1/16", "", "x"] {
        let objects = VmObjects {
            vm: vm(template(&[("ovn.kubernetes.io/ip_address", value)], pod_network_spec(None))),
            ..Default::default()
        };
        let error = intent(&objects).nics[0].now.clone().expect_err(value).to_string();
        assert!(error.contains("ovn.kubernetes.io/ip_address") && error.contains(&format!("\"{value}\"")), "{error}");
    }
    for mac in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "0a:58", "x"] {
        let objects = VmObjects { vm: vm(template(&[], pod_network_spec(Some(mac)))), ..Default::default() };
        let error = intent(&objects).nics[0].now.clone().expect_err(mac).to_string();
        assert!(error.contains(mac), "{error}");
    }
    let objects = VmObjects {
        vm: vm(template(
            &[("ovn.kubernetes.io/mac_address", "02:00:00:00:00:02")],
            pod_network_spec(Some("02:00:00:00:00:01")),
        )),
        ..Default::default()
    };
    assert!(matches!(intent(&objects).nics[0].now, Err(InvalidWish::MacMismatch { .. })));
}

#[test]
fn what_nobody_serves_is_listed() {
    let annotations = [
        ("ovn.kubernetes.io/ip_address", "10.16.0.8"),
        ("ovn.kubernetes.io/ip_adress", "10.16.0.8"),
        ("ovn.kubernetes.io/security_groups", "a"),
        ("net1.default.ovn.kubernetes.io/ip_address", "10.17.0.8"),
    ];
    let objects = VmObjects { vm: vm(template(&annotations, pod_network_spec(None))), ..Default::default() };
    let unserved = &intent(&objects).nics[0].unserved;
    assert_eq!(unserved.len(), 3, "{unserved:?}");
}

#[test]
fn an_unreadable_object_leaves_its_ports_alone() {
    let unreadable = Vm { uid: "u".into(), template: Err("no".into()), reported: Reported::default() };
    let objects = VmObjects { vm: Some(unreadable.clone()), ..Default::default() };
    assert_eq!((intent(&objects).nics.len(), intent(&objects).untouched), (0, None));
    let readable = template(&[], pod_network_spec(None));
    let objects = VmObjects { vm: Some(unreadable), run: run("r", readable, None), ..Default::default() };
    assert_eq!(intent(&objects).untouched, None);
}

fn placed(run: Option<Run>, launchers: &[(&str, Launcher)]) -> Placement {
    let launchers: BTreeMap<_, _> =
        launchers.iter().map(|(name, launcher)| ((*name).to_owned(), launcher.clone())).collect();
    Placement::of(&VmObjects { run, launchers, ..VmObjects::default() })
}

#[test]
fn placement_follows_the_guest() {
    let any = || template(&[], pod_network_spec(None));
    let on = |node: &str| Placement::On { home: node.to_owned(), target: None };
    assert_eq!(placed(run("r", any(), None), &[]), Placement::Unbound);
    assert_eq!(placed(None, &[]), Placement::Unbound);
    let unscheduled = launcher("r", None, true, 1);
    assert_eq!(placed(run("r", any(), None), &[("a", unscheduled)]), Placement::KeepHome);
    let (here, there) = (launcher("r", Some("n1"), true, 1), launcher("r", Some("n2"), true, 2));
    assert_eq!(placed(run("r", any(), None), &[("a", here.clone())]), on("n1"));
    // The newest launcher of the current run, while nothing says where the guest runs.
    let old = launcher("q", Some("n3"), true, 3);
    assert_eq!(placed(run("r", any(), None), &[("a", here.clone()), ("b", there.clone()), ("c", old)]), on("n2"));
    // A migration's target does not count before the guest is ready there.
    let both = [("a", here.clone()), ("b", there)];
    assert_eq!(placed(run("r", any(), Some("n1")), &both), on("n1"));
    let ready = |pod: &str| {
        let mut run = run("r", any(), Some("n1")).expect("a run");
        run.domain_ready_on = Some(pod.into());
        Some(run)
    };
    assert_eq!(placed(ready("b"), &both), on("n2"));
    // A target that died does not count either.
    let dead = launcher("r", Some("n2"), false, 2);
    assert_eq!(placed(ready("b"), &[("a", here.clone()), ("b", dead.clone())]), on("n1"));
    // Nothing is live any more: as it is, but for a second chassis.
    assert_eq!(placed(run("r", any(), Some("n2")), &[("b", dead.clone())]), Placement::KeepHome);
    assert_eq!(placed(None, &[("b", dead)]), Placement::KeepHome);
    assert_eq!(placed(None, &[("a", here)]), Placement::Keep);
}

#[test]
fn a_run_that_outlives_its_vm_still_belongs_to_it() {
    let mut left = run("r1", template(&[], pod_network_spec(None)), None);
    let uid = |run: Option<Run>| intent(&VmObjects { run, ..Default::default() }).uid;
    assert_eq!(uid(left.clone()).as_deref(), Some("r1"));
    left.as_mut().expect("a run").vm_uid = Some("vm-uid".into());
    assert_eq!(uid(left).as_deref(), Some("vm-uid"));
}
