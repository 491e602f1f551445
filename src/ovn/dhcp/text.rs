//! A text with options, cut into names and values.
//!
//! ```text
//! lease_time=3600;router = 10.0.0.1, dns_server={1.1.1.1,8.8.8.8} domain_name="a.b"
//! ───name─── raw         ─────raw──            ───────raw───────             ─raw─
//! ```

use super::error::OptionFault;

/// A value as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    /// Without marks around it.
    Bare(&'a str),
    /// What double quotes are around.
    Quoted(&'a str),
    /// What braces are around: the text, and its elements.
    Braces(&'a str, Vec<Item<'a>>),
}

/// An element of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// Without marks around it.
    Bare(&'a str),
    /// What double quotes are around.
    Quoted(&'a str),
}

/// An option's name, and its value if it has one; or the name that an error is about.
pub(super) type Entry<'a> = Result<(&'a str, Option<Raw<'a>>), (&'a str, OptionFault)>;

/// The options in a text. An error is the last entry.
pub(super) fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = text;
    let mut previous = None;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(is_separator);
        if rest.is_empty() {
            return None;
        }
        let entry = entry(rest, previous);
        rest = entry.as_ref().map_or("", |(_, _, rest)| rest);
        previous = entry.as_ref().ok().map(|(name, ..)| *name);
        Some(entry.map(|(name, value, _)| (name, value)))
    })
}

fn is_separator(character: char) -> bool {
    matches!(character, ',' | ';') || character.is_ascii_whitespace()
}

/// The text up to a character, and from it on.
fn split_at(text: &str, is_end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(is_end).unwrap_or(text.len()))
}

/// The first option of a text that begins with its name, and the text after it.
fn entry<'a>(
    text: &'a str,
    previous: Option<&'a str>,
) -> Result<(&'a str, Option<Raw<'a>>, &'a str), (&'a str, OptionFault)> {
    let (name, after) = split_at(text, |character| character == '=' || is_separator(character));
    let Some(after) = after.trim_start_matches(|blank: char| blank.is_ascii_whitespace()).strip_prefix('=') else {
        // After `dns_server=1.1.1.1,` it is a second address, and not a name.
        return Err(match previous {
            Some(option) => (option, OptionFault::NoBraces(name.to_owned())),
            None => (name, OptionFault::NoEquals),
        });
    };
    let value = after.trim_start_matches(|blank: char| blank.is_ascii_whitespace());
    match raw(value).map_err(|fault| (name, fault))? {
        None => Ok((name, None, after)),
        // `mtu= router=10.0.0.1`
        Some((Raw::Bare(bare), _)) if value.len() < after.len() && bare.contains('=') => Ok((name, None, value)),
        Some((value, after)) => Ok((name, Some(value), after)),
    }
}

/// The value that a text begins with, and the text after it.
fn raw(text: &str) -> Result<Option<(Raw<'_>, &str)>, OptionFault> {
    if text.starts_with('"') {
        let (quoted, after) = quoted(text)?;
        return Ok(Some((Raw::Quoted(quoted), ended(after)?)));
    }
    if let Some(inside) = text.strip_prefix('{') {
        let (items, after) = items(inside)?;
        let whole = &text[..text.len() - after.len()];
        return Ok(Some((Raw::Braces(whole, items), ended(after)?)));
    }
    let (bare, after) = split_at(text, is_separator);
    Ok((!bare.is_empty()).then_some((Raw::Bare(bare), after)))
}

/// A string in quotation marks. OVN's lexer knows escapes, which nothing here needs: a backslash is refused later.
fn quoted(text: &str) -> Result<(&str, &str), OptionFault> {
    text[1..].split_once('"').ok_or(OptionFault::Unclosed('"'))
}

/// The elements of a list up to its closing brace.
fn items(mut text: &str) -> Result<(Vec<Item<'_>>, &str), OptionFault> {
    let mut items = Vec::new();
    loop {
        text = text.trim_start_matches(is_separator);
        if let Some(after) = text.strip_prefix('}') {
            return Ok((items, after));
        }
        if text.is_empty() {
            return Err(OptionFault::Unclosed('{'));
        }
        let item;
        (item, text) = if text.starts_with('"') {
            let (item, after) = quoted(text)?;
            (Item::Quoted(item), after)
        } else {
            let (item, after) = split_at(text, |character| character == '}' || is_separator(character));
            (Item::Bare(item), after)
        };
        items.push(item);
    }
}

/// Checks that a value is over after its closing mark.
fn ended(after: &str) -> Result<&str, OptionFault> {
    let (trailing, _) = split_at(after, is_separator);
    if trailing.is_empty() { Ok(after) } else { Err(OptionFault::Trailing(trailing.to_owned())) }
}
