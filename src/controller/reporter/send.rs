//! The requests of a report: Events and the annotation.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::Written;
use super::news::News;
use crate::contract::VmKey;
use crate::contract::annotations::PORTS_ANNOTATION;
use crate::controller::kubernetes::{NewEvent, Refusal, call, create_event};
use crate::kubevirt::objects::{VirtualMachine, VirtualMachineInstance};
use crate::kubevirt::{Reported, version};

/// The limit for a whole answer.
const WITHIN: Duration = Duration::from_secs(10);

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

/// An Event to be sent. Its name is the same at every try, so that an Event that had arrived is refused the second
/// time.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) about: Object,
    pub(super) news: News,
    pub(super) name: u64,
    pub(super) at: Timestamp,
    /// The number of occurrences: more than one makes a series.
    pub(super) count: u32,
    /// The first Event of its series was sent before this one.
    pub(super) continues: bool,
}

/// The annotation to be written.
#[derive(Debug, Clone)]
pub(super) struct Annotation {
    pub(super) on: Object,
    pub(super) text: Option<String>,
}

/// The outcome of a report.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The number of Events, from the first, that need not be sent again.
    pub(super) settled: usize,
    /// Requests that were refused for good. They count as settled.
    pub(super) lost: Vec<(Call, Refusal)>,
    /// Requests to be tried again.
    pub(super) troubles: Vec<(Call, Refusal)>,
    /// The annotation that was written; `None` if there was no write, or the object is gone.
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

/// The time of another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Again {
    /// The server understood the request and refuses it: after a long pause, or when there is another status to report.
    Slowly,
    /// This request failed.
    Soon,
    /// The server is away or overloaded: all requests pause.
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

/// Sends Events, and then the annotation, which is tried even if an Event is refused.
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

/// Returns true if an Event can never be sent: its namespace is gone or terminating, or it is malformed. A refused
/// write of a series is final, too: its first Event exists.
fn is_final(call: Call, refusal: &Refusal) -> bool {
    let malformed = matches!(refusal.code(), Some(400 | 404 | 413 | 422)) || refusal.is_namespace_terminating();
    malformed || call == Call::PatchEvent && Again::after(refusal) == Again::Slowly
}

/// Writes the annotation. `None` if the object is gone.
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

/// Writes an Event (events.k8s.io/v1), which `kubectl describe` shows with its object, or one more of its series.
async fn publish(client: &Client, event: &Outgoing) -> Result<(), (Call, Refusal)> {
    if event.continues {
        let events = Request::new(Event::url_path(&(), Some(&event.about.vm.namespace)));
        let name = new_event(event).object_name();
        let patch = json!({"series": {"count": event.count, "lastObservedTime": MicroTime(event.at)}});
        let Ok(request) = events.patch(&name, &PatchParams::default(), &Patch::Merge(patch)) else { return Ok(()) };
        match call::<IgnoredAny>(client, request, WITHIN).await {
            Ok(_) => return Ok(()),
            // Its first Event was lost, or has expired, as all do after an hour.
            Err(refusal) if refusal.code() == Some(404) => {}
            Err(refusal) => return Err((Call::PatchEvent, refusal)),
        }
    }
    create_event(client, &new_event(event)).await.map_err(|refusal| (Call::CreateEvent, refusal))
}

fn new_event(event: &Outgoing) -> NewEvent<'_> {
    let News { warning, reason, note } = &event.news;
    NewEvent {
        about: event.about.reference(),
        name: event.name,
        warning: *warning,
        reason,
        note,
        at: event.at,
        count: event.count,
    }
}
