use std::collections::BTreeMap;

use super::*;
use crate::kubevirt::{Launcher, PodNetworks, Reported, Run, Vm};

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
    Launcher {
        run_uid: run_uid.into(),
        node: node.map(Into::into),
        live,
        created,
        migration: None,
        networks: PodNetworks::default(),
    }
}

fn settings() -> Settings {
    Settings {
        default_switch: Some("ovn-default".into()),
        mac_prefix: [0x0a, 0x58],
        strategy: Strategy::Rarp,
        default_retain: Retention::NONE,
        policy: Policy::default(),
        manage_ra: false,
        dhcp: DhcpSettings::default(),
    }
}

fn intent(objects: &VmObjects) -> VmIntent {
    VmIntent::of(&VmKey::new("ns", "vm"), objects, &Namespace::default(), &settings())
}

#[test]
fn a_vm_without_networks_has_one_pod_nic_unless_it_says_otherwise() {
    let plain = VmObjects { vm: vm(template(&[], serde_json::json!({}))), ..Default::default() };
    assert_eq!(intent(&plain).ports[0].network, "default");
    let spec = serde_json::json!({"domain": {"devices": {"autoattachPodInterface": false}}});
    let without = VmObjects { vm: vm(template(&[], spec)), ..Default::default() };
    assert!(intent(&without).ports.is_empty());
    let spec = serde_json::json!({"networks": [{"name": "red", "multus": {"networkName": "net1"}}]});
    let multus = VmObjects { vm: vm(template(&[], spec)), ..Default::default() };
    assert_eq!(intent(&multus).ports[0].switch, None);
}

#[test]
fn the_vmi_has_the_request_in_force_and_the_template_the_next_one() {
    let old = template(&[], pod_network_spec(None));
    let new = template(&[("ovn.kubernetes.io/ip_address", "10.16.0.15")], pod_network_spec(None));
    let objects = VmObjects { vm: vm(new), run: run("r1", old, None), ..Default::default() };
    let nic = &intent(&objects).ports[0];
    assert_eq!(*nic.life.request(), Ok(Request::default()));
    let next = Request { ipv4: Some([10, 16, 0, 15].into()), ..Default::default() };
    assert_eq!(nic.life.next().map(|next| &next.request), Some(&Ok(next)));
    assert!(matches!(nic.life, Life::Stopped { .. }), "{:?}", nic.life);
}

#[test]
fn the_networks_own_annotation_is_the_strongest() {
    let annotations = [
        ("default.ovn.kubernetes.io/ip_address", "10.16.0.7,fd00::7"),
        ("ovn.kubernetes.io/ip_address", "10.16.0.8"),
        ("ovn.kubernetes.io/logical_switch", "blue"),
    ];
    let objects = VmObjects { vm: vm(template(&annotations, pod_network_spec(None))), ..Default::default() };
    let nic = &intent(&objects).ports[0];
    let request = nic.life.request().clone().expect("a good request");
    assert_eq!((request.ipv4, request.ipv6), (Some([10, 16, 0, 7].into()), "fd00::7".parse().ok()));
    assert_eq!(nic.switch, Some(SwitchRequest::of_vm("blue")));
}

#[test]
fn the_namespaces_switch_goes_before_the_default() {
    let objects = VmObjects { vm: vm(template(&[], pod_network_spec(None))), ..Default::default() };
    let namespace = Namespace { switches: vec!["team-a".into()] };
    let nic = VmIntent::of(&VmKey::new("ns", "vm"), &objects, &namespace, &settings()).ports.remove(0);
    assert_eq!(nic.switch, Some(SwitchRequest::new("team-a", false)));
    let nothing = Settings { default_switch: None, ..settings() };
    let nic = VmIntent::of(&VmKey::new("ns", "vm"), &objects, &Namespace::default(), &nothing).ports.remove(0);
    assert_eq!(nic.switch, None);
}

