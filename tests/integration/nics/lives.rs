//! NICs that come, go and change their names, and VMs that end in every way.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;

use super::{addresses, build, ips, two};
use crate::support::{Nic, Player, Port, VmOptions, holds_for};

fn row(port: &Port) -> (&str, &str, &str) {
    (&port.uuid, &port.name, addresses(port))
}

#[tokio::test]
async fn a_running_vm_is_given_a_nic_and_deprived_of_it() {
    let stage = build("hotplug").start().await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.player.start("testvm", "n1").await;
    stage.player.plug("testvm", &Nic::nad("second", "net1")).await;
    let plugged = stage
        .ports_where("testvm", "both on n1", |ports| {
            ports.len() == 2 && ports.values().all(|port| port.option("requested-chassis") == Some("n1"))
        })
        .await;
    assert_eq!(ips(&plugged["second"]), ["10.17.0.2"]);
    // Its interface is to be unplugged: the pod may have it until the VMI does not name it any more.
    stage.player.unplug("testvm", "second").await;
    stage.player.create_vm("rival", VmOptions::default().nics([Nic::nad("second", "net1")])).await;
    assert_eq!(ips(&stage.nics("rival", &["second"]).await["second"]), ["10.17.0.3"]);
    assert_eq!(stage.ports_of("testvm"), plugged);
    // Also for a migration that comes in between: the target's pod lacks the NIC.
    stage.player.migrate("testvm", "n2").await;
    let moved = stage
        .ports_where("testvm", "one on n2, the other nowhere", |ports| {
            let chassis = |network: &str| ports[network].option("requested-chassis");
            chassis("default") == Some("n2") && chassis("second").is_none()
        })
        .await;
    assert_eq!(row(&moved["second"]), row(&plugged["second"]));
    stage.player.unplugged("testvm", "second").await;
    let left = stage.nics("testvm", &["default"]).await;
    assert_eq!(row(&left["default"]), row(&plugged["default"]));
    stage.event("testvm", "PortReleased", &["network second", "10.17.0.2", &stage.name_on("testvm", "net1")]).await;
    // Now it is another's to have.
    let request = VmOptions::default()
        .nics([Nic::nad("second", "net1")])
        .annotation("second.ovn.kubernetes.io/ip_address", "10.17.0.2");
    stage.player.create_vm("heir", request).await;
    assert_eq!(ips(&stage.nics("heir", &["second"]).await["second"]), ["10.17.0.2"]);
}

#[tokio::test]
async fn a_nic_that_is_unplugged_in_the_template_only_goes_with_the_run() {
    let stage = build("template-only").start().await;
    stage.player.create_vm("testvm", two()).await;
    let run = stage.player.start("testvm", "n1").await;
    let made = stage
        .ports_where("testvm", "both on n1", |ports| {
            ports.len() == 2 && ports.values().all(|port| port.option("requested-chassis") == Some("n1"))
        })
        .await;
    stage
        .player
        .edit_vm("testvm", |vm| {
            let devices = &mut vm["spec"]["template"]["spec"]["domain"]["devices"];
            devices["interfaces"][1]["state"] = "absent".into();
        })
        .await;
    stage.player.delete_vmi_start("testvm").await;
    stage.player.remove_vmi_finalizer("testvm").await;
    // The VMI is gone, but its launcher may still run.
    holds_for("the old launcher's port stays", Duration::from_millis(300), || async {
        let ports = stage.ports_of("testvm");
        let same = ports.len() == 2 && ports.iter().all(|(network, port)| row(port) == row(&made[network]));
        if same { Ok(()) } else { Err(format!("{ports:#?}")) }
    })
    .await;
    stage.player.pod_phase(&run.pod, "Succeeded").await;
    let left = stage.nics("testvm", &["default"]).await;
    assert_eq!(row(&left["default"]), row(&made["default"]));
}

