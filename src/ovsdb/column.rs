//! OVSDB values as Rust types: how a column is decoded, and how a difference is applied to it.
//!
//! The wire forms are those of RFC 7047 section 5.1: a string, number or boolean stands for itself,
//! `["uuid", u]` for a reference, `["set", [..]]` and `["map", [[k, v], ..]]` for collections, and a
//! set of one may be written as its bare element. Differences are those of `update2`
//! (ovsdb-server(7), "Update2 Notification"): a new value for scalars and optional scalars, the
//! symmetric difference for sets, and for maps the keys that were added, changed or (with their old
//! value) removed.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use uuid::Uuid;

/// The atomic types of RFC 7047 section 3.1 that OVN uses in the columns we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    /// `"string"`
    String,
    /// `"integer"`
    Integer,
    /// `"boolean"`
    Boolean,
    /// `"uuid"`
    Uuid,
}

/// What a column must be in the server's schema for its Rust type to hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Exactly one value.
    One(Atomic),
    /// None or one.
    Optional(Atomic),
    /// Any number.
    Set(Atomic),
    /// Keys and values.
    Map(Atomic, Atomic),
}

/// A column's Rust type.
pub trait Column: Default + PartialEq {
    /// What the schema must say of the column.
    const KIND: Kind;
    /// Decodes the wire form.
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    /// Applies a difference as `update2` sends it.
    fn apply(&mut self, difference: Self);
}

/// One atom of a set, map or scalar column.
pub trait Atom: Sized + Ord + Default {
    /// Its type in the schema.
    const ATOMIC: Atomic;
    /// Decodes one atom.
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    /// An atom that is written as a bare string.
    fn from_text(_text: &str) -> Option<Self> {
        None
    }
    /// An atom that is written as a bare boolean.
    fn from_boolean(_value: bool) -> Option<Self> {
        None
    }
    /// An atom that is written as a bare number.
    fn from_integer(_value: i64) -> Option<Self> {
        None
    }
    /// An atom that is written as `[tag, text]`.
    fn from_tagged(_tag: &str, _text: &str) -> Option<Self> {
        None
    }
}

impl Atom for String {
    const ATOMIC: Atomic = Atomic::String;
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)
    }
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Atom for bool {
    const ATOMIC: Atomic = Atomic::Boolean;
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer)
    }
    fn from_boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Atom for i64 {
    const ATOMIC: Atomic = Atomic::Integer;
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)
    }
    fn from_integer(value: i64) -> Option<Self> {
        Some(value)
    }
}

impl Atom for Uuid {
    const ATOMIC: Atomic = Atomic::Uuid;
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (tag, text) = <(std::borrow::Cow<'de, str>, std::borrow::Cow<'de, str>)>::deserialize(deserializer)?;
        Self::from_tagged(&tag, &text).ok_or_else(|| D::Error::custom(format_args!("not a UUID: [{tag}, {text}]")))
    }
    fn from_tagged(tag: &str, text: &str) -> Option<Self> {
        if tag == "uuid" { Uuid::parse_str(text).ok() } else { None }
    }
}

/// An atom wrapped so that serde collections can hold it.
struct Wire<T>(T);

impl<'de, T: Atom> Deserialize<'de> for Wire<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::decode(deserializer).map(Wire)
    }
}

/// `["uuid", "..."]`, as results and rows of `select` carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireUuid(pub Uuid);

impl<'de> Deserialize<'de> for WireUuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Uuid as Atom>::decode(deserializer).map(WireUuid)
    }
}

macro_rules! scalar_column {
    ($($type:ty),*) => {$(
        impl Column for $type {
            const KIND: Kind = Kind::One(<$type as Atom>::ATOMIC);
            fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$type as Atom>::decode(deserializer)
            }
            fn apply(&mut self, difference: Self) {
                *self = difference;
            }
        }
    )*};
}
scalar_column!(String, bool, i64, Uuid);

impl<T: Atom> Column for Option<T> {
    const KIND: Kind = Kind::Optional(T::ATOMIC);
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut atoms = atoms::<T, D>(deserializer)?;
        match atoms.len() {
            0 | 1 => Ok(atoms.pop()),
            more => Err(D::Error::custom(format_args!("{more} values in a column that holds at most one"))),
        }
    }
    fn apply(&mut self, difference: Self) {
        *self = difference;
    }
}

/// A set of atoms, sorted: most hold one or two, for which a vector is the smallest home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<T>(Vec<T>);

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Set<T> {
    /// The elements in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Ord> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items: Vec<T> = items.into_iter().collect();
        items.sort_unstable();
        items.dedup();
        Self(items)
    }
}

impl<T: Atom> Column for Set<T> {
    const KIND: Kind = Kind::Set(T::ATOMIC);
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(atoms::<T, D>(deserializer)?.into_iter().collect())
    }
    fn apply(&mut self, difference: Self) {
        for atom in difference.0 {
            match self.0.binary_search(&atom) {
                Ok(at) => drop(self.0.remove(at)),
                Err(at) => self.0.insert(at, atom),
            }
        }
    }
}

/// For sets of many thousands, such as `Logical_Switch.ports`: a difference costs only its own size.
impl Column for HashSet<Uuid> {
    const KIND: Kind = Kind::Set(Atomic::Uuid);
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(atoms::<Uuid, D>(deserializer)?.into_iter().collect())
    }
    fn apply(&mut self, difference: Self) {
        for uuid in difference {
            if !self.remove(&uuid) {
                self.insert(uuid);
            }
        }
    }
}

