//! Foreign text in messages: annotation values, names of switches and networks, texts from a database.
//!
//! A message goes into an Event, the log and the annotation `ovn-kubevirt.io/ports`. A value from an object or a row
//! may contain a newline, a control character or a text-direction mark (U+202E), each of which can forge a log line,
//! and may be a megabyte long. Every message therefore writes such a value through [`Escaped`].

use std::fmt::{self, Write};

/// The most characters of a value that a message shows.
pub const SHOWN: usize = 100;
/// The most characters of another program's error, which names a place and a reason.
const SHOWN_OF_ERROR: usize = 400;
/// The most elements of a list that a message names.
pub const LISTED: usize = 10;

/// A foreign text in a message: escaped as by `{:?}`, without the quotation marks, and cut after [`SHOWN`] characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a str);

/// A foreign text in a table: only its invisible characters are escaped, and it is whole, so that it can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscapedWhole<'a>(pub &'a str);

/// Another program's error in a message: escaped except for its quotation marks, and cut later than [`Escaped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscapedError<'a>(pub &'a str);

/// Foreign texts, joined by the second text: the first [`LISTED`] of them, and the number of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscapedList<'a>(pub &'a [String], pub &'a str);

/// Annotations as the beginning of a sentence: `The annotation a has`, `The annotations a, b have`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnotationsHave<'a>(pub &'a [String]);

impl fmt::Display for AnnotationsHave<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (noun, verb) = if self.0.len() == 1 { ("annotation", "has") } else { ("annotations", "have") };
        write!(formatter, "The {noun} {} {verb}", EscapedList(self.0, ", "))
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(formatter, self.0, SHOWN, |_| false)
    }
}

impl fmt::Display for EscapedWhole<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(formatter, self.0, usize::MAX, is_quotation)
    }
}

impl fmt::Display for EscapedError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(formatter, self.0, SHOWN_OF_ERROR, is_quotation)
    }
}

impl fmt::Display for EscapedList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(texts, separator) = self;
        for (index, text) in texts.iter().take(LISTED).enumerate() {
            let before = if index > 0 { separator } else { "" };
            write!(formatter, "{before}{}", Escaped(text))?;
        }
        match texts.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(formatter, "{separator}{more} more"),
        }
    }
}

/// Cuts a foreign error to the length that [`EscapedError`] needs.
pub fn shortened(mut error: String) -> String {
    if let Some((end, _)) = error.char_indices().nth(SHOWN_OF_ERROR + 1) {
        error.truncate(end);
        error.shrink_to_fit();
    }
    error
}

fn is_quotation(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\')
}

/// Writes a text, escaped as by `{:?}` except for `plain` characters, up to `most` characters.
fn write(formatter: &mut fmt::Formatter<'_>, text: &str, most: usize, plain: fn(char) -> bool) -> fmt::Result {
    let mut left = most;
    for character in text.chars() {
        // A single quotation mark needs no escape between double ones.
        let as_it_is = plain(character) || character == '\'';
        let length = if as_it_is { 1 } else { character.escape_debug().count() };
        if length > left {
            return formatter.write_str("...");
        }
        left -= length;
        if as_it_is { formatter.write_char(character)? } else { write!(formatter, "{}", character.escape_debug())? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_stays_and_forgeries_of_a_line_are_escaped() {
        for plain in ["", "10.16.0.0/16", "net-1_a", "Größe", "a b, c's"] {
            assert_eq!(Escaped(plain).to_string(), plain);
        }
        assert_eq!(Escaped("a\"b\\c").to_string(), "a\\\"b\\\\c");
        assert_eq!(Escaped("x\n2026 INFO\r\tport").to_string(), "x\\n2026 INFO\\r\\tport");
        assert_eq!(Escaped("\u{202e}\u{2066}\u{200b}\u{2028}").to_string(), "\\u{202e}\\u{2066}\\u{200b}\\u{2028}");
        assert_eq!(Escaped("\0\u{1b}[31m\u{7f}").to_string(), "\\0\\u{1b}[31m\\u{7f}");
        assert_eq!(EscapedWhole(&"\n\u{1b}".repeat(99)).to_string(), "\\n\\u{1b}".repeat(99));
        assert_eq!(EscapedError("invalid type: \"x\"\n\u{202e}").to_string(), "invalid type: \"x\"\\n\\u{202e}");
    }

    #[test]
    fn a_long_text_is_cut_and_a_list_counts_the_rest() {
        assert_eq!(Escaped(&"x".repeat(SHOWN)).to_string(), "x".repeat(SHOWN));
        assert_eq!(Escaped(&"ä".repeat(1_000_000)).to_string(), "ä".repeat(SHOWN) + "...");
        let names: Vec<String> = (0..12).map(|index| format!("n{index}")).collect();
        assert_eq!(EscapedList(&names[..2], " and ").to_string(), "n0 and n1");
        assert_eq!(EscapedList(&names, ", ").to_string(), "n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, 2 more");
        assert_eq!(shortened("ä".repeat(1_000)).chars().count(), SHOWN_OF_ERROR + 1);
        assert_eq!(EscapedError(&shortened("x".repeat(1_000))).to_string(), "x".repeat(SHOWN_OF_ERROR) + "...");
    }

    proptest! {
        #[test]
        fn the_result_has_only_visible_characters(text in any::<String>()) {
            for shown in [Escaped(&text).to_string(), EscapedError(&text).to_string()] {
                prop_assert!(shown.chars().count() <= SHOWN_OF_ERROR + 3);
                let visible = |character: char| {
                    !character.is_control() && (character.escape_debug().count() == 1 || "\"'\\".contains(character))
                };
                prop_assert!(shown.chars().all(visible), "{:?}", shown);
            }
            prop_assert!(Escaped(&text).to_string().chars().count() <= SHOWN + 3);
        }
    }
}
