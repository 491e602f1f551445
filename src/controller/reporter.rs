//! Tells VM owners: the annotation `ovn-kubevirt.io/ports` on the VM, and Events for what changed.
//!
//! Level-triggered as well: a report is the state of a VM's ports, and an Event is sent for what
//! differs from the last one. What was last told stands in the annotation, so that a restart of this
//! service repeats nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::intent::PORTS_ANNOTATION;
use crate::kubevirt::objects::{VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{Reported, VmObjects, version};
use crate::ovn::{LogicalSwitchPort, VmKey, keys, mac_text};
use crate::plan::PortReport;

/// VMs told at the same time.
const AT_ONCE: usize = 16;
/// A report that the API server did not take is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Kubernetes' limit on an Event's note.
const LONGEST_NOTE: usize = 1024;

/// What is told.
#[derive(Debug)]
pub enum Report {
    /// The ports of a VM that is there.
    Ports {
        /// The VM.
        subject: Subject,
        /// As they are now.
        ports: Vec<PortReport>,
    },
    /// The ports of a VM that has gone.
    Released {
        /// The VM.
        vm: VmKey,
        /// As they were.
        ports: Vec<LogicalSwitchPort>,
    },
}

/// The object that Events are about: the VM, or a bare VMI.
#[derive(Debug, Clone)]
pub struct Subject {
    vm: VmKey,
    is_vm: bool,
    uid: String,
    /// The annotation as the watch last saw it.
    seen: Reported,
}

impl Subject {
    /// `None` while only launcher pods are left: there is nobody to tell.
    pub fn of(vm: &VmKey, objects: &VmObjects) -> Option<Self> {
        match (&objects.vm, &objects.run) {
            (Some(object), _) => {
                Some(Self { vm: vm.clone(), is_vm: true, uid: object.uid.clone(), seen: object.reported.clone() })
            }
            (None, Some(run)) => {
                Some(Self { vm: vm.clone(), is_vm: false, uid: run.uid.clone(), seen: run.reported.clone() })
            }
            (None, None) => None,
        }
    }

    fn resource(&self) -> ApiResource {
        if self.is_vm {
            ApiResource::erase::<VirtualMachine>(&())
        } else {
            ApiResource::erase::<VirtualMachineInstance>(&())
        }
    }

    fn reference(&self) -> ObjectReference {
        reference(self.is_vm, &self.vm, &self.uid)
    }
}

fn reference(is_vm: bool, vm: &VmKey, uid: &str) -> ObjectReference {
    let kind = if is_vm { VirtualMachine::kind(&()) } else { VirtualMachineInstance::kind(&()) };
    ObjectReference {
        api_version: Some(VirtualMachine::api_version(&()).into_owned()),
        kind: Some(kind.into_owned()),
        namespace: Some(vm.namespace.clone()),
        name: Some(vm.name.clone()),
        uid: (!uid.is_empty()).then(|| uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// One element of the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PortStatus {
    network: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    switch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    ips: Vec<String>,
    /// `Assigned`, or the reason of what stands in the way.
    state: String,
    /// What is reserved for the next start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    next: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    problems: Vec<ProblemStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ProblemStatus {
    reason: String,
    message: String,
}

impl From<&PortReport> for PortStatus {
    fn from(report: &PortReport) -> Self {
        let PortReport { network, port, switch, addresses, next, problems } = report;
        let assigned = port.is_some() && addresses.is_some();
        let first = problems.first().map(|problem| problem.reason());
        Self {
            network: network.clone(),
            port: port.clone(),
            switch: switch.clone(),
            mac: addresses.map(|addresses| mac_text(addresses.mac)),
            ips: addresses.iter().flat_map(|addresses| addresses.ips()).map(|ip| ip.to_string()).collect(),
            state: if assigned { "Assigned" } else { first.unwrap_or("Pending") }.to_owned(),
            next: next.map(|next| next.to_string()),
            problems: problems
                .iter()
                .map(|problem| ProblemStatus { reason: problem.reason().to_owned(), message: problem.to_string() })
                .collect(),
        }
    }
}

/// An Event to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct News {
    warning: bool,
    reason: String,
    note: String,
}

/// What differs between what was told and what is.
fn news(before: &[PortStatus], now: &[PortStatus]) -> Vec<News> {
    let mut news = Vec::new();
    for port in now {
        let old = before.iter().find(|old| old.network == port.network);
        let PortStatus { network, port: name, switch, mac, ips, state: _, next, problems } = port;
        let on = format!("network {network}, port {}, switch {}", text(name), text(switch));
        if !ips.is_empty() && old.is_none_or(|old| old.ips != *ips || old.mac != *mac || old.switch != *switch) {
            let note = format!("{} with MAC {} on {on}", ips.join(" and "), text(mac));
            news.push(News { warning: false, reason: "AddressAssigned".to_owned(), note });
        }
        if let Some(next) = next
            && old.is_none_or(|old| old.next.as_ref() != Some(next))
        {
            let note = format!(
                "{next} is reserved and takes effect at the next start of the VM; until then {} stays ({on})",
                ips.join(" and ")
            );
            news.push(News { warning: false, reason: "AddressReserved".to_owned(), note });
        }
        for problem in problems {
            if old.is_none_or(|old| !old.problems.contains(problem)) {
                let ProblemStatus { reason, message } = problem.clone();
                let note = if network.is_empty() { message } else { format!("network {network}: {message}") };
                news.push(News { warning: true, reason, note });
            }
        }
    }
    news
}

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("none")
}

/// Sends reports, the newest of each VM, a VM at a time and some VMs at once.
pub struct Reporter {
    client: Client,
    reports: mpsc::UnboundedReceiver<Report>,
    pending: HashMap<VmKey, Report>,
    order: VecDeque<VmKey>,
    busy: HashSet<VmKey>,
    /// What was told last: the watch may not have seen it yet.
    told: HashMap<VmKey, Told>,
    sending: JoinSet<Sent>,
}

struct Sent {
    vm: VmKey,
    /// The annotation as it is now; `None` when the object is gone.
    told: Result<Option<Told>, Report>,
}

/// An annotation that we wrote.
#[derive(Debug, Clone)]
struct Told {
    uid: String,
    annotation: Reported,
}

impl Subject {
    /// The annotation as it is: what we wrote, until the watch has seen the object that new.
    fn present<'a>(&'a self, told: Option<&'a Told>) -> &'a Reported {
        match told {
            Some(told) if told.uid == self.uid && told.annotation.version > self.seen.version => &told.annotation,
            _ => &self.seen,
        }
    }
}

impl Reporter {
    /// A reporter for these.
    pub fn new(client: Client, reports: mpsc::UnboundedReceiver<Report>) -> Self {
        Self {
            client,
            reports,
            pending: HashMap::new(),
            order: VecDeque::new(),
            busy: HashSet::new(),
            told: HashMap::new(),
            sending: JoinSet::new(),
        }
    }

    /// Runs until nobody reports any more.
    pub async fn run(mut self) {
        loop {
            self.send_pending();
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(report) => self.take(report),
                    None => return,
                },
                Some(sent) = self.sending.join_next(), if !self.sending.is_empty() => {
                    if let Ok(sent) = sent {
                        self.finish(sent);
                    }
                }
            }
        }
    }

    fn take(&mut self, report: Report) {
        let vm = match &report {
            Report::Ports { subject, .. } => subject.vm.clone(),
            Report::Released { vm, .. } => vm.clone(),
        };
        if let Report::Ports { subject, ports } = &report {
            let present = subject.present(self.told.get(&vm)).text.as_ref();
            // Nothing new is the rule: most looks at a VM end here.
            let unchanged = present.map_or(ports.is_empty(), |present| *present == annotation(ports));
            if unchanged && !self.busy.contains(&vm) && !self.pending.contains_key(&vm) {
                return;
            }
        }
        if self.pending.insert(vm.clone(), report).is_none() {
            self.order.push_back(vm);
        }
    }

    fn send_pending(&mut self) {
        for _ in 0..self.order.len() {
            if self.sending.len() >= AT_ONCE {
                return;
            }
            let Some(vm) = self.order.pop_front() else { return };
            if self.busy.contains(&vm) {
                self.order.push_back(vm);
                continue;
            }
            if let Some(report) = self.pending.remove(&vm) {
                let told = self.told.get(&vm).cloned();
                self.busy.insert(vm.clone());
                let client = self.client.clone();
                self.sending.spawn(async move {
                    let result = send(&client, &report, told).await;
                    let told = match result {
                        Ok(told) => Ok(told),
                        Err(error) => {
                            tracing::warn!(%vm, error = %error, "the VM's owner could not be told; trying again");
                            tokio::time::sleep(RETRY).await;
                            Err(report)
                        }
                    };
                    Sent { vm, told }
                });
            }
        }
    }

    fn finish(&mut self, Sent { vm, told }: Sent) {
        self.busy.remove(&vm);
        match told {
            Ok(Some(told)) => drop(self.told.insert(vm, told)),
            Ok(None) => drop(self.told.remove(&vm)),
            // A newer report replaces the one that failed.
            Err(report) if !self.pending.contains_key(&vm) => {
                self.pending.insert(vm.clone(), report);
                self.order.push_back(vm);
            }
            Err(_) => {}
        }
    }
}

