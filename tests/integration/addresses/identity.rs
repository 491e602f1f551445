//! The holder of an address when VMs end in unusual ways. Bare VMIs, renamed networks, hot-plug, a VM recreated under a
//! running launcher and a namespace that goes are in `nics/lives.rs` and `story.rs`.

use serde_json::json;

use super::{lease, requesting};
use crate::support::{Nic, Player, Stage, VmOptions, eventually};

#[tokio::test]
async fn a_vmi_whose_vm_was_orphaned_and_recreated_keeps_its_address_throughout() {
    let stage = Stage::build("orphaned").start().await;
    stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    let made = stage.started("testvm", "n1").await;
    // kubectl delete vm --cascade=orphan
    stage.player.delete_vm_start("testvm").await;
    stage.player.remove_vm_finalizer("testvm").await;
    stage.player.create_vm("rival", requesting("10.16.0.2")).await;
    stage.refused("rival", "10.16.0.2", &stage.vm("testvm")).await;
    assert_eq!(lease(&stage.port("testvm").await), lease(&made));
    // Its VM exists again, and adopts the running VMI.
    let uid = stage.player.create_vm("testvm", VmOptions::default()).await;
    let adopted = stage
        .port_where("testvm", "is the new VM's", |port| port.external_id("ovn-kubevirt.io/vm-uid") == Some(&uid))
        .await;
    assert_eq!(lease(&adopted), lease(&made));
    stage.player.restart("testvm", "n2").await;
    let restarted = stage.port_where("testvm", "is on n2", |port| port.option("requested-chassis") == Some("n2")).await;
    assert_eq!(lease(&restarted), lease(&made));
    assert_eq!(stage.northbound.port(&stage.name("rival")), None);
    // Orphaned and ended, it lets go.
    stage.player.delete_vm_start("testvm").await;
    stage.player.remove_vm_finalizer("testvm").await;
    stage.player.stop("testvm").await;
    stage.holding("rival", &["10.16.0.2"]).await;
}

