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
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::escaped::{Escaped, EscapedError};
use crate::kubevirt::objects::{VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{PORTS_ANNOTATION, PortStatus, ProblemStatus, Reported, Told, VmObjects, version};
use crate::ovn::{LogicalSwitchPort, VmKey, keys};
use crate::plan::PortReport;

/// VMs told at the same time.
const AT_ONCE: usize = 16;
/// A report that the API server did not take is tried again after this, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Kubernetes' limit on an Event's note.
const LONGEST_NOTE: usize = 1024;
const PORT_RELEASED: &str = "PortReleased";
/// An Event's name is that of its object, a dot, and the time in hexadecimal: 253 characters in all.
const LONGEST_EVENT_PREFIX: usize = 253 - 1 - 16;

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

impl Report {
    fn vm(&self) -> &VmKey {
        match self {
            Self::Ports { subject, .. } => &subject.vm,
            Self::Released { vm, .. } => vm,
        }
    }
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
    /// Which VM it is.
    pub fn vm(&self) -> &VmKey {
        &self.vm
    }

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
        let PortStatus { network, port: name, switch, mac, ips, next, problems, last: _, guest: _, state: _ } = port;
        let network = Escaped(network);
        let on = format!("network {network}, port {}, switch {}", text(name), Escaped(text(switch)));
        if mac.is_some() && old.is_none_or(|old| old.ips != *ips || old.mac != *mac || old.switch != *switch) {
            let note = format!("{} on {on}", addresses(ips, text(mac), "with"));
            news.push(News { warning: false, reason: "AddressAssigned".to_owned(), note });
        }
        if let Some(next) = next
            && old.is_none_or(|old| old.next.as_ref() != Some(next))
        {
            let note = format!(
                "{next} is reserved and takes effect at the next start of the VM; until then {} stays ({on})",
                if ips.is_empty() { text(mac).to_owned() } else { ips.join(" and ") }
            );
            news.push(News { warning: false, reason: "AddressReserved".to_owned(), note });
        }
        for problem in problems {
            if old.is_none_or(|old| !old.problems.contains(problem)) {
                let ProblemStatus { reason, message } = problem.clone();
                let note = if port.network.is_empty() { message } else { format!("network {network}: {message}") };
                news.push(News { warning: true, reason, note });
            }
        }
    }
    // A network that was renamed kept its port; one that lost it in another way is told why above.
    let is_there = |old: &PortStatus| now.iter().any(|now| now.network == old.network || now.port == old.port);
    for old in before.iter().filter(|old| !is_there(old)) {
        let PortStatus { network, port, mac, ips, .. } = old;
        if let Some(port) = port {
            let held = addresses(ips, text(mac), "and");
            // The annotation is the tenant's to write.
            let (port, network, held) = (EscapedError(port), Escaped(network), Escaped(&held));
            let note = format!("the port {port} of network {network} with {held} was released: the VM has no such NIC");
            news.push(News { warning: false, reason: PORT_RELEASED.to_owned(), note });
        }
    }
    news
}

/// `10.16.0.2 with MAC 0a:58:0a:10:00:02`, or the MAC alone.
fn addresses(ips: &[String], mac: &str, link: &str) -> String {
    if ips.is_empty() { format!("the MAC {mac} alone") } else { format!("{} {link} MAC {mac}", ips.join(" and ")) }
}

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("none")
}

/// Sends reports, the newest of each VM, a VM at a time and some VMs at once.
pub struct Reporter {
    client: Client,
    /// Whose annotations are ours.
    instance: String,
    reports: mpsc::UnboundedReceiver<Report>,
    pending: HashMap<VmKey, Report>,
    order: VecDeque<VmKey>,
    busy: HashSet<VmKey>,
    /// What was written last: the watch may not have seen it yet.
    written: HashMap<VmKey, Written>,
    failed: HashMap<VmKey, Failure>,
    sending: JoinSet<Sent>,
    /// VMs whose reports failed, until they are due again.
    delayed: JoinSet<VmKey>,
}

struct Sent {
    vm: VmKey,
    report: Report,
    /// The annotation as it is now; `None` when the object is gone.
    outcome: Result<Option<Written>, Refused>,
}

/// A report that the API server did not take.
struct Refused {
    error: kube::Error,
    /// What Events have been sent for all the same: they are not to be repeated.
    announced: Option<Vec<PortStatus>>,
}

