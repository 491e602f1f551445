//! A stage whose service reaches the API server through a proxy that a test can have refuse, lose answers or fall silent.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::stage::SUBNET;
use crate::support::front::{Front, Rule};
use crate::support::{Cluster, Namespace, Northbound, Player, Service, eventually};

const PORTS: &str = "ovn-kubevirt.io/ports";

/// A service that reaches the API server through a proxy.
pub(crate) struct Fronted {
    pub(crate) northbound: Northbound,
    pub(crate) namespace: Namespace,
    pub(crate) player: Player,
    pub(crate) service: Service,
    pub(crate) front: Front,
}

impl Fronted {
    /// The usual service; the proxy has these rules from the start.
    pub(crate) async fn new(name: &str, rules: &[Rule]) -> Self {
        let northbound = Northbound::start().await;
        northbound.add_switch("ovn-default", &SUBNET);
        let cluster = Cluster::shared();
        let namespace = cluster.namespace(name).await;
        let (front, kubeconfig) = Front::to_api_server(cluster.service_kubeconfig(), northbound.dir()).await;
        rules.iter().cloned().for_each(|rule| front.rule(rule));
        let service = Service::setup(&northbound, cluster, &namespace).kubeconfig(kubeconfig).start().await;
        let player = Player::within(&namespace);
        Self { northbound, namespace, player, service, front }
    }

    /// Waits until the VM's annotation is there and has these words.
    pub(crate) async fn told(&self, vm: &str, words: &[&str]) -> Value {
        eventually(&format!("the annotation of {vm} has {words:?}"), || async {
            let object = self.player.vm(vm).await.unwrap_or_default();
            let text = object["metadata"]["annotations"][PORTS].as_str().unwrap_or_default().to_owned();
            let fits = !text.is_empty() && words.iter().all(|word| text.contains(word));
            if fits { Ok(serde_json::from_str(&text).expect("JSON")) } else { Err(text) }
        })
        .await
    }

    /// The Events of the VM as events.k8s.io/v1 has them.
    pub(crate) async fn events(&self, vm: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let all = events.list(&ListParams::default()).await.expect("Events can be listed").items;
        let of = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(vm);
        all.into_iter().filter(of).collect()
    }
}
