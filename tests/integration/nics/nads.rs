//! The NICs that are ours, and the names of their ports.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind};
use serde_json::json;

use super::{addresses, build, ips, two};
use crate::contract::bound_to;
use crate::support::{Binding, Cluster, Nic, Player, Service, Stage, VmOptions, eventually, holds_for};

#[tokio::test]
async fn every_nic_has_the_row_of_the_contract_and_its_status() {
    let stage = build("nics").start().await;
    let uid = stage.player.create_vm("testvm", two()).await;
    stage.player.start("testvm", "n1").await;
    let ports = stage
        .ports_where("testvm", "both on n1", |ports| {
            ports.len() == 2 && ports.values().all(|port| port.option("requested-chassis") == Some("n1"))
        })
        .await;
    let first = "0a:58:0a:10:00:02 10.16.0.2";
    let expected = bound_to(stage.contract_row("testvm", &uid, &ports["default"].uuid, first), "n1");
    assert_eq!(ports["default"], expected);
    let second = "0a:58:0a:11:00:02 10.17.0.2";
    let mut expected = bound_to(stage.contract_row("testvm", &uid, &ports["second"].uuid, second), "n1");
    expected.name = stage.name_on("testvm", "net1");
    expected.external_ids.insert("ovn-kubevirt.io/network".into(), "second".into());
    expected.switches = vec!["red".into()];
    assert_eq!(ports["second"], expected);

    let status = stage.status_of("testvm", 2).await;
    let expected = json!([
        {"network": "default", "port": stage.name("testvm"), "switch": "ovn-default",
         "mac": "0a:58:0a:10:00:02", "ips": ["10.16.0.2"], "state": "Assigned"},
        {"network": "second", "port": stage.name_on("testvm", "net1"), "switch": "red",
         "mac": "0a:58:0a:11:00:02", "ips": ["10.17.0.2"], "state": "Assigned"},
    ]);
    assert_eq!(status, expected);
    stage.event("testvm", "AddressAssigned", &["10.16.0.2", "network default", "ovn-default"]).await;
    stage.event("testvm", "AddressAssigned", &["10.17.0.2", "network second", "red"]).await;

    let output = Service::command_line(&["ports", "--nb", &stage.northbound.remote()]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = |network: &str, switch: &str| {
        let words = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
        table
            .lines()
            .map(words)
            .any(|words| words[1] == network && words[3] == switch && words.ends_with(&["n1".into(), "bound".into()]))
    };
    assert!(row("default", "ovn-default") && row("second", "red"), "{table}");

    stage.player.delete_vm("testvm").await;
    stage.nics("testvm", &[]).await;
    for network in ["default", "second"] {
        stage.event("testvm", "PortReleased", &[&format!("network {network}")]).await;
    }
}

#[tokio::test]
async fn the_same_nad_twice_has_two_names_which_outlive_restarts_and_another_order() {
    let mut stage = build("twice").start().await;
    let nics = [Nic::nad("red", "net1").mac("02:aa:bb:cc:dd:01"), Nic::pod("default"), Nic::nad("blue", "net1")];
    stage.player.create_vm("testvm", VmOptions::default().nics(nics)).await;
    let made = stage.nics("testvm", &["red", "default", "blue"]).await;
    let name = stage.name_on("testvm", "net1");
    assert_eq!((&made["red"].name, &made["blue"].name), (&name, &format!("{name}.blue")));
    assert_eq!(addresses(&made["red"]), "02:aa:bb:cc:dd:01 10.17.0.2");
    assert_eq!(addresses(&made["blue"]), "0a:58:0a:11:00:03 10.17.0.3");
    stage.restart().await;
    stage
        .player
        .edit_vm("testvm", |vm| {
            let spec = &mut vm["spec"]["template"]["spec"];
            spec["networks"].as_array_mut().expect("networks").reverse();
            spec["domain"]["devices"]["interfaces"].as_array_mut().expect("interfaces").reverse();
        })
        .await;
    // A third one: that the order is another has been seen.
    stage.player.plug("testvm", &Nic::nad("green", "net1")).await;
    let mut later = stage.nics("testvm", &["red", "default", "blue", "green"]).await;
    let green = later.remove("green").expect("the third");
    assert_eq!((green.name.as_str(), later), (format!("{name}.green").as_str(), made));
}

/// KubeVirt 1.6 to 1.9: passt in its core and as a plugin, links that are down, and networks of resource claims.
#[tokio::test]
async fn passt_and_links_that_are_down_are_served_and_a_resource_claim_is_passed_over() {
    let stage = build("newer").start().await;
    let nics = [Nic::pod("default").binding(Binding::Passt), Nic::nad("second", "net1").binding(Binding::PasstPlugin)];
    stage.player.create_vm("testvm", VmOptions::default().nics(nics)).await;
    let claim = json!({"name": "vf", "resourceClaim": {"claimName": "nics", "requestName": "vf"}});
    stage.player.set_state("testvm", "second", "down").await;
    stage
        .player
        .edit_vm("testvm", |vm| {
            let spec = &mut vm["spec"]["template"]["spec"];
            spec["networks"].as_array_mut().expect("networks").push(claim.clone());
            let interfaces = spec["domain"]["devices"]["interfaces"].as_array_mut().expect("interfaces");
            interfaces.push(json!({"name": "vf", "sriov": {}}));
        })
        .await;
    stage.player.start("testvm", "n1").await;
    let on_n1 = stage
        .ports_where("testvm", "both on n1", |ports| {
            ports.len() == 2 && ports.values().all(|port| port.option("requested-chassis") == Some("n1"))
        })
        .await;
    // The link of the running guest comes and goes; its port has no part in it.
    for state in ["up", "down"] {
        stage.player.set_state("testvm", "second", state).await;
    }
    stage.player.migrate("testvm", "n2").await;
    let moved = stage
        .ports_where("testvm", "both on n2", |ports| {
            ports.len() == 2 && ports.values().all(|port| port.option("requested-chassis") == Some("n2"))
        })
        .await;
    for (network, port) in &on_n1 {
        assert_eq!((&port.uuid, &port.addresses), (&moved[network].uuid, &moved[network].addresses));
    }
    let status = stage.status_of("testvm", 2).await;
    assert!(status.as_array().is_some_and(|ports| ports.iter().all(|port| port["problems"].is_null())), "{status}");
    let warnings = stage.namespace.events("testvm").await.into_iter().filter(|(kind, ..)| kind == "Warning");
    assert_eq!(warnings.collect::<Vec<_>>(), []);
    // Only `absent` takes a NIC away.
    stage.player.unplug("testvm", "second").await;
    stage.player.unplugged("testvm", "second").await;
    stage.nics("testvm", &["default"]).await;
}

#[tokio::test]
async fn a_name_that_is_taken_twice_is_an_error_on_the_vm_and_never_a_hijack() {
    let stage = build("taken").start().await;
    let name = stage.name_on("testvm", "net1");
    for taken in [name.clone(), format!("{name}.second")] {
        stage.northbound.add_foreign_port("ovn-default", &taken, &["unknown"]);
    }
    let before: Vec<_> = stage.northbound.ports();
    stage.player.create_vm("testvm", two()).await;
    stage.event("testvm", "PortNameConflict", &["network second", &name]).await;
    let ports = stage.nics("testvm", &["default"]).await;
    let foreign: Vec<_> =
        stage.northbound.ports().into_iter().filter(|port| port.uuid != ports["default"].uuid).collect();
    assert_eq!(foreign, before);
    stage.northbound.delete_port(&format!("{name}.second"));
    let ports = stage.nics("testvm", &["default", "second"]).await;
    assert_eq!(ports["second"].name, format!("{name}.second"));
}

#[tokio::test]
async fn a_nad_of_another_namespace_and_one_in_the_pod_networks_place_are_nads_as_any() {
    let stage = build("elsewhere").start().await;
    let sibling = stage.namespace.sibling("b").await;
    Player::within(&sibling).create_nad("shared", Some("blue")).await;
    let nad = format!("{}/shared", sibling.name);
    let nics = [Nic::default_nad("default", "net1"), Nic::nad("other", &nad)];
    let options = VmOptions::default().nics(nics).annotation(&stage.nad_key("net1", "ip_address"), "10.17.0.77");
    stage.player.create_vm("testvm", options).await;
    let ports = stage.nics("testvm", &["default", "other"]).await;
    let other = format!("{}.shared.{}.ovn", stage.name("testvm"), sibling.name);
    assert_eq!((&ports["default"].name, &ports["other"].name), (&stage.name_on("testvm", "net1"), &other));
    assert_eq!((ips(&ports["default"]), ips(&ports["other"])), (vec!["10.17.0.77"], vec!["10.18.0.2"]));
}

#[tokio::test]
async fn nics_without_a_switch_are_left_alone_in_every_respect() {
    let stage = build("not-ours").start().await;
    let foreign = stage.nad_key("plain", "ip_address");
    let nics =
        [Nic::nad("macvlan", "plain"), Nic::nad("vf", "plain").binding(Binding::Sriov), Nic::nad("none", "gone")];
    let options = VmOptions::default().nics(nics.clone()).annotation(&foreign, "nonsense");
    let unmatched = options.annotation("ovn.kubernetes.io/security_groups", "a");
    stage.player.create_vm("foreign", unmatched).await;
    let mixed =
        VmOptions::default().nics([&nics[..], &[Nic::pod("default")]].concat()).annotation(&foreign, "nonsense");
    let mixed = mixed.annotation(&stage.nad_key("plain", "ingress_rate"), "5");
    stage.player.create_vm("mixed", mixed).await;
    stage.player.start("foreign", "n1").await;
    stage.nics("mixed", &["default"]).await;
    stage.event("mixed", "AddressAssigned", &["10.16.0.2"]).await;
    holds_for("no Event and no status is written for them", Duration::from_millis(300), || async {
        let (foreign, mixed) = (stage.namespace.events("foreign").await, stage.namespace.events("mixed").await);
        let foreign_vm = stage.player.vm("foreign").await.unwrap_or_default();
        let has_status = foreign_vm.to_string().contains("ovn-kubevirt.io/ports");
        if foreign.is_empty() && mixed.len() == 1 && !has_status {
            Ok(())
        } else {
            Err(format!("{foreign:?} {mixed:?}"))
        }
    })
    .await;
    assert_eq!(stage.northbound.ports().len(), 1, "{}", stage.northbound.dump());
}

#[tokio::test]
async fn a_nic_whose_switch_is_named_is_ours_whatever_binds_it() {
    let stage = build("sriov").start().await;
    let nics = [Nic::nad("vf", "net1").binding(Binding::Sriov), Nic::nad("named", "plain")];
    let options = VmOptions::default().nics(nics).annotation("named.ovn.kubernetes.io/logical_switch", "blue");
    stage.player.create_vm("testvm", options).await;
    let ports = stage.nics("testvm", &["vf", "named"]).await;
    assert_eq!((ips(&ports["vf"]), ips(&ports["named"])), (vec!["10.17.0.2"], vec!["10.18.0.2"]));
}

#[tokio::test]
async fn an_edit_or_a_deletion_of_a_nad_is_seen_at_once_and_takes_no_port_away() {
    let stage = build("nad-edits").start().await;
    stage.player.create_vm("late", VmOptions::default().nics([Nic::nad("red", "plain")])).await;
    stage.player.create_vm("later", VmOptions::default().nics([Nic::nad("red", "to-come")])).await;
    stage.player.put_nad_on("plain", Some("red")).await;
    let made = stage.nics("late", &["red"]).await;
    stage.player.create_nad("to-come", Some("blue")).await;
    stage.nics("later", &["red"]).await;
    // The port stays where it is while it runs, and goes where the NAD says when it does not.
    stage.player.start("late", "n1").await;
    stage.player.put_nad_on("plain", Some("blue")).await;
    stage.event("late", "SwitchChangePending", &["network red", "blue"]).await;
    assert_eq!(stage.ports_of("late")["red"].addresses, made["red"].addresses);
    stage.player.stop("late").await;
    let on_blue = |ports: &std::collections::BTreeMap<String, crate::support::Port>| {
        ports.get("red").is_some_and(|port| port.switches == ["blue"] && port.options.is_empty())
    };
    let moved = stage.ports_where("late", "on blue", on_blue).await;
    assert_eq!((&moved["red"].uuid, ips(&moved["red"])), (&made["red"].uuid, vec!["10.18.0.3"]));
    // A NAD that goes, or names no switch any more: its ports stay, and no new one is made.
    stage.player.delete_nad("plain").await;
    stage.player.put_nad_on("to-come", None).await;
    stage.player.create_vm("too-late", VmOptions::default().nics([Nic::nad("red", "to-come")])).await;
    stage.player.create_vm("seen", VmOptions::default()).await;
    stage.nics("seen", &["default"]).await;
    assert_eq!((stage.ports_of("late"), stage.ports_of("too-late").len()), (moved, 0));
    assert_eq!(stage.ports_of("later").len(), 1);
}

#[tokio::test]
async fn a_cluster_without_nads_is_served_and_their_crd_is_noticed_when_it_comes() {
    const CRD: &str = "network-attachment-definitions.k8s.cni.cncf.io";
    let cluster = Cluster::own();
    let prepared = Stage::build("no-multus").cluster(&cluster).prepare().await;
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let crds: Api<DynamicObject> = Api::all_with(prepared.namespace.client.clone(), &ApiResource::from_gvk(&kind));
    let mut crd = crds.get(CRD).await.expect("the CRD of the tests");
    crds.delete(CRD, &DeleteParams::default()).await.expect("it is deleted");
    eventually("the CRD is gone", || async {
        crds.get_opt(CRD).await.expect("an answer").map_or(Ok(()), |crd| Err(crd.data.to_string()))
    })
    .await;
    let stage = prepared.start().await;
    stage.player.create_vm("testvm", VmOptions::default().nic(Nic::nad("red", "net1"))).await;
    let names = || stage.northbound.ports().into_iter().map(|port| port.name).collect::<BTreeSet<_>>();
    let pod_port = stage.name("testvm");
    let has = |expected: BTreeSet<String>| {
        let names = &names;
        eventually("the ports are as expected", move || {
            let (found, expected) = (names(), expected.clone());
            async move { if found == expected { Ok(()) } else { Err(format!("{found:?}")) } }
        })
    };
    has(BTreeSet::from([pod_port.clone()])).await;
    let log = stage.service.log();
    let said = log.lines().filter(|line| line.contains("the API server knows no NetworkAttachmentDefinitions")).count();
    assert_eq!(said, 1, "{log}");

    crd.metadata.resource_version = None;
    crd.metadata.uid = None;
    crds.create(&Default::default(), &crd).await.expect("the CRD is made again");
    eventually("the NAD is made", || async {
        // Until the API server serves the kind.
        let nad = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition");
        let resource = ApiResource::from_gvk_with_plural(&nad, "network-attachment-definitions");
        let namespace = &stage.namespace;
        let nads: Api<DynamicObject> = Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
        let nad = serde_json::from_value(crate::support::objects::nad("net1", Some("ovn-default"))).expect("a NAD");
        nads.create(&Default::default(), &nad).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    has(BTreeSet::from([pod_port.clone(), format!("{pod_port}.net1.{}.ovn", stage.namespace.name)])).await;
    let log = stage.service.log();
    assert!(log.contains("the API server knows NetworkAttachmentDefinitions now"), "{log}");
}
