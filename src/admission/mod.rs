//! Admission webhooks: what the API server asks before it stores a VM or a launcher pod.
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
//! The listener knows nothing of VMs: it reads an `AdmissionReview` as far as every review needs it, leaves the objects as
//! the text that came, and hands both to a [`Review`]. A pod that is not ours costs no more than that.

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
