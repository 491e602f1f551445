//! Values that a tenant may write, and the limits on them.

use serde_json::json;

use super::*;
use crate::contract::annotations::SERVED;
use crate::kubevirt::annotations::{LONGEST_VALUE, MOST_NETWORKS};
use crate::kubevirt::objects::{VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{Change, Cluster};

/// The data that the service keeps of a VM with these annotations on its template and this spec.
fn kept(annotations: serde_json::Value, spec: serde_json::Value) -> VmObjects {
    let template = json!({"metadata": {"annotations": annotations}, "spec": spec});
    let object = json!({"metadata": {"name": "vm", "namespace": "ns", "uid": "u"}, "spec": {"template": template}});
    let vm: VirtualMachine = serde_json::from_value(object).expect("a VM");
    let mut cluster = Cluster::default();
    cluster.apply(Change::Vm(Box::new(vm)));
    cluster.vm(&VmKey::new("ns", "vm")).expect("the VM").clone()
}

fn template_of(objects: &VmObjects) -> &Result<Template, String> {
    &objects.vm.as_ref().expect("the VM").template
}

#[test]
fn an_annotation_without_a_value_is_one_that_is_not_there() {
    for empty in ["", " ", "\t\n"] {
        let mut annotations: BTreeMap<String, String> = BTreeMap::new();
        for what in SERVED {
            annotations.insert(format!("ovn.kubernetes.io/{what}"), empty.to_owned());
            annotations.insert(format!("default.ovn.kubernetes.io/{what}"), empty.to_owned());
        }
        for key in ["ovn.kubernetes.io/vips", "gone.ovn.kubernetes.io/ip_address", "ovn-kubevirt.io/retain"] {
            annotations.insert(key.to_owned(), empty.to_owned());
        }
        annotations.insert("ovn-kubevirt.io/retian".to_owned(), empty.to_owned());
        annotations.insert("default.kubernetes.io/ip_address".to_owned(), empty.to_owned());
        let built = Template { annotations: annotations.clone(), ..template(&[], pod_network_spec(Some(empty))) };
        let built = VmObjects { vm: vm(built), ..Default::default() };
        let plain = VmObjects { vm: vm(template(&[], pod_network_spec(None))), ..Default::default() };
        assert_eq!(intent(&built), intent(&plain), "{empty:?}");
        let kept = kept(json!(annotations), pod_network_spec(None));
        assert_eq!(template_of(&kept).as_ref().expect("readable").annotations, BTreeMap::new());
    }
    // The NAD's key counts where the network's own is empty.
    let annotations = [("default.ovn.kubernetes.io/ip_address", ""), ("ovn.kubernetes.io/ip_address", "10.16.0.9")];
    let objects = VmObjects { vm: vm(template(&annotations, pod_network_spec(None))), ..Default::default() };
    assert_eq!(intent(&objects).ports[0].life.request().as_ref().expect("good").ipv4, Some([10, 16, 0, 9].into()));
}

#[test]
fn a_value_that_is_too_long_is_refused_by_its_key_and_is_not_kept() {
    let long = "1".repeat(1_200_000);
    for what in SERVED {
        let key = format!("ovn.kubernetes.io/{what}");
        let objects = kept(json!({&key: long}), pod_network_spec(None));
        let bytes: usize =
            template_of(&objects).as_ref().expect("readable").annotations.values().map(String::len).sum();
        assert!(bytes <= LONGEST_VALUE + 4, "{bytes} bytes of {key}");
        let nic = &intent(&objects).ports[0];
        let error = nic.life.request().clone().expect_err(&key);
        assert_eq!(error, InvalidRequest::TooLong(key.clone()));
        assert!(error.to_string().contains(&key) && error.to_string().contains("4096"), "{error}");
        // A NIC with an unreadable switch is ours, so that its owner gets the problem.
        assert!(nic.switch.is_some());
    }
    let objects = kept(json!({"ovn-kubevirt.io/retain": long}), pod_network_spec(None));
    assert_eq!(intent(&objects).invalid, [InvalidRequest::TooLong("ovn-kubevirt.io/retain".into())]);
    // One of the longest that are read.
    let pool = vec!["10.16.0.2..10.16.0.9"; LONGEST_VALUE / 21].join(",");
    let objects = kept(json!({"ovn.kubernetes.io/ip_pool": pool}), pod_network_spec(None));
    assert!(intent(&objects).ports[0].life.request().is_ok(), "{} bytes", pool.len());
}

fn networks(count: usize) -> serde_json::Value {
    let names: Vec<String> = (0..count).map(|index| format!("net-{index}")).collect();
    let networks: Vec<_> = names.iter().map(|name| json!({"name": name, "multus": {"networkName": "net1"}})).collect();
    let interfaces: Vec<_> = names.iter().map(|name| json!({"name": name, "bridge": {}})).collect();
    json!({"domain": {"devices": {"interfaces": interfaces}}, "networks": networks})
}

#[test]
fn a_vm_with_more_than_kubevirt_admits_is_refused_as_a_whole() {
    assert_eq!(intent(&kept(json!({}), networks(MOST_NETWORKS))).ports.len(), MOST_NETWORKS);
    let many = |what: &str| json!({what: networks(MOST_NETWORKS + 1)[what].clone()});
    let interfaces = json!({"domain": networks(10_000)["domain"].clone()});
    for (what, spec) in
        [("256 networks", many("networks")), ("256 networks", networks(10_000)), ("256 interfaces", interfaces)]
    {
        let objects = kept(json!({}), spec);
        let error = template_of(&objects).as_ref().expect_err(what);
        assert!(error.contains(what), "{error}");
        assert_eq!((intent(&objects).ports.len(), intent(&objects).untouched), (0, None), "its ports stay");
    }
    let keys = |count: usize, value: &str| -> serde_json::Value {
        (0..count)
            .map(|index| (format!("n{index}.ovn.kubernetes.io/ip_address"), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let error = template_of(&kept(keys(10_000, "x"), json!({}))).clone().expect_err("too many");
    assert!(error.contains("10000") && error.contains("2048"), "{error}");
    let error = template_of(&kept(keys(200, &"x".repeat(4_000)), json!({}))).clone().expect_err("too much");
    assert!(error.contains("262144"), "{error}");
    // Annotations outside OVN's domains are not kept.
    let foreign: serde_json::Map<_, _> =
        (0..10_000).map(|index| (format!("example.com/{index}"), json!("x"))).collect();
    assert!(template_of(&kept(foreign.into(), json!({}))).is_ok());
}

#[test]
fn names_are_cut_and_stay_too_long_to_be_names() {
    let long = "n".repeat(1_000_000);
    let spec = json!({
        "domain": {"devices": {"interfaces": [{"name": long, "macAddress": long, "state": long}]}},
        "networks": [{"name": long, "pod": {}}, {"name": "red", "multus": {"networkName": long}}],
    });
    let objects = kept(json!({"red.ovn.kubernetes.io/logical_switch": "red"}), spec);
    let text = format!("{objects:?}");
    assert!(text.len() < 10_000, "{} bytes are kept", text.len());
    let nics = intent(&objects).ports;
    assert!(matches!(nics[0].life.request(), Err(InvalidRequest::NetworkName(_))), "{nics:?}");
    assert!(matches!(nics[1].life.request(), Err(InvalidRequest::NadName(_))), "{nics:?}");
    assert!(nics.iter().all(|nic| nic.life.request().clone().is_err_and(|error| error.to_string().len() < 400)));
}

#[test]
fn a_network_name_that_no_nad_has_is_refused_where_its_nic_is_ours() {
    for bad in ["", "a/b/c", "/", "a/", "/b", "a b", "A", "x,y", "a.b/c", "n\n1"] {
        let spec = json!({"networks": [{"name": "red", "multus": {"networkName": bad}}]});
        let ours = kept(json!({"red.ovn.kubernetes.io/logical_switch": "red"}), spec.clone());
        let error = intent(&ours).ports[0].life.request().clone().expect_err(bad).to_string();
        assert!(error.contains("networkName") && !error.contains('\n'), "{error}");
        assert_eq!(intent(&kept(json!({}), spec)).ports[0].switch, None, "{bad}");
    }
}

#[test]
fn an_instance_and_its_annotations_are_cut_as_well() {
    let object = json!({
        "metadata": {"name": "vm", "namespace": "ns", "uid": "r\n1",
            "annotations": {"ovn.kubernetes.io/ip_address": "9".repeat(200_000), "example.com/x": "x",
                "ovn-kubevirt.io/ports": "[".repeat(65 * 1_024)},
            "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "vm",
                "uid": "x".repeat(10_000), "controller": true}]},
        "spec": {}, "status": {"nodeName": "n1,evil", "migrationState": {"targetPod": "p".repeat(10_000)}}});
    let run: VirtualMachineInstance = serde_json::from_value(object).expect("a VMI");
    let mut cluster = Cluster::default();
    cluster.apply(Change::Run(Box::new(run)));
    let objects = cluster.vm(&VmKey::new("ns", "vm")).expect("the VMI");
    let run = objects.run.as_ref().expect("the VMI");
    assert_eq!((run.uid.as_str(), &run.vm_uid, &run.node, &run.reported.text), ("", &None, &None, &None));
    assert!(format!("{objects:?}").len() < 10_000);
    assert!(matches!(intent(objects).ports[0].life.request(), Err(InvalidRequest::TooLong(_))));
}

/// As many NICs as no VM has, half of them on one NAD: an algorithm that is quadratic in them takes minutes.
#[test]
fn twenty_thousand_networks_are_read_in_a_moment() {
    const MANY: usize = 20_000;
    let nad = |index: usize| if index.is_multiple_of(2) { "shared".to_owned() } else { format!("nad-{index}") };
    let networks: Vec<_> =
        (0..MANY).map(|index| json!({"name": format!("n{index}"), "multus": {"networkName": nad(index)}})).collect();
    let interfaces: Vec<_> = (0..MANY).rev().map(|index| json!({"name": format!("n{index}")})).collect();
    let mut spec: crate::kubevirt::objects::InstanceSpec = serde_json::from_value(json!({})).expect("a spec");
    spec.networks = Some(networks.into_iter().map(|network| serde_json::from_value(network).expect("one")).collect());
    spec.domain.devices.interfaces =
        Some(interfaces.into_iter().map(|interface| serde_json::from_value(interface).expect("one")).collect());
    let annotations = (0..MANY).map(|index| (format!("n{index}.ovn.kubernetes.io/vips"), "x".to_owned())).collect();
    let template = Template { annotations, spec };
    let nads = [(crate::contract::NadKey::new("ns", "shared"), Some("switch-1".to_owned()))].into();
    let run = run("r", template.clone(), None);
    let intent = intent(&VmObjects { vm: vm(template), run, nads, ..Default::default() });
    assert_eq!(intent.ports.len(), MANY);
    assert_eq!(intent.ports.iter().filter(|nic| nic.another_before).count(), MANY / 2 - 1);
    assert!(intent.ports.iter().all(|nic| nic.unserved.len() == 1 && nic.life.next().is_some()));
}
