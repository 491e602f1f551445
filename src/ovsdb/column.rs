//! OVSDB values as Rust types: how a column is decoded, and how a difference is applied to it.
//!
//! The wire forms are those of RFC 7047 section 5.1: a bare string, number or boolean, `["uuid", u]` for a reference,
//! `["set", [..]]` and `["map", [[k, v], ..]]` for collections; a set of one may be its bare element. Differences are
//! those of `update2` (ovsdb-server(7), "Update2 Notification"): a new value for scalars and optional scalars, the
//! symmetric difference for sets, and for maps the keys that were added, changed or (with their old value) removed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use uuid::Uuid;

use crate::hash::FastSet;

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

/// The type that a column must have in the server's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Exactly one value.
    One(Atomic),
    /// Zero or one value.
    Optional(Atomic),
    /// Any number.
    Set(Atomic),
    /// Keys and values.
    Map(Atomic, Atomic),
}

/// A column's Rust type.
pub trait Column: Default + PartialEq {
    /// The type that the schema must have.
    const KIND: Kind;
    /// Decodes the wire form.
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    /// Decodes a map and drops the keys for which `keep` is false. Differences decoded with the same `keep` apply to
    /// it.
    fn decode_some<'de, D: Deserializer<'de>>(deserializer: D, _keep: fn(&str) -> bool) -> Result<Self, D::Error> {
        Self::decode(deserializer)
    }
    /// Applies a difference as `update2` sends it.
    fn apply(&mut self, difference: Self);
}

/// A string that is borrowed from the message if it has no escapes there. (serde copies a `Cow` in a tuple or in a key
/// of a map.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word<'de>(pub Cow<'de, str>);

impl AsRef<str> for Word<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Word<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordVisitor;
        impl<'de> Visitor<'de> for WordVisitor {
            type Value = Word<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Word<'de>, E> {
                Ok(Word(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Word<'de>, E> {
                Ok(Word(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(WordVisitor)
    }
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
        let (Word(tag), Word(text)) = Deserialize::deserialize(deserializer)?;
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

/// For sets of many thousands, such as `Logical_Switch.ports`: the cost of a difference depends only on its own size.
impl Column for FastSet<Uuid> {
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

/// Decodes a set in any of its wire forms: a bare atom, `[tag, atom]` or `["set", [..]]`.
fn atoms<'de, T: Atom, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Atoms<T>(PhantomData<T>);

    fn known<T, E: Error>(atom: Option<T>, value: impl fmt::Display) -> Result<Vec<T>, E> {
        atom.map(|atom| vec![atom]).ok_or_else(|| E::custom(format_args!("{value} does not fit the column's type")))
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
            let Word(tag): Word<'de> =
                seq.next_element()?.ok_or_else(|| A::Error::custom("an empty array is no OVSDB value"))?;
            let missing = || A::Error::custom(format_args!("nothing follows the tag \"{tag}\""));
            if tag == "set" {
                let set: Vec<Wire<T>> = seq.next_element()?.ok_or_else(missing)?;
                return Ok(set.into_iter().map(|Wire(atom)| atom).collect());
            }
            let Word(text): Word<'de> = seq.next_element()?.ok_or_else(missing)?;
            known(T::from_tagged(&tag, &text), format_args!("[{tag}, {text}]"))
        }
    }

    deserializer.deserialize_any(Atoms(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::super::text::{Map, Set};
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
        let bare: Set = column(r#""a""#);
        let set: Set = column(r#"["set",["a"]]"#);
        assert_eq!(bare, set);
        let id = "36bef046-7da7-43a5-905a-c17899216fcb";
        let bare: FastSet<Uuid> = column(&format!(r#"["uuid","{id}"]"#));
        let set: FastSet<Uuid> = column(&format!(r#"["set",[["uuid","{id}"]]]"#));
        assert_eq!(bare, set);
        assert_eq!(column::<Option<String>>(r#"["set",[]]"#), None);
        assert_eq!(column::<Option<bool>>("false"), Some(false));
        assert_eq!(column::<Option<i64>>("7"), Some(7));
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        assert!(decoded::<Set>("5").is_err());
        assert!(decoded::<Set>("[]").is_err());
        assert!(decoded::<Set>(r#"["set"]"#).is_err());
        assert!(decoded::<FastSet<Uuid>>(r#"["uuid","no"]"#).is_err());
        assert!(decoded::<Option<String>>(r#"["set",["a","b"]]"#).is_err());
        assert!(decoded::<Map>(r#"["set",[["a","b"]]]"#).is_err());
    }

    #[test]
    fn a_difference_of_a_set_toggles() {
        let mut set: Set = ["b", "c"].map(String::from).into_iter().collect();
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
