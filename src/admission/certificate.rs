//! The webhooks' certificate: given as files.

mod files;

pub use files::{CertificateFiles, follow_files};
