//! Makes CAs and certificates.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::examine::{Examined, authorities, shown};
use super::{Lifetimes, Material, PkiError, SKEW, Step, UnixTime};

/// The most CAs in a bundle.
const MOST_AUTHORITIES: usize = 4;

/// Carries out a step. `None` if there is nothing to do.
///
/// # Errors
/// If a host cannot be in a certificate.
pub(crate) fn carry_out(
    step: &Step,
    material: Option<&Material>,
    hosts: &[String],
    lifetimes: &Lifetimes,
    now: UnixTime,
) -> Result<Option<Material>, PkiError> {
    let mut made = material.cloned().unwrap_or_default();
    if *step == Step::Keep {
        return Ok(None);
    }
    let mut known = authorities(&made.authorities);
    let before = shown(&made, &known, now).ok();
    known.retain(|authority| authority.is_current(now));
    if matches!(step, Step::Announce(_) | Step::Make(_)) {
        let (authority, key) = new_authority(lifetimes, now)?;
        made.authority_key = key.serialize_pem();
        known.insert(0, authority);
    }
    known.truncate(MOST_AUTHORITIES);
    if matches!(step, Step::Renew(_) | Step::Make(_))
        && let Some(authority) = known.first()
    {
        // Another process may have other hosts: each adds its own until the certificate is due.
        let others = before.iter().filter(|before| !before.is_due(now)).flat_map(|before| &before.hosts);
        let mut all = hosts.to_vec();
        all.extend(others.filter(|other| !hosts.contains(other)).cloned());
        let issuer = Issuer::from_ca_cert_der(&authority.der, KeyPair::from_pem(&made.authority_key)?)?;
        let key = KeyPair::generate()?;
        let expires = authority.expires.min(after(now, lifetimes.certificate));
        let certificate = parameters("ovn-kubevirt webhooks", all, now, expires)?;
        made.certificate = certificate.signed_by(&key, &issuer)?.pem();
        made.key = key.serialize_pem();
    }
    made.authorities = known.into_iter().map(|authority| authority.pem).collect();
    Ok(Some(made))
}

fn new_authority(lifetimes: &Lifetimes, now: UnixTime) -> Result<(Examined, KeyPair), PkiError> {
    let key = KeyPair::generate()?;
    let mut authority = parameters("ovn-kubevirt webhook CA", Vec::new(), now, after(now, lifetimes.authority))?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.extended_key_usages.clear();
    let pem = authority.self_signed(&key)?.pem();
    let examined = Examined::read(&pem).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok((examined, key))
}

fn parameters(name: &str, hosts: Vec<String>, now: UnixTime, expires: UnixTime) -> Result<CertificateParams, PkiError> {
    let date = |at| OffsetDateTime::from_unix_timestamp(at).map_err(|_| PkiError::Clock(at));
    let mut parameters = CertificateParams::new(hosts)?;
    parameters.not_before = date(now - SKEW)?;
    parameters.not_after = date(expires)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Several CAs have one name: the key identifier distinguishes them.
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn after(now: UnixTime, lifetime: std::time::Duration) -> UnixTime {
    now.saturating_add_unsigned(lifetime.as_secs())
}