#[tokio::test]
async fn a_network_that_is_renamed_keeps_its_row_where_there_is_no_doubt_which_it_was() {
    let stage = build("renamed").start().await;
    let rename = async |vm: &str, names: &'static [(&'static str, &'static str)]| {
        let change = |vm: &mut serde_json::Value| {
            let spec = &mut vm["spec"]["template"]["spec"];
            for list in ["/networks", "/domain/devices/interfaces"] {
                for element in spec.pointer_mut(list).and_then(|list| list.as_array_mut()).into_iter().flatten() {
                    let new = names.iter().find(|(old, _)| element["name"] == *old);
                    new.into_iter().for_each(|(_, new)| element["name"] = (*new).into());
                }
            }
        };
        stage.player.edit_vm(vm, change).await;
    };
    stage.player.create_vm("testvm", two()).await;
    let made = stage.nics("testvm", &["default", "second"]).await;
    rename("testvm", &[("default", "mgmt"), ("second", "data")]).await;
    let renamed = stage.nics("testvm", &["mgmt", "data"]).await;
    assert_eq!(row(&renamed["mgmt"]), row(&made["default"]));
    assert_eq!(row(&renamed["data"]), row(&made["second"]));

    // Two on one NAD cannot be told apart, and neither gets an address that may have been the other's.
    let nics = [Nic::nad("red", "net1"), Nic::nad("blue", "net1"), Nic::pod("default")];
    stage.player.create_vm("twins", VmOptions::default().nics(nics)).await;
    let made = stage.nics("twins", &["red", "blue", "default"]).await;
    rename("twins", &[("red", "one"), ("blue", "two")]).await;
    let renamed = stage.nics("twins", &["one", "two", "default"]).await;
    assert_eq!(renamed["default"], made["default"]);
    for new in ["one", "two"] {
        assert!(made.values().all(|old| old.addresses != renamed[new].addresses), "{renamed:#?}");
    }
}

#[tokio::test]
async fn a_nic_that_changes_from_a_nad_to_the_pod_network_leaves_the_nads_switch() {
    let stage = build("changes").start().await;
    stage.player.create_vm("testvm", VmOptions::default().nics([Nic::nad("default", "net1")])).await;
    let made = stage.nics("testvm", &["default"]).await;
    assert_eq!(made["default"].switches, ["red"]);
    stage
        .player
        .edit_vm("testvm", |vm| {
            vm["spec"]["template"]["spec"]["networks"] = serde_json::json!([{"name": "default", "pod": {}}]);
        })
        .await;
    let changed = stage
        .ports_where("testvm", "on the pod network", |ports| {
            ports.get("default").is_some_and(|port| port.switches == ["ovn-default"])
        })
        .await;
    assert_eq!((&changed["default"].uuid, ips(&changed["default"])), (&made["default"].uuid, vec!["10.16.0.2"]));
}

#[tokio::test]
async fn a_nic_that_comes_from_the_pod_network_goes_back_to_it_and_leaves_for_a_network_of_others() {
    let stage = build("back").start().await;
    stage.player.create_vm("testvm", VmOptions::default().nics([Nic::pod("default")])).await;
    let made = stage.nics("testvm", &["default"]).await;
    let on = async |networks: serde_json::Value| {
        stage.player.edit_vm("testvm", |vm| vm["spec"]["template"]["spec"]["networks"] = networks.clone()).await;
    };
    let is_on = async |switch: &str| {
        stage
            .ports_where("testvm", switch, |ports| ports.get("default").is_some_and(|port| port.switches == [switch]))
            .await
    };
    let nad = |name: &str| serde_json::json!([{"name": "default", "multus": {"networkName": name}}]);
    for _ in 0..2 {
        on(nad("net1")).await;
        assert_eq!(ips(&is_on("red").await["default"]), ["10.17.0.2"]);
        on(serde_json::json!([{"name": "default", "pod": {}}])).await;
        let back = is_on("ovn-default").await;
        assert_eq!((&back["default"].uuid, ips(&back["default"])), (&made["default"].uuid, ips(&made["default"])));
    }
    on(nad("net1")).await;
    is_on("red").await;
    on(nad("plain")).await;
    stage.nics("testvm", &[]).await;
}

