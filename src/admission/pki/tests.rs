use proptest::prelude::*;

use super::examine::{Examined, authorities, shown};
use super::*;

const DAY: UnixTime = 86_400;
const YEAR: UnixTime = 365 * DAY;
const START: UnixTime = 1_800_000_000;

fn lifetimes() -> Lifetimes {
    Lifetimes::of_certificates(Duration::from_secs(YEAR.unsigned_abs()))
}

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A process's step for a Secret, and its result.
fn step_of(material: Option<&Material>, names: &[&str], now: UnixTime) -> (Step, Option<Material>) {
    let hosts = hosts(names);
    let announced = material.map(|material| material.authorities.clone()).unwrap_or_default();
    let step = next_step(material, &announced, &hosts, &lifetimes(), now);
    let made = carry_out(&step, material, &hosts, &lifetimes(), now).expect("certificates can be made");
    (step, made)
}

fn made(material: Option<&Material>, names: &[&str], now: UnixTime) -> Material {
    let (step, made) = step_of(material, names, now);
    made.unwrap_or_else(|| panic!("{step:?}"))
}

fn is_kept(material: &Material, names: &[&str], now: UnixTime) -> bool {
    step_of(Some(material), names, now).0 == Step::Keep
}

fn certificate(material: &Material, now: UnixTime) -> Examined {
    shown(material, &authorities(&material.authorities), now).expect("a certificate")
}

#[test]
fn a_certificate_is_for_its_hosts_and_is_renewed_after_two_thirds_of_its_life() {
    let names = ["a.b.svc", "192.0.2.1", "2001:db8::1"];
    let first = made(None, &names, START);
    let shown = certificate(&first, START);
    assert_eq!((shown.hosts, shown.expires), (hosts(&names), START + YEAR));
    assert_eq!(authorities(&first.authorities)[0].expires, START + 10 * YEAR);
    assert!(is_kept(&first, &names, START) && is_kept(&first, &names, START + 243 * DAY));
    let (step, second) = step_of(Some(&first), &names, START + 244 * DAY);
    assert!(matches!(step, Step::Renew(_)), "{step:?}");
    let second = second.expect("it is renewed");
    assert_eq!((&second.authorities, &second.authority_key), (&first.authorities, &first.authority_key));
    assert!(second.certificate != first.certificate && second.key != first.key);
    assert!(is_kept(&second, &names, START + 244 * DAY));
}

#[test]
fn a_new_ca_is_announced_before_it_is_used_and_the_old_one_is_trusted_to_its_end() {
    let names = ["a.b.svc"];
    let mut material = made(None, &names, START);
    let old = authorities(&material.authorities)[0].pem.clone();
    let mut now = START;
    // A process that reads the Secret once a day.
    let announced = loop {
        now += DAY;
        match step_of(Some(&material), &names, now) {
            (Step::Announce(_), Some(announced)) => break announced,
            (_, after) => material = after.unwrap_or(material),
        }
    };
    assert!((START + 6 * YEAR..START + 7 * YEAR).contains(&now));
    assert_eq!((&announced.certificate, &announced.key), (&material.certificate, &material.key));
    let bundle: Vec<String> = authorities(&announced.authorities).into_iter().map(|examined| examined.pem).collect();
    assert!(bundle.len() == 2 && bundle[1] == old && announced.authority_key != material.authority_key);
    // Not before every client knows it.
    assert!(is_kept(&announced, &names, now + 599));
    // Nor while the webhook configurations cannot be written.
    let unannounced = next_step(Some(&announced), &material.authorities, &hosts(&names), &lifetimes(), now + 6_000);
    assert_eq!(unannounced, Step::Keep);
    let used = made(Some(&announced), &names, now + 600);
    let [new, _] = &authorities(&used.authorities)[..] else { panic!("two CAs") };
    assert!(certificate(&used, now + 600).is_of(new) && used.authorities == announced.authorities);
    // It is removed after it has expired.
    let late = START + 10 * YEAR;
    let (_, after) = step_of(Some(&used), &names, late);
    assert!(!after.expect("a new certificate").authorities.contains(&old));
}