#[test]
fn bad_requests_name_the_key_and_the_value() {
    for value in ["10.16.0", "10.16.0.1,10.16.0.2", "10.16.0.1/16", "x"] {
        let objects = VmObjects {
            vm: vm(template(&[("ovn.kubernetes.io/ip_address", value)], pod_network_spec(None))),
            ..Default::default()
        };
        let error = intent(&objects).ports[0].life.request().clone().expect_err(value).to_string();
        assert!(error.contains("ovn.kubernetes.io/ip_address") && error.contains(&format!("\"{value}\"")), "{error}");
    }
    for mac in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "0a:58", "x"] {
        let objects = VmObjects { vm: vm(template(&[], pod_network_spec(Some(mac)))), ..Default::default() };
        let error = intent(&objects).ports[0].life.request().clone().expect_err(mac).to_string();
        assert!(error.contains(mac), "{error}");
    }
    let objects = VmObjects {
        vm: vm(template(
            &[("ovn.kubernetes.io/mac_address", "02:00:00:00:00:02")],
            pod_network_spec(Some("02:00:00:00:00:01")),
        )),
        ..Default::default()
    };
    assert!(matches!(intent(&objects).ports[0].life.request(), Err(InvalidRequest::MacMismatch { .. })));
}

#[test]
fn unserved_annotations_are_listed() {
    let annotations = [
        ("ovn.kubernetes.io/ip_address", "10.16.0.8"),
        ("ovn.kubernetes.io/ip_adress", "10.16.0.8"),
        ("ovn.kubernetes.io/security_groups", "a"),
        ("net1.default.ovn.kubernetes.io/ip_address", "10.17.0.8"),
    ];
    let objects = VmObjects { vm: vm(template(&annotations, pod_network_spec(None))), ..Default::default() };
    let intent = intent(&objects);
    assert_eq!(intent.ports[0].unserved, ["ovn.kubernetes.io/ip_adress", "ovn.kubernetes.io/security_groups"]);
    assert_eq!(intent.unmatched, ["net1.default.ovn.kubernetes.io/ip_address"]);
}

