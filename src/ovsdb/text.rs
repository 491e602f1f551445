//! Compact text columns: a set or a map of strings is a single allocation.
//!
//! A replica of 100k ports consists of these, and its memory determines its time: a vector of strings takes four times
//! the memory, and an allocation for each string.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::column::{Atomic, Column, Kind, Word};

/// Strings one after another, each after its length. A length is written in ASCII, six bits a byte, the least
/// significant first, with 0x40 if another byte follows: so the whole is a `str`, and its parts need no second check.
#[derive(Clone, Default, PartialEq, Eq)]
struct Packed(Box<str>);

const MORE: u8 = 0x40;

impl Packed {
    fn of<'a>(items: impl Iterator<Item = &'a str> + Clone) -> Self {
        let size = items.clone().map(|item| item.len() + length_size(item.len())).sum();
        let mut text = String::with_capacity(size);
        for item in items {
            let mut length = item.len();
            while length >= usize::from(MORE) {
                text.push(char::from(MORE | (length % usize::from(MORE)) as u8));
                length /= usize::from(MORE);
            }
            text.push(char::from(length as u8));
            text.push_str(item);
        }
        Self(text.into_boxed_str())
    }

    fn iter(&self) -> Items<'_> {
        Items(&self.0)
    }
}

/// The number of bytes of a length.
fn length_size(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros();
    bits.div_ceil(6).max(1) as usize
}

/// The strings of a [`Packed`].
#[derive(Clone)]
struct Items<'a>(&'a str);

impl<'a> Iterator for Items<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.0.as_bytes();
        let (mut length, mut head) = (usize::from(*bytes.first()?), 1);
        if length >= usize::from(MORE) {
            length = 0;
            head = 0;
            while let Some(byte) = bytes.get(head) {
                length |= usize::from(byte & !MORE) << (6 * head);
                head += 1;
                if byte & MORE == 0 {
                    break;
                }
            }
        }
        let (item, rest) = self.0[head..].split_at(length);
        self.0 = rest;
        Some(item)
    }
}

/// A set of strings, sorted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Set(Packed);

impl Set {
    /// The elements in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter()
    }

    /// Returns true if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    /// A set of these elements, which must be sorted and distinct.
    pub fn of_sorted(items: &[&str]) -> Self {
        Self(Packed::of(items.iter().copied()))
    }

    /// Decodes the wire form, and makes a value of the sorted, distinct elements.
    pub fn decode_as<'de, T, F, D>(deserializer: D, make: F) -> Result<T, D::Error>
    where
        F: FnOnce(&[&str]) -> T,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_any(SetVisitor { make, value: PhantomData })
    }
}

struct SetVisitor<T, F> {
    make: F,
    value: PhantomData<T>,
}

impl<'de, T, F: FnOnce(&[&str]) -> T> Visitor<'de> for SetVisitor<T, F> {
    type Value = T;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or a set of strings")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.make)(&[text]))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        match seq.next_element::<Word<'de>>()? {
            Some(Word(tag)) if tag == "set" => {}
            _ => return Err(A::Error::custom("a set begins with \"set\"")),
        }
        let items = seq.next_element::<Vec<Word<'de>>>()?;
        let mut items = items.ok_or_else(|| A::Error::custom("nothing follows the tag \"set\""))?;
        items.sort_unstable();
        items.dedup();
        let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
        Ok((self.make)(&items))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl<T: AsRef<str> + Ord> FromIterator<T> for Set {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items: Vec<T> = items.into_iter().collect();
        items.sort_unstable();
        items.dedup();
        Self(Packed::of(items.iter().map(AsRef::as_ref)))
    }
}

impl Column for Set {
    const KIND: Kind = Kind::Set(Atomic::String);

    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::decode_as(deserializer, Self::of_sorted)
    }

    fn apply(&mut self, difference: Self) {
        let mut items: Vec<&str> = self.iter().collect();
        for item in difference.iter() {
            match items.binary_search(&item) {
                Ok(at) => drop(items.remove(at)),
                Err(at) => items.insert(at, item),
            }
        }
        self.0 = Packed::of(items.into_iter());
    }
}

/// A map of strings to strings, sorted by key, as `options` and `external_ids` are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Map(Packed);

