use super::*;
use serde_json::json;

fn pod(name: &str, label: &str, owner_kind: &str, annotations: serde_json::Value) -> Change {
    Change::Launcher(Box::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"kubevirt.io": label},
                "annotations": annotations,
                "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": owner_kind, "name": "vm",
                    "uid": "u1", "controller": true}]},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}))
        .expect("a pod"),
    ))
}

fn vm(name: &str) -> Change {
    Change::Vm(Box::new(
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}})).expect("a VM"),
    ))
}

#[test]
fn only_launchers_of_a_vmi_count() {
    let mut cluster = Cluster::default();
    assert!(cluster.apply(pod("a", "hotplug-disk", "VirtualMachineInstance", json!({}))).is_empty());
    assert!(cluster.apply(pod("b", "virt-launcher", "Pod", json!({}))).is_empty());
    assert!(cluster.apply(pod("c", "virt-launcher", "VirtualMachineInstance", json!({PROVISIONING: ""}))).is_empty());
    assert_eq!(cluster.vms().count(), 0);
    let key = VmKey::new("ns", "vm");
    let dirty = cluster.apply(pod("d", "virt-launcher", "VirtualMachineInstance", json!({})));
    assert_eq!(dirty, BTreeSet::from([key.clone()]));
    assert_eq!(cluster.vm(&key).expect("the VM").launchers["d"].node.as_deref(), Some("n1"));
}

#[test]
fn a_new_list_drops_the_objects_that_it_lacks_at_its_end() {
    let mut cluster = Cluster::default();
    for name in ["a", "b"] {
        cluster.apply(vm(name));
    }
    cluster.apply(Change::ListBegins(Kind::Vm));
    cluster.apply(vm("b"));
    assert_eq!(cluster.vms().count(), 2);
    let gone = cluster.apply(Change::ListEnds(Kind::Vm));
    assert_eq!(gone, BTreeSet::from([VmKey::new("ns", "a")]));
    assert!(cluster.vm(&VmKey::new("ns", "a")).is_none());
    assert!(cluster.vm(&VmKey::new("ns", "b")).is_some());
}

#[test]
fn a_launcher_that_changes_its_owner_leaves_the_old_one() {
    let mut cluster = Cluster::default();
    cluster.apply(pod("p", "virt-launcher", "VirtualMachineInstance", json!({})));
    let Change::Launcher(mut moved) = pod("p", "virt-launcher", "VirtualMachineInstance", json!({})) else {
        return;
    };
    moved.metadata.owner_references.as_mut().expect("owners")[0].name = "other".into();
    let dirty = cluster.apply(Change::Launcher(moved));
    assert_eq!(dirty, ["other", "vm"].map(|name| VmKey::new("ns", name)).into());
    assert!(cluster.vm(&VmKey::new("ns", "vm")).is_none());
    assert_eq!(cluster.vm(&VmKey::new("ns", "other")).expect("the VM").launchers.len(), 1);
}

#[test]
fn a_pod_that_is_no_launcher_any_more_counts_as_little_as_for_a_process_that_starts_now() {
    let edits: [fn(&mut LauncherPod); 3] = [
        |pod| pod.metadata.labels = None,
        |pod| pod.metadata.owner_references = None,
        |pod| drop(pod.metadata.annotations.get_or_insert_default().insert(PROVISIONING.into(), "true".into())),
    ];
    for edit in edits {
        let mut cluster = Cluster::default();
        cluster.apply(pod("p", "virt-launcher", "VirtualMachineInstance", json!({})));
        let Change::Launcher(mut edited) = pod("p", "virt-launcher", "VirtualMachineInstance", json!({})) else {
            return;
        };
        edit(&mut edited);
        let key = VmKey::new("ns", "vm");
        assert_eq!(cluster.apply(Change::Launcher(edited.clone())), BTreeSet::from([key.clone()]));
        assert!(cluster.vm(&key).is_none());
        assert!(cluster.apply(Change::Launcher(edited)).is_empty());
    }
}

#[test]
fn an_unreadable_vm_is_there_all_the_same() {
    let mut cluster = Cluster::default();
    let metadata = ObjectMeta { name: Some("vm".into()), namespace: Some("ns".into()), ..Default::default() };
    cluster.apply(Change::UnreadableVm(Box::new(metadata), "no".into()));
    let vm = cluster.vm(&VmKey::new("ns", "vm")).and_then(|objects| objects.vm.as_ref()).expect("the VM");
    assert_eq!(vm.template.as_ref().err().map(String::as_str), Some("no"));
}