/// A VM whose last report failed.
struct Failure {
    /// To be sent again, unless a newer one has come.
    report: Option<Report>,
    announced: Option<Vec<PortStatus>>,
    delay: Duration,
}

/// An annotation that we wrote.
#[derive(Debug, Clone)]
struct Written {
    uid: String,
    annotation: Reported,
}

impl Subject {
    /// The annotation as it is: what we wrote, until the watch has seen the object that new.
    fn present<'a>(&'a self, written: Option<&'a Written>) -> &'a Reported {
        match written {
            Some(written) if written.uid == self.uid && written.annotation.version > self.seen.version => {
                &written.annotation
            }
            _ => &self.seen,
        }
    }
}

impl Reporter {
    /// A reporter for these.
    pub fn new(client: Client, instance: String, reports: mpsc::UnboundedReceiver<Report>) -> Self {
        Self {
            client,
            instance,
            reports,
            pending: HashMap::new(),
            order: VecDeque::new(),
            busy: HashSet::new(),
            written: HashMap::new(),
            failed: HashMap::new(),
            sending: JoinSet::new(),
            delayed: JoinSet::new(),
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
                Some(due) = self.delayed.join_next(), if !self.delayed.is_empty() => {
                    if let Ok(vm) = due {
                        self.take_again(&vm);
                    }
                }
            }
        }
    }

    fn take(&mut self, report: Report) {
        let vm = report.vm().clone();
        if let Report::Released { ports, .. } = &report
            && ports.is_empty()
        {
            // A second look at a VM that is gone: what the first one found is told still.
            let asleep = self.failed.get(&vm).and_then(|failure| failure.report.as_ref());
            let untold = matches!(asleep, Some(Report::Released { .. }));
            if !untold && !self.busy.contains(&vm) && !self.pending.contains_key(&vm) {
                self.written.remove(&vm);
                self.failed.remove(&vm);
            }
            return;
        }
        if let Report::Ports { subject, ports } = &report {
            let present = subject.present(self.written.get(&vm)).text.as_ref();
            // Nothing new is the rule: most looks at a VM end here.
            let unchanged =
                present.map_or(ports.is_empty(), |present| *present == subject.annotation(&self.instance, ports));
            let at_rest = !self.busy.contains(&vm) && !self.pending.contains_key(&vm) && !self.failed.contains_key(&vm);
            if unchanged && at_rest {
                return;
            }
        }
        if let Some(failure) = self.failed.get_mut(&vm) {
            failure.report = None;
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
                let written = self.written.get(&vm).cloned();
                let announced = self.failed.get(&vm).and_then(|failure| failure.announced.clone());
                self.busy.insert(vm.clone());
                let (client, instance) = (self.client.clone(), self.instance.clone());
                self.sending.spawn(async move {
                    let outcome = send(&client, &instance, &report, written, announced).await;
                    Sent { vm, report, outcome }
                });
            }
        }
    }

    fn finish(&mut self, Sent { vm, report, outcome }: Sent) {
        self.busy.remove(&vm);
        match outcome {
            Ok(written) => {
                self.failed.remove(&vm);
                match written {
                    Some(written) => drop(self.written.insert(vm, written)),
                    None => drop(self.written.remove(&vm)),
                }
            }
            Err(Refused { error, announced }) => {
                let before = self.failed.remove(&vm);
                let delay = before.map_or(FIRST_RETRY, |failure| (failure.delay * 2).min(LAST_RETRY));
                tracing::warn!(%vm, error = %error, again_in = ?delay, "the VM's owner could not be told");
                let due = vm.clone();
                self.failed.insert(vm, Failure { report: Some(report), announced, delay });
                self.delayed.spawn(async move {
                    tokio::time::sleep(delay).await;
                    due
                });
            }
        }
    }

    fn take_again(&mut self, vm: &VmKey) {
        if let Some(report) = self.failed.get_mut(vm).and_then(|failure| failure.report.take()) {
            self.take(report);
        }
    }
}

impl Subject {
    /// The annotation's text for these ports.
    fn annotation(&self, instance: &str, ports: &[PortReport]) -> String {
        let ports = ports.iter().map(PortStatus::from).collect();
        Told { instance: instance.to_owned(), uid: self.uid.clone(), ports }.text()
    }
}

