//! TLS as OVS does it: both sides show a certificate, and each checks the other's chain.
//!
//! ovs-pki's certificates carry no DNS name, so the chain alone is verified, against the CA that the
//! operator names: who holds a certificate of that CA is trusted, as by OVN's own programs. The files
//! are read anew for each connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
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
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A remote is `ssl:`, and no files were given.
    #[error("an ssl: remote needs --ca-cert, --certificate and --private-key")]
    NoFiles,
    /// A file that cannot be read, or holds no PEM of the kind.
    #[error("{} holds no usable {what}: {reason}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The certificate and the key do not belong together.
    #[error("the certificate {} cannot be used with the key {}: {reason}", certificate.display(), private_key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        private_key: PathBuf,
        /// rustls' words.
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
            .with_custom_certificate_verifier(Arc::new(ChainVerifier { chain, provider }))
            .with_client_auth_cert(certificate, key)
            .map_err(|reason| self.pair_error(reason))?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn pair_error(&self, reason: rustls::Error) -> TlsError {
        TlsError::Pair { certificate: self.certificate.clone(), private_key: self.private_key.clone(), reason }
    }
}

fn file_error(what: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::File { what, path: path.to_owned(), reason }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| file_error(what, path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(file_error(what, path, "there is no BEGIN CERTIFICATE in it".to_owned()));
    }
    Ok(certificates)
}

/// What went wrong with a certificate, for an operator.
pub(super) fn plain(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(reason) = error else { return error.to_string() };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired: renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet: are the clocks right?".to_owned()
        }
        // A CA that was made anew under its old name gives a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate was not issued by the CA in --ca-cert: give the CA of the database's certificate"
                .to_owned()
        }
        CertificateError::BadEncoding | CertificateError::Other(_) => {
            format!(
                "the certificate cannot be used (X.509 version 1 certificates are refused; make it anew as version 3): {error}"
            )
        }
        _ => error.to_string(),
    }
}

/// Verifies the chain, and no name.
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
            // The name is looked at last, behind a chain that holds.
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