#[test]
fn the_real_controllers_objects_are_read() {
    let run: VirtualMachineInstance = serde_json::from_value(json!({
        "metadata": {"name": "vm", "namespace": "ns", "uid": "u1",
            "annotations": {"ovn.kubernetes.io/ip_address": "10.16.0.15", "kubevirt.io/vm-generation": "1"}},
        "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}},
            "networks": [{"name": "default", "pod": {}}]},
        "status": {"nodeName": "n1", "migrationState": {"targetPod": "p2",
            "targetNodeDomainReadyTimestamp": "2026-11-23T05:22:01Z"}}}))
    .expect("a VMI");
    let mut cluster = Cluster::default();
    cluster.apply(Change::Run(Box::new(run)));
    let run = cluster.vm(&VmKey::new("ns", "vm")).and_then(|objects| objects.run.as_ref()).expect("the VMI");
    assert_eq!((run.node.as_deref(), run.domain_ready_on.as_deref()), (Some("n1"), Some("p2")));
    let template = run.template.as_ref().expect("readable");
    assert_eq!(template.annotations.len(), 1);
    assert!(template.spec.networks.as_ref().expect("networks")[0].pod.is_some());
}

fn nad(name: &str, switch: Option<&str>) -> Change {
    let annotations = switch.map(|switch| json!({"ovn.kubernetes.io/logical_switch": switch}));
    let metadata = json!({"name": name, "namespace": "ns", "annotations": annotations});
    Change::Nad(Box::new(serde_json::from_value(metadata).expect("metadata")))
}

#[test]
fn a_nads_switch_reaches_the_vms_that_are_on_it_and_no_others() {
    let on = |name: &str, nad: &str| {
        let spec = json!({"template": {"spec": {"networks": [{"name": "red", "multus": {"networkName": nad}}]}}});
        let object = json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}, "spec": spec});
        Change::Vm(Box::new(serde_json::from_value(object).expect("a VM")))
    };
    let mut cluster = Cluster::default();
    for (name, nad) in [("bare", "net1"), ("full", "ns/net1"), ("other", "else/net1"), ("another", "net2")] {
        cluster.apply(on(name, nad));
    }
    let of_net1: BTreeSet<VmKey> = ["bare", "full"].map(|name| VmKey::new("ns", name)).into();
    let switch = |cluster: &Cluster, name: &str| {
        cluster.vm(&VmKey::new("ns", name)).expect("the VM").nads.values().next().cloned().flatten()
    };
    assert_eq!(cluster.apply(nad("net1", Some("red"))), of_net1);
    assert_eq!(cluster.apply(nad("net1", Some("red"))), BTreeSet::new());
    assert_eq!((switch(&cluster, "full").as_deref(), switch(&cluster, "other")), (Some("red"), None));
    // A VM that comes later is on the switch, too.
    cluster.apply(on("late", "net1"));
    assert_eq!(switch(&cluster, "late").as_deref(), Some("red"));
    // A list names the changed ones at its end, including those that it lacks.
    cluster.apply(Change::ListBegins(Kind::Nad));
    assert_eq!(cluster.apply(nad("net2", Some("blue"))), BTreeSet::new());
    let changed = cluster.apply(Change::ListEnds(Kind::Nad));
    assert_eq!(changed, ["another", "bare", "full", "late"].map(|name| VmKey::new("ns", name)).into());
    assert_eq!((switch(&cluster, "full"), switch(&cluster, "another").as_deref()), (None, Some("blue")));
}

fn migration(name: &str, spec: serde_json::Value, phase: &str) -> Change {
    let object = json!({"metadata": {"name": name, "namespace": "ns", "uid": "m"}, "spec": spec,
        "status": {"phase": phase}});
    Change::Migration(Box::new(serde_json::from_value(object).expect("a migration")))
}