fn annotation(ports: &[PortReport]) -> String {
    let told: Vec<PortStatus> = ports.iter().map(PortStatus::from).collect();
    // Strings, lists and options: nothing here that JSON cannot hold.
    serde_json::to_string(&told).unwrap_or_default()
}

/// Sends Events and the annotation; what now stands in the annotation.
async fn send(client: &Client, report: &Report, told: Option<Told>) -> Result<Option<Told>, kube::Error> {
    let (subject, ports) = match report {
        Report::Ports { subject, ports } => (subject, ports),
        Report::Released { vm, ports } => return released(client, vm, ports).await.map(|()| None),
    };
    let text = annotation(ports);
    let Reported { text: last, version: seen } = subject.present(told.as_ref());
    let before: Vec<PortStatus> = last.as_deref().and_then(|last| serde_json::from_str(last).ok()).unwrap_or_default();
    let now: Vec<PortStatus> = ports.iter().map(PortStatus::from).collect();
    for news in news(&before, &now) {
        if news.warning {
            tracing::warn!(vm = %subject.vm, reason = news.reason, "{}", news.note);
        }
        publish(client, subject.reference(), &news).await?;
    }
    let value = (!ports.is_empty()).then_some(text);
    let mut written = *seen;
    if *last != value {
        let patch = serde_json::json!({"metadata": {"annotations": {PORTS_ANNOTATION: value}}});
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &subject.vm.namespace, &subject.resource());
        match api.patch_metadata(&subject.vm.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(object) => written = version(&object.metadata),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let annotation = Reported { text: value, version: written };
    Ok(Some(Told { uid: subject.uid.clone(), annotation }))
}

async fn released(client: &Client, vm: &VmKey, ports: &[LogicalSwitchPort]) -> Result<(), kube::Error> {
    for port in ports {
        let uid = port.external_ids.get(keys::VM_UID).unwrap_or_default();
        let addresses = port.addresses.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let news = News {
            warning: false,
            reason: "PortReleased".to_owned(),
            note: format!("the port {} with {addresses} was released: the VM is gone", port.name),
        };
        match publish(client, reference(true, vm, uid), &news).await {
            // The namespace goes too, and takes its Events along.
            Err(kube::Error::Api(status)) if status.code == 403 || status.code == 404 => {}
            result => result?,
        }
    }
    Ok(())
}

/// One Event (events.k8s.io/v1), which `kubectl describe` shows with its object.
async fn publish(client: &Client, regarding: ObjectReference, news: &News) -> Result<(), kube::Error> {
    let now = Timestamp::now();
    let namespace = regarding.namespace.clone().unwrap_or_default();
    let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond());
    let mut note = news.note.clone();
    if let Some((end, _)) = note.char_indices().find(|(at, character)| at + character.len_utf8() > LONGEST_NOTE) {
        note.truncate(end);
    }
    let event = Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
        event_time: Some(MicroTime(now)),
        action: Some("ServePort".to_owned()),
        reason: Some(news.reason.clone()),
        note: Some(note),
        regarding: Some(regarding),
        reporting_controller: Some("ovn-kubevirt".to_owned()),
        reporting_instance: Some(format!("ovn-kubevirt-{}", std::process::id())),
        type_: Some(if news.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    };
    Api::<Event>::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await?;
    Ok(())
}
