//! Launcher pods: who may make one, and the ports that one carries.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Deserialize;

use super::networks::{DEFAULT_NETWORK, NETWORKS, Plugged, PodNetwork, elements, merged, plugged};
use crate::contract::annotations::{LAUNCHER_LABEL, PORTS_ANNOTATION, PROVISIONING};
use crate::contract::keys::MTU;
use crate::contract::{NadKey, VmKey};
use crate::controller::Moment;
use crate::escaped::Escaped;
use crate::kubevirt::{PodPort, Template};
use crate::ovn::mac_text;
use crate::plan::{Decision, Fault, PortStatus, Snapshot, decide};

/// The annotations of a launcher pod that a review may change.
const CARRIED: [&str; 3] = [PORTS_ANNOTATION, NETWORKS, DEFAULT_NETWORK];

/// The metadata of a pod, as far as a review needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodMetadata {
    pub(super) annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
    pub(super) deletion_timestamp: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Owner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: Option<bool>,
}

/// A pod, as far as a review needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: PodMetadata,
}

impl Pod {
    /// The VMI that controls the pod.
    fn instance(&self) -> Option<&Owner> {
        self.metadata.owner_references.iter().flatten().find(|owner| {
            owner.controller == Some(true)
                && owner.kind == "VirtualMachineInstance"
                && owner.api_version.starts_with("kubevirt.io/")
        })
    }

    fn has_label(&self) -> bool {
        let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(LAUNCHER_LABEL.0));
        label.is_some_and(|label| label == LAUNCHER_LABEL.1)
    }

    /// Returns true if the pod passes for a launcher: it has the label, or a VMI controls it.
    pub(super) fn passes_for_a_launcher(&self) -> bool {
        self.has_label() || self.instance().is_some()
    }

    /// Returns true if the edit gives the pod what makes a launcher: the label, or a VMI that controls it. An edit may take
    /// either away: the garbage collector removes owners.
    pub(super) fn becomes_a_launcher(&self, before: &Self) -> bool {
        let gets_the_label = self.has_label() && !before.has_label();
        gets_the_label || self.instance().is_some() && self.instance() != before.instance()
    }

    /// A pod that is about to end keeps the annotations that it carries.
    pub(super) fn as_before(&self, before: &Self) -> Answer {
        let changed = CARRIED.into_iter().filter(|key| self.annotation(key) != before.annotation(key));
        Answer::Annotate(changed.map(|key| (key, before.annotation(key).map(ToOwned::to_owned))).collect())
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The VM whose launcher the pod is, and the UID of its VMI. Pods that only provision volumes are none.
    pub(super) fn launcher_of(&self, namespace: &str) -> Option<(VmKey, String)> {
        if !self.has_label() || self.annotation(PROVISIONING).is_some() {
            return None;
        }
        self.instance().map(|owner| (VmKey::new(namespace, owner.name.clone()), owner.uid.clone()))
    }

    /// Returns true if the annotations that a review may change are those of another version of the pod.
    pub(super) fn carries_the_same(&self, before: &Self) -> bool {
        CARRIED.iter().all(|key| self.annotation(key) == before.annotation(key))
    }
}

/// The answer to a launcher pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The annotations to be set; none, if the pod is as it should be. `None` takes one off.
    Annotate(BTreeMap<&'static str, Option<String>>),
    /// The pod cannot run as it is, for this reason.
    Refuse(String),
}

/// What the question about a launcher pod knows.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) pod: Pod,
    pub(super) vm: VmKey,
    /// The UID of the VMI.
    pub(super) instance: String,
    /// The NAD of `--default-network`.
    pub(super) default_network: Option<NadKey>,
    /// The pod as it is stored, if it is there already.
    pub(super) before: Option<Pod>,
}

impl Question {
    /// Finds the ports of the pod's interfaces. What is missing is waited for.
    pub(super) fn ask(&self, moment: &Moment<'_>) -> ControlFlow<Answer, String> {
        let Moment { snapshot, claims, .. } = moment;
        let vm = Escaped(&self.vm.to_string()).to_string();
        if snapshot.cluster.namespace(&self.vm.namespace).is_none()
            && snapshot.northbound.ports_of(&self.vm).next().is_none()
        {
            return ControlFlow::Break(self.without_ports());
        }
        let run = snapshot.cluster.vm(&self.vm).and_then(|objects| objects.run.as_ref());
        let run = match (run.filter(|run| run.uid == self.instance), &self.before) {
            (Some(run), _) => run,
            (None, Some(before)) => return ControlFlow::Break(self.pod.as_before(before)),
            (None, None) => {
                return ControlFlow::Continue(format!(
                    "the VirtualMachineInstance {vm} with UID {} is not known to ovn-kubevirt yet. virt-controller tries again",
                    Escaped(&self.instance)
                ));
            }
        };
        let Ok(template) = &run.template else {
            let text = format!("the VirtualMachineInstance {vm} cannot be read. See the Events of the VM");
            return ControlFlow::Break(Answer::Refuse(text));
        };
        let elements = match elements(self.pod.metadata.annotations.as_ref().unwrap_or(&BTreeMap::new())) {
            Ok(elements) => elements,
            Err(error) => return ControlFlow::Break(Answer::Refuse(error.to_string())),
        };
        let networks = pod_networks(template, &self.vm.namespace);
        let plugged = plugged(&networks, &elements, &self.vm.namespace, self.default_network.as_ref());
        let decision = decide(snapshot, claims, &self.vm);
        let mut ports = Vec::new();
        for plugged in plugged {
            let Some(status) = decision.status.ports.iter().find(|port| port.network == plugged.network) else {
                continue;
            };
            match port(snapshot, &plugged, status) {
                Ok(port) => ports.push((plugged, port)),
                Err(missing) => return self.missing(&decision, status, &missing),
            }
        }
        if ports.is_empty() {
            return ControlFlow::Break(self.without_ports());
        }
        ControlFlow::Break(self.carrying(elements, &ports))
    }

