//! A running VM changes a network, as KubeVirt 1.9 does it: the new network stands in the instance's spec at once, the
//! guest moves by a live migration seconds later, and by the next one where that fails.

use std::time::Duration;

use crate::support::{Migration, Nic, Stage, VmOptions, eventually, holds_for};

/// The VM's ports on NADs: network, NAD and rest of the name, addresses, requested chassis.
fn found(stage: &Stage) -> Vec<String> {
    let namespace = &stage.namespace.name;
    let vm = format!("{namespace}/testvm");
    let of_vm = stage.northbound.ports().into_iter();
    let of_vm = of_vm.filter(|port| port.external_id("ovn-kubevirt.io/vm") == Some(&vm));
    let shown = of_vm.filter_map(|port| {
        let network = port.external_id("ovn-kubevirt.io/network").filter(|network| *network != "default")?;
        let name = port.name.strip_prefix(&format!("testvm.{namespace}.")).unwrap_or(&port.name);
        let name = name.replace(&format!(".{namespace}.ovn"), "");
        let chassis = port.option("requested-chassis").unwrap_or("-");
        Some(format!("{network}: {name} {} {chassis}", port.addresses.iter().cloned().collect::<Vec<_>>().join("|")))
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort();
    shown
}

async fn are(stage: &Stage, expected: &[(&str, &str)]) {
    let expected: Vec<String> = expected.iter().map(|(port, chassis)| format!("{port} {chassis}")).collect();
    eventually(&format!("the ports are {expected:?}"), || async {
        let found = found(stage);
        if found == expected { Ok(()) } else { Err(format!("{found:#?}\n{}", stage.service.log())) }
    })
    .await;
}

/// They are so, and stay so.
async fn stay(stage: &Stage, expected: &[(&str, &str)]) {
    are(stage, expected).await;
    let before = found(stage);
    holds_for("the ports stay", Duration::from_millis(300), || async {
        let now = found(stage);
        if now == before { Ok(()) } else { Err(format!("{before:?} became {now:?}")) }
    })
    .await;
}

const OLD: &str = "data: net1 0a:58:0a:11:00:03 10.17.0.3";
const NEW: &str = "data: net2 0a:58:0a:11:00:03 10.18.0.3";

/// The VM runs on n1 with these NICs. Another VM has the lowest address of each network.
async fn running(name: &str, nics: &[(&str, &str)]) -> Stage {
    let builder = super::build(name).switch_with("grey", &[("subnet", "10.19.0.0/24"), ("exclude_ips", "10.19.0.1")]);
    let stage = builder.nad("net3", "grey").northd().start().await;
    let one_each = ["net1", "net2", "net3"].map(|nad| Nic::nad(nad, nad));
    stage.player.create_vm("first", VmOptions::default().nics(one_each)).await;
    stage.nics("first", &["net1", "net2", "net3"]).await;
    let nics = nics.iter().map(|(name, nad)| Nic::nad(name, nad));
    let nics: Vec<Nic> = [Nic::pod("default")].into_iter().chain(nics).collect();
    stage.player.create_vm("testvm", VmOptions::default().nics(nics)).await;
    stage.player.start("testvm", "n1").await;
    stage
}

/// A migration whose target's pod is on its node.
async fn under_way(stage: &Stage, node: &str) -> Migration {
    let migration = stage.player.start_migration("testvm", node).await;
    stage.player.bind_target(&migration).await;
    migration
}

async fn arrive(stage: &Stage, migration: &Migration) {
    stage.player.target_running(migration).await;
    stage.player.migration_scheduled(migration).await;
    stage.player.hand_off(migration).await;
    stage.player.target_ready(migration).await;
    stage.player.migration_running(migration).await;
    stage.player.domain_ready(migration).await;
}

#[tokio::test]
async fn a_running_vm_changes_its_network_and_each_port_is_where_its_pod_is() {
    let mut stage = running("net-change", &[("data", "net1")]).await;
    are(&stage, &[(OLD, "n1")]).await;
    stage.player.edit_networks("testvm", &[("data", "net2")]).await;
    stay(&stage, &[(OLD, "n1")]).await;
    stage.player.bring_networks("testvm").await;
    stay(&stage, &[(OLD, "n1"), (NEW, "-")]).await;
    // The service may be restarted at any moment.
    stage.restart().await;
    stay(&stage, &[(OLD, "n1"), (NEW, "-")]).await;
    stage.status("testvm", &["\"coming\":true", "10.18.0.3", "10.17.0.3"]).await;
    let migration = under_way(&stage, "n2").await;
    are(&stage, &[(OLD, "n1"), (NEW, "n2")]).await;
    stage.restart().await;
    stay(&stage, &[(OLD, "n1"), (NEW, "n2")]).await;
    stage.service.kill9();
    arrive(&stage, &migration).await;
    stage.restart().await;
    are(&stage, &[(NEW, "n2")]).await;
    stage.player.succeed(&migration).await;
    stay(&stage, &[(NEW, "n2")]).await;
    stage.event("testvm", "PortReleased", &["network data", "10.17.0.3", "the NIC is on another network"]).await;
    stage.status_where("testvm", "one port", |text, _| !text.contains("coming") && !text.contains("10.17.0.3")).await;
    stage.restart().await;
    stay(&stage, &[(NEW, "n2")]).await;
    stage.player.restart("testvm", "n3").await;
    stay(&stage, &[(NEW, "n3")]).await;
}

#[tokio::test]
async fn a_change_that_fails_is_tried_again_with_the_same_port_until_it_is_taken_back() {
    let stage = running("net-retry", &[("data", "net1")]).await;
    stage.player.change_networks("testvm", &[("data", "net2")]).await;
    for node in ["n2", "n3"] {
        let migration = under_way(&stage, node).await;
        are(&stage, &[(OLD, "n1"), (NEW, node)]).await;
        stage.player.fail(&migration).await;
        are(&stage, &[(OLD, "n1"), (NEW, "-")]).await;
        // Another VM chooses an address there meanwhile.
        let rival = format!("rival-{node}");
        stage.player.create_vm(&rival, VmOptions::default().nics([Nic::nad("a", "net2")])).await;
        stage.nics(&rival, &["a"]).await;
        stay(&stage, &[(OLD, "n1"), (NEW, "-")]).await;
    }
    let migration = under_way(&stage, "n2").await;
    are(&stage, &[(OLD, "n1"), (NEW, "n2")]).await;
    stage.player.cancel(&migration).await;
    are(&stage, &[(OLD, "n1"), (NEW, "-")]).await;
    stage.player.change_networks("testvm", &[("data", "net1")]).await;
    stay(&stage, &[(OLD, "n1")]).await;
}

#[tokio::test]
async fn a_database_that_is_lost_between_edit_and_move_has_the_guest_where_its_pod_is() {
    let mut stage = running("net-lost", &[("data", "net1")]).await;
    stage.player.change_networks("testvm", &[("data", "net2")]).await;
    are(&stage, &[(OLD, "n1"), (NEW, "-")]).await;
    stage.status("testvm", &["\"coming\":true"]).await;
    for told in [true, false] {
        stage.service.kill9();
        for port in stage.northbound.ports() {
            stage.northbound.nbctl(&["lsp-del", &port.name]);
        }
        if !told {
            let forget = |vm: &mut serde_json::Value| {
                let annotations = vm["metadata"]["annotations"].as_object_mut();
                annotations.into_iter().for_each(|annotations| drop(annotations.remove("ovn-kubevirt.io/ports")));
            };
            stage.player.edit_vm("testvm", forget).await;
            stage.player.edit_vm("first", forget).await;
        }
        stage.restart().await;
        if told {
            stay(&stage, &[(OLD, "n1"), (NEW, "-")]).await;
        }
    }
    // Without any word of before it has other addresses, on the network of its pod.
    let place = |port: &String| {
        let words: Vec<&str> = port.split(' ').collect();
        format!("{} {}", words[1], words[words.len() - 1])
    };
    eventually("the old port is the guest's", || async {
        let found: Vec<String> = found(&stage).iter().map(place).collect();
        if found == ["net1 n1", "net2 -"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn of_several_nics_one_changes_and_two_exchange_their_networks() {
    let mut stage = running("net-several", &[("a", "net1"), ("b", "net2"), ("c", "net1")]).await;
    let [a, b] = ["a: net1 0a:58:0a:11:00:03 10.17.0.3", "b: net2 0a:58:0a:12:00:03 10.18.0.3"];
    let c = "c: net1.c 0a:58:0a:11:00:04 10.17.0.4";
    are(&stage, &[(a, "n1"), (b, "n1"), (c, "n1")]).await;
    stage.player.change_networks("testvm", &[("a", "net2"), ("b", "net1")]).await;
    let [new_a, new_b] = ["a: net2.a 0a:58:0a:11:00:03 10.18.0.4", "b: net1.b 0a:58:0a:12:00:03 10.17.0.5"];
    are(&stage, &[(a, "n1"), (new_a, "-"), (new_b, "-"), (b, "n1"), (c, "n1")]).await;
    let migration = under_way(&stage, "n2").await;
    are(&stage, &[(a, "n1"), (new_a, "n2"), (new_b, "n2"), (b, "n1"), (c, "n1,n2")]).await;
    arrive(&stage, &migration).await;
    are(&stage, &[(new_a, "n2"), (new_b, "n2"), (c, "n2")]).await;
    stage.player.succeed(&migration).await;
    // The interfaces of the guest have these names.
    let told = |text: &str| text.contains(".ovn.a") && text.contains(".ovn.b") && !text.contains("coming");
    stage.status_where("testvm", "one port a NIC", |text, _| told(text)).await;
    stage.service.kill9();
    for port in stage.northbound.ports() {
        stage.northbound.nbctl(&["lsp-del", &port.name]);
    }
    stage.restart().await;
    stay(&stage, &[(new_a, "n2"), (new_b, "n2"), (c, "n2")]).await;
    stage.player.change_networks("testvm", &[("c", "net3")]).await;
    let new_c = "c: net3 0a:58:0a:11:00:04 10.19.0.3";
    let migration = under_way(&stage, "n1").await;
    are(&stage, &[(new_a, "n2,n1"), (new_b, "n2,n1"), (c, "n2"), (new_c, "n1")]).await;
    arrive(&stage, &migration).await;
    are(&stage, &[(new_a, "n1"), (new_b, "n1"), (new_c, "n1")]).await;
}

#[tokio::test]
async fn a_second_change_comes_during_the_first_with_an_address_of_its_own() {
    let stage = running("net-second", &[("data", "net1")]).await;
    stage.player.change_networks("testvm", &[("data", "net2")]).await;
    let migration = under_way(&stage, "n2").await;
    are(&stage, &[(OLD, "n1"), (NEW, "n2")]).await;
    let key = "data.ovn.kubernetes.io/ip_address";
    stage.player.edit_template_annotation("testvm", key, Some("10.19.0.99")).await;
    stage.player.change_networks("testvm", &[("data", "net3")]).await;
    let third = "data: net3 0a:58:0a:11:00:03 10.19.0.99";
    are(&stage, &[(OLD, "n1"), (NEW, "n2"), (third, "-")]).await;
    arrive(&stage, &migration).await;
    are(&stage, &[(NEW, "n2"), (third, "-")]).await;
    stage.player.succeed(&migration).await;
    let migration = under_way(&stage, "n3").await;
    are(&stage, &[(NEW, "n2"), (third, "n3")]).await;
    arrive(&stage, &migration).await;
    stage.player.succeed(&migration).await;
    stay(&stage, &[(third, "n3")]).await;
}

#[tokio::test]
async fn a_nic_that_one_pod_of_a_migration_lacks_is_bound_where_the_other_is() {
    let stage = running("net-plug", &[]).await;
    // Plugged by the migration: the guest's pod lacks it.
    let nic = Nic::nad("data", "net1");
    stage
        .player
        .edit_vm("testvm", |vm| {
            let spec = &mut vm["spec"]["template"]["spec"];
            spec["networks"].as_array_mut().expect("a list").push(nic.network());
            let interfaces = spec["domain"]["devices"]["interfaces"].as_array_mut().expect("a list");
            interfaces.push(nic.interface());
        })
        .await;
    stage.player.bring_networks("testvm").await;
    for node in ["n2", "n3"] {
        let migration = under_way(&stage, node).await;
        stay(&stage, &[(OLD, node)]).await;
        if node == "n3" {
            arrive(&stage, &migration).await;
            stage.player.succeed(&migration).await;
        } else {
            stage.player.fail(&migration).await;
        }
    }
    stay(&stage, &[(OLD, "n3")]).await;
    // Unplugged by a migration: the target's pod lacks it.
    stage
        .player
        .edit_vm("testvm", |vm| {
            let interfaces = vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"].as_array_mut();
            interfaces.expect("a list").last_mut().expect("the NIC")["state"] = "absent".into();
        })
        .await;
    stage.player.bring_networks("testvm").await;
    let migration = under_way(&stage, "n1").await;
    stay(&stage, &[(OLD, "n3")]).await;
    arrive(&stage, &migration).await;
    stay(&stage, &[(OLD, "-")]).await;
    stage.player.succeed(&migration).await;
    stage.player.unplugged("testvm", "data").await;
    are(&stage, &[]).await;
}
