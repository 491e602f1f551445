//! The next step for the certificates.

use super::examine::{Examined, authorities, shown};
use super::{Lifetimes, Material, UnixTime};

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// No change.
    Keep,
    /// The first CA issues another certificate.
    Renew(String),
    /// Puts a new CA before the others. The shown certificate stays.
    Announce(String),
    /// Makes a new CA and at once a certificate of it, as the present one is unusable.
    Make(String),
}

/// Returns the next step for `material`, the content of a Secret; `None` if there is no Secret. `announced` is the bundle that
/// the webhook configurations have: a CA that is not in it cannot issue.
pub(crate) fn next_step(
    material: Option<&Material>,
    announced: &str,
    hosts: &[String],
    lifetimes: &Lifetimes,
    now: UnixTime,
) -> Step {
    let Some(material) = material else { return Step::Make("there is no Secret yet".to_owned()) };
    let authorities = authorities(&material.authorities);
    let authority = usable(&authorities, &material.authority_key, now);
    match (authority, shown(material, &authorities, now)) {
        (Err(reason), Ok(_)) => Step::Announce(reason),
        (Err(_), Err(reason)) => Step::Make(reason),
        (Ok(_), Err(reason)) => Step::Renew(reason),
        (Ok(authority), Ok(_)) if authority.is_due(now) => {
            Step::Announce("two thirds of the CA's lifetime are over".to_owned())
        }
        (Ok(authority), Ok(shown)) if !shown.is_of(authority) => {
            let settled = authority.made.saturating_add_unsigned(lifetimes.settle.as_secs());
            match now >= settled && announced == material.authorities {
                true => Step::Renew("the new CA has settled".to_owned()),
                false => Step::Keep,
            }
        }
        (Ok(_), Ok(shown)) => renewal(&shown, hosts, now),
    }
}

/// The CA that issues.
fn usable<'a>(authorities: &'a [Examined], key: &str, now: UnixTime) -> Result<&'a Examined, String> {
    let first = authorities.first().ok_or("ca.crt holds no CA")?;
    if !first.is_current(now) {
        return Err("the first CA in ca.crt has expired, or is not valid yet".to_owned());
    }
    if !first.has_key(key) {
        return Err("ca.key is not the key of the first CA in ca.crt".to_owned());
    }
    Ok(first)
}

/// The step when the certificate is valid, and of the CA that issues.
fn renewal(shown: &Examined, hosts: &[String], now: UnixTime) -> Step {
    if shown.is_due(now) {
        return Step::Renew("two thirds of its lifetime are over".to_owned());
    }
    match hosts.iter().find(|host| !shown.hosts.iter().any(|shown| shown.eq_ignore_ascii_case(host))) {
        Some(missing) => Step::Renew(format!("it does not name {missing}")),
        None => Step::Keep,
    }
}
