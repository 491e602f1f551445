//! The seed's story: a VM's address over its whole life.

use std::time::Duration;

use crate::contract::bound_to;
use crate::support::{Player, Stage, VmOptions, eventually, holds_for};

const FIRST: &str = "0a:58:0a:10:00:02 10.16.0.2";
const FIFTEEN: &str = "0a:58:0a:10:00:0f 10.16.0.15";
const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";

#[tokio::test]
async fn the_first_vm_has_its_port_before_any_pod_with_the_lowest_free_address() {
    let stage = Stage::build("first").start().await;
    let uid = stage.player.create_vm("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    assert_eq!(port, stage.contract_row("testvm", &uid, &port.uuid, FIRST));
    stage.event("testvm", "AddressAssigned", &["10.16.0.2", "0a:58:0a:10:00:02", "ovn-default"]).await;
    let status = stage.status("testvm", &[]).await;
    let expected = serde_json::json!({"instance": "default", "uid": uid, "ports": [{"network": "default",
        "port": stage.name("testvm"), "switch": "ovn-default", "mac": "0a:58:0a:10:00:02", "ips": ["10.16.0.2"],
        "state": "Assigned"}]});
    assert_eq!(status, expected);
}

#[tokio::test]
async fn the_second_vm_has_just_the_address_that_it_asks_for() {
    let stage = Stage::build("second").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let first = stage.port("testvm").await;
    let sibling = stage.namespace.sibling("b").await;
    let options = VmOptions::default().annotation(IP_ADDRESS, "10.16.0.15");
    let uid = Player::within(&sibling).create_vm("testvm", options).await;
    let name = format!("testvm.{}", sibling.name);
    let port = stage.port_named(&name).await;
    let mut expected = stage.contract_row("testvm", &uid, &port.uuid, FIFTEEN);
    expected.name = name;
    expected.external_ids.insert("ovn-kubevirt.io/vm".into(), format!("{}/testvm", sibling.name));
    assert_eq!(port, expected);
    assert_eq!(stage.northbound.port(&first.name), Some(first));
}

#[tokio::test]
async fn a_new_address_on_a_running_vm_is_reserved_at_once_and_in_force_at_the_next_start() {
    let stage = Stage::build("reserved").start().await;
    let uid = stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.player.start("testvm", "n1").await;
    let port = stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    let running = bound_to(stage.contract_row("testvm", &uid, &port.uuid, FIRST), "n1");
    assert_eq!(port, running);

    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.15")).await;
    let next = "0a:58:0a:10:00:02 10.16.0.15";
    let reserved = stage
        .port_where("testvm", "has the next address", |port| {
            port.external_id("ovn-kubevirt.io/next-addresses").is_some()
        })
        .await;
    let mut expected = running.clone();
    expected.external_ids.insert("ovn-kubevirt.io/next-addresses".into(), next.into());
    assert_eq!(reserved, expected);
    stage.event("testvm", "AddressReserved", &["10.16.0.15", "next start", "10.16.0.2"]).await;

    // Reserved: no other VM gets it.
    let request = VmOptions::default().annotation(IP_ADDRESS, "10.16.0.15");
    stage.player.create_vm("rival", request).await;
    stage.event("rival", "AddressConflict", &["10.16.0.15", &format!("{}/testvm", stage.namespace.name)]).await;
    assert_eq!(stage.northbound.port(&stage.name("rival")), None);

    stage.player.restart("testvm", "n1").await;
    let restarted = stage
        .port_where("testvm", "has the new address, on n1", |port| {
            port.addresses.contains(next) && port.option("requested-chassis") == Some("n1")
        })
        .await;
    assert_eq!(restarted, bound_to(stage.contract_row("testvm", &uid, &port.uuid, next), "n1"));
    // And the old address is free: a VM that requests it gets it at once, others when it has rested.
    stage.player.create_vm("third", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.2")).await;
    assert!(stage.port("third").await.addresses.iter().all(|text| text.ends_with(" 10.16.0.2")));
}

#[tokio::test]
async fn restart_stop_and_start_and_a_replaced_launcher_keep_the_row() {
    let stage = Stage::build("keeps").start().await;
    let uid = stage.player.create_vm("testvm", VmOptions::default()).await;
    let made = stage.port("testvm").await;
    let on = |node: &str| bound_to(stage.contract_row("testvm", &uid, &made.uuid, FIRST), node);
    let player = &stage.player;
    let placed = |node: &'static str| {
        stage.port_where("testvm", node, move |port| port.option("requested-chassis") == Some(node))
    };

    player.start("testvm", "n1").await;
    assert_eq!(placed("n1").await, on("n1"));
    player.restart("testvm", "n2").await;
    assert_eq!(placed("n2").await, on("n2"));

    player.stop("testvm").await;
    let stopped = stage.port_where("testvm", "is not bound", |port| port.options.is_empty()).await;
    assert_eq!(stopped, made);
    player.start("testvm", "n3").await;
    assert_eq!(placed("n3").await, on("n3"));

    // The launcher dies and another takes its place on another node, within the same VMI.
    for pod in player.launchers("testvm").await {
        player.pod_phase(&pod, "Failed").await;
        player.delete_pod(&pod).await;
    }
    player.launch("testvm", "n4").await;
    assert_eq!(placed("n4").await, on("n4"));
}

#[tokio::test]
async fn the_row_goes_once_the_vm_the_vmi_and_the_launcher_are_gone_and_not_before() {
    let stage = Stage::build("gone").start().await;
    let player = &stage.player;
    player.create_vm("testvm", VmOptions::default()).await;
    let run = player.start("testvm", "n1").await;
    let port = stage.port_where("testvm", "is bound", |port| !port.options.is_empty()).await;
    let stays = |what: &'static str| {
        let (stage, port) = (&stage, &port);
        holds_for(what, Duration::from_millis(400), move || async move {
            let present = stage.northbound.port(&port.name);
            match present {
                Some(present) if present.addresses == port.addresses && present.uuid == port.uuid => Ok(()),
                other => Err(format!("{other:#?}")),
            }
        })
    };
    player.delete_vm_start("testvm").await;
    stays("the VM is being deleted").await;
    player.delete_vmi_start("testvm").await;
    stays("the VMI is being deleted").await;
    player.pod_phase(&run.pod, "Succeeded").await;
    stays("the launcher has ended").await;
    player.remove_vmi_finalizer("testvm").await;
    player.remove_vm_finalizer("testvm").await;
    eventually("VM and VMI are gone", || async {
        match (player.vm("testvm").await, player.vmi("testvm").await) {
            (None, None) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    // Only if the API server's garbage collector has not taken the pod already.
    player.delete_pod(&run.pod).await;
    stage.port_gone("testvm").await;
    stage.event("testvm", "PortReleased", &["10.16.0.2"]).await;
}

#[tokio::test]
async fn a_launcher_that_is_left_alone_holds_the_port() {
    let stage = Stage::build("orphan").start().await;
    let player = &stage.player;
    player.create_vm("testvm", VmOptions::default()).await;
    player.create_vmi("testvm").await;
    let pod = player.create_launcher("testvm").await;
    player.bind_pod(&pod, "n1").await;
    let port = stage.port_where("testvm", "is bound", |port| !port.options.is_empty()).await;
    // Only the kubelet of its node completes the deletion of a running pod: here the node is lost.
    player.delete_vm_start("testvm").await;
    player.delete_vmi_start("testvm").await;
    player.remove_vmi_finalizer("testvm").await;
    player.remove_vm_finalizer("testvm").await;
    eventually("VM and VMI are gone", || async {
        match (player.vm("testvm").await, player.vmi("testvm").await) {
            (None, None) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    holds_for("the pod is still there", Duration::from_millis(500), || async {
        stage.northbound.port(&port.name).filter(|present| *present == port).ok_or("the row changed")
    })
    .await;
    player.delete_pod(&pod).await;
    stage.port_gone("testvm").await;
}

#[tokio::test]
async fn a_migrated_vm_is_bound_where_it_runs() {
    let stage = Stage::build("migrated").start().await;
    let uid = stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.player.start("testvm", "n1").await;
    let port = stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    stage.player.migrate("testvm", "n2").await;
    let moved = stage.port_where("testvm", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!(moved, bound_to(stage.contract_row("testvm", &uid, &port.uuid, FIRST), "n2"));
}

#[tokio::test]
async fn a_service_that_is_killed_at_any_point_of_the_story_continues_from_there() {
    let mut stage = Stage::build("killed").start().await;
    let player = stage.player.clone();
    let uid = player.create_vm("testvm", VmOptions::default()).await;
    // Killed with a VM just applied: whether the port was made before or after, it is made once.
    stage.restart().await;
    let made = stage.port("testvm").await;
    assert_eq!(made, stage.contract_row("testvm", &uid, &made.uuid, FIRST));

    player.create_vmi("testvm").await;
    stage.restart().await;
    let pod = player.create_launcher("testvm").await;
    stage.service.kill9();
    player.bind_pod(&pod, "n1").await;
    stage.restart().await;
    let on_n1 = bound_to(made.clone(), "n1");
    let present = stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis").is_some()).await;
    assert_eq!(present, on_n1);
    player.pod_phase(&pod, "Running").await;
    player.vmi_scheduled("testvm", "n1").await;
    stage.restart().await;
    player.vmi_running("testvm", "n1").await;

    // The edit, the restart and the move all happen while the service is down.
    stage.service.kill9();
    player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.15")).await;
    player.restart("testvm", "n2").await;
    stage.restart().await;
    let next = "0a:58:0a:10:00:02 10.16.0.15";
    let present = stage.port_where("testvm", "has moved", |port| port.addresses.contains(next)).await;
    assert_eq!(present, bound_to(stage.contract_row("testvm", &uid, &made.uuid, next), "n2"));

    // Half of the deletion is seen, half is not.
    player.delete_vm_start("testvm").await;
    player.delete_vmi_start("testvm").await;
    stage.restart().await;
    assert_eq!(stage.port("testvm").await.uuid, made.uuid);
    stage.service.kill9();
    player.stop("testvm").await;
    player.remove_vm_finalizer("testvm").await;
    stage.restart().await;
    stage.port_gone("testvm").await;
    assert_eq!(stage.northbound.ports(), []);
}

#[tokio::test]
async fn a_restart_of_the_service_repeats_no_status_and_no_event() {
    let mut stage = Stage::build("quiet").start().await;
    stage.player.create_vm("good", VmOptions::default()).await;
    stage.player.create_vm("bad", VmOptions::default().annotation(IP_ADDRESS, "10.17.0.1")).await;
    stage.event("good", "AddressAssigned", &[]).await;
    stage.event("bad", "InvalidRequest", &["10.17.0.1"]).await;
    stage.port("good").await;
    let before = stage.northbound.dump();
    for vm in ["good", "bad"] {
        stage.status(vm, &[]).await;
    }
    let events = [stage.namespace.events("good").await, stage.namespace.events("bad").await];
    stage.restart().await;
    // A VM that is created now has its Event after the others have been decided.
    stage.player.create_vm("after", VmOptions::default()).await;
    stage.event("after", "AddressAssigned", &[]).await;
    assert_eq!([stage.namespace.events("good").await, stage.namespace.events("bad").await], events);
    stage.player.delete_vm("after").await;
    stage.port_gone("after").await;
    assert_eq!(stage.northbound.dump(), before);
}

#[tokio::test]
async fn a_vm_recreated_under_its_name_has_a_status_of_its_own() {
    let stage = Stage::build("anew").start().await;
    let has_status = |uid: String| {
        let stage = &stage;
        async move {
            eventually("the VM has its status", || async {
                let vm = stage.player.vm("testvm").await.unwrap_or_default();
                let annotation = &vm["metadata"]["annotations"]["ovn-kubevirt.io/ports"];
                if vm["metadata"]["uid"] == uid && annotation.is_string() { Ok(()) } else { Err(vm.to_string()) }
            })
            .await;
        }
    };
    let first = stage.player.create_vm("testvm", VmOptions::default()).await;
    has_status(first.clone()).await;
    // The service is frozen while the first VM is deleted and the second is created: the lease is still there, and is kept.
    let made = stage.port("testvm").await;
    stage.service.freeze();
    stage.player.delete_vm("testvm").await;
    let second = stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.service.thaw();
    has_status(second.clone()).await;
    let uid = "ovn-kubevirt.io/vm-uid";
    let port = stage.port_where("testvm", "is the new VM's", |port| port.external_id(uid) == Some(&second)).await;
    assert_eq!(port.addresses, made.addresses);
    // A removed annotation is restored.
    stage
        .player
        .edit_vm("testvm", |vm| {
            vm["metadata"]["annotations"].as_object_mut().expect("annotations").remove("ovn-kubevirt.io/ports");
        })
        .await;
    has_status(second).await;
}

#[tokio::test]
async fn a_bare_vmi_counts_as_its_own_vm() {
    let stage = Stage::build("bare").start().await;
    let uid = stage.player.create_bare_vmi("testvm", VmOptions::default()).await;
    let port = stage.port("testvm").await;
    assert_eq!(port, stage.contract_row("testvm", &uid, &port.uuid, FIRST));
    stage.event("testvm", "AddressAssigned", &["10.16.0.2"]).await;
    stage.player.launch("testvm", "n1").await;
    stage.port_where("testvm", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    stage.player.stop("testvm").await;
    stage.port_gone("testvm").await;
}
