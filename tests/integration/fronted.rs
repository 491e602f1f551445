//! A stage whose service reaches the API server through a proxy that a test can have refuse, lose answers or fall silent.

use std::ops::Deref;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;

use crate::support::Stage;
use crate::support::front::{Front, Rule};

/// A stage whose service reaches the API server through a proxy.
pub(crate) struct Fronted {
    pub(crate) stage: Stage,
    pub(crate) front: Front,
}

impl Deref for Fronted {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Fronted {
    /// The usual service; the proxy has these rules from the start.
    pub(crate) async fn new(name: &str, rules: &[Rule]) -> Self {
        let mut prepared = Stage::build(name).prepare().await;
        let front = prepared.front().await;
        rules.iter().cloned().for_each(|rule| front.rule(rule));
        Self { stage: prepared.start().await, front }
    }

    /// The Events of the VM as events.k8s.io/v1 has them.
    pub(crate) async fn events(&self, vm: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let all = events.list(&ListParams::default()).await.expect("Events can be listed").items;
        let of = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(vm);
        all.into_iter().filter(of).collect()
    }
}
