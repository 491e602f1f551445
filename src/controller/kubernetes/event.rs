//! Events (events.k8s.io/v1), which `kubectl describe` shows with their object.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::Request;
use kube::{Client, Resource};
use serde::de::IgnoredAny;

use super::call::{Refusal, call};

/// The limit for a whole answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Kubernetes' limit on an Event's note.
const LONGEST_NOTE: usize = 1024;
/// An Event's name is that of its object, a dot, and 16 hexadecimal digits: 253 characters in all.
const LONGEST_EVENT_PREFIX: usize = 253 - 1 - 16;

/// An Event to be created.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent<'a> {
    /// The object that it is about.
    pub(crate) about: ObjectReference,
    /// Distinguishes it from other Events about the object; the same at every try.
    pub(crate) name: u64,
    /// Its type is `Warning`; else it is `Normal`.
    pub(crate) warning: bool,
    /// The reason.
    pub(crate) reason: &'a str,
    /// The message.
    pub(crate) note: &'a str,
    /// The time of the last occurrence.
    pub(crate) at: Timestamp,
    /// The number of occurrences: more than one makes a series.
    pub(crate) count: u32,
}

impl NewEvent<'_> {
    /// The Event's own name. A long object name is cut, and its parts may be neither empty nor end in a hyphen.
    pub(crate) fn object_name(&self) -> String {
        let mut prefix = self.about.name.clone().unwrap_or_default();
        let end = (0..=LONGEST_EVENT_PREFIX.min(prefix.len())).rfind(|end| prefix.is_char_boundary(*end));
        prefix.truncate(end.unwrap_or_default());
        format!("{}.{:016x}", prefix.trim_end_matches(['.', '-']), self.name)
    }

    fn object(&self) -> Event {
        let mut note = self.note.to_owned();
        if let Some((end, _)) = note.char_indices().find(|(at, character)| at + character.len_utf8() > LONGEST_NOTE) {
            note.truncate(end);
        }
        let (name, namespace) = (Some(self.object_name()), self.about.namespace.clone());
        Event {
            metadata: ObjectMeta { name, namespace, ..ObjectMeta::default() },
            event_time: Some(MicroTime(self.at)),
            action: Some("ServePort".to_owned()),
            reason: Some(self.reason.to_owned()),
            note: Some(note),
            regarding: Some(self.about.clone()),
            reporting_controller: Some("ovn-kubevirt".to_owned()),
            reporting_instance: Some(format!("ovn-kubevirt-{}", std::process::id())),
            type_: Some(if self.warning { "Warning" } else { "Normal" }.to_owned()),
            series: (self.count > 1).then(|| EventSeries {
                count: i32::try_from(self.count).unwrap_or(i32::MAX),
                last_observed_time: MicroTime(self.at),
            }),
            ..Event::default()
        }
    }
}

/// Creates an Event. An existing one with its name is an earlier try that has arrived without its answer.
pub(crate) async fn create_event(client: &Client, event: &NewEvent<'_>) -> Result<(), Refusal> {
    let events = Request::new(Event::url_path(&(), event.about.namespace.as_deref()));
    let Ok(body) = serde_json::to_vec(&event.object()) else { return Ok(()) };
    let Ok(request) = events.create(&PostParams::default(), body) else { return Ok(()) };
    match call::<IgnoredAny>(client, request, WITHIN).await {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.code() == Some(409) => Ok(()),
        Err(refusal) => Err(refusal),
    }
}
