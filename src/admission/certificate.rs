//! The webhooks' certificate: made and shared by the processes of an installation, or given as files.
//!
//! ```text
//!   secret:         Secret --read--> pki::next_step --> Secret --> Certificates (the listener)
//!   configurations:                                        +-----> caBundle of both webhook configurations
//!   files:          --webhook-cert, --webhook-key ---------------> Certificates
//! ```

mod configurations;
mod files;
mod secret;

use std::time::Duration;

pub use files::{CertificateFiles, follow_files};
pub use secret::{SecretOptions, keep_certificate};

use crate::controller::chain;

/// The limit for an answer of the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// The failure of a request.
#[derive(Debug)]
enum Failed {
    /// Another client was faster: read again.
    Conflict,
    /// Any other failure, with the message for the operator.
    Other(String),
}

/// Sends a request, with a deadline for the whole. `call` names the verb and the object, for the operator.
async fn ask<T>(call: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failed::Conflict),
        Ok(Err(kube::Error::Api(status))) => Err(Failed::Other(format!("{call}: {}", status.message))),
        Ok(Err(error)) => Err(Failed::Other(format!("{call}: {}", chain(&error)))),
        Err(_) => Err(Failed::Other(format!("{call}: the API server did not answer within {PATIENCE:?}"))),
    }
}

/// A fault, logged once for each new reason.
#[derive(Debug, Default)]
struct Trouble(String);

impl Trouble {
    /// Returns true if the reason is new.
    fn is_news(&mut self, error: &str) -> bool {
        let news = self.0 != error;
        if news {
            error.clone_into(&mut self.0);
        }
        news
    }

    fn is_over(&mut self) {
        self.0.clear();
    }
}
