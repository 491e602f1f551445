//! A request for a review, with the fields that every review needs. The objects stay text.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;

use kube::core::Status;
use kube::core::admission::{AdmissionResponse, Operation};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The only version of a review that is read: Kubernetes has it since 1.16.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The two webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `POST /validate`: VMs and VMIs.
    Validate,
    /// `POST /mutate`: launcher pods.
    Mutate,
}

impl Hook {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Validate, Self::Mutate];

    /// The hook's label in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Mutate => "mutate",
        }
    }
}

/// Decides the answers to the API server.
pub trait Review: Send + Sync + 'static {
    /// Decides if a VM or VMI may be stored as it is.
    fn validate(&self, request: Request<'_>) -> impl Future<Output = AdmissionResponse> + Send;

    /// Decides if a launcher pod may be stored, and with which changes.
    fn mutate(&self, request: Request<'_>) -> impl Future<Output = AdmissionResponse> + Send;
}

/// A group and a version, with a kind or a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Kind<'a> {
    /// The API group; empty for the core.
    #[serde(default, borrow)]
    pub group: Cow<'a, str>,
    /// The version.
    #[serde(default, borrow)]
    pub version: Cow<'a, str>,
    /// The kind in the singular (`Pod`), or the resource in the plural (`pods`).
    #[serde(default, borrow, alias = "resource")]
    pub kind: Cow<'a, str>,
}

/// The user of the reviewed request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct User<'a> {
    /// The name, such as `system:serviceaccount:kubevirt:kubevirt-controller`.
    #[serde(default, borrow)]
    pub username: Cow<'a, str>,
    /// The groups.
    #[serde(default, borrow)]
    pub groups: Vec<Cow<'a, str>>,
}

/// A request to the API server, for review.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// The ID of this review, repeated in the answer.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The kind of the object.
    #[serde(borrow)]
    pub kind: Kind<'a>,
    /// The requested resource; [`Kind::kind`] has its plural.
    #[serde(borrow)]
    pub resource: Kind<'a>,
    /// `status`, `scale` and the like; empty for the object itself.
    #[serde(default, borrow)]
    pub sub_resource: Cow<'a, str>,
    /// The object's name; empty if the API server has yet to generate one.
    #[serde(default, borrow)]
    pub name: Cow<'a, str>,
    /// The object's namespace. The object itself may lack it at CREATE.
    #[serde(default, borrow)]
    pub namespace: Cow<'a, str>,
    /// The operation.
    pub operation: Operation,
    /// The user.
    #[serde(default, borrow, rename = "userInfo")]
    pub user: User<'a>,
    /// A dry run: nothing is stored.
    #[serde(default)]
    pub dry_run: bool,
    /// The new object; `None` at DELETE.
    #[serde(default, borrow)]
    pub object: Option<&'a RawValue>,
    /// The old object; `None` at CREATE.
    #[serde(default, borrow)]
    pub old_object: Option<&'a RawValue>,
}

/// The envelope of the request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    #[serde(default, borrow)]
    api_version: Cow<'a, str>,
    #[serde(default, borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    request: Option<Request<'a>>,
}

/// The reason why a body is not a review that can be answered.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// No JSON, or JSON of another shape.
    #[error("the body is no {KIND} of {API_VERSION}: {0}. Have the webhook configuration alone send requests here")]
    Json(#[from] serde_json::Error),
    /// Another kind or version, or a missing one.
    #[error(
        "the body is {kind} of {version}, and this webhook reads {KIND} of {API_VERSION}. Write `admissionReviewVersions: [v1]` into the webhook configuration"
    )]
    Version {
        /// Its kind.
        kind: String,
        /// Its version.
        version: String,
    },
    /// A review without a request.
    #[error("the {KIND} has no request. Have the webhook configuration alone send requests here")]
    Empty,
}

impl<'a> Request<'a> {
    /// Reads the body of an `AdmissionReview`.
    ///
    /// # Errors
    /// If the body is anything else.
    pub fn read(body: &'a [u8]) -> Result<Self, Unreadable> {
        let Question { api_version, kind, request } = serde_json::from_slice(body)?;
        if kind != KIND || api_version != API_VERSION {
            let shown = |text: &str| Shown(text).to_string();
            return Err(Unreadable::Version { kind: shown(&kind), version: shown(&api_version) });
        }
        request.ok_or(Unreadable::Empty)
    }

    /// The answer that allows the object unchanged.
    pub fn allow(&self) -> AdmissionResponse {
        let mut response = AdmissionResponse::invalid("");
        response.result = Status::default();
        response.allowed = true;
        response.uid = self.uid.clone().into_owned();
        response
    }
}

/// A foreign word, quoted and cut.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        let cut: String = self.0.chars().take(LONGEST).collect();
        write!(formatter, "{cut:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{
        "uid":"0c9a","kind":{"group":"","version":"v1","kind":"Pod"},
        "resource":{"group":"","version":"v1","resource":"pods"},"requestKind":{"group":"","version":"v1","kind":"Pod"},
        "name":"a","namespace":"n","operation":"UPDATE","userInfo":{"username":"u\u0041","uid":"1","groups":["g"],
        "extra":{"x":["y"]}},"object":{"kind":"Pod","metadata":{"name":"a"}},"oldObject":null,"dryRun":true,
        "options":{"kind":"UpdateOptions"}}}"#;

    #[test]
    fn the_objects_stay_text_and_the_rest_is_read() {
        let request = Request::read(QUESTION.as_bytes()).expect("a request");
        assert_eq!(request.object.map(RawValue::get), Some(r#"{"kind":"Pod","metadata":{"name":"a"}}"#));
        assert!(request.old_object.is_none() && request.dry_run && request.operation == Operation::Update);
        assert_eq!((request.resource.kind.as_ref(), request.kind.kind.as_ref()), ("pods", "Pod"));
        assert_eq!((request.user.username.as_ref(), request.user.groups[0].as_ref()), ("uA", "g"));
        assert_eq!((request.namespace.as_ref(), request.name.as_ref(), request.sub_resource.as_ref()), ("n", "a", ""));
    }

    #[test]
    fn an_answer_has_the_requests_uid_and_allows_without_a_message() {
        let request = Request::read(QUESTION.as_bytes()).expect("a request");
        let answer = serde_json::to_value(request.allow().into_review()).expect("JSON");
        assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&"0c9a".into(), &true.into()));
        assert_eq!((&answer["apiVersion"], &answer["kind"]), (&API_VERSION.into(), &KIND.into()));
    }

    #[test]
    fn any_other_body_is_refused_with_the_reason() {
        let long = format!(r#"{{"kind":"{}","apiVersion":"v1"}}"#, "K".repeat(5_000));
        let other_version = QUESTION.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
        let no_request = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#;
        let nested = "[".repeat(100_000);
        let no_operation = QUESTION.replace("UPDATE", "PATCH");
        for (body, words) in [
            ("", "is no AdmissionReview"),
            ("{", "is no AdmissionReview"),
            ("[]", "reads AdmissionReview"),
            ("{}", "reads AdmissionReview of admission.k8s.io/v1"),
            (nested.as_str(), "is no AdmissionReview"),
            (long.as_str(), "KKK"),
            (other_version.as_str(), "admissionReviewVersions"),
            (no_request, "has no request"),
            (no_operation.as_str(), "unknown variant"),
        ] {
            let error = Request::read(body.as_bytes()).expect_err(words).to_string();
            assert!(error.contains(words) && error.len() < 400, "{error}");
        }
        Request::read(b"\xff\xfe").expect_err("no UTF-8");
    }
}