#[tokio::test]
async fn a_bare_vmi_and_one_that_outlives_its_vm_keep_every_nic() {
    let stage = build("bare").start().await;
    stage.player.create_bare_vmi("bare", two()).await;
    stage.player.launch("bare", "n1").await;
    let bare = stage.nics("bare", &["default", "second"]).await;
    assert_eq!(bare["second"].name, stage.name_on("bare", "net1"));

    stage.player.create_vm("orphaned", two()).await;
    stage.player.start("orphaned", "n1").await;
    let made = stage.nics("orphaned", &["default", "second"]).await;
    stage.player.delete_vm_start("orphaned").await;
    stage.player.remove_vm_finalizer("orphaned").await;
    stage.player.migrate("orphaned", "n2").await;
    let moved = stage
        .ports_where("orphaned", "on n2", |ports| {
            ports.values().all(|port| port.option("requested-chassis") == Some("n2"))
        })
        .await;
    for network in ["default", "second"] {
        assert_eq!(row(&moved[network]), row(&made[network]));
    }
    for vm in ["bare", "orphaned"] {
        stage.player.stop(vm).await;
        stage.nics(vm, &[]).await;
    }
}

#[tokio::test]
async fn a_vm_that_is_recreated_while_its_old_launcher_runs_keeps_every_lease() {
    let stage = build("anew").start().await;
    stage.player.create_vm("testvm", two()).await;
    let run = stage.player.start("testvm", "n1").await;
    let made = stage.nics("testvm", &["default", "second"]).await;
    stage.player.delete_vm_start("testvm").await;
    stage.player.delete_vmi_start("testvm").await;
    stage.player.remove_vmi_finalizer("testvm").await;
    stage.player.remove_vm_finalizer("testvm").await;
    let request = two().annotation("second.ovn.kubernetes.io/ip_address", "10.17.0.99");
    let uid = stage.player.create_vm("testvm", request).await;
    let uid_key = "ovn-kubevirt.io/vm-uid";
    let next = "ovn-kubevirt.io/next-addresses";
    let taken_over = stage
        .ports_where("testvm", "are the new VM's", |ports| {
            ports.values().all(|port| port.external_id(uid_key) == Some(&uid))
                && ports["second"].external_id(next).is_some()
        })
        .await;
    for network in ["default", "second"] {
        assert_eq!(row(&taken_over[network]), row(&made[network]));
    }
    stage.player.pod_phase(&run.pod, "Succeeded").await;
    stage.player.delete_pod(&run.pod).await;
    let settled = stage
        .ports_where("testvm", "has the address that it requests", |ports| {
            ports.get("second").is_some_and(|port| ips(port) == ["10.17.0.99"])
        })
        .await;
    assert_eq!(row(&settled["default"]), row(&made["default"]));
}

#[tokio::test]
async fn a_namespace_that_is_deleted_takes_every_port_along() {
    let stage = build("doomed").start().await;
    let doomed = stage.namespace.sibling("b").await;
    let player = Player::within(&doomed);
    player.create_nad("net1", Some("red")).await;
    for vm in ["one", "two"] {
        player.apply_vm(vm, two()).await;
    }
    stage.player.create_vm("stays", two()).await;
    let stays = stage.nics("stays", &["default", "second"]).await;
    let count = |expected: usize| {
        let stage = &stage;
        crate::support::eventually("the ports are so many", move || async move {
            let ports = stage.northbound.ports();
            if ports.len() == expected { Ok(()) } else { Err(format!("{ports:#?}")) }
        })
    };
    count(6).await;
    let namespaces: Api<Namespace> = Api::all(stage.namespace.client.clone());
    namespaces.delete(&doomed.name, &DeleteParams::default()).await.expect("the namespace is deleted");
    count(2).await;
    assert_eq!(stage.ports_of("stays"), stays);
}