#[test]
fn an_unreadable_object_leaves_its_ports_alone() {
    let unreadable = Vm { uid: "u".into(), template: Err("no".into()), reported: Reported::default() };
    let objects = VmObjects { vm: Some(unreadable.clone()), ..Default::default() };
    assert_eq!((intent(&objects).ports.len(), intent(&objects).untouched), (0, None));
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
    let on = |node: &str| Placement::On { home: node.to_owned(), target: None, arrived: false };
    assert_eq!(placed(run("r", any(), None), &[]), Placement::Unbound);
    assert_eq!(placed(None, &[]), Placement::Unbound);
    let unscheduled = launcher("r", None, true, 1);
    assert_eq!(placed(run("r", any(), None), &[("a", unscheduled)]), Placement::KeepHome);
    let (here, there) = (launcher("r", Some("n1"), true, 1), launcher("r", Some("n2"), true, 2));
    assert_eq!(placed(run("r", any(), None), &[("a", here.clone())]), on("n1"));
    // The newest launcher of the current run, while no object shows the guest's node.
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
    assert_eq!(placed(ready("b"), &both), Placement::On { home: "n2".into(), target: None, arrived: true });
    // A target that died does not count either.
    let dead = launcher("r", Some("n2"), false, 2);
    assert_eq!(placed(ready("b"), &[("a", here.clone()), ("b", dead.clone())]), on("n1"));
    // No launcher is live any more: the port keeps one chassis.
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

fn nics_spec() -> serde_json::Value {
    serde_json::json!({
        "domain": {"devices": {"interfaces": [
            {"name": "default", "bridge": {}}, {"name": "red", "bridge": {}, "macAddress": "02:aa:bb:cc:dd:01"},
            {"name": "blue", "bridge": {}, "state": "absent"}, {"name": "green", "sriov": {}}]}},
        "networks": [
            {"name": "default", "pod": {}}, {"name": "red", "multus": {"networkName": "net1"}},
            {"name": "blue", "multus": {"networkName": "net1"}},
            {"name": "green", "multus": {"networkName": "other/net2", "default": true}}],
    })
}

/// The VM's objects with these annotations; `net1` of its namespace is on `switch-1`.
fn with_nics(annotations: &[(&str, &str)]) -> VmObjects {
    let nads = [(crate::contract::NadKey::new("ns", "net1"), Some("switch-1".to_owned()))].into();
    VmObjects { vm: vm(template(annotations, nics_spec())), nads, ..Default::default() }
}

fn nic(objects: &VmObjects, network: &str) -> PortIntent {
    let nics = intent(objects).ports;
    nics.iter().find(|nic| nic.network == network).cloned().unwrap_or_else(|| panic!("no {network} in {nics:?}"))
}

#[test]
fn each_network_has_its_requested_switch_and_a_port_named_for_it() {
    let objects = with_nics(&[]);
    let seen: Vec<_> = intent(&objects).ports.iter().map(|nic| (nic.network.clone(), nic.base_name.clone())).collect();
    let expected = [("default", "vm.ns"), ("red", "vm.ns.net1.ns.ovn"), ("green", "vm.ns.net2.other.ovn")];
    assert_eq!(seen, expected.map(|(network, name)| (network.to_owned(), name.to_owned())));
    let switch = |name: &str, explicit| Some(SwitchRequest::new(name, explicit));
    assert_eq!(nic(&objects, "default").switch, switch("ovn-default", false));
    assert_eq!(nic(&objects, "red").switch, switch("switch-1", true));
    assert_eq!(nic(&objects, "green").switch, None);
    let objects = with_nics(&[
        ("net1.ns.ovn.kubernetes.io/logical_switch", "a"),
        ("net2.other.ovn.kubernetes.io/logical_switch", "b"),
        ("green.ovn.kubernetes.io/logical_switch", "c"),
    ]);
    assert_eq!(nic(&objects, "red").switch, Some(SwitchRequest::of_vm("a")));
    assert_eq!(nic(&objects, "green").switch, Some(SwitchRequest::of_vm("c")));
}

#[test]
fn an_unplugged_nic_is_absent_and_its_port_stays_while_the_vmi_names_it() {
    let stopped = with_nics(&[]);
    assert!(intent(&stopped).ports.iter().all(|nic| nic.network != "blue"));
    assert_eq!(intent(&stopped).untouched, Some(BTreeSet::new()));
    let running = VmObjects { run: run("r", template(&[], nics_spec()), None), ..with_nics(&[]) };
    let untouched = intent(&running).untouched.expect("no old launcher");
    assert_eq!(untouched, ["blue", "default", "green", "red"].map(Into::into).into());
}

/// KubeVirt 1.6 to 1.9: a link that is down is a NIC, and a network of DRA is on no network of OVN.
#[test]
fn passt_and_a_link_that_is_down_have_ports_and_a_resource_claim_has_no_port() {
    let spec = serde_json::json!({
        "domain": {"devices": {"interfaces": [
            {"name": "default", "passtBinding": {}, "state": "down"}, {"name": "gpu", "sriov": {}},
            {"name": "red", "binding": {"name": "passt"}, "state": "up"}]}},
        "networks": [
            {"name": "default", "pod": {}}, {"name": "red", "multus": {"networkName": "net1"}},
            {"name": "gpu", "resourceClaim": {"claimName": "nics", "requestName": "vf"}}],
    });
    let objects = VmObjects { vm: vm(template(&[], spec)), ..with_nics(&[]) };
    let VmIntent { ports, untouched, unserved, unmatched, misplaced, invalid, .. } = intent(&objects);
    let seen: Vec<_> = ports.iter().map(|nic| (nic.network.as_str(), nic.on_none_of_ours)).collect();
    assert_eq!(seen, [("default", false), ("red", false)]);
    assert_eq!((untouched, unserved, unmatched), (Some(BTreeSet::new()), vec![], vec![]));
    assert_eq!((misplaced, invalid), (vec![], vec![]));
    // A VM with that network alone gets no other in its place.
    let spec = serde_json::json!({
        "domain": {"devices": {"interfaces": [{"name": "gpu", "sriov": {}}]}},
        "networks": [{"name": "gpu", "resourceClaim": {"claimName": "nics", "requestName": "vf"}}],
    });
    let alone = VmObjects { vm: vm(template(&[], spec)), ..with_nics(&[]) };
    assert_eq!(intent(&alone).ports, []);
}

#[test]
fn a_port_name_tells_the_network_of_the_port() {
    let objects = with_nics(&[]);
    let (pod, red) = (nic(&objects, "default"), nic(&objects, "red"));
    for (name, on_pod, on_net1) in [
        ("vm.ns", true, false),
        ("vm.ns.mgmt", true, false),
        ("vm.ns.net1.ns.ovn", false, true),
        ("vm.ns.net1.ns.ovn.red", false, true),
        ("vm.ns.net2.ns.ovn", false, false),
        ("vm.nsx", false, false),
        ("other", false, false),
    ] {
        assert_eq!((pod.was_named_for(name), red.was_named_for(name)), (on_pod, on_net1), "{name}");
    }
    assert_eq!(pod.names(), ["vm.ns", "vm.ns.default"]);
    assert_eq!(red.names(), ["vm.ns.net1.ns.ovn", "vm.ns.net1.ns.ovn.red"]);
    assert_eq!(PortIntent { another_before: true, ..red }.names(), ["vm.ns.net1.ns.ovn.red"]);
}

#[test]
fn pools_and_port_security_are_read_for_each_network() {
    let objects = with_nics(&[
        ("ovn.kubernetes.io/ip_pool", "10.16.0.2..10.16.0.9,fd00::/64"),
        ("net1.ns.ovn.kubernetes.io/ip_pool", "10.17.0.0/30"),
        ("red.ovn.kubernetes.io/port_security", "false"),
    ]);
    let (pod, red) = (
        nic(&objects, "default").life.request().clone().expect("good"),
        nic(&objects, "red").life.request().clone().expect("good"),
    );
    let pool = |request: &Request| request.pool.as_ref().map(ToString::to_string);
    assert_eq!(pool(&pod).as_deref(), Some("10.16.0.2..10.16.0.9, fd00::..fd00::ffff:ffff:ffff:ffff"));
    assert_eq!(pool(&red).as_deref(), Some("10.17.0.0..10.17.0.3"));
    assert_eq!((pod.port_security, red.port_security), (true, false));
    for (key, value) in [("ip_pool", "10.16.0.9..10.16.0.2"), ("ip_pool", "my-pool"), ("port_security", "off")] {
        let key = format!("red.ovn.kubernetes.io/{key}");
        let error = nic(&with_nics(&[(&key, value)]), "red").life.request().clone().expect_err(value).to_string();
        assert!(error.contains(&key) && error.contains(&format!("\"{value}\"")), "{error}");
    }
}

#[test]
fn the_newest_template_decides_how_long_addresses_are_retained() {
    let keep = |text| template(&[("ovn-kubevirt.io/retain", text)], pod_network_spec(None));
    let retain = |objects: VmObjects| (intent(&objects).retain, intent(&objects).invalid);
    let hours = |hours: u64| Some(Retention::For(std::time::Duration::from_secs(hours * 3_600)));
    let stopped = VmObjects { vm: vm(keep("72h")), ..Default::default() };
    assert_eq!(retain(stopped), (hours(72), vec![]));
    let running = VmObjects { vm: vm(keep("forever")), run: run("r", keep("72h"), None), ..Default::default() };
    assert_eq!(retain(running), (Some(Retention::Forever), vec![]));
    let bare = VmObjects { run: run("r", keep("7d"), None), ..Default::default() };
    assert_eq!(retain(bare), (hours(168), vec![]));
    let mistyped = VmObjects { vm: vm(keep("3 days")), ..Default::default() };
    assert_eq!(retain(mistyped), (None, vec![InvalidRequest::Retain("3 days".into())]));
}

#[test]
fn unserved_annotations_are_listed_for_their_nic_and_notes_of_kube_ovn_are_not() {
    let objects = with_nics(&[
        ("ovn.kubernetes.io/security_groups", "a"),
        ("ovn.kubernetes.io/allocated", "true"),
        ("net1.ns.ovn.kubernetes.io/ingress_rate", "5"),
        ("red.ovn.kubernetes.io/vips", "x"),
        ("net1.other.ovn.kubernetes.io/ip_address", "10.17.0.9"),
        ("net1.other.ovn.kubernetes.io/cidr", "10.17.0.0/24"),
        ("ovn-kubevirt.io/retian", "72h"),
        ("kubevirt.io/other", "x"),
    ]);
    assert_eq!(nic(&objects, "default").unserved, ["ovn.kubernetes.io/security_groups"]);
    assert_eq!(nic(&objects, "red").unserved, ["net1.ns.ovn.kubernetes.io/ingress_rate", "red.ovn.kubernetes.io/vips"]);
    assert_eq!(nic(&objects, "green").unserved, [""; 0]);
    assert_eq!(intent(&objects).unmatched, ["net1.other.ovn.kubernetes.io/ip_address"]);
    assert_eq!(intent(&objects).unserved, ["ovn-kubevirt.io/retian"]);
}

mod bounds;
mod misplaced;
mod port_names;