#[test]
fn a_migration_that_cannot_be_read_is_skipped_and_reported_once() {
    let mut cluster = Cluster::default();
    let key = VmKey::new("ns", "vm");
    cluster.apply(vm("vm"));
    cluster.apply(migration("m", json!({"vmiName": "vm"}), "Running"));
    assert!(cluster.vm(&key).expect("the VM").is_migrating());
    let metadata =
        || Box::new(ObjectMeta { name: Some("m".into()), namespace: Some("ns".into()), ..Default::default() });
    let unreadable = |error: &str| Change::Unreadable(Kind::Migration, metadata(), error.into());
    assert_eq!(cluster.apply(unreadable("no\nstring")), BTreeSet::from([key.clone()]));
    assert!(!cluster.vm(&key).expect("the VM").is_migrating(), "it does not count as under way");
    let notices = cluster.take_notices();
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    let expected = "The VirtualMachineInstanceMigration ns/m cannot be read and is skipped: no\\nstring. \
        Correct it, or delete it.";
    assert_eq!(notice.to_string(), expected);
    // The same error is not reported again, even after a new list; another error is.
    cluster.apply(unreadable("no\nstring"));
    cluster.apply(Change::ListBegins(Kind::Migration));
    cluster.apply(unreadable("no\nstring"));
    cluster.apply(Change::ListEnds(Kind::Migration));
    assert_eq!(cluster.take_notices(), []);
    cluster.apply(migration("m", json!({"vmiName": "a b"}), "Running"));
    assert_eq!(cluster.take_notices().len(), 1);
    // It is forgotten with the object, and when the object can be read.
    cluster.apply(migration("m", json!({"vmiName": "vm"}), "Running"));
    assert!(cluster.vm(&key).expect("the VM").is_migrating() && cluster.unreadable.is_empty());
    cluster.apply(unreadable("no"));
    cluster.apply(Change::ListBegins(Kind::Migration));
    cluster.apply(Change::ListEnds(Kind::Migration));
    assert!(cluster.unreadable.is_empty());
    cluster.apply(unreadable("no"));
    cluster.apply(Change::Gone(Kind::Migration, metadata()));
    assert!(cluster.unreadable.is_empty());
}

#[test]
fn unreadable_parts_of_a_launcher_pod_count_as_absent() {
    for (spec, status) in [
        (json!({"nodeName": 7}), json!({"phase": ["x"]})),
        (json!("nonsense"), json!(7)),
        (json!([1, {"a": 2}]), json!(true)),
        (json!({"nodeName": "n1,evil"}), json!(null)),
        (json!({"nodeName": {"x": [1]}}), json!({"phase": {}})),
    ] {
        let owner = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "u1",
            "controller": true});
        let object = json!({"metadata": {"name": "p", "namespace": "ns", "labels": {"kubevirt.io": "virt-launcher"},
            "ownerReferences": [owner]}, "spec": spec, "status": status});
        let mut cluster = Cluster::default();
        cluster.apply(Change::Launcher(Box::new(serde_json::from_value(object.clone()).expect("a pod"))));
        let launcher = &cluster.vm(&VmKey::new("ns", "vm")).expect("the VM").launchers["p"];
        assert_eq!((launcher.live, &launcher.node), (true, &None), "{object}");
    }
}

#[test]
fn the_owner_of_a_pod_is_a_name_and_a_uid() {
    for (name, uid) in [("vm\nx", "u1"), ("", "u1"), ("vm", "u 1"), ("vm", ""), ("Vm/x", "u1")] {
        let Change::Launcher(mut pod) = pod("p", "virt-launcher", "VirtualMachineInstance", json!({})) else { return };
        let owner = &mut pod.metadata.owner_references.as_mut().expect("owners")[0];
        (owner.name, owner.uid) = (name.into(), uid.into());
        assert_eq!(Cluster::default().apply(Change::Launcher(pod)), BTreeSet::new(), "{name:?} {uid:?}");
    }
}

#[test]
fn our_own_annotation_is_kept_up_to_the_length_that_we_write() {
    let kept = |bytes: usize, networks: usize| {
        let networks: Vec<_> = (0..networks).map(|at| json!({"name": format!("n{at}"), "pod": {}})).collect();
        let object = json!({
            "metadata": {"name": "vm", "namespace": "ns", "uid": "u",
                "annotations": {"ovn-kubevirt.io/ports": "x".repeat(bytes)}},
            "spec": {"template": {"spec": {"networks": networks}}}});
        let mut cluster = Cluster::default();
        cluster.apply(Change::Vm(Box::new(serde_json::from_value(object).expect("a VM"))));
        let vm = cluster.vm(&VmKey::new("ns", "vm")).and_then(|objects| objects.vm.as_ref()).expect("the VM");
        vm.reported.text.as_ref().map(String::len)
    };
    assert_eq!(kept(64 * 1_024, 1), Some(64 * 1_024));
    assert_eq!(kept(64 * 1_024 + 1, 1), None);
    // The most that the ports of this many networks may take.
    assert_eq!(kept(200 * 1_024, 200), Some(200 * 1_024));
}
