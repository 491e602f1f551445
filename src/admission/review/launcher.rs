//! Launcher pods: the accounts that may create one, and the ports that one carries.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Deserialize;

use super::networks::{
    DEFAULT_NETWORK, NotAList, Plugged, PodNetwork, elements, interfaces, merged, plugged, stay_plugged,
    unknown_interfaces,
};
use crate::contract::annotations::{LAUNCHER_LABEL, NETWORKS, PORTS_ANNOTATION};
use crate::contract::keys::MTU;
use crate::contract::{NadKey, VmKey};
use crate::controller::Moment;
use crate::escaped::Escaped;
use crate::intent::{Attachment, networks};
use crate::kubevirt::{PodPort, Template, VmObjects, controller, launcher_owner};
use crate::ovn::mac_text;
use crate::plan::{Decision, Fault, PortStatus, Problem, Snapshot, decide};

/// The annotations of a launcher pod that a review may change.
const CARRIED: [&str; 3] = [PORTS_ANNOTATION, NETWORKS, DEFAULT_NETWORK];

/// A pod, as far as a review needs it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: ObjectMeta,
}

impl Pod {
    /// The VMI that controls the pod.
    fn instance(&self) -> Option<&OwnerReference> {
        controller(&self.metadata, "VirtualMachineInstance")
    }

    fn has_label(&self) -> bool {
        let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(LAUNCHER_LABEL.0));
        label.is_some_and(|label| label == LAUNCHER_LABEL.1)
    }

    /// Returns true if the pod passes for a launcher: it has the label, or a VMI controls it.
    pub(super) fn passes_for_a_launcher(&self) -> bool {
        self.has_label() || self.instance().is_some()
    }

    /// Returns true if the edit gives the pod a mark of a launcher: the label, or a VMI that controls it.
    pub(super) fn becomes_a_launcher(&self, before: &Self) -> bool {
        let gets_the_label = self.has_label() && !before.has_label();
        gets_the_label || self.instance().is_some() && self.instance() != before.instance()
    }

    /// Returns true if the pod was the launcher of a VM, and the edit makes it another's or none.
    pub(super) fn ceases_to_launch(&self, before: &Self) -> bool {
        let launched = launcher_owner(&before.metadata);
        launched.is_some() && launched != launcher_owner(&self.metadata)
    }

    /// The changes that restore the annotations of the stored pod: those of an ending pod stay.
    pub(super) fn as_before(&self, before: &Self) -> BTreeMap<&'static str, Option<String>> {
        let changed = CARRIED.into_iter().filter(|key| self.annotation(key) != before.annotation(key));
        changed.map(|key| (key, before.annotation(key).map(ToOwned::to_owned))).collect()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The elements of its Multus annotation.
    fn elements(&self) -> Result<Vec<serde_json::Map<String, serde_json::Value>>, NotAList> {
        elements(self.annotation(NETWORKS))
    }

    /// The VM whose launcher the pod is, and the UID of its VMI. Pods that only provision volumes are no launchers.
    pub(super) fn launcher_of(&self, namespace: &str) -> Option<(VmKey, String)> {
        launcher_owner(&self.metadata).map(|(name, uid)| (VmKey::new(namespace, name), uid))
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

/// The inputs of the question about a launcher pod.
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
    /// The service serves every namespace, so that an unknown one is yet to be read.
    pub(super) every_namespace: bool,
}

