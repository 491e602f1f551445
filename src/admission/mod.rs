//! Admission webhooks: reviews for the API server before it stores a VM or a launcher pod.
//!
//! ```text
//!   kube-apiserver --TLS--> server --Request--> Review (review: the decisions)
//!                             ^                    |
//!                 certificate |                    v
//!   Secret or files --> Certificates         AdmissionResponse
//!         |
//!         +--CA--> the two webhook configurations, by name
//! ```
//!
//! The listener is independent of VMs: it reads the common parts of an `AdmissionReview`, keeps the objects as text,
//! and passes both to a [`Review`]. A pod of another application costs no more than that.

mod certificate;
mod metrics;
mod pki;
mod request;
mod review;
mod server;
mod tls;

pub use certificate::{CertificateFiles, SecretOptions, follow_files, keep_certificate};
pub use metrics::WebhookMetrics;
pub use request::{Hook, Kind, Request, Review, Unreadable, User};
pub use review::{ReviewOptions, Reviewer};
pub use server::serve;
pub use tls::{CertificateError, Certificates};
