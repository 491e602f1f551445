//! The decisions of the webhooks.
//!
//! ```text
//!   /validate   VM or VMI: what would be decided?    faults of the owner: refused; the rest: warnings
//!   /mutate     launcher pod: who makes it?          anyone but virt-controller: refused
//!                             are its ports there?   then it carries them; else it waits, and is refused
//! ```
//!
//! Both ask the writer ([`Asker`]), so that a webhook and the writer never disagree.

mod launcher;
mod networks;
mod vm;

use std::collections::BTreeMap;
use std::time::Duration;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use kube::core::Status;
use kube::core::admission::{AdmissionResponse, Operation};
use serde_json::{Map, Value};

use self::launcher::{Answer, Pod, Question};
use self::vm::{Edited, Passes, Verdict};
use super::request::{Request, Review};
use crate::contract::NadKey;
use crate::controller::Asker;
use crate::escaped::Escaped;

/// A question about a VM is answered within this: the API server waits 3 s.
const VM_WITHIN: Duration = Duration::from_secs(2);
/// A launcher pod waits this long for its ports; virt-controller tries again.
const POD_WITHIN: Duration = Duration::from_secs(5);
/// The service account of virt-controller.
const VIRT_CONTROLLER: &str = "kubevirt-controller";
/// Warnings of one answer, and the longest text of all of them: the API server cuts more.
const MOST_WARNINGS: usize = 10;

/// What the operator chose for launcher pods.
#[derive(Debug, Clone, Default)]
pub struct ReviewOptions {
    /// The namespace of KubeVirt.
    pub kubevirt_namespace: String,
    /// Users that may make launcher pods beside virt-controller.
    pub launcher_creators: Vec<String>,
    /// The NAD that takes the pod network's place in launcher pods.
    pub default_network: Option<NadKey>,
}

/// Reviews VMs, VMIs and launcher pods.
#[derive(Clone)]
pub struct Reviewer {
    asker: Asker,
    options: ReviewOptions,
}

impl Reviewer {
    /// A reviewer that asks this writer.
    pub fn new(asker: Asker, options: ReviewOptions) -> Self {
        Self { asker, options }
    }

    /// Returns true if the user may make launcher pods.
    fn may_launch(&self, user: &str) -> bool {
        let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        account == Some((self.options.kubevirt_namespace.as_str(), VIRT_CONTROLLER))
            || self.options.launcher_creators.iter().any(|creator| creator == user)
    }

    /// The reason why the requester may not make this launcher pod, if there is one.
    fn forged(&self, request: &Request<'_>, before: Option<&Pod>) -> Option<String> {
        let user = request.user.username.as_ref();
        if before.is_some_and(Pod::passes_for_a_launcher) || self.may_launch(user) {
            return None;
        }
        Some(format!(
            "the user {} must not make launcher pods of VMs: the port of a VM follows them. Let virt-controller make the pod; \
             if KubeVirt is in another namespace than {}, set --kubevirt-namespace of ovn-kubevirt",
            Escaped(user),
            self.options.kubevirt_namespace
        ))
    }
}

impl Review for Reviewer {
    async fn validate(&self, request: Request<'_>) -> AdmissionResponse {
        let edited = match Edited::read(&request) {
            Ok(edited) => edited,
            Err(Passes::Unconcerned) => return request.allow(),
            Err(Passes::Unreadable(reason)) => {
                let kind = request.kind.kind.as_ref();
                let text = format!("the {kind} cannot be read: {}. Correct the field that it names", Escaped(&reason));
                return warn(request.allow(), vec![text]);
            }
        };
        let vm = edited.vm().clone();
        let asked = move |moment: &crate::controller::Moment<'_>| std::ops::ControlFlow::Break(edited.verdict(moment));
        match self.asker.ask(&vm, VM_WITHIN, asked).await {
            Ok(Verdict { refused, warnings }) if refused.is_empty() => warn(request.allow(), warnings),
            Ok(Verdict { refused, warnings }) => warn(refuse(&request, 422, refused.join("; ")), warnings),
            Err(unanswered) => {
                let text = format!("ovn-kubevirt cannot check the networks of this VM now: {unanswered}");
                warn(request.allow(), vec![text])
            }
        }
    }

