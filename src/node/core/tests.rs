//! Decisions by example, and by rules that hold for every node: a small one, so that collisions happen.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::contract::{VmKey, keys};
use crate::kubevirt::objects::LauncherPod;
use crate::kubevirt::{self, Kind, PodPort};
use crate::ovsdb::{Datum, Mutator, Operation, apply_updates};

const BR_INT: &str = "br-int";

/// An interface of the toy database, with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    bridge: &'static str,
    ofport: Option<i64>,
    /// The pod's UID, and the interface in the pod.
    nic: Option<(String, String)>,
    external_ids: BTreeMap<String, String>,
}

impl Row {
    fn of(uid: &str, interface: &str) -> Self {
        let nic = Some((uid.to_owned(), interface.to_owned()));
        Self { bridge: BR_INT, ofport: Some(1), nic, external_ids: BTreeMap::new() }
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.external_ids.insert(key.to_owned(), value.to_owned());
        self
    }

    fn iface_id(&self) -> Option<&str> {
        self.external_ids.get(keys::IFACE_ID).map(String::as_str)
    }

    fn mark(&self) -> Option<Mark> {
        Mark::parse(self.external_ids.get(keys::NODE_MARK)?)
    }
}

fn interface_uuid(index: usize) -> Uuid {
    Uuid::from_u128(0x1000 + index as u128)
}

fn port_uuid(index: usize) -> Uuid {
    Uuid::from_u128(0x2000 + index as u128)
}

fn map<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    let pairs: Vec<[&String; 2]> = pairs.into_iter().map(|(key, value)| [key, value]).collect();
    json!(["map", pairs])
}

/// The replica of the toy database, by the wire's own form.
fn switch(rows: &[Row]) -> LocalSwitch {
    switch_with(rows, &BTreeMap::new())
}

fn switch_with(rows: &[Row], settings: &BTreeMap<String, String>) -> LocalSwitch {
    let (mut interfaces, mut ports, mut bridges) = (json!({}), json!({}), json!({}));
    let mut on: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let ofport = row.ofport.map_or(json!(["set", []]), |ofport| json!(ofport));
        interfaces[interface_uuid(index).to_string()] = json!({"initial":
            {"name": format!("veth{index}"), "ofport": ofport, "external_ids": map(&row.external_ids)}});
        let notes: BTreeMap<String, String> = row
            .nic
            .iter()
            .flat_map(|(uid, interface)| [(keys::POD_UID, uid), (keys::POD_INTERFACE, interface)])
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        ports[port_uuid(index).to_string()] = json!({"initial":
            {"interfaces": ["uuid", interface_uuid(index)], "external_ids": map(&notes)}});
        on.entry(row.bridge).or_default().push(json!(["uuid", port_uuid(index)]));
    }
    for (index, (bridge, ports)) in on.into_iter().enumerate() {
        bridges[Uuid::from_u128(0x3000 + index as u128).to_string()] =
            json!({"initial": {"name": bridge, "ports": ["set", ports]}});
    }
    let settings = json!({Uuid::from_u128(0x4000).to_string(): {"initial": {"external_ids": map(settings)}}});
    let updates =
        json!({"Interface": interfaces, "Port": ports, "Bridge": bridges, "Open_vSwitch": settings}).to_string();
    let mut switch = LocalSwitch::default();
    apply_updates(&mut switch, &updates).expect("updates");
    switch
}

fn nic(interface: &str, port: &str) -> PodPort {
    PodPort {
        network: format!("net-{interface}"),
        interface: interface.into(),
        port: port.into(),
        ..PodPort::default()
    }
}

/// A launcher pod of the VM `ns/vm` as the API server has it.
fn launcher(uid: &str, annotation: Option<&str>, phase: &str) -> LauncherPod {
    let annotations = annotation.map(|text| json!({"ovn-kubevirt.io/ports": text})).unwrap_or(json!({}));
    let owner = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "run",
        "controller": true});
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": format!("virt-launcher-{uid}"), "uid": uid, "annotations": annotations,
            "labels": {"kubevirt.io": "virt-launcher"}, "ownerReferences": [owner]},
        "spec": {"nodeName": "n1"}, "status": {"phase": phase},
    }))
    .expect("a pod")
}

fn listed(pods: impl IntoIterator<Item = LauncherPod>) -> Pods {
    let mut known = Pods::default();
    known.apply(&kubevirt::Change::ListBegins(Kind::Launcher));
    pods.into_iter().for_each(|pod| known.apply(&kubevirt::Change::Launcher(Box::new(pod))));
    known.apply(&kubevirt::Change::ListEnds(Kind::Launcher));
    known
}

