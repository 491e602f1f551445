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
use crate::contract::annotations::LAUNCHER_LABEL;
use crate::controller::Asker;
use crate::escaped::Escaped;

/// A question about a VM is answered within this: the API server waits 3 s.
const VM_WITHIN: Duration = Duration::from_secs(2);
/// A launcher pod waits this long for its ports; virt-controller tries again.
const POD_WITHIN: Duration = Duration::from_secs(5);
/// The service account of virt-controller.
const VIRT_CONTROLLER: &str = "kubevirt-controller";
/// The service accounts of the garbage collector, which takes the owner off an orphan.
const GARBAGE_COLLECTORS: [&str; 2] =
    ["system:serviceaccount:kube-system:generic-garbage-collector", "system:kube-controller-manager"];
/// The most lines of one answer, refused ones and warnings each: the API server cuts long texts.
const MOST_LINES: usize = 10;

/// The operator's settings for launcher pods.
#[derive(Debug, Clone, Default)]
pub struct ReviewOptions {
    /// The namespace of KubeVirt.
    pub kubevirt_namespace: String,
    /// Users that may make launcher pods beside virt-controller.
    pub launcher_creators: Vec<String>,
    /// The NAD that takes the pod network's place in launcher pods.
    pub default_network: Option<NadKey>,
    /// Every namespace is served.
    pub every_namespace: bool,
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
    fn forged(&self, request: &Request<'_>, pod: &Pod, before: Option<&Pod>) -> Option<String> {
        let user = request.user.username.as_ref();
        let is_new = before.is_none_or(|before| pod.becomes_a_launcher(before));
        if !is_new || self.may_launch(user) {
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

impl Reviewer {
    /// The reason why the requester may not take the marks of a launcher off this pod, if there is one: its VM may run.
    fn hidden(&self, request: &Request<'_>, pod: &Pod, before: Option<&Pod>) -> Option<String> {
        let user = request.user.username.as_ref();
        let ceases = before.is_some_and(|before| pod.ceases_to_launch(before));
        if !ceases || self.may_launch(user) || GARBAGE_COLLECTORS.contains(&user) {
            return None;
        }
        Some(format!(
            "the user {} must not change what makes this pod a launcher of its VM, the label {} and the owner among it: \
             the port of the VM follows the pod. Undo that part of the edit, or stop the VM",
            Escaped(user),
            LAUNCHER_LABEL.0,
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
                return refuse(&request, 422, text);
            }
        };
        let vm = edited.vm().clone();
        let asked = move |moment: &crate::controller::Moment<'_>| std::ops::ControlFlow::Break(edited.verdict(moment));
        match self.asker.ask(&vm, VM_WITHIN, asked).await {
            Ok(Verdict { refused, warnings }) if refused.is_empty() => warn(request.allow(), warnings),
            Ok(Verdict { refused, warnings }) => warn(refuse(&request, 422, few(refused).join("; ")), warnings),
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
        if ![Some(&pod), before.as_ref()].into_iter().flatten().any(Pod::passes_for_a_launcher) {
            return request.allow();
        }
        let forged = self.forged(&request, &pod, before.as_ref());
        if let Some(reason) = forged.or_else(|| self.hidden(&request, &pod, before.as_ref())) {
            return refuse(&request, 403, reason);
        }
        let annotations = pod.metadata.annotations.is_some();
        let launcher = pod.launcher_of(&request.namespace);
        if let Some(before) = &before {
            if pod.carries_the_same(before) && !pod.becomes_a_launcher(before) {
                return request.allow();
            }
            let ends = pod.metadata.deletion_timestamp.is_some();
            let ceased = launcher.is_none() && before.launcher_of(&request.namespace).is_some();
            if ends || ceased {
                return annotate(&request, annotations, pod.as_before(before));
            }
        }
        let Some((vm, instance)) = launcher else { return request.allow() };
        let ReviewOptions { default_network, every_namespace, .. } = self.options.clone();
        let question = Question { pod, vm: vm.clone(), instance, default_network, before, every_namespace };
        let asked = move |moment: &crate::controller::Moment<'_>| question.ask(moment);
        let answer = self.asker.ask(&vm, POD_WITHIN, asked).await;
        tracing::debug!(namespace = vm.namespace, vm = vm.name, ?answer, "a launcher pod is reviewed");
        match answer {
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

fn warn(mut response: AdmissionResponse, warnings: Vec<String>) -> AdmissionResponse {
    response.warnings = (!warnings.is_empty()).then(|| few(warnings));
    response
}

/// The first lines of an answer, and the number of the others.
fn few(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > MOST_LINES {
        let more = lines.len() - MOST_LINES;
        lines.truncate(MOST_LINES);
        lines.push(format!("and {more} more"));
    }
    lines
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
