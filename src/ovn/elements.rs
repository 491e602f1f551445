//! The elements of `addresses` and `port_security`, parsed as a row is decoded.
//!
//! Nearly every port has one element, and it is a NIC's `MAC IP...` as this service, Kube-OVN and Neutron write it. Such
//! a column is kept as [`Addresses`] alone, from which the text follows: it takes less memory than the text, and nothing
//! parses it again. Any other column is kept as its texts, since only a drifted row of ours is ever asked for the NICs
//! in it, and lists of other programs may be long.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use macaddr::MacAddr6;
use serde::Deserializer;

use super::addresses::{Addresses, Case, scan, scan_hosts};
use super::secured::{LINK_LOCALS, Secured};
use crate::ovsdb::{Column, Kind, Set};

/// The value of a column with elements of the form `MAC IP...`. Two are equal if their texts are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Elements(Form);

/// A value has one form only: [`Form::of`] decides on it.
#[derive(Clone, Default, PartialEq, Eq)]
enum Form {
    #[default]
    None,
    /// One element, which is [`Addresses`] as [`Addresses::written`] writes them.
    Nic(Addresses, Case),
    /// One element of `port_security` with all link-local addresses, as [`Secured`] is written.
    Open(Addresses),
    /// Several elements, or one in another spelling.
    Texts(Set),
}

impl Form {
    /// The form of these texts, which are sorted and differ from one another.
    fn of(texts: &[&str]) -> Self {
        match texts {
            [] => Self::None,
            [text] => match Addresses::as_written(text) {
                Some((addresses, case)) => Self::Nic(addresses, case),
                None => Self::of_open(text).unwrap_or_else(|| Self::Texts(Set::of_sorted(texts))),
            },
            texts => Self::Texts(Set::of_sorted(texts)),
        }
    }

    fn of_open(text: &str) -> Option<Self> {
        match Addresses::as_written(text.strip_suffix(LINK_LOCALS)?.strip_suffix(' ')?)? {
            (addresses, Case::Lower) => Some(Self::Open(addresses)),
            (_, Case::Upper) => None,
        }
    }
}

impl Elements {
    /// The texts in their order.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'_, str>> + Clone {
        let (nic, texts) = match &self.0 {
            Form::None => (None, None),
            Form::Nic(addresses, case) => (Some(addresses.written(*case).to_string()), None),
            Form::Open(lease) => (Some(open(*lease).to_string()), None),
            Form::Texts(texts) => (None, Some(texts.iter())),
        };
        nic.map(Cow::Owned).into_iter().chain(texts.into_iter().flatten().map(Cow::Borrowed))
    }

    /// The elements that are the addresses of a NIC, in the order of their texts.
    pub fn nics(&self) -> impl Iterator<Item = Addresses> {
        let (nic, texts) = match &self.0 {
            Form::None | Form::Open(_) => (None, None),
            Form::Nic(addresses, _) => (Some(*addresses), None),
            Form::Texts(texts) => (None, Some(texts.iter())),
        };
        nic.into_iter().chain(texts.into_iter().flatten().filter_map(|text| text.parse().ok()))
    }

    /// The elements of `port_security` as this service writes them, in the order of their texts.
    pub fn secured(&self) -> impl Iterator<Item = Secured> {
        let (one, texts) = match &self.0 {
            Form::None => (None, None),
            Form::Nic(lease, _) => (Some(Secured::from(*lease)), None),
            Form::Open(lease) => (Some(open(*lease)), None),
            Form::Texts(texts) => (None, Some(texts.iter())),
        };
        one.into_iter().chain(texts.into_iter().flatten().filter_map(|text| text.parse().ok()))
    }

    /// The further addresses in elements of `port_security` as this service writes them.
    pub fn vips(&self) -> Vec<IpAddr> {
        self.secured().flat_map(|secured| secured.vips).collect()
    }

    /// Returns true if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.0 == Form::None
    }

    /// Every MAC and address that northd reads in `addresses`.
    pub(super) fn scan(&self, macs: &mut Vec<MacAddr6>, ips: &mut Vec<IpAddr>) {
        self.scan_with(scan, macs, ips);
    }

    /// Every MAC and address that northd reads in `port_security`, but for whole networks.
    pub(super) fn scan_hosts(&self, macs: &mut Vec<MacAddr6>, ips: &mut Vec<IpAddr>) {
        self.scan_with(scan_hosts, macs, ips);
    }

    fn scan_with(
        &self,
        scan: fn(&str, &mut Vec<MacAddr6>, &mut Vec<IpAddr>),
        macs: &mut Vec<MacAddr6>,
        ips: &mut Vec<IpAddr>,
    ) {
        match &self.0 {
            Form::None => {}
            Form::Nic(addresses, _) => {
                macs.push(addresses.mac);
                ips.extend(addresses.ips());
            }
            Form::Open(_) => self.iter().for_each(|text| scan(&text, macs, ips)),
            Form::Texts(texts) => texts.iter().for_each(|text| scan(text, macs, ips)),
        }
    }

    /// Returns true if a text that is no NIC's addresses is like this.
    pub(super) fn has_other(&self, is: impl Fn(&str) -> bool) -> bool {
        matches!(&self.0, Form::Texts(texts) if texts.iter().any(is))
    }
}