    /// The pod has no port of ours: a list of ports that it brought along means nothing.
    fn without_ports(&self) -> Answer {
        let forged = self.pod.annotation(PORTS_ANNOTATION).map(|_| (PORTS_ANNOTATION, None));
        Answer::Annotate(forged.into_iter().collect())
    }

    /// A port is not there: it is about to be written, or a problem keeps it from that. Only time ends a passing one.
    fn missing(&self, decision: &Decision, status: &PortStatus, missing: &str) -> ControlFlow<Answer, String> {
        if status.addresses.is_some() {
            return ControlFlow::Continue(missing.to_owned());
        }
        let problems = status.problems.iter().chain(&decision.status.problems);
        let lasting = problems.filter(|problem| problem.fault() != Fault::Passing).map(ToString::to_string).next();
        match lasting {
            Some(problem) => {
                let network = Escaped(&status.network);
                ControlFlow::Break(Answer::Refuse(format!("the VM {}, network {network}: {problem}", self.vm)))
            }
            None => ControlFlow::Continue(missing.to_owned()),
        }
    }

    fn carrying(
        &self,
        elements: Vec<serde_json::Map<String, serde_json::Value>>,
        ports: &[(Plugged, PodPort)],
    ) -> Answer {
        let none = BTreeMap::new();
        let annotations = self.pod.metadata.annotations.as_ref().unwrap_or(&none);
        let merged = merged(annotations, elements, ports);
        let mut changed: BTreeMap<&'static str, Option<String>> =
            merged.into_iter().map(|(key, text)| (key, Some(text))).collect();
        let list: Vec<PodPort> = ports.iter().map(|(_, port)| port.clone()).collect();
        let text = PodPort::text(&list);
        if self.pod.annotation(PORTS_ANNOTATION) != Some(&text) {
            changed.insert(PORTS_ANNOTATION, Some(text));
        }
        Answer::Annotate(changed)
    }
}

/// The networks of an instance that its launcher pod may have an interface for. A VM without networks and interfaces has
/// one on the pod network.
fn pod_networks(template: &Template, namespace: &str) -> Vec<PodNetwork> {
    let listed = template.spec.networks.as_deref().unwrap_or_default();
    if listed.is_empty() {
        return vec![PodNetwork { name: "default".to_owned(), nad: None, default: false }];
    }
    let network = |network: &crate::kubevirt::objects::Network| {
        let default = network.multus.as_ref().is_some_and(|multus| multus.default);
        let nad = network.nad(namespace);
        (nad.is_some() || network.pod.is_some()).then(|| PodNetwork { name: network.name.clone(), nad, default })
    };
    listed.iter().filter_map(network).collect()
}

/// The port of an interface, if it stands in the northbound database as it was decided. The error says what is missing.
fn port(snapshot: &Snapshot<'_>, plugged: &Plugged, status: &PortStatus) -> Result<PodPort, String> {
    let network = Escaped(&plugged.network);
    let missing =
        || format!("the port of network {network} is not in the northbound database yet. virt-controller tries again");
    let (Some(row), Some(addresses)) = (status.row, status.addresses) else { return Err(missing()) };
    let port = snapshot.northbound.port(&row).ok_or_else(missing)?;
    let switch = port.switch.and_then(|switch| Some((switch, snapshot.northbound.switch(&switch)?)));
    let (switch, on) = switch.ok_or_else(missing)?;
    let stands = Some(port.row.name.as_str()) == status.port.as_deref()
        && Some(on.name.as_str()) == status.switch.as_deref()
        && port.row.addresses.iter().any(|text| text == addresses.to_string());
    if !stands {
        return Err(missing());
    }
    let gateways = snapshot.northbound.gateways(&switch);
    let subnet = snapshot.subnet(switch).ok();
    let prefix = |ip| {
        let block = subnet.as_ref().and_then(|subnet| Some(subnet.block_of(ip)?.net().prefix_len()));
        let of_router = || gateways.iter().find(|net| net.contains(&ip)).map(ipnet::IpNet::prefix_len);
        block.or_else(of_router).unwrap_or(if ip.is_ipv4() { 32 } else { 128 })
    };
    let gateway =
        |ip| gateways.iter().find(|net| net.contains(&ip) && net.addr() != ip).map(|net| net.addr().to_string());
    Ok(PodPort {
        network: plugged.network.clone(),
        interface: plugged.interface.clone(),
        port: port.row.name.clone(),
        switch: on.name.clone(),
        mac: mac_text(addresses.mac),
        ips: addresses.ips().map(|ip| format!("{ip}/{}", prefix(ip))).collect(),
        gateway: addresses.ips().filter_map(gateway).collect(),
        mtu: on.other_config.get(MTU).and_then(|mtu| mtu.trim().parse().ok()),
    })
}