/// What the owner was told before, as far as the annotation was written for this object. Of what the first release
/// wrote, which may have come along from another VM, only what is still true counts.
fn told_before(text: Option<&str>, uid: &str, now: &[PortStatus]) -> Vec<PortStatus> {
    let Some(told) = text.and_then(Told::parse) else { return Vec::new() };
    if told.is_of_first_release() {
        return told.ports.into_iter().filter(|port| now.contains(port)).collect();
    }
    if told.is_for(uid) { told.ports } else { Vec::new() }
}

/// Sends Events and the annotation; what now stands in the annotation.
async fn send(
    client: &Client,
    instance: &str,
    report: &Report,
    written: Option<Written>,
    announced: Option<Vec<PortStatus>>,
) -> Result<Option<Written>, Refused> {
    let (subject, ports) = match report {
        Report::Ports { subject, ports } => (subject, ports),
        Report::Released { vm, ports } => {
            let released = released(client, vm, ports).await;
            return released.map(|()| None).map_err(|error| Refused { error, announced: None });
        }
    };
    let present = subject.present(written.as_ref());
    let now: Vec<PortStatus> = ports.iter().map(PortStatus::from).collect();
    let last = || told_before(present.text.as_deref(), &subject.uid, &now);
    let before: Vec<PortStatus> = announced.clone().unwrap_or_else(last);
    let text = (!ports.is_empty()).then(|| subject.annotation(instance, ports));
    for news in news(&before, &now) {
        if news.warning {
            tracing::warn!(vm = %subject.vm, reason = news.reason, "{}", news.note);
        }
        match publish(client, subject.reference(), &news).await {
            Err(error) if !is_final(&error) => {
                // The annotation tells as well, and is worth a try of its own; the Event comes later.
                let _ = annotate(client, subject, present, text).await;
                return Err(Refused { error, announced: Some(before) });
            }
            _ => {}
        }
    }
    let annotated = annotate(client, subject, present, text).await;
    annotated.map_err(|error| Refused { error, announced: Some(now) })
}

/// Whether an Event can never be sent: its object or namespace is gone or going, or it is malformed.
fn is_final(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    matches!(status.code, 404 | 422) || causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// Brings the annotation up to date; `None` when the object is gone.
async fn annotate(
    client: &Client,
    subject: &Subject,
    present: &Reported,
    text: Option<String>,
) -> Result<Option<Written>, kube::Error> {
    let mut written = present.version;
    if present.text != text {
        let patch = serde_json::json!({"metadata": {"annotations": {PORTS_ANNOTATION: text}}});
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &subject.vm.namespace, &subject.resource());
        match api.patch_metadata(&subject.vm.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(object) => written = version(&object.metadata),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let annotation = Reported { text, version: written };
    Ok(Some(Written { uid: subject.uid.clone(), annotation }))
}

async fn released(client: &Client, vm: &VmKey, ports: &[LogicalSwitchPort]) -> Result<(), kube::Error> {
    for port in ports {
        let uid = port.external_ids.get(keys::VM_UID).unwrap_or_default();
        let network = port.external_ids.get(keys::NETWORK).unwrap_or_default();
        let addresses = port.addresses.iter().collect::<Vec<_>>().join(", ");
        let news = News {
            warning: false,
            reason: PORT_RELEASED.to_owned(),
            note: format!(
                "the port {} of network {} with {} was released: the VM is gone",
                EscapedError(&port.name),
                Escaped(network),
                Escaped(&addresses)
            ),
        };
        match publish(client, reference(true, vm, uid), &news).await {
            Err(error) if !is_final(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// One Event (events.k8s.io/v1), which `kubectl describe` shows with its object.
async fn publish(client: &Client, regarding: ObjectReference, news: &News) -> Result<(), kube::Error> {
    let now = Timestamp::now();
    let namespace = regarding.namespace.clone().unwrap_or_default();
    let mut name = regarding.name.clone().unwrap_or_default();
    // Of a very long name, what fits; no part of a name may end in a hyphen or be empty.
    name.truncate(LONGEST_EVENT_PREFIX);
    let name = format!("{}.{:x}", name.trim_end_matches(['.', '-']), now.as_nanosecond());
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
