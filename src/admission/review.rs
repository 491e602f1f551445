//! The decisions of the webhooks.

use kube::core::admission::AdmissionResponse;

use super::request::{Request, Review};

/// Reviews VMs, VMIs and launcher pods.
#[derive(Debug, Clone, Default)]
pub struct Reviewer;

impl Review for Reviewer {
    async fn validate(&self, request: Request<'_>) -> AdmissionResponse {
        request.allow()
    }

    async fn mutate(&self, request: Request<'_>) -> AdmissionResponse {
        request.allow()
    }
}