fn running(uid: &str, nics: &[PodPort]) -> LauncherPod {
    launcher(uid, Some(&PodPort::text(nics)), "Running")
}

/// The effect of a change in ovsdb-server (RFC 7047, section 5.1): `insert` leaves a key that is there as it is.
fn commit(rows: &mut [Row], change: &Change) {
    let index = (0..rows.len()).find(|index| interface_uuid(*index) == change.interface).expect("a row");
    let ids = &mut rows[index].external_ids;
    let seen: BTreeMap<String, String> =
        change.seen.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    assert_eq!(*ids, seen, "the guard");
    let Operation::Mutate { table: "Interface", uuid, mutations } = change.operation() else {
        panic!("{:?}", change.operation())
    };
    assert_eq!(uuid, change.interface);
    for mutation in mutations {
        assert_eq!(mutation.column, "external_ids");
        match (mutation.mutator, mutation.value) {
            (Mutator::Insert, Datum::Map(pairs)) => {
                for (key, value) in pairs {
                    ids.entry(key).or_insert(value);
                }
            }
            (Mutator::Delete, Datum::Set(removed)) => {
                let is_removed = |key: &String| removed.contains(&crate::ovsdb::Atom::from(key.as_str()));
                ids.retain(|key, _| !is_removed(key));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The rows after all changes of one decision.
fn after(pods: &Pods, rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    let decision = decide(pods, &switch(&rows));
    decision.changes.iter().for_each(|change| commit(&mut rows, change));
    rows
}

#[test]
fn an_interface_gets_the_port_of_its_nic_and_the_mark() {
    let pods = listed([running("u1", &[nic("eth0", "vm.ns"), nic("pod1", "vm.ns.red.ns.ovn")])]);
    let rows = [Row::of("u1", "eth0").with("a", "b"), Row::of("u1", "pod1"), Row::of("u2", "eth0")];
    let done = after(&pods, &rows);
    let set =
        |row: &Row, port: &str| row.clone().with(keys::IFACE_ID, port).with(keys::NODE_MARK, &format!("u1/{port}"));
    assert_eq!(done, [set(&rows[0], "vm.ns"), set(&rows[1], "vm.ns.red.ns.ovn"), rows[2].clone()]);
    assert_eq!(decide(&pods, &switch(&done)), Decision::default());
}

#[test]
fn values_that_the_cni_has_set_stay_and_differences_are_reported() {
    let pods = listed([running("u1", &[nic("eth0", "vm.ns"), nic("pod1", "vm.ns.red.ns.ovn")])]);
    let rows = [Row::of("u1", "eth0").with(keys::IFACE_ID, "vm.ns"), Row::of("u1", "pod1").with(keys::IFACE_ID, "x")];
    let decision = decide(&pods, &switch(&rows));
    assert_eq!((decision.changes.len(), decision.waits.len()), (0, 0));
    let told: Vec<String> = decision.problems.iter().map(|notice| notice.problem.to_string()).collect();
    assert_eq!(
        told,
        [
            "The OVS interface veth1 of the pod's interface pod1 has iface-id \"x\", which another program has set, and the NIC's port is \"vm.ns.red.ns.ovn\": it is left as it is. Have the CNI set the name of the port, or none."
        ]
    );
    // A mark of ours beside the value of another program has no effect.
    let rows = [rows[0].clone(), rows[1].clone().with(keys::NODE_MARK, "u1/vm.ns.red.ns.ovn")];
    assert_eq!(after(&pods, &rows), rows);
}

#[test]
fn another_vms_port_is_refused() {
    for port in ["other.ns", "vm.other", "vmx.ns", "vm.nsx", "vm", "", "other.ns.red.ns.ovn"] {
        let pods = listed([running("u1", &[nic("eth0", port)])]);
        let decision = decide(&pods, &switch(&[Row::of("u1", "eth0")]));
        assert_eq!((decision.changes.len(), decision.waits.len()), (0, 0), "{port}");
        let problem = Problem::PortRefused { interface: "eth0".into(), port: port.into(), vm: VmKey::new("ns", "vm") };
        assert_eq!(decision.problems.iter().map(|notice| &notice.problem).collect::<Vec<_>>(), [&problem]);
    }
}

#[test]
fn values_of_a_deleted_pod_are_removed_once_all_pods_are_known() {
    let left = Row::of("u1", "eth0")
        .with(keys::IFACE_ID, "vm.ns")
        .with(keys::NODE_MARK, "u1/vm.ns")
        .with("ovn-installed", "true");
    let of_cni = Row::of("u1", "pod1").with(keys::IFACE_ID, "vm.ns.red.ns.ovn");
    let changed = Row::of("u1", "pod2").with(keys::IFACE_ID, "theirs").with(keys::NODE_MARK, "u1/vm.ns.blue.ns.ovn");
    let rows = [left, of_cni.clone(), changed];
    assert_eq!(after(&Pods::default(), &rows), rows);
    let without_ours = [
        Row::of("u1", "eth0").with("ovn-installed", "true"),
        of_cni,
        Row::of("u1", "pod2").with(keys::IFACE_ID, "theirs"),
    ];
    assert_eq!(after(&listed([]), &rows), without_ours);
    assert_eq!(after(&listed([launcher("u1", None, "Succeeded")]), &rows), without_ours);
    // A list that is not complete yet, and a pod that has lost its annotation.
    let mut listing = listed([launcher("u1", None, "Running")]);
    assert_eq!(after(&listing, &rows), rows);
    listing.apply(&kubevirt::Change::ListBegins(Kind::Launcher));
    assert_eq!(after(&listing, &rows), rows);
    listing.apply(&kubevirt::Change::ListBegins(Kind::Launcher));
    listing.apply(&kubevirt::Change::ListEnds(Kind::Launcher));
    assert_eq!(after(&listing, &rows), without_ours);
}

#[test]
fn an_unplugged_nic_loses_its_port_and_an_unreadable_annotation_removes_no_port() {
    let ours = |interface: &str, port: &str| {
        Row::of("u1", interface).with(keys::IFACE_ID, port).with(keys::NODE_MARK, &format!("u1/{port}"))
    };
    let rows = [ours("eth0", "vm.ns"), ours("pod1", "vm.ns.red.ns.ovn")];
    let unplugged = listed([running("u1", &[nic("eth0", "vm.ns")])]);
    assert_eq!(after(&unplugged, &rows), [rows[0].clone(), Row::of("u1", "pod1")]);
    for annotation in [None, Some(""), Some("x"), Some("{}")] {
        let pods = listed([launcher("u1", annotation, "Running")]);
        assert_eq!(after(&pods, &rows), rows, "{annotation:?}");
    }
    let unreadable = decide(&listed([launcher("u1", Some("x"), "Running")]), &switch(&rows));
    assert_eq!(unreadable.problems.len(), 1);
    assert_eq!(unreadable.problems[0].problem.reason(), "InvalidPortsAnnotation");
}

#[test]
fn of_two_sandboxes_the_one_with_a_device_has_the_port() {
    let pods = listed([running("u1", &[nic("eth0", "vm.ns")])]);
    let mut dead = Row::of("u1", "eth0").with(keys::IFACE_ID, "vm.ns").with(keys::NODE_MARK, "u1/vm.ns");
    dead.ofport = Some(-1);
    let mut fresh = Row::of("u1", "eth0");
    fresh.ofport = None;
    let done = after(&pods, &[dead, fresh]);
    assert_eq!((done[0].iface_id(), done[1].iface_id()), (None, Some("vm.ns")));
    // Two with a device: the first to have it keeps it.
    let rows =
        [Row::of("u1", "eth0"), Row::of("u1", "eth0").with(keys::IFACE_ID, "vm.ns").with(keys::NODE_MARK, "u1/vm.ns")];
    assert_eq!(after(&pods, &rows), rows);
}

#[test]
fn a_nic_without_an_interface_on_ovns_bridge_is_waited_for() {
    let pods = listed([running("u1", &[nic("eth0", "vm.ns")])]);
    let told = |rows: &[Row]| {
        let decision = decide(&pods, &switch(rows));
        assert_eq!(decision.changes, []);
        decision.waits.iter().map(|notice| notice.problem.to_string()).collect::<Vec<_>>()
    };
    let missing = "The NIC \"net-eth0\" (interface eth0) has no interface in Open vSwitch on this node. Check that its NetworkAttachmentDefinition has the type ovs and the bridge br-int, and that the pod's volumes are there.";
    assert_eq!(told(&[]), [missing]);
    assert_eq!(told(&[Row::of("u1", "eth1"), Row::of("u2", "eth0")]), [missing]);
    let elsewhere = Row { bridge: "br-ex", ..Row::of("u1", "eth0") };
    let on_br_ex = "The NIC \"net-eth0\" (interface eth0) is on the OVS bridge br-ex, and OVN serves the bridge br-int on this node. Correct \"bridge\" in the NetworkAttachmentDefinition, and restart the VM.";
    assert_eq!(told(std::slice::from_ref(&elsewhere)), [on_br_ex]);
    // A CNI that does not write pods on its ports has set the iface-id itself.
    let mut plugged = Row::of("", "").with(keys::IFACE_ID, "vm.ns");
    plugged.nic = None;
    assert_eq!(told(&[plugged]), Vec::<String>::new());
    // A pod that is being deleted, or has ended, need not have an interface.
    let mut ending = running("u1", &[nic("eth0", "vm.ns")]);
    ending.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time"));
    let ended = launcher("u1", Some(&PodPort::text(&[nic("eth0", "vm.ns")])), "Failed");
    for pod in [ending, ended] {
        assert_eq!(decide(&listed([pod]), &switch(&[])), Decision::default());
    }
    // The operator says which bridge is OVN's.
    let settings = |pairs: &[(&str, &str)]| {
        let settings = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        decide(&pods, &switch_with(std::slice::from_ref(&elsewhere), &settings)).changes.len()
    };
    assert_eq!(settings(&[("ovn-bridge", "br-ex")]), 1);
    assert_eq!(settings(&[("ovn-bridge", "br-int"), ("ovn-bridge-hv1", "br-ex"), ("system-id", "hv1")]), 1);
    assert_eq!(settings(&[("ovn-bridge-hv1", "br-ex"), ("system-id", "hv2")]), 0);
}

#[test]
fn pods_that_are_no_launchers_have_no_nics() {
    let text = PodPort::text(&[nic("eth0", "vm.ns")]);
    let edits: [fn(&mut LauncherPod); 4] = [
        |pod| pod.metadata.labels = None,
        |pod| pod.metadata.owner_references = None,
        |pod| pod.metadata.owner_references.iter_mut().flatten().for_each(|owner| owner.controller = None),
        |pod| {
            let annotations = pod.metadata.annotations.get_or_insert_default();
            annotations.insert("kubevirt.io/ephemeral-provisioning".into(), "true".into());
        },
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let mut pod = launcher("u1", Some(&text), "Running");
        edit(&mut pod);
        assert_eq!(decide(&listed([pod]), &switch(&[Row::of("u1", "eth0")])), Decision::default(), "{index}");
    }
}

#[test]
fn a_change_is_guarded_by_the_row_and_its_port_as_they_were_seen() {
    let pods = listed([running("u1", &[nic("eth0", "vm.ns")])]);
    let decision = decide(&pods, &switch(&[Row::of("u1", "eth0").with("a", "b")]));
    let [change] = &decision.changes[..] else { panic!("{decision:?}") };
    let guards: Vec<Value> = change.guards().iter().map(|guard| serde_json::to_value(guard).expect("JSON")).collect();
    let (interface, port) = (interface_uuid(0), port_uuid(0));
    assert_eq!(
        guards,
        [
            json!({"op": "wait", "timeout": 0, "table": "Interface", "where": [["_uuid", "==", ["uuid", interface]]],
                "columns": ["external_ids"], "until": "==", "rows": [{"external_ids": ["map", [["a", "b"]]]}]}),
            json!({"op": "wait", "timeout": 0, "table": "Port", "where": [["_uuid", "==", ["uuid", port]],
                ["interfaces", "includes", ["set", [["uuid", interface]]]],
                ["external_ids", "includes", ["map", [["contPodUid", "u1"], ["contIface", "eth0"]]]]],
                "columns": ["_uuid"], "until": "!=", "rows": []}),
        ]
    );
}

fn uids() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["u1", "u2", "u3"]).prop_map(str::to_owned)
}

fn interfaces() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["eth0", "pod1"]).prop_map(str::to_owned)
}

