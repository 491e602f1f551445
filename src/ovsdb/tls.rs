//! TLS as OVS uses it: both sides show a certificate, and each verifies the other's chain.
//!
//! Certificates of ovs-pki have no DNS name, so only the chain is verified, against the CA that the operator names: any
//! certificate of that CA is trusted, as OVN's own programs do. With `verify_hostname` the name is verified as well.
//!
//! The files are read again for each connection. A change of the files does not end existing connections, as in OVS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;

/// The files of `--ca-cert`, `--certificate` and `--private-key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA that the server's certificate must chain to.
    pub ca_cert: PathBuf,
    /// Our certificate, with its intermediates.
    pub certificate: PathBuf,
    /// Its key.
    pub private_key: PathBuf,
    /// The server's certificate must be for the host that the remote names.
    pub verify_hostname: bool,
}

/// The reason why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A remote is `ssl:`, but the files are not set.
    #[error("an ssl: remote needs --ca-cert, --certificate and --private-key")]
    NoFiles,
    /// A file that cannot be read, or has no PEM of this kind.
    #[error("{} holds no usable {content}: {reason}", path.display())]
    File {
        /// The expected content.
        content: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The certificate and the key do not belong together.
    #[error("the certificate {} cannot be used with the key {}: {reason}", certificate.display(), private_key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        private_key: PathBuf,
        /// The error of rustls.
        reason: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads the files and makes a connector of them.
    pub(super) fn connector(&self) -> Result<TlsConnector, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for root in certificates("CA certificate", &self.ca_cert)? {
            roots.add(root).map_err(|error| file_error("CA certificate", &self.ca_cert, plain(&error)))?;
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| file_error("CA certificate", &self.ca_cert, error.to_string()))?;
        let certificate = certificates("certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.private_key)
            .map_err(|error| file_error("private key", &self.private_key, error.to_string()))?;
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|reason| self.pair_error(reason))?
            .dangerous()
            .with_custom_certificate_verifier(match self.verify_hostname {
                true => chain,
                false => Arc::new(ChainVerifier { chain, provider }),
            })
            .with_client_auth_cert(certificate, key)
            .map_err(|reason| self.pair_error(reason))?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn pair_error(&self, reason: rustls::Error) -> TlsError {
        TlsError::Pair { certificate: self.certificate.clone(), private_key: self.private_key.clone(), reason }
    }
}

fn file_error(content: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::File { content, path: path.to_owned(), reason }
}

fn certificates(content: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| file_error(content, path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(file_error(content, path, "there is no BEGIN CERTIFICATE in it".to_owned()));
    }
    Ok(certificates)
}

/// Describes an error of rustls to an operator.
pub(super) fn plain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => plain_certificate(reason),
        rustls::Error::AlertReceived(alert) => {
            let fault = match alert {
                AlertDescription::CertificateExpired => "it has expired: renew the one in --certificate",
                AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::DecryptError => {
                    "it was not issued by a CA that the server trusts: give one of its CA in --certificate"
                }
                AlertDescription::CertificateRequired => "it is missing: give --certificate and --private-key",
                AlertDescription::UnsupportedCertificate | AlertDescription::CertificateUnknown => {
                    "it is unsuitable: give another in --certificate"
                }
                _ => return format!("the server ended the TLS session: {alert:?}"),
            };
            format!("the server refused our certificate ({alert:?}): {fault}")
        }
        rustls::Error::InvalidMessage(_) => {
            format!("the server does not speak TLS on this port ({error}): write tcp: if it should not")
        }
        _ => error.to_string(),
    }
}

fn plain_certificate(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: are the clocks right?".to_owned()
        }
        // A new CA with the name of the old one gives a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate was not issued by the CA in --ca-cert: give the CA of the database's certificate"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") };
            format!(
                "the server's certificate is for {presented}, not for {}: name the host as its certificate does, or leave out --nb-verify-hostname",
                expected.to_str()
            )
        }
        CertificateError::Other(other) if is_version_1(other) => {
            "the server's certificate is of X.509 version 1, which is refused: make it anew as version 3".to_owned()
        }
        _ => format!("the server's certificate cannot be used: {}", rustls::Error::from(reason.clone())),
    }
}

fn is_version_1(error: &OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::UnsupportedCertVersion))
}

/// Verifies the chain, but not the name.
#[derive(Debug)]
struct ChainVerifier {
    chain: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is verified last, after the chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