#[test]
fn unusable_material_is_recreated_and_a_usable_certificate_stays() {
    let names = ["a.b.svc"];
    let (good, other) = (made(None, &names, START), made(None, &names, START));
    let step = |change: &dyn Fn(&mut Material)| {
        let mut material = good.clone();
        change(&mut material);
        let (step, after) = step_of(Some(&material), &names, START);
        let after = after.expect("something is done");
        assert!(certificate(&after, START).is_current(START));
        // Only once.
        assert!(is_kept(&after, &names, START), "{step:?}");
        (step, after.certificate == good.certificate)
    };
    let (nothing, same) = step(&|material| *material = Material::default());
    assert!(matches!(nothing, Step::Make(_)) && !same);
    for nonsense in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key] {
        let (renewed, _) = step(&|material| material.certificate = nonsense.to_owned());
        assert!(matches!(renewed, Step::Renew(_)), "{renewed:?}");
        let (lost, _) = step(&|material| material.authorities = nonsense.to_owned());
        assert!(matches!(lost, Step::Make(_)), "{lost:?}");
    }
    for key in ["", "no PEM", &other.authority_key, &good.certificate] {
        let (announced, same) = step(&|material| material.authority_key = key.to_owned());
        assert!(matches!(announced, Step::Announce(_)) && same, "{announced:?}");
        let (renewed, _) = step(&|material| material.key = key.to_owned());
        assert!(matches!(renewed, Step::Renew(_)), "{renewed:?}");
    }
    // A certificate of another CA, with its own key.
    let (renewed, _) = step(&|material| {
        material.certificate.clone_from(&other.certificate);
        material.key.clone_from(&other.key);
    });
    assert!(matches!(renewed, Step::Renew(_)), "{renewed:?}");
    // A host that cannot be in a certificate is an error, and no panic.
    let error = carry_out(&Step::Make(String::new()), None, &hosts(&["a\u{e4}"]), &lifetimes(), START);
    assert!(error.is_err());
}

#[test]
fn processes_with_other_hosts_come_to_one_certificate() {
    let first = made(None, &["a.b.svc"], START);
    let both = made(Some(&first), &["c.d.svc"], START);
    assert_eq!(certificate(&both, START).hosts, hosts(&["c.d.svc", "a.b.svc"]));
    assert!(is_kept(&both, &["a.b.svc"], START) && is_kept(&both, &["c.d.svc"], START));
    // A former host is removed at the next renewal.
    let later = START + 244 * DAY;
    assert_eq!(certificate(&made(Some(&both), &["a.b.svc"], later), later).hosts, hosts(&["a.b.svc"]));
}

#[test]
fn an_expired_certificate_is_replaced_after_any_pause_of_the_process() {
    let first = made(None, &["a.b.svc"], START);
    for later in [YEAR, 7 * YEAR, 10 * YEAR, 30 * YEAR] {
        let mut material = first.clone();
        let now = START + later;
        let mut steps = 0;
        while let (_, Some(after)) = step_of(Some(&material), &["a.b.svc"], now) {
            (material, steps) = (after, steps + 1);
            assert!(steps < 3);
        }
        assert!(certificate(&material, now).is_current(now));
    }
    assert_eq!(expires_at(first.certificate.as_bytes()), Some(START + YEAR));
    assert_eq!(expires_at(b"no PEM"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Processes read the Secret at any moments, with clocks that differ by less than the skew. The CA of the shown
    /// certificate has been in the bundle for the time to settle, and two readings at one moment agree.
    #[test]
    fn the_shown_certificate_is_trusted_by_a_bundle_as_old_as_the_time_to_settle(
        pauses in prop::collection::vec(1..200 * DAY, 1..60),
        skews in prop::collection::vec(-SKEW / 2..SKEW / 2, 60),
    ) {
        let names = ["a.b.svc"];
        let mut material = made(None, &names, START);
        let mut bundle_before = material.authorities.clone();
        let mut now = START;
        for (pause, skew) in pauses.into_iter().zip(skews) {
            // A process reads the Secret more often than a certificate takes from due to expired.
            now += pause.min(100 * DAY);
            if let (_, Some(after)) = step_of(Some(&material), &names, now + skew) {
                // The API server may still have the earlier bundle.
                let trusted = shown(&after, &authorities(&bundle_before), now);
                prop_assert!(trusted.is_ok(), "{:?}", trusted.err());
                material = after;
            }
            bundle_before.clone_from(&material.authorities);
        }
    }
}