fn ports() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["vm.ns", "vm.ns.red.ns.ovn", "other.ns"]).prop_map(str::to_owned)
}

prop_compose! {
    fn row()(
        bridge in prop::sample::select(vec![BR_INT, BR_INT, "br-ex"]),
        ofport in prop::sample::select(vec![None, Some(-1), Some(1)]),
        nic in prop::option::weighted(0.9, (uids(), interfaces())),
        iface_id in prop::option::of(ports()),
        mark in prop::option::of((uids(), ports())),
    ) -> Row {
        let mut external_ids = BTreeMap::from([("theirs".to_owned(), "x".to_owned())]);
        external_ids.extend(iface_id.map(|port| (keys::IFACE_ID.to_owned(), port)));
        external_ids.extend(mark.map(|(uid, port)| (keys::NODE_MARK.to_owned(), format!("{uid}/{port}"))));
        Row { bridge, ofport, nic, external_ids }
    }
}

prop_compose! {
    fn pod()(
        uid in uids(),
        nics in prop::option::weighted(0.9, prop::collection::vec((interfaces(), ports()), 0..3)),
        phase in prop::sample::select(vec!["Pending", "Running", "Running", "Succeeded"]),
    ) -> LauncherPod {
        let nics = nics.map(|nics| nics.iter().map(|(interface, port)| nic(interface, port)).collect::<Vec<_>>());
        launcher(&uid, nics.map(|nics| PodPort::text(&nics)).as_deref(), phase)
    }
}