impl Map {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(present, _)| *present == key).map(|(_, value)| value)
    }

    /// Returns true if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    /// Sets a key. Returns its former value.
    pub fn insert(&mut self, key: &str, value: impl AsRef<str>) -> Option<String> {
        let mut pairs: Vec<(&str, &str)> = self.iter().collect();
        let former = match place(&pairs, key) {
            Ok(at) if pairs[at].1 == value.as_ref() => return Some(pairs[at].1.to_owned()),
            Ok(at) => Some(std::mem::replace(&mut pairs[at].1, value.as_ref()).to_owned()),
            Err(at) => {
                pairs.insert(at, (key, value.as_ref()));
                None
            }
        };
        self.0 = pack(&pairs);
        former
    }

    /// Returns the map with some keys set and others removed (`None`), in one pass.
    pub fn edited<'k, V: AsRef<str>>(&self, edits: impl IntoIterator<Item = (&'k str, Option<V>)>) -> Self {
        let edits: Vec<(&str, Option<V>)> = edits.into_iter().collect();
        let mut pairs: Vec<(&str, &str)> = self.iter().collect();
        let mut changed = false;
        for (key, value) in &edits {
            match (place(&pairs, key), value.as_ref().map(AsRef::as_ref)) {
                (Ok(at), Some(value)) => changed |= std::mem::replace(&mut pairs[at].1, value) != value,
                (Err(at), Some(value)) => {
                    pairs.insert(at, (key, value));
                    changed = true;
                }
                (Ok(at), None) => {
                    pairs.remove(at);
                    changed = true;
                }
                (Err(_), None) => {}
            }
        }
        if changed { Self(pack(&pairs)) } else { self.clone() }
    }

    /// Removes a key. Returns its former value.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let former = self.get(key)?.to_owned();
        self.retain(|present| present != key);
        Some(former)
    }

    /// Keeps only the keys for which `keep` is true.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let pairs: Vec<(&str, &str)> = self.iter().filter(|(key, _)| keep(key)).collect();
        self.0 = pack(&pairs);
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut items = self.0.iter();
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }

    fn sorted<K: AsRef<str> + Ord, V: AsRef<str> + Ord>(mut pairs: Vec<(K, V)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup_by(|one, other| one.0 == other.0);
        Self(Packed::of(pairs.iter().flat_map(|(key, value)| [key.as_ref(), value.as_ref()])))
    }
}

fn place(pairs: &[(&str, &str)], key: &str) -> Result<usize, usize> {
    pairs.binary_search_by(|(present, _)| (*present).cmp(key))
}

fn pack(pairs: &[(&str, &str)]) -> Packed {
    Packed::of(pairs.iter().flat_map(|(key, value)| [*key, *value]))
}

impl fmt::Debug for Map {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl<K: AsRef<str> + Ord, V: AsRef<str> + Ord> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        Self::sorted(items.into_iter().collect())
    }
}

impl Map {
    /// Decodes the wire form and drops the keys for which `keep` is false.
    fn decode_kept<'de, D: Deserializer<'de>>(deserializer: D, keep: fn(&str) -> bool) -> Result<Self, D::Error> {
        struct MapVisitor(fn(&str) -> bool);
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = Map;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of strings")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Map, A::Error> {
                match seq.next_element::<Word<'de>>()? {
                    Some(Word(tag)) if tag == "map" => {}
                    _ => return Err(A::Error::custom("a map begins with \"map\"")),
                }
                let map = seq.next_element_seed(Pairs(self.0))?;
                map.ok_or_else(|| A::Error::custom("nothing follows the tag \"map\""))
            }
        }
        deserializer.deserialize_seq(MapVisitor(keep))
    }
}

/// Decodes the pairs of a map and keeps some.
struct Pairs(fn(&str) -> bool);

impl<'de> serde::de::DeserializeSeed<'de> for Pairs {
    type Value = Map;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Map, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Pairs {
    type Value = Map;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("pairs of strings")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Map, A::Error> {
        let mut next = || {
            while let Some((key, value)) = seq.next_element::<(Word<'de>, Word<'de>)>()? {
                if self.0(&key.0) {
                    return Ok(Some((key, value)));
                }
            }
            Ok::<_, A::Error>(None)
        };
        // Most rows keep at most one pair, which needs no vector.
        let Some(first) = next()? else { return Ok(Map::default()) };
        let Some(second) = next()? else { return Ok(Map(pack(&[(&first.0.0, &first.1.0)]))) };
        let mut pairs = vec![first, second];
        while let Some(pair) = next()? {
            pairs.push(pair);
        }
        Ok(Map::sorted(pairs))
    }
}

impl Column for Map {
    const KIND: Kind = Kind::Map(Atomic::String, Atomic::String);

    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::decode_kept(deserializer, |_| true)
    }

    fn decode_some<'de, D: Deserializer<'de>>(deserializer: D, keep: fn(&str) -> bool) -> Result<Self, D::Error> {
        Self::decode_kept(deserializer, keep)
    }

    fn apply(&mut self, difference: Self) {
        let mut pairs: Vec<(&str, &str)> = self.iter().collect();
        for (key, value) in difference.iter() {
            match place(&pairs, key) {
                Ok(at) if pairs[at].1 == value => drop(pairs.remove(at)),
                Ok(at) => pairs[at].1 = value,
                Err(at) => pairs.insert(at, (key, value)),
            }
        }
        self.0 = pack(&pairs);
    }
}

/// Lets a `select`ed map be a field of a derived struct.
impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Map as Column>::decode(deserializer)
    }
}
