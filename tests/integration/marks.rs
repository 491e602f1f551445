//! Rows with marks, names or types that a person changed, and namespaces that pass to another instance.

use crate::support::{Port, Stage, VmOptions, eventually};

const INSTANCE: &str = "ovn-kubevirt.io/instance";

/// A VM that runs on `n1`, and its port, whose address a new VM would not get.
async fn running(name: &str) -> (Stage, Port) {
    let stage = Stage::build(name).start().await;
    stage.player.create_vm("first", VmOptions::default()).await;
    stage.port("first").await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.port("testvm").await;
    stage.player.start("testvm", "n1").await;
    stage.player.delete_vm("first").await;
    stage.port_gone("first").await;
    let bound = |port: &Port| port.option("requested-chassis") == Some("n1");
    let port = stage.port_where("testvm", "is on n1", bound).await;
    (stage, port)
}

async fn repaired(stage: &Stage, port: &Port) {
    eventually("the row is as it was, and the only one", || async {
        let ports = stage.northbound.ports();
        if ports == [port.clone()] { Ok(()) } else { Err(format!("{ports:#?}")) }
    })
    .await;
}

#[tokio::test]
async fn marks_a_name_and_a_type_that_a_person_changed_are_put_back_and_no_second_port_is_made() {
    let (mut stage, port) = running("marks").await;
    let uuid = port.uuid.as_str();
    let edits: [&[&str]; 6] = [
        &["clear", "Logical_Switch_Port", uuid, "external_ids"],
        &["remove", "Logical_Switch_Port", uuid, "external_ids", "vendor"],
        &["set", "Logical_Switch_Port", uuid, "external_ids:ovn-kubevirt.io/vm=nobody/ghost"],
        &["set", "Logical_Switch_Port", uuid, "name=renamed"],
        &["set", "Logical_Switch_Port", uuid, "type=virtual"],
        &["set", "Logical_Switch_Port", uuid, "type=router"],
    ];
    for edit in edits {
        stage.northbound.nbctl(edit);
        repaired(&stage, &port).await;
    }
    stage.service.kill9();
    for edit in [edits[3], edits[5], edits[0]] {
        stage.northbound.nbctl(edit);
    }
    stage.restart().await;
    repaired(&stage, &port).await;
    // With the VM gone, too, its row does not stay behind.
    stage.service.kill9();
    stage.northbound.nbctl(edits[0]);
    stage.player.delete_vm("testvm").await;
    stage.restart().await;
    stage.port_gone("testvm").await;
}

#[tokio::test]
async fn a_row_that_connects_a_router_stays_and_is_in_the_status() {
    let (stage, port) = running("router-type").await;
    let router = stage.northbound.add_router_port("ovn-default", &["10.16.9.1/16"]);
    let names = stage.northbound.rows("Logical_Router_Port");
    let name = names[0]["name"].as_str().expect("a name").to_owned();
    drop(router);
    let (uuid, peer) = (port.uuid.as_str(), format!("options:router-port={name}"));
    stage.northbound.nbctl(&["set", "Logical_Switch_Port", uuid, "type=router", &peer]);
    stage.event("testvm", "PortTypeConflict", &["router", "lsp-set-type"]).await;
    assert_eq!(stage.northbound.port(&port.name).map(|port| port.r#type), Some("router".to_owned()));
}

#[tokio::test]
async fn a_namespace_that_loses_its_label_keeps_its_ports_which_follow_their_vms() {
    let (stage, port) = running("unlabelled").await;
    stage.namespace.relabel("no-instance").await;
    stage.event("testvm", "NamespaceNotSelected", &[&stage.namespace.name, "--namespace-selector"]).await;
    let (_, metrics) = stage.service.http_get("/metrics").await;
    assert!(metrics.contains("problems{reason=\"NamespaceNotSelected\"} 1"), "{metrics}");
    stage.player.restart("testvm", "n2").await;
    let moved = |port: &Port| port.option("requested-chassis") == Some("n2");
    let now = stage.port_where("testvm", "is on n2", moved).await;
    assert_eq!((&now.uuid, &now.addresses), (&port.uuid, &port.addresses));
    stage.player.delete_vm("testvm").await;
    stage.port_gone("testvm").await;
}

#[tokio::test]
async fn a_namespace_that_passes_from_one_instance_to_another_hands_its_rows_over() {
    for second_is_quicker in [false, true] {
        let suffix = if second_is_quicker { "quick" } else { "slow" };
        let prepared = Stage::build(&format!("handover-{suffix}")).prepare().await;
        let (northbound, namespace, player) = (&prepared.northbound, &prepared.namespace, &prepared.player);
        let (first_label, second_label) = (format!("one-{suffix}"), format!("two-{suffix}"));
        let service = |instance: &str, label: &str| {
            let setup = prepared.setup().flags(["--instance", instance]);
            setup.selector(&format!("{}={label}", namespace.label_key()))
        };
        namespace.relabel(&first_label).await;
        let (first, second) = (service("one", &first_label).start().await, service("two", &second_label).start().await);
        player.create_vm("testvm", VmOptions::default()).await;
        player.start("testvm", "n1").await;
        let name = prepared.name("testvm");
        let port_of = |instance: &'static str| {
            let name = &name;
            async move {
                eventually(&format!("the port is of {instance}"), || async {
                    let port = northbound.port(name).filter(|port| port.external_id(INSTANCE) == Some(instance));
                    let bound = port.filter(|port| port.option("requested-chassis").is_some());
                    bound.ok_or_else(|| northbound.dump())
                })
                .await
            }
        };
        let before = port_of("one").await;
        if second_is_quicker {
            first.freeze();
        } else {
            second.freeze();
        }
        namespace.relabel(&second_label).await;
        // The one that is awake has seen it when it says so.
        eventually("the VM has an Event of the other instance", || async {
            let reasons: Vec<String> =
                namespace.events("testvm").await.into_iter().map(|(_, reason, _)| reason).collect();
            let wanted = if second_is_quicker { "ServedElsewhere" } else { "NamespaceNotSelected" };
            if reasons.iter().any(|reason| reason == wanted) { Ok(()) } else { Err(format!("{reasons:?}")) }
        })
        .await;
        assert_eq!(northbound.ports().len(), 1, "{}", northbound.dump());
        first.thaw();
        second.thaw();
        let after = port_of("two").await;
        assert_eq!((&after.uuid, &after.addresses, &after.options), (&before.uuid, &before.addresses, &before.options));
        assert_eq!(after.external_id("ovn-kubevirt.io/handover"), None);
        player.restart("testvm", "n2").await;
        eventually("the port follows its VM", || async {
            let port = northbound.port(&name);
            let there = port.as_ref().and_then(|port| port.option("requested-chassis")) == Some("n2");
            if there && northbound.ports().len() == 1 { Ok(()) } else { Err(northbound.dump()) }
        })
        .await;
        player.delete_vm("testvm").await;
        eventually("no port is left", || async {
            if northbound.ports().is_empty() { Ok(()) } else { Err(northbound.dump()) }
        })
        .await;
        assert!(first.is_running() && second.is_running());
    }
}
