//! The requests by which an owner is told: Events, and the annotation.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::Written;
use super::news::News;
use crate::contract::VmKey;
use crate::contract::annotations::PORTS_ANNOTATION;
use crate::controller::kubernetes::{Refusal, call};
use crate::kubevirt::objects::{VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{Reported, version};

/// All of an answer is to be here within this.
const WITHIN: Duration = Duration::from_secs(10);
/// Kubernetes' limit on an Event's note.
const LONGEST_NOTE: usize = 1024;
/// An Event's name is that of its object, a dot, and 16 hexadecimal digits: 253 characters in all.
const LONGEST_EVENT_PREFIX: usize = 253 - 1 - 16;

/// The object that an Event is about, or that the annotation is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) vm: VmKey,
    pub(super) is_vm: bool,
    pub(super) uid: String,
}

impl Object {
    fn path(&self) -> String {
        let namespace = Some(self.vm.namespace.as_str());
        if self.is_vm {
            VirtualMachine::url_path(&(), namespace)
        } else {
            VirtualMachineInstance::url_path(&(), namespace)
        }
    }

    fn reference(&self) -> ObjectReference {
        let kind = if self.is_vm { VirtualMachine::kind(&()) } else { VirtualMachineInstance::kind(&()) };
        ObjectReference {
            api_version: Some(VirtualMachine::api_version(&()).into_owned()),
            kind: Some(kind.into_owned()),
            namespace: Some(self.vm.namespace.clone()),
            name: Some(self.vm.name.clone()),
            uid: (!self.uid.is_empty()).then(|| self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// An Event that is on its way. Its name stays the same at every try, so that one which had arrived is refused the second
/// time.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) about: Object,
    pub(super) news: News,
    pub(super) name: u64,
    pub(super) at: Timestamp,
    /// How often it has happened: more than once, it is a series.
    pub(super) count: u32,
}

/// What the annotation is to be.
#[derive(Debug, Clone)]
pub(super) struct Annotation {
    pub(super) on: Object,
    pub(super) text: Option<String>,
}

/// What became of a report.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// So many Events, from the first, need not be sent again.
    pub(super) settled: usize,
    /// What was refused for good, and counts as settled.
    pub(super) lost: Vec<(Call, Refusal)>,
    /// What is to be tried again.
    pub(super) troubles: Vec<(Call, Refusal)>,
    /// What was written; `None` where nothing was, or the object is gone.
    pub(super) written: Option<Written>,
}

/// A request as RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Call {
    CreateEvent,
    PatchEvent,
    PatchVm,
    PatchInstance,
}

impl Call {
    /// The verb and the resource.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CreateEvent => "create events",
            Self::PatchEvent => "patch events",
            Self::PatchVm => "patch virtualmachines",
            Self::PatchInstance => "patch virtualmachineinstances",
        }
    }
}

/// When a request that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Again {
    /// The server knows what was asked and says no: seldom, or when there is something else to say.
    Slowly,
    /// This one failed.
    Soon,
    /// The server is away, or has too much to do: nothing is sent for a while.
    Pause,
}

impl Again {
    pub(super) fn after(refusal: &Refusal) -> Self {
        match refusal.code() {
            None | Some(429 | 502 | 503 | 504) => Self::Pause,
            Some(408 | 409 | 500..) => Self::Soon,
            Some(_) => Self::Slowly,
        }
    }
}

/// Sends Events, and then the annotation. Where an Event is refused the annotation is worth a try of its own.
pub(super) async fn send(client: &Client, events: &[Outgoing], annotation: Option<&Annotation>) -> Outcome {
    let mut outcome = Outcome::default();
    for event in events {
        match publish(client, event).await {
            Ok(()) => outcome.settled += 1,
            Err((call, refusal)) if is_final(call, &refusal) => {
                outcome.settled += 1;
                outcome.lost.push((call, refusal));
            }
            Err((call, refusal)) => {
                let pause = Again::after(&refusal) == Again::Pause;
                outcome.troubles.push((call, refusal));
                if pause {
                    return outcome;
                }
                break;
            }
        }
    }
    if let Some(annotation) = annotation {
        match annotate(client, annotation).await {
            Ok(written) => outcome.written = written,
            Err(refusal) => {
                let call = if annotation.on.is_vm { Call::PatchVm } else { Call::PatchInstance };
                outcome.troubles.push((call, refusal));
            }
        }
    }
    outcome
}

