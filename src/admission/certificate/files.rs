//! A certificate that another program writes, such as cert-manager.
//!
//! Kubernetes replaces the files of a mounted Secret by renaming a link, and other programs write them one after the
//! other. So both are read periodically, and used once they match.

use std::path::PathBuf;
use std::time::Duration;

use super::Trouble;
use crate::admission::metrics::WebhookMetrics;
use crate::admission::pki;
use crate::admission::tls::Certificates;

/// Reads two small files: cheap, and soon enough for a certificate that is renewed days before it expires.
const EVERY: Duration = Duration::from_secs(10);

/// The files of a certificate, as `--webhook-cert` and `--webhook-key` name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate with its intermediates, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The listener that shows it, in the log.
    pub owner: &'static str,
    /// The flags that name the two files.
    pub flags: [&'static str; 2],
}

/// Shows the certificate in the files, and again after each change, for ever. A fault is logged once, and the former
/// certificate stays.
///
/// `metrics` gets the end of its validity.
pub async fn follow_files(files: CertificateFiles, certificates: Certificates, metrics: Option<WebhookMetrics>) {
    let mut seen = None;
    let mut trouble = Trouble::default();
    loop {
        match files.read().await {
            Ok(read) if seen.as_ref() == Some(&read) => {}
            Ok(read) => match certificates.show(&read.0, &read.1) {
                Ok(()) => {
                    let (certificate, again) = (files.certificate.display(), seen.is_some());
                    tracing::info!(%certificate, again, "the certificate of {} is shown by {}", files.flags[0], files.owner);
                    if let Some(metrics) = &metrics {
                        metrics.certificate_expires(pki::expires_at(&read.0));
                    }
                    trouble.is_over();
                    seen = Some(read);
                }
                Err(error) => files.report(&mut trouble, error.to_string()),
            },
            Err(error) => files.report(&mut trouble, error),
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl CertificateFiles {
    /// Shows the certificate in the files.
    ///
    /// # Errors
    /// If a file cannot be read, or the two cannot be used.
    pub async fn show(&self, certificates: &Certificates) -> Result<(), String> {
        let (certificate, key) = self.read().await?;
        certificates.show(&certificate, &key).map_err(|error| {
            format!("{} and {} cannot be used: {error}", self.certificate.display(), self.key.display())
        })
    }

    async fn read(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let read = async |path: &PathBuf| {
            tokio::fs::read(path).await.map_err(|error| format!("{} cannot be read: {error}", path.display()))
        };
        Ok((read(&self.certificate).await?, read(&self.key).await?))
    }

    fn report(&self, trouble: &mut Trouble, error: String) {
        if trouble.is_news(&error) {
            tracing::warn!(
                certificate = %self.certificate.display(),
                key = %self.key.display(),
                error,
                "the certificate of {} cannot be used, and the former one stays in use. Check the files of {} and {}; they are read again every {EVERY:?}",
                self.owner, self.flags[0], self.flags[1]
            );
        }
    }
}