/// The NIC that a row is for, if its pod is alive and names a port that it may name.
fn allowed<'a>(pods: &'a Pods, row: &Row) -> Option<(&'a str, &'a str)> {
    let (uid, interface) = row.nic.as_ref()?;
    let pod = pods.get(uid).filter(|pod| pod.life != Life::Ended)?;
    let Nics::Listed(vm, nics) = &pod.nics else { return None };
    let nic = nics.iter().find(|nic| nic.interface == *interface)?;
    let is_of_vm = nic.port == vm.port_name() || nic.port.starts_with(&format!("{}.", vm.port_name()));
    is_of_vm.then_some((pod.pod.uid.as_str(), nic.port.as_str()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn every_change_follows_the_rules_and_leaves_no_work_undone(
        rows in prop::collection::vec(row(), 0..6),
        pods in prop::collection::vec(pod(), 0..4),
        complete in any::<bool>(),
    ) {
        let known = if complete { listed(pods) } else {
            let mut known = Pods::default();
            pods.into_iter().for_each(|pod| known.apply(&kubevirt::Change::Launcher(Box::new(pod))));
            known
        };
        let done = after(&known, &rows);
        for (place, (before, after)) in rows.iter().zip(&done).enumerate() {
            let others = |row: &Row| {
                let mut ids = row.external_ids.clone();
                ids.retain(|key, _| key != keys::IFACE_ID && key != keys::NODE_MARK);
                ids
            };
            prop_assert_eq!(others(before), others(after));
            let ours = before.mark().is_some_and(|mark| before.iface_id() == Some(mark.port.as_str()));
            if before.iface_id() != after.iface_id() {
                // Another program's iface-id stays.
                prop_assert!(before.iface_id().is_none() || ours, "{:?} {:?}", before, after);
                if let Some(port) = after.iface_id() {
                    prop_assert_eq!(before.bridge, BR_INT);
                    let (uid, wanted) = allowed(&known, before).expect("a NIC that may have the port");
                    prop_assert_eq!(port, wanted);
                    prop_assert_eq!(after.mark(), Some(Mark { pod_uid: uid.to_owned(), port: port.to_owned() }));
                }
            }
            if before.mark().is_some() && after.mark().is_none() {
                prop_assert!(complete, "removed before all pods were known");
                // The NIC is no more, or another interface has its port.
                let uid = before.mark().map(|mark| mark.pod_uid).unwrap_or_default();
                let is_alive = known.get(&uid).is_some_and(|pod| pod.life != Life::Ended);
                let untold = known.get(&uid).is_some_and(|pod| !matches!(pod.nics, Nics::Listed(..)));
                let superseded = done.iter().enumerate().any(|(other, row)| other != place && row.nic == before.nic
                    && row.bridge == BR_INT && allowed(&known, row).is_some());
                prop_assert!(!is_alive || superseded || !untold, "{:?}", before);
            }
        }
        // No two interfaces of one NIC have its port by this service.
        for (index, one) in done.iter().enumerate() {
            let twin = done[..index].iter().find(|other| {
                other.nic == one.nic && complete && allowed(&known, one).is_some_and(|(uid, port)| {
                    let mark = Some(Mark { pod_uid: uid.to_owned(), port: port.to_owned() });
                    [one, other].into_iter().all(|row| row.iface_id() == Some(port) && row.mark() == mark)
                })
            });
            prop_assert!(twin.is_none(), "{:?} {:?}", one, twin);
        }
        // Each NIC that may have a port, and has an interface on the bridge that is free, has it afterwards.
        for row in &done {
            if let Some((uid, port)) = allowed(&known, row) && row.bridge == BR_INT {
                let of_nic = |other: &&Row| other.nic == row.nic && other.bridge == BR_INT;
                let served = done.iter().filter(of_nic).any(|other| other.iface_id() == Some(port));
                let foreign = done.iter().filter(of_nic).any(|other| other.iface_id().is_some());
                prop_assert!(served || foreign, "{} {} {:?}", uid, port, done);
            }
        }
        let again = decide(&known, &switch(&done));
        prop_assert_eq!(again.changes, Vec::new());
    }
}