/// Whether an Event can never be sent: its namespace is gone or going, or it is malformed. A series that may not be
/// written is not worth a second try: its first Event is there.
fn is_final(call: Call, refusal: &Refusal) -> bool {
    let malformed = matches!(refusal.code(), Some(400 | 404 | 413 | 422)) || refusal.is_namespace_terminating();
    malformed || call == Call::PatchEvent && Again::after(refusal) == Again::Slowly
}

/// Brings the annotation up to date; `None` when the object is gone.
async fn annotate(client: &Client, annotation: &Annotation) -> Result<Option<Written>, Refusal> {
    #[derive(Deserialize)]
    struct Patched {
        metadata: ObjectMeta,
    }
    let Annotation { on, text } = annotation;
    let patch = json!({"metadata": {"annotations": {PORTS_ANNOTATION: text}}});
    let request = Request::new(on.path()).patch_metadata(&on.vm.name, &PatchParams::default(), &Patch::Merge(patch));
    let Ok(request) = request else { return Ok(None) };
    match call::<Patched>(client, request, WITHIN).await {
        Ok(patched) => {
            let annotation = Reported { text: text.clone(), version: version(&patched.metadata) };
            Ok(Some(Written { uid: on.uid.clone(), annotation }))
        }
        Err(refusal) if refusal.code() == Some(404) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// One Event (events.k8s.io/v1), which `kubectl describe` shows with its object; or one more of its series.
async fn publish(client: &Client, event: &Outgoing) -> Result<(), (Call, Refusal)> {
    let events = Request::new(Event::url_path(&(), Some(&event.about.vm.namespace)));
    let name = event_name(&event.about.vm.name, event.name);
    if event.count > 1 {
        let patch = json!({"series": {"count": event.count, "lastObservedTime": MicroTime(event.at)}});
        let Ok(request) = events.patch(&name, &PatchParams::default(), &Patch::Merge(patch)) else { return Ok(()) };
        match call::<IgnoredAny>(client, request, WITHIN).await {
            Ok(_) => return Ok(()),
            // Its first Event has not been sent yet, or has gone, as all do after an hour.
            Err(refusal) if refusal.code() == Some(404) => {}
            Err(refusal) => return Err((Call::PatchEvent, refusal)),
        }
    }
    let Ok(body) = serde_json::to_vec(&object(event, name)) else { return Ok(()) };
    let Ok(request) = events.create(&PostParams::default(), body) else { return Ok(()) };
    match call::<IgnoredAny>(client, request, WITHIN).await {
        Ok(_) => Ok(()),
        // An earlier try of this one has arrived, though its answer has not.
        Err(refusal) if refusal.code() == Some(409) => Ok(()),
        Err(refusal) => Err((Call::CreateEvent, refusal)),
    }
}

/// Of a very long name, what fits; no part of a name may end in a hyphen or be empty.
fn event_name(object: &str, name: u64) -> String {
    let mut prefix = object.to_owned();
    let end = (0..=LONGEST_EVENT_PREFIX.min(prefix.len())).rfind(|end| prefix.is_char_boundary(*end));
    prefix.truncate(end.unwrap_or_default());
    format!("{}.{name:016x}", prefix.trim_end_matches(['.', '-']))
}

fn object(event: &Outgoing, name: String) -> Event {
    let News { warning, reason, note } = &event.news;
    let mut note = note.clone();
    if let Some((end, _)) = note.char_indices().find(|(at, character)| at + character.len_utf8() > LONGEST_NOTE) {
        note.truncate(end);
    }
    let namespace = Some(event.about.vm.namespace.clone());
    let series = event.count > 1;
    Event {
        metadata: ObjectMeta { name: Some(name), namespace, ..ObjectMeta::default() },
        event_time: Some(MicroTime(event.at)),
        action: Some("ServePort".to_owned()),
        reason: Some(reason.clone()),
        note: Some(note),
        regarding: Some(event.about.reference()),
        reporting_controller: Some("ovn-kubevirt".to_owned()),
        reporting_instance: Some(format!("ovn-kubevirt-{}", std::process::id())),
        type_: Some(if *warning { "Warning" } else { "Normal" }.to_owned()),
        series: series.then(|| EventSeries {
            count: i32::try_from(event.count).unwrap_or(i32::MAX),
            last_observed_time: MicroTime(event.at),
        }),
        ..Event::default()
    }
}