#[tokio::test]
async fn a_vm_of_another_namespace_gets_no_address_of_its_deleted_namesake_while_that_ones_launcher_runs() {
    let stage = Stage::build("namesakes").start().await;
    let made = stage.create("testvm", VmOptions::default(), &["10.16.0.2"]).await;
    let run = stage.player.start("testvm", "n1").await;
    stage.player.delete_vm_start("testvm").await;
    stage.player.delete_vmi_start("testvm").await;
    stage.player.remove_vmi_finalizer("testvm").await;
    stage.player.remove_vm_finalizer("testvm").await;
    let sibling = stage.namespace.sibling("b").await;
    let other = Player::within(&sibling);
    other.create_vm("testvm", requesting("10.16.0.2")).await;
    let holder = stage.vm("testvm");
    eventually("the namesake has an Event that names the holder", || async {
        let events = sibling.events("testvm").await;
        let named = events
            .iter()
            .any(|(_, reason, note)| reason == "AddressConflict" && note.contains(&holder) && note.contains("granted"));
        if named { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
    assert_eq!(lease(&stage.port("testvm").await), lease(&made));
    stage.player.pod_phase(&run.pod, "Succeeded").await;
    stage.player.delete_pod(&run.pod).await;
    let name = format!("testvm.{}", sibling.name);
    let port = eventually("the namesake has it", || async { stage.northbound.port(&name).ok_or("not yet") }).await;
    assert_eq!(super::ips_of(&port), ["10.16.0.2"]);
}

#[tokio::test]
async fn harvester_4474_clones_and_restores_that_copy_an_address_or_a_mac_are_refused_and_others_get_their_own() {
    const MAC: &str = "02:00:00:00:00:01";
    let stage = Stage::build("clones").start().await;
    let original = requesting("10.16.0.50").mac(MAC);
    stage.create("original", original.clone(), &["10.16.0.50"]).await;
    let holder = stage.vm("original");
    // A clone or a restore copies the whole template; a patch may take away the one or the other.
    stage.player.create_vm("copies-both", original.clone()).await;
    stage.refused("copies-both", "10.16.0.50", &holder).await;
    stage.player.create_vm("copies-the-mac", VmOptions::default().mac(MAC)).await;
    stage.refused("copies-the-mac", MAC, &holder).await;
    stage.player.create_vm("copies-the-address", requesting("10.16.0.50")).await;
    stage.refused("copies-the-address", "10.16.0.50", &holder).await;
    for vm in ["copies-both", "copies-the-mac", "copies-the-address"] {
        assert_eq!(stage.northbound.port(&stage.name(vm)), None);
    }
    // Clones of a VM without requests share no address and no MAC.
    let first = stage.create("clone-1", VmOptions::default(), &["10.16.0.2"]).await;
    let second = stage.create("clone-2", VmOptions::default(), &["10.16.0.3"]).await;
    let mac = |text: &String| text.split(' ').next().map(ToOwned::to_owned);
    assert_ne!(
        first.addresses.iter().map(mac).collect::<Vec<_>>(),
        second.addresses.iter().map(mac).collect::<Vec<_>>()
    );
    // Corrected, they are served.
    stage
        .player
        .edit_vm("copies-the-mac", |vm| {
            let interface = &mut vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0];
            interface.as_object_mut().expect("an interface").remove("macAddress");
        })
        .await;
    stage.holding("copies-the-mac", &["10.16.0.4"]).await;
    // A restore over the original, which is deleted first, is whole.
    stage.player.delete_vm("original").await;
    let restored = eventually("one copy has what the original had", || async {
        let has = |vm: &str| stage.northbound.port(&stage.name(vm));
        has("copies-both").or_else(|| has("copies-the-address")).ok_or("none")
    })
    .await;
    assert_eq!(super::ips_of(&restored), ["10.16.0.50"]);
}

#[tokio::test]
async fn of_the_replicas_of_a_pool_with_one_address_one_has_it_and_the_status_of_the_others_names_it() {
    const REPLICAS: usize = 6;
    let stage = Stage::build("replicas").start().await;
    let names: Vec<String> = (0..REPLICAS).map(|index| format!("pool-{index}")).collect();
    let template = VmOptions::default().nics([Nic::pod("default").mac("02:00:00:00:00:07")]);
    let template = template.annotation(super::IP_ADDRESS, "10.16.0.50");
    // All at once: they meet in one transaction.
    stage.service.freeze();
    futures::future::join_all(names.iter().map(|name| stage.player.create_vm(name, template.clone()))).await;
    stage.service.thaw();
    let mut left: Vec<&String> = names.iter().collect();
    while !left.is_empty() {
        let holder = eventually("one of them has it", || async {
            let has = |vm: &&&String| stage.northbound.port(&stage.name(vm)).is_some();
            let holders: Vec<&&String> = left.iter().filter(has).collect();
            match &holders[..] {
                [holder] => Ok((**holder).clone()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        for other in left.iter().filter(|other| ***other != holder) {
            stage.problem(other, "AddressConflict", &["10.16.0.50", &stage.vm(&holder)]).await;
        }
        assert_eq!(stage.northbound.ports().len(), 1, "{}", stage.northbound.dump());
        stage.player.delete_vm(&holder).await;
        stage.port_gone(&holder).await;
        left.retain(|name| **name != holder);
    }
    // A pool with a range, which the documentation says to write instead, serves each.
    let from_pool = VmOptions::default().annotation(super::IP_POOL, "10.16.0.50..10.16.0.55");
    futures::future::join_all((0..6).map(|index| {
        let (player, options) = (&stage.player, from_pool.clone());
        async move { player.create_vm(&format!("ranged-{index}"), options).await }
    }))
    .await;
    let mut had = Vec::new();
    for index in 0..6 {
        had.extend(super::ips_of(&stage.port(&format!("ranged-{index}")).await).into_iter().map(ToOwned::to_owned));
    }
    had.sort();
    let all: Vec<String> = (50..=55).map(|host| format!("10.16.0.{host}")).collect();
    assert_eq!(json!(had), json!(all));
}

#[tokio::test]
async fn in_a_database_that_was_lost_requests_for_an_address_go_before_allocations() {
    let mut stage = Stage::build("lost").start().await;
    assert!(stage.service.stop().await.success());
    for vm in ["a", "b", "c", "d", "e", "f", "g"] {
        stage.player.create_vm(vm, VmOptions::default()).await;
    }
    stage.player.create_vm("static", requesting("10.16.0.2")).await;
    stage.restart().await;
    stage.holding("static", &["10.16.0.2"]).await;
}

#[tokio::test]
async fn a_drift_of_port_security_alone_moves_no_lease() {
    let stage = Stage::build("secured").start().await;
    stage.create("owner", VmOptions::default(), &["10.16.0.2"]).await;
    stage.create("testvm", VmOptions::default(), &["10.16.0.3"]).await;
    let made = stage.started("testvm", "n1").await;
    let own = made.addresses.first().expect("one").as_str();
    let (owners, free) = ("0a:58:0a:10:00:03 10.16.0.2", "0a:58:0a:10:00:01 10.16.0.1");
    for written in [vec![owners], vec![owners, own], vec![free, own], vec![free, owners, own]] {
        let arguments = [&["lsp-set-port-security", made.name.as_str()], &written[..]].concat();
        stage.northbound.nbctl(&arguments);
        let repaired = stage
            .port_where("testvm", "has its port security back", |port| port.port_security == made.port_security)
            .await;
        assert_eq!(lease(&repaired), lease(&made), "{written:?}");
    }
    stage.holding("owner", &["10.16.0.2"]).await;
    stage.no_problem("owner").await;
}
