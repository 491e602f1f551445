//! The certificate that the webhooks' listener shows: replaced at any moment, in force for the next connection.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// HTTP/1.1 alone: the API server speaks nothing else with webhooks.
const PROTOCOL: &[u8] = b"http/1.1";

/// Why a certificate and a key cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is no certificate in PEM.
    #[error("it holds no usable certificate: {0}")]
    Certificate(String),
    /// There is no private key in PEM.
    #[error("it holds no usable private key: {0}")]
    Key(String),
    /// Certificate and key are not of each other.
    #[error("the certificate cannot be used with the key: {0}")]
    Pair(String),
}

/// The certificate in force, shared by the listener and by the task that keeps it. There is none at first: connections
/// fail until there is one.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Arc<Shown>);

#[derive(Default)]
struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        formatter.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Certificates {
    /// Shows another certificate from the next connection on; connections that stand are left standing.
    ///
    /// # Errors
    /// Where the two cannot be used; the one before stays.
    pub fn show(&self, certificate: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let pair = Arc::new(certified(certificate, key)?);
        *self.0.0.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
        Ok(())
    }

    /// The TLS side of the listener. Clients need no certificate: the API server has one for webhooks only where its
    /// operator gives it one.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Shown>::clone(&self.0));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Reads a chain and its key, both PEM.
pub(super) fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| CertificateError::Certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(CertificateError::Certificate("there is no BEGIN CERTIFICATE in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
    let key = any_supported_type(&key).map_err(|error| CertificateError::Key(error.to_string()))?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|error| CertificateError::Pair(error.to_string()))?;
    Ok(pair)
}
