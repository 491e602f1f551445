//! What nearly every test begins with: a northbound database with a switch, a namespace, a player of
//! KubeVirt in it, and the service between them.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Cluster, Namespace, Northbound, Player, Port, Service, eventually};

/// The default switch's settings, unless a test wants others.
pub(crate) const SUBNET: [(&str, &str); 2] = [("subnet", "10.16.0.0/16"), ("exclude_ips", "10.16.0.1")];

pub(crate) struct Stage {
    pub(crate) northbound: Northbound,
    pub(crate) namespace: Namespace,
    pub(crate) player: Player,
    pub(crate) service: Service,
}

impl Stage {
    /// A stage whose switch `ovn-default` has the usual subnet.
    pub(crate) async fn new(name: &str) -> Self {
        Self::with_switch(name, &SUBNET).await
    }

    /// A stage whose switch `ovn-default` has these settings.
    pub(crate) async fn with_switch(name: &str, other_config: &[(&str, &str)]) -> Self {
        let northbound = Northbound::start().await;
        northbound.add_switch("ovn-default", other_config);
        Self::on(name, northbound).await
    }

    /// A stage on a database that is prepared already.
    pub(crate) async fn on(name: &str, northbound: Northbound) -> Self {
        let cluster = Cluster::shared();
        let namespace = cluster.namespace(name).await;
        let player = Player::within(&namespace);
        let service = Service::start(&northbound, cluster, &namespace, &[]).await;
        Self { northbound, namespace, player, service }
    }

    /// The port of a VM in the stage's namespace.
    pub(crate) fn name(&self, vm: &str) -> String {
        format!("{vm}.{}", self.namespace.name)
    }

    /// Waits until the VM's port is there.
    pub(crate) async fn port(&self, vm: &str) -> Port {
        let name = self.name(vm);
        eventually(&format!("the port {name} is there"), || async {
            self.northbound.port(&name).ok_or_else(|| self.northbound.dump())
        })
        .await
    }

    /// Waits until the VM's port is so.
    pub(crate) async fn port_where(&self, vm: &str, what: &str, holds: impl Fn(&Port) -> bool) -> Port {
        let name = self.name(vm);
        eventually(&format!("the port {name}: {what}"), || async {
            match self.northbound.port(&name) {
                Some(port) if holds(&port) => Ok(port),
                other => Err(format!("{other:#?}")),
            }
        })
        .await
    }

    /// Waits until the VM has no port.
    pub(crate) async fn port_gone(&self, vm: &str) {
        let name = self.name(vm);
        eventually(&format!("the port {name} is gone"), || async {
            self.northbound.port(&name).map_or(Ok(()), |port| Err(format!("{port:#?}")))
        })
        .await;
    }

    /// Waits for an Event on an object whose message has all these words.
    pub(crate) async fn event(&self, object: &str, reason: &str, words: &[&str]) -> String {
        let what = format!("an Event {reason} with {words:?} on {object}");
        eventually(&what, || async {
            let events = self.namespace.events(object).await;
            let fits = |(_, found, message): &&(String, String, String)| {
                found == reason && words.iter().all(|word| message.contains(word))
            };
            events.iter().find(fits).map(|(_, _, message)| message.clone()).ok_or(format!("{events:#?}"))
        })
        .await
    }

    /// Starts the service anew after a kill -9.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.service.kill9();
        self.service = Service::start(&self.northbound, Cluster::shared(), &self.namespace, &[]).await;
    }

    /// The row that the contract says: everything in it, and nothing else.
    pub(crate) fn contract_row(&self, vm: &str, vm_uid: &str, uuid: &str, addresses: &str) -> Port {
        contract_row(&self.namespace.name, vm, vm_uid, uuid, addresses)
    }
}

/// The row that the contract says: everything in it, and nothing else.
pub(crate) fn contract_row(namespace: &str, vm: &str, vm_uid: &str, uuid: &str, addresses: &str) -> Port {
    let external_ids = [
        ("vendor", "ovn-kubevirt".to_owned()),
        ("ovn-kubevirt.io/instance", "default".to_owned()),
        ("ovn-kubevirt.io/vm", format!("{namespace}/{vm}")),
        ("ovn-kubevirt.io/vm-uid", vm_uid.to_owned()),
        ("ovn-kubevirt.io/network", "default".to_owned()),
    ];
    Port {
        uuid: uuid.to_owned(),
        name: format!("{vm}.{namespace}"),
        r#type: String::new(),
        addresses: BTreeSet::from([addresses.to_owned()]),
        dynamic_addresses: None,
        port_security: BTreeSet::from([addresses.to_owned()]),
        options: BTreeMap::new(),
        external_ids: external_ids.map(|(key, value)| (key.to_owned(), value)).into(),
        enabled: None,
        up: None,
        dhcpv4_options: None,
        dhcpv6_options: None,
        ha_chassis_group: None,
        mirror_rules: BTreeSet::new(),
        parent_name: None,
        tag: None,
        tag_request: None,
        switches: vec!["ovn-default".to_owned()],
    }
}

/// The row with the chassis that it is bound to.
pub(crate) fn bound_to(mut port: Port, chassis: &str) -> Port {
    port.options.insert("requested-chassis".to_owned(), chassis.to_owned());
    port
}
