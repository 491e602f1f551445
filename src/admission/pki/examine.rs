//! Reads the content of a Secret.

use std::net::IpAddr;

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::{Material, SKEW, UnixTime};

/// RFC 7468.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A certificate.
pub(super) struct Examined {
    /// The text in the Secret, with a newline at its end.
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
    /// The time of its creation.
    pub(super) made: UnixTime,
    /// The end of its validity.
    pub(super) expires: UnixTime,
    pub(super) is_authority: bool,
    /// Its names and addresses.
    pub(super) hosts: Vec<String>,
    /// The raw public key.
    public_key: Vec<u8>,
}

impl Examined {
    /// Reads the first certificate of a PEM text.
    pub(super) fn read(pem: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        let parsed = parse(&der)?;
        let validity = parsed.validity();
        Ok(Self {
            made: validity.not_before.timestamp() + SKEW,
            expires: validity.not_after.timestamp(),
            is_authority: parsed.is_ca(),
            hosts: hosts(&parsed),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            pem: format!("{}\n", pem.trim()),
            der,
        })
    }

    /// Returns true if it is valid now.
    pub(super) fn is_current(&self, now: UnixTime) -> bool {
        (self.made - SKEW..self.expires).contains(&now)
    }

    /// Returns true if two thirds of its lifetime are over.
    pub(super) fn is_due(&self, now: UnixTime) -> bool {
        now >= self.made + (self.expires - self.made) / 3 * 2
    }

    /// Returns true if `key` (PEM) is its key.
    pub(super) fn has_key(&self, key: &str) -> bool {
        KeyPair::from_pem(key).is_ok_and(|key| key.public_key_raw() == self.public_key)
    }

    /// Returns true if `authority` has signed it.
    pub(super) fn is_of(&self, authority: &Self) -> bool {
        let (Ok(own), Ok(signer)) = (parse(&self.der), parse(&authority.der)) else { return false };
        own.issuer() == signer.subject() && own.verify_signature(Some(signer.public_key())).is_ok()
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    x509_parser::parse_x509_certificate(der).map(|(_, parsed)| parsed).map_err(|error| error.to_string())
}

fn hosts(parsed: &X509Certificate<'_>) -> Vec<String> {
    let names = parsed.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    names.into_iter().flatten().filter_map(host).collect()
}

/// The readable CAs of a bundle, in its order.
pub(super) fn authorities(bundle: &str) -> Vec<Examined> {
    let certificates = bundle.split_inclusive(END).filter_map(|text| Some(&text[text.find(BEGIN)?..]));
    certificates.filter_map(|pem| Examined::read(pem).ok()).filter(|examined| examined.is_authority).collect()
}

/// The certificate to show, or the reason why it is unusable at this time.
pub(super) fn shown(material: &Material, authorities: &[Examined], now: UnixTime) -> Result<Examined, String> {
    let shown = Examined::read(&material.certificate);
    let shown = shown.map_err(|error| format!("tls.crt holds no certificate that can be read: {error}"))?;
    if !shown.has_key(&material.key) {
        return Err("tls.key is not the key of tls.crt".to_owned());
    }
    if !shown.is_current(now) {
        return Err("tls.crt has expired, or is not valid yet".to_owned());
    }
    match authorities.iter().any(|authority| authority.is_current(now) && shown.is_of(authority)) {
        true => Ok(shown),
        false => Err("ca.crt lacks the CA that issued tls.crt".to_owned()),
    }
}

/// The end of the validity of the first certificate in a PEM text.
pub(crate) fn expires_at(certificate: &[u8]) -> Option<UnixTime> {
    Examined::read(std::str::from_utf8(certificate).ok()?).ok().map(|examined| examined.expires)
}