impl Question {
    /// Finds the ports of the pod's interfaces. Waits for missing ones.
    pub(super) fn ask(&self, moment: &Moment<'_>) -> ControlFlow<Answer, String> {
        let Moment { snapshot, claims, ledger, .. } = moment;
        let vm = Escaped(&self.vm.to_string()).to_string();
        let not_known = |what: String| format!("{what} is not known to ovn-kubevirt yet. virt-controller tries again");
        if snapshot.cluster.namespace(&self.vm.namespace).is_none()
            && snapshot.northbound.ports_of(&self.vm).next().is_none()
        {
            return match &self.before {
                None if self.every_namespace => {
                    ControlFlow::Continue(not_known(format!("the namespace {}", Escaped(&self.vm.namespace))))
                }
                _ => ControlFlow::Break(self.without_ports()),
            };
        }
        let objects = snapshot.cluster.vm(&self.vm);
        let known = objects.and_then(|objects| Some((objects, objects.run.as_ref()?)));
        let (objects, run) = match (known.filter(|(_, run)| run.uid == self.instance), &self.before) {
            (Some(known), _) => known,
            (None, Some(before)) => return ControlFlow::Break(Answer::Annotate(self.pod.as_before(before))),
            (None, None) => {
                let uid = Escaped(&self.instance);
                return ControlFlow::Continue(not_known(format!("the VirtualMachineInstance {vm} with UID {uid}")));
            }
        };
        let Ok(template) = &run.template else {
            let text = format!("the VirtualMachineInstance {vm} cannot be read. See the Events of the VM");
            return ControlFlow::Break(Answer::Refuse(text));
        };
        let mut elements = match self.pod.elements() {
            Ok(elements) => elements,
            Err(error) => return ControlFlow::Break(Answer::Refuse(error.to_string())),
        };
        let networks = pod_networks(template, &self.vm.namespace);
        // The watch of pods may be ahead of those of VMIs and NADs.
        let present = self.before.as_ref().and_then(|before| before.elements().ok()).unwrap_or_default();
        let is_new = |interface: &str| interfaces(&present).all(|present| present != interface);
        if let Some(interface) = unknown_interfaces(&networks, &elements).find(|interface| is_new(interface)) {
            let network = format!("the network of the interface {} of {vm}", Escaped(interface));
            return ControlFlow::Continue(not_known(network));
        }
        let decision = decide(snapshot, claims, &self.vm);
        let has_a_port = |network: &str, nad: &NadKey| {
            decision.status.ports.iter().any(|port| port.network == network && port.nads.contains(nad))
        };
        stay_plugged(&networks, &mut elements, &present, has_a_port, &self.vm.namespace);
        let plugged = plugged(&networks, &elements, &self.vm.namespace, self.default_network.as_ref());
        let mut ports = Vec::new();
        for plugged in plugged {
            let mut of_network = decision.status.ports.iter().filter(|port| port.network == plugged.network).peekable();
            let is_ours = of_network.peek().is_some();
            // While a running VM changes the network, each pod has the port of the NAD that it names.
            let is_there = |port: &&PortStatus| plugged.nad.as_ref().is_none_or(|nad| port.nads.contains(nad));
            let Some(status) = of_network.find(is_there) else {
                match (&plugged.nad, &self.before) {
                    (Some(_), Some(before)) if is_ours && !is_new(&plugged.interface) => {
                        return ControlFlow::Break(Answer::Annotate(self.pod.as_before(before)));
                    }
                    (Some(nad), _) if is_ours => {
                        let (network, nad) = (Escaped(&plugged.network), nad.to_string());
                        let change = format!("the change of network {network} to {}", Escaped(&nad));
                        return ControlFlow::Continue(not_known(change));
                    }
                    _ => {}
                }
                match unread_nad(&networks, &plugged, objects).filter(|_| is_new(&plugged.interface)) {
                    Some(nad) => {
                        return ControlFlow::Continue(not_known(format!("the NetworkAttachmentDefinition {nad}")));
                    }
                    None => continue,
                }
            };
            match port(snapshot, &plugged, status) {
                Ok(port) => ports.push((plugged, port)),
                Err(missing) => {
                    // The database has refused the rows: a decision alone does not tell.
                    let rejected = ledger.status(snapshot.northbound, &self.vm).problems;
                    return self.missing(&decision, &rejected, status, &missing);
                }
            }
        }
        if ports.is_empty() {
            return ControlFlow::Break(self.without_ports());
        }
        ControlFlow::Break(self.carrying(elements, &ports))
    }

    /// The pod has no port of ours: a list of ports that it brought along is not trusted.
    fn without_ports(&self) -> Answer {
        let forged = self.pod.annotation(PORTS_ANNOTATION).map(|_| (PORTS_ANNOTATION, None));
        Answer::Annotate(forged.into_iter().collect())
    }

    /// A port is not there: it is about to be written, or a problem keeps it from that. Only time ends a passing one.
    fn missing(
        &self,
        decision: &Decision,
        recorded: &[Problem],
        status: &PortStatus,
        missing: &str,
    ) -> ControlFlow<Answer, String> {
        let rejected = recorded.iter().filter(|problem| matches!(problem, Problem::Rejected(_)));
        let problems = match status.addresses {
            Some(_) => rejected.collect::<Vec<_>>(),
            None => rejected.chain(&status.problems).chain(&decision.status.problems).collect(),
        };
        let problems = problems.into_iter();
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

/// The networks of an instance that its launcher pod may have an interface for.
fn pod_networks(template: &Template, namespace: &str) -> Vec<PodNetwork> {
    let of = |on| match on {
        Attachment::Pod => None,
        Attachment::Nad(nad) => Some(nad),
    };
    let networks = networks(&template.spec, namespace).into_iter();
    networks.map(|network| PodNetwork { name: network.name, nad: of(network.on), default: network.default }).collect()
}

/// The NAD of an interface, if it is not known.
fn unread_nad<'a>(networks: &'a [PodNetwork], plugged: &Plugged, objects: &VmObjects) -> Option<&'a NadKey> {
    let network = networks.iter().find(|network| network.name == plugged.network)?;
    network.nad.as_ref().filter(|nad| !objects.nads.contains_key(nad))
}

/// The port of an interface, if the northbound database has it as it was decided. The error names the missing part.
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
        let of_router = || gateways.iter().find(|it| it.address.contains(&ip)).map(|it| it.address.prefix_len());
        block.or_else(of_router).unwrap_or(if ip.is_ipv4() { 32 } else { 128 })
    };
    let gateway = |ip| snapshot.northbound.gateway_of(&switch, ip).map(|it| it.address.addr().to_string());
    Ok(PodPort {
        network: plugged.network.clone(),
        interface: plugged.interface.clone(),
        port: port.row.name.clone(),
        switch: on.name.clone(),
        mac: mac_text(addresses.mac),
        ips: addresses.ips().map(|ip| format!("{ip}/{}", prefix(ip))).collect(),
        gateway: addresses.ips().filter_map(gateway).collect(),
        mtu: snapshot.settings.dhcp.mtu(on.other_config.get(MTU)).map(u32::from),
    })
}