fn open(lease: Addresses) -> Secured {
    Secured { link_locals: true, ..lease.into() }
}

/// The column `port_security` of a port of ours.
impl From<Secured> for Elements {
    fn from(secured: Secured) -> Self {
        match secured {
            Secured { lease, link_locals: false, vips } if vips.is_empty() => lease.into(),
            Secured { lease, link_locals: true, vips } if vips.is_empty() => Self(Form::Open(lease)),
            secured => [secured.to_string()].into_iter().collect(),
        }
    }
}

/// The column of a port with these addresses alone.
impl From<Addresses> for Elements {
    fn from(addresses: Addresses) -> Self {
        Self(Form::Nic(addresses, Case::Lower))
    }
}

impl<T: AsRef<str> + Ord> FromIterator<T> for Elements {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let texts: Vec<T> = texts.into_iter().collect();
        let mut texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        texts.sort_unstable();
        texts.dedup();
        Self(Form::of(&texts))
    }
}

impl fmt::Debug for Elements {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl Column for Elements {
    const KIND: Kind = Set::KIND;

    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Set::decode_as(deserializer, |texts| Self(Form::of(texts)))
    }

    fn apply(&mut self, difference: Self) {
        let mut texts: Set = self.iter().collect();
        texts.apply(difference.iter().collect());
        *self = texts.iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rows::LogicalSwitchPort;
    use super::*;

    fn of(text: &str) -> Elements {
        [text].into_iter().collect()
    }

    #[test]
    fn an_element_as_ovn_kube_ovn_and_neutron_write_it_is_kept_as_addresses() {
        for text in [
            "0a:58:0a:10:00:02",
            "0a:58:0a:10:00:02 10.16.0.2",
            "0a:58:0a:10:00:02 10.16.0.2 fd00::2",
            "0a:58:0a:10:00:02 fd00::2",
            "00:00:00:53:6B:B6 10.16.0.2",
            "02:00:00:00:00:01 ::ffff:10.16.0.2",
        ] {
            let Form::Nic(addresses, _) = of(text).0 else { panic!("{text}") };
            assert_eq!(text.parse::<Addresses>(), Ok(addresses));
            assert_eq!(of(text).iter().collect::<Vec<_>>(), [text]);
            assert_eq!(of(text) == Elements::from(addresses), text == addresses.to_string(), "{text}");
        }
    }

    #[test]
    fn an_element_with_all_link_locals_is_kept_as_addresses() {
        for text in ["0a:58:0a:10:00:02 fd00::2 fe80::/64", "0a:58:0a:10:00:02 10.16.0.2 fd00::2 fe80::/64"] {
            assert!(matches!(of(text).0, Form::Open(_)), "{text}");
            assert_eq!(of(text).iter().collect::<Vec<_>>(), [text]);
            let secured = of(text).secured().next().expect(text);
            assert_eq!((Elements::from(secured.clone()), of(text).nics().count()), (of(text), 0));
            let (mut macs, mut ips) = (Vec::new(), Vec::new());
            of(text).scan_hosts(&mut macs, &mut ips);
            assert_eq!((macs.len(), ips), (1, secured.lease.ips().collect()), "the network belongs to no port");
        }
        assert!(matches!(of("0A:58:0a:10:00:02 fd00::2 fe80::/64").0, Form::Texts(_)));
    }

    #[test]
    fn an_element_in_another_spelling_is_kept_as_it_is() {
        for (text, is_a_nic) in [
            ("", false),
            ("dynamic", false),
            ("unknown", false),
            ("0a:58:0a:10:00:0", false),
            ("0a:58:0a:10:00:02:", false),
            ("0a:58:0a:10:00:02 dynamic", false),
            ("0a:58:0a:10:00:02 10.16.0.2/24", false),
            ("0a:58:0a:10:00:02 10.16.0.02", false),
            ("0a:58:0a:10:00:02 10.16.0.2 10.16.0.3", false),
            ("\u{e9}a:58:0a:10:00:02", false),
            ("0A:58:0a:10:00:02 10.16.0.2", true),
            ("0a:58:0a:10:00:02  10.16.0.2", true),
            ("0a:58:0a:10:00:02 ", true),
            ("0a:58:0a:10:00:02 fd00::2 10.16.0.2", true),
            ("0a:58:0a:10:00:02 fd00:0::2", true),
            ("0a:58:0a:10:00:02 FD00::2", true),
        ] {
            assert!(matches!(of(text).0, Form::Texts(_)), "{text:?}");
            assert_eq!(of(text).iter().collect::<Vec<_>>(), [text]);
            assert_eq!(of(text).nics().count(), usize::from(is_a_nic), "{text:?}");
        }
    }

    /// The service keeps a hundred thousand of them.
    #[test]
    fn a_port_is_small() {
        assert_eq!((size_of::<Elements>(), size_of::<LogicalSwitchPort>()), (32, 216));
    }

    fn element() -> impl Strategy<Value = String> {
        let mac =
            prop::sample::select(vec!["0a:58:0a:10:00:02", "00:00:00:53:6B:B6", "00:00:00:00:00:01", "0A:0a:0:0:0:1"]);
        let ips = prop::sample::select(vec![
            "10.0.0.2",
            "fd00::2",
            "10.0.0.2/24",
            "FD00::2",
            "10.0.0.0/24",
            "dynamic",
            ",",
            "fe80::/64",
        ]);
        let words = prop::collection::vec(ips, 0..4);
        let blank = prop::sample::select(vec![" ", "  ", "\t"]);
        prop_oneof![
            3 => (mac, words, blank).prop_map(|(mac, words, blank)| {
                std::iter::once(mac).chain(words).collect::<Vec<_>>().join(blank)
            }),
            1 => prop::sample::select(vec!["", "dynamic", "unknown", "router"]).prop_map(ToOwned::to_owned),
        ]
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(element(), 0..4)
    }

    type Scan = fn(&str, &mut Vec<MacAddr6>, &mut Vec<IpAddr>);

    fn scanned(scan: impl FnOnce(&mut Vec<MacAddr6>, &mut Vec<IpAddr>)) -> (Vec<MacAddr6>, Vec<IpAddr>) {
        let (mut macs, mut ips) = (Vec::new(), Vec::new());
        scan(&mut macs, &mut ips);
        (macs, ips)
    }

    proptest! {
        #[test]
        fn elements_behave_as_a_set_of_their_texts(one in texts(), other in texts()) {
            let (set, elements): (Set, Elements) = (one.iter().collect(), one.iter().collect());
            prop_assert_eq!(elements.iter().collect::<Set>(), set.clone());
            prop_assert_eq!(elements.is_empty(), set.is_empty());
            let (other_set, other_elements): (Set, Elements) = (other.iter().collect(), other.iter().collect());
            prop_assert_eq!(elements == other_elements, set == other_set);
            let nics: Vec<Addresses> = set.iter().filter_map(|text| text.parse().ok()).collect();
            prop_assert_eq!(elements.nics().collect::<Vec<_>>(), nics);
            let secured: Vec<Secured> = set.iter().filter_map(|text| text.parse().ok()).collect();
            prop_assert_eq!(elements.secured().collect::<Vec<_>>(), secured);
            let is_dynamic = |text: &str| super::super::addresses::is_dynamic(text);
            prop_assert_eq!(elements.has_other(is_dynamic), set.iter().any(is_dynamic));
            for (kept, plain) in [(Elements::scan as fn(&Elements, &mut _, &mut _), scan as Scan), (Elements::scan_hosts, scan_hosts)] {
                let expected = scanned(|macs, ips| set.iter().for_each(|text| plain(text, macs, ips)));
                prop_assert_eq!(scanned(|macs, ips| kept(&elements, macs, ips)), expected);
            }
        }

        #[test]
        fn elements_are_decoded_and_changed_as_a_set_is(one in texts(), other in texts()) {
            let json = serde_json::json!(["set", one]).to_string();
            let mut elements = Elements::decode(&mut serde_json::Deserializer::from_str(&json)).expect("a set");
            prop_assert_eq!(&elements, &one.iter().collect());
            let mut set: Set = one.iter().collect();
            elements.apply(other.iter().collect());
            set.apply(other.iter().collect());
            prop_assert_eq!(elements, set.iter().collect());
        }
    }
}