/// A map of text to text, sorted by key, as `options` and `external_ids` are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map(Vec<(String, String)>);

impl Map {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.place(key).ok().map(|at| self.0[at].1.as_str())
    }
    /// Sets a key; its former value, if it had one.
    pub fn insert(&mut self, key: &str, value: impl Into<String>) -> Option<String> {
        match self.place(key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value.into())),
            Err(at) => {
                self.0.insert(at, (key.to_owned(), value.into()));
                None
            }
        }
    }
    /// Takes a key away.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.place(key).ok().map(|at| self.0.remove(at).1)
    }
    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(present, _)| present.as_str().cmp(key))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        let mut items: Vec<(String, String)> = items.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        items.sort_unstable();
        Self(items)
    }
}

impl Column for Map {
    const KIND: Kind = Kind::Map(Atomic::String, Atomic::String);
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (tag, pairs) = <(std::borrow::Cow<'de, str>, Vec<(String, String)>)>::deserialize(deserializer)?;
        if tag != "map" {
            return Err(D::Error::custom(format_args!("a map begins with \"map\", not with \"{tag}\"")));
        }
        Ok(pairs.into_iter().collect())
    }
    fn apply(&mut self, difference: Self) {
        for (key, value) in difference.0 {
            match self.place(&key) {
                Ok(at) if self.0[at].1 == value => drop(self.0.remove(at)),
                Ok(at) => self.0[at].1 = value,
                Err(at) => self.0.insert(at, (key, value)),
            }
        }
    }
}

/// Lets a `select`ed map be a field of a derived struct.
impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Map as Column>::decode(deserializer)
    }
}

/// Decodes a set in any of its wire forms: a bare atom, `[tag, atom]` or `["set", [..]]`.
fn atoms<'de, T: Atom, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Atoms<T>(PhantomData<T>);

    fn known<T, E: Error>(atom: Option<T>, what: impl fmt::Display) -> Result<Vec<T>, E> {
        atom.map(|atom| vec![atom]).ok_or_else(|| E::custom(format_args!("{what} does not fit the column's type")))
    }

    impl<'de, T: Atom> Visitor<'de> for Atoms<T> {
        type Value = Vec<T>;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an OVSDB atom or set")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            known(T::from_text(text), text)
        }
        fn visit_bool<E: Error>(self, value: bool) -> Result<Vec<T>, E> {
            known(T::from_boolean(value), value)
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<Vec<T>, E> {
            known(T::from_integer(value), value)
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<Vec<T>, E> {
            known(i64::try_from(value).ok().and_then(T::from_integer), value)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let tag: std::borrow::Cow<'de, str> =
                seq.next_element()?.ok_or_else(|| A::Error::custom("an empty array is no OVSDB value"))?;
            let missing = || A::Error::custom(format_args!("nothing follows the tag \"{tag}\""));
            if tag == "set" {
                let set: Vec<Wire<T>> = seq.next_element()?.ok_or_else(missing)?;
                return Ok(set.into_iter().map(|Wire(atom)| atom).collect());
            }
            let text: std::borrow::Cow<'de, str> = seq.next_element()?.ok_or_else(missing)?;
            known(T::from_tagged(&tag, &text), format_args!("[{tag}, {text}]"))
        }
    }

    deserializer.deserialize_any(Atoms(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<T: Column>(json: &str) -> Result<T, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        T::decode(&mut deserializer)
    }

    fn column<T: Column>(json: &str) -> T {
        decoded(json).expect(json)
    }

    #[test]
    fn a_set_of_one_may_be_bare() {
        let bare: Set<String> = column(r#""a""#);
        let set: Set<String> = column(r#"["set",["a"]]"#);
        assert_eq!(bare, set);
        let id = "36bef046-7da7-43a5-905a-c17899216fcb";
        let bare: HashSet<Uuid> = column(&format!(r#"["uuid","{id}"]"#));
        let set: HashSet<Uuid> = column(&format!(r#"["set",[["uuid","{id}"]]]"#));
        assert_eq!(bare, set);
        assert_eq!(column::<Option<String>>(r#"["set",[]]"#), None);
        assert_eq!(column::<Option<bool>>("false"), Some(false));
        assert_eq!(column::<Option<i64>>("7"), Some(7));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(decoded::<Set<String>>("5").is_err());
        assert!(decoded::<Set<String>>("[]").is_err());
        assert!(decoded::<Set<String>>(r#"["set"]"#).is_err());
        assert!(decoded::<HashSet<Uuid>>(r#"["uuid","no"]"#).is_err());
        assert!(decoded::<Option<String>>(r#"["set",["a","b"]]"#).is_err());
        assert!(decoded::<Map>(r#"["set",[["a","b"]]]"#).is_err());
    }

    #[test]
    fn a_difference_of_a_set_toggles() {
        let mut set: Set<String> = ["b", "c"].map(String::from).into_iter().collect();
        set.apply(["c", "a"].map(String::from).into_iter().collect());
        assert_eq!(set, ["a", "b"].map(String::from).into_iter().collect());
    }

    #[test]
    fn a_difference_of_a_map_adds_changes_and_removes() {
        let mut map: Map = [("keep", "1"), ("change", "2"), ("remove", "3")].into_iter().collect();
        map.apply([("change", "9"), ("remove", "3"), ("add", "4")].into_iter().collect());
        assert_eq!(map, [("keep", "1"), ("change", "9"), ("add", "4")].into_iter().collect());
    }
}