    async fn mutate(&self, request: Request<'_>) -> AdmissionResponse {
        let read = |text: Option<&serde_json::value::RawValue>| {
            text.map(|text| serde_json::from_str::<Pod>(text.get())).transpose()
        };
        let (pod, before) = match (read(request.object), read(request.old_object)) {
            (Ok(Some(pod)), Ok(before)) => (pod, before),
            (Ok(None), _) => return request.allow(),
            (Err(error), _) | (_, Err(error)) => {
                let text = format!("the pod cannot be read: {error}. Correct the field that it names");
                return refuse(&request, 422, text);
            }
        };
        let before = before.filter(|_| request.operation == Operation::Update);
        if !pod.passes_for_a_launcher() {
            return request.allow();
        }
        if let Some(reason) = self.forged(&request, before.as_ref()) {
            return refuse(&request, 403, reason);
        }
        let unchanged = before.as_ref().is_some_and(|before| pod.carries_the_same(before));
        let launcher = pod.launcher_of(&request.namespace).filter(|_| !unchanged);
        let Some((vm, instance)) = launcher else { return request.allow() };
        let annotations = pod.metadata.annotations.is_some();
        let ends = pod.metadata.deletion_timestamp.is_some();
        let question =
            Question { pod, vm: vm.clone(), instance, default_network: self.options.default_network.clone(), before };
        if ends {
            // Its interfaces are there until its kubelet has ended it.
            return annotate(&request, annotations, question.as_before());
        }
        let asked = move |moment: &crate::controller::Moment<'_>| question.ask(moment);
        match self.asker.ask(&vm, POD_WITHIN, asked).await {
            Ok(Answer::Annotate(changed)) if changed.is_empty() => request.allow(),
            Ok(Answer::Annotate(changed)) => annotate(&request, annotations, changed),
            Ok(Answer::Refuse(reason)) => refuse(&request, 422, reason),
            // As the API server itself answers where it reaches no webhook.
            Err(unanswered) => refuse(&request, 500, unanswered.to_string()),
        }
    }
}

/// The answer that the object must not be stored.
fn refuse(request: &Request<'_>, code: u16, reason: String) -> AdmissionResponse {
    let mut response = request.allow().deny(&reason);
    response.result = Status { code, message: reason, ..response.result };
    response
}

fn warn(mut response: AdmissionResponse, mut warnings: Vec<String>) -> AdmissionResponse {
    if warnings.len() > MOST_WARNINGS {
        let more = warnings.len() - MOST_WARNINGS;
        warnings.truncate(MOST_WARNINGS);
        warnings.push(format!("and {more} more: see the Events of the VM"));
    }
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    response
}

/// Sets annotations of the pod, and takes others off.
fn annotate(
    request: &Request<'_>,
    has_annotations: bool,
    changed: BTreeMap<&'static str, Option<String>>,
) -> AdmissionResponse {
    let all = || PointerBuf::from_tokens(["metadata", "annotations"]);
    let mut operations = Vec::new();
    if !has_annotations {
        operations.push(PatchOperation::Add(AddOperation { path: all(), value: Value::Object(Map::new()) }));
    }
    for (key, value) in changed {
        let mut path = all();
        path.push_back(key);
        operations.push(match value {
            Some(text) => PatchOperation::Add(AddOperation { path, value: Value::String(text) }),
            None => PatchOperation::Remove(RemoveOperation { path }),
        });
    }
    match request.allow().with_patch(Patch(operations)) {
        Ok(response) => response,
        Err(error) => refuse(request, 500, format!("the annotations of the pod cannot be written: {error}. Try again")),
    }
}
