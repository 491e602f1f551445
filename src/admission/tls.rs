//! The certificate that the webhooks' listener shows: replaced at any time, used from the next connection on.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// HTTP/1.1 alone: the API server uses no other protocol for webhooks.
const PROTOCOL: &[u8] = b"http/1.1";

/// The reason why a certificate and a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate in PEM.
    #[error("it holds no usable certificate: {0}")]
    Certificate(String),
    /// No private key in PEM.
    #[error("it holds no usable private key: {0}")]
    Key(String),
    /// Certificate and key do not match.
    #[error("the certificate cannot be used with the key: {0}")]
    Pair(String),
}

/// The certificate in use, shared by the listener and the task that keeps it. Without one, connections fail.
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
    /// Uses another certificate from the next connection on. Existing connections stay.
    ///
    /// # Errors
    /// If the two cannot be used. The former certificate stays.
    pub fn show(&self, certificate: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let pair = Arc::new(certified(certificate, key)?);
        *self.0.0.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
        Ok(())
    }

    /// The TLS side of the listener. Clients need no certificate: the API server has one for webhooks only if its
    /// operator configures it.
    ///
    /// # Errors
    /// If the provider of cryptography lacks every version of TLS.
    pub fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
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
