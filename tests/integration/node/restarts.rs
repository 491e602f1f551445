//! Restarts of the service, of the database and of the API server: no port is lost, and none is removed by mistake.

use super::NodeStage;
use crate::support::front::{Front, Rule};
use crate::support::local_switch::{LocalSwitch, Plug};
use crate::support::{Cluster, Gate, Namespace, NodeSetup, Player, eventually, service::Service};

async fn unready(service: &Service, words: &str) {
    eventually(&format!("/readyz says 503 with {words:?}"), || async {
        match service.http_get("/readyz").await {
            (503, body) if body.contains(words) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn changes_while_the_service_was_absent_are_applied_when_it_returns() {
    let mut stage = NodeStage::new("node-restart").await;
    let gone = stage.served("gone", "veth1").await;
    let stays = stage.served("stays", "veth2").await;
    stage.service.kill9();
    stage.player.delete_pod(&gone.pod).await;
    let comes = stage.plain_launcher("comes").await;
    stage.bind(&comes).await;
    stage.switch.plug(&Plug::new("veth3", &comes.uid, "eth0"));
    let before = stage.switch.server.rows("Interface");
    let of = |rows: &[serde_json::Value]| rows.iter().find(|row| row["name"] == "veth2").cloned();
    stage.service = stage.setup.start().await;
    stage.switch.removed("veth1").await;
    stage.switch.set("veth3", &comes.uid, &stage.port("comes")).await;
    stage.switch.set("veth2", &stays.uid, &stage.port("stays")).await;
    assert_eq!(of(&stage.switch.server.rows("Interface")), of(&before), "what stands is not written again");
    assert!(stage.service.stop().await.success());
}

#[tokio::test]
async fn the_database_may_be_stopped_killed_and_frozen() {
    let stage = NodeStage::new("node-database").await;
    let first = stage.served("first", "veth1").await;
    stage.switch.server.kill9();
    unready(&stage.service, "the Open vSwitch database is away").await;
    stage.player.delete_pod(&first.pod).await;
    let second = stage.plain_launcher("second").await;
    stage.bind(&second).await;
    stage.switch.server.start_again().await;
    stage.switch.removed("veth1").await;
    stage.switch.plug(&Plug::new("veth2", &second.uid, "eth0"));
    stage.switch.set("veth2", &second.uid, &stage.port("second")).await;
    stage.service.ready().await;

    stage.switch.server.freeze();
    let third = stage.plain_launcher("third").await;
    stage.bind(&third).await;
    stage.switch.server.thaw();
    stage.switch.plug(&Plug::new("veth3", &third.uid, "eth0"));
    stage.switch.set("veth3", &third.uid, &stage.port("third")).await;

    stage.switch.server.stop().await;
    stage.switch.server.start_again().await;
    stage.has_seen_all("fourth").await;
    stage.switch.set("veth2", &second.uid, &stage.port("second")).await;
}

/// A node whose service reaches the API server by a file of the test's.
async fn reached_by(name: &str, kubeconfig: impl AsRef<std::path::Path>, switch: LocalSwitch) -> NodeStage {
    let kubeconfig = kubeconfig.as_ref().to_owned();
    let cluster = Cluster::shared();
    let namespace: Namespace = cluster.namespace(name).await;
    let node = format!("{}-n1", namespace.name);
    let setup = NodeSetup::new(cluster, &switch.server.remote(), &node, switch.dir()).await.kubeconfig(kubeconfig);
    let service = setup.spawn();
    let player = Player::within(&namespace);
    NodeStage { switch, namespace, player, node, setup, service }
}

async fn account(switch: &LocalSwitch) -> std::path::PathBuf {
    let any = NodeSetup::new(Cluster::shared(), &switch.server.remote(), "any", switch.dir()).await;
    any.present_kubeconfig().to_owned()
}

#[tokio::test]
async fn while_the_api_server_is_absent_known_pods_are_served_and_no_port_is_removed() {
    let switch = LocalSwitch::start().await;
    let (gate, kubeconfig) = Gate::to_api_server(&account(&switch).await, switch.dir()).await;
    let stage = reached_by("node-away", kubeconfig, switch).await;
    stage.service.ready().await;
    let first = stage.served("first", "veth1").await;
    let second = stage.plain_launcher("second").await;
    stage.bind(&second).await;
    stage.has_seen_all("other").await;
    gate.shut();
    unready(&stage.service, "the Kubernetes API server does not answer").await;
    stage.switch.plug(&Plug::new("veth2", &second.uid, "eth0"));
    stage.switch.set("veth2", &second.uid, &stage.port("second")).await;
    stage.player.delete_pod(&first.pod).await;
    stage.switch.set("veth1", &first.uid, &stage.port("first")).await;
    gate.open();
    stage.service.ready().await;
    stage.switch.removed("veth1").await;
    stage.switch.set("veth2", &second.uid, &stage.port("second")).await;
}

#[tokio::test]
async fn a_failed_list_of_pods_removes_no_port() {
    let switch = LocalSwitch::start().await;
    let (front, kubeconfig) = Front::to_api_server(&account(&switch).await, switch.dir()).await;
    front.rule(Rule {
        method: "GET",
        path: "/api/v1/pods".to_owned(),
        times: 8,
        status: 403,
        retry_after: None,
        body: String::new(),
        done: false,
    });
    switch.plug(&Plug { iface_id: Some("vm.ns"), ..Plug::new("veth1", "left", "eth0") });
    switch.write("veth1", &[("ovn-kubevirt.io/node", Some("left/vm.ns"))]);
    let before = switch.server.rows("Interface");
    let stage = reached_by("node-unlisted", kubeconfig, switch).await;
    unready(&stage.service, "have not been listed yet").await;
    eventually("several lists have been refused", || async {
        assert_eq!(stage.switch.server.rows("Interface"), before);
        let asked = front.asked("GET", &["/api/v1/pods"]).len();
        if asked < 4 { Err(format!("{asked} so far")) } else { Ok(()) }
    })
    .await;
    // Then one succeeds.
    stage.switch.removed("veth1").await;
}
