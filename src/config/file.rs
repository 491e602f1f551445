//! The YAML file of `--config`: its keys in the order of the file, each with its line.
//!
//! It is read as events and not into a struct: a value stays the text that the file has, so that it goes through the parser of
//! its flag. `0a:58`, `30` and `true` are no numbers and booleans before that.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use granit_parser::{Event, Options, Parser, ScalarStyle, StrInput, options};

use super::error::ConfigError;

/// The most bytes of a file: one that is larger is another file by mistake.
const LARGEST: u64 = 1 << 20;

/// A key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The long name of a flag, if it is correct.
    pub(super) key: String,
    /// The line of the key, from 1.
    pub(super) line: usize,
    /// Its value.
    pub(super) value: Value,
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Empty or `null`: as if the key were absent.
    Absent,
    /// A scalar, as the file has it.
    Text(String),
    /// A list of scalars.
    List(Vec<String>),
    /// What no flag takes: the kind of value.
    Other(&'static str),
}

/// Reads the text of the file at `path`.
pub(super) fn load(path: &Path) -> Result<String, ConfigError> {
    let place = path.display().to_string();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(ConfigError::new(place, format!("the configuration file cannot be read: {error}")));
    }
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::new(
            place,
            "the configuration file has more than 1 MiB: name another file".to_owned(),
        ));
    }
    let not_text = |_| ConfigError::new(place, "the configuration file is not UTF-8 text".to_owned());
    String::from_utf8(bytes).map_err(not_text)
}

/// The keys of a file. An error has the line.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    Nodes::new(text).document()
}

struct Nodes<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Nodes<'a> {
    fn new(text: &'a str) -> Self {
        let options: Options = options! { emit_comments: false };
        Self { parser: Parser::new_from_str_with_options(text, options) }
    }

    /// The next event, with its line.
    fn next(&mut self) -> Result<(Event<'a>, usize), (usize, String)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err((error.marker().line(), format!("this is not YAML: {}", error.info()))),
            None => Err((0, "this is not YAML: it ends too early".to_owned())),
        }
    }

    fn document(mut self) -> Result<Vec<Entry>, (usize, String)> {
        let mut entries = Vec::new();
        let mut documents = 0;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(entries),
                (Event::DocumentStart(..), line) if documents > 0 => {
                    return Err((line, "the file has several documents: write one".to_owned()));
                }
                (Event::DocumentStart(..), _) => documents += 1,
                (Event::MappingStart(..), _) => self.mapping(&mut entries)?,
                (Event::Scalar(text, style, ..), _) if is_null(&text, style) => {}
                (Event::StreamStart | Event::DocumentEnd, _) => {}
                (_, line) => return Err((line, "write keys with values, as in `http: 127.0.0.1:9443`".to_owned())),
            }
        }
    }

    fn mapping(&mut self, entries: &mut Vec<Entry>) -> Result<(), (usize, String)> {
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(()),
                (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                (_, line) => return Err((line, "a key is the long name of a flag".to_owned())),
            };
            let (event, _) = self.next()?;
            entries.push(Entry { key, line, value: self.value(event)? });
        }
    }

    fn value(&mut self, event: Event<'a>) -> Result<Value, (usize, String)> {
        Ok(match event {
            Event::Scalar(text, style, ..) => scalar(text, style),
            Event::SequenceStart(..) => self.list()?,
            Event::MappingStart(..) => {
                self.skip()?;
                Value::Other("a mapping")
            }
            _ => Value::Other("an alias"),
        })
    }

    fn list(&mut self) -> Result<Value, (usize, String)> {
        let mut items = Vec::new();
        let mut other = false;
        loop {
            match self.next()?.0 {
                Event::SequenceEnd if other => return Ok(Value::Other("a list whose elements are not all text")),
                Event::SequenceEnd => return Ok(Value::List(items)),
                event => match self.value(event)? {
                    Value::Text(text) => items.push(text),
                    _ => other = true,
                },
            }
        }
    }

    /// Passes over the rest of a mapping.
    fn skip(&mut self) -> Result<(), (usize, String)> {
        let mut depth = 1;
        while depth > 0 {
            match self.next()?.0 {
                Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
                Event::MappingEnd | Event::SequenceEnd => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    match is_null(&text, style) || text.trim().is_empty() {
        true => Value::Absent,
        false => Value::Text(text.into_owned()),
    }
}

/// YAML 1.2, section 10.3.2: the null of the core schema.
fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A value as YAML: plain where no reader takes it for something else, in double quotation marks otherwise.
/// An empty one is an empty list: an empty text counts as absent.
pub(super) fn quoted(text: &str) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed("[]");
    }
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-=,@+:".contains(character);
    let begins_plain = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    match begins_plain && text.chars().all(is_plain) && !text.ends_with(':') && !is_null(text, ScalarStyle::Plain) {
        true => Cow::Borrowed(text),
        // A string of JSON is one of YAML (YAML 1.2, section 1.3).
        false => Cow::Owned(serde_json::Value::from(text).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, usize, Value)> {
        let entries = entries(text).expect("YAML");
        entries.into_iter().map(|Entry { key, line, value }| (key, line, value)).collect()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn values_are_texts_as_they_stand_in_the_file() {
        let file = "# comment\nhttp: 0.0.0.0:9443\nmac-prefix: 10:20\n\nno-lease: yes\nlease-duration: 0015\nallow: \"\"\n\
                    sb: ~\nnb:\n- tcp:a:1\n- \"tcp:b:2\"\nwebhook-host: []\n";
        let list = Value::List(vec!["tcp:a:1".to_owned(), "tcp:b:2".to_owned()]);
        let expected = [
            ("http", 2, text("0.0.0.0:9443")),
            ("mac-prefix", 3, text("10:20")),
            ("no-lease", 5, text("yes")),
            ("lease-duration", 6, text("0015")),
            ("allow", 7, Value::Absent),
            ("sb", 8, Value::Absent),
            ("nb", 9, list),
            ("webhook-host", 12, Value::List(Vec::new())),
        ];
        assert_eq!(read(file), expected.map(|(key, line, value)| (key.to_owned(), line, value)));
        for nothing in ["", "\n", "# only a comment\n", "---\n", "--- ~\n", "{}"] {
            assert_eq!(read(nothing), [], "{nothing:?}");
        }
    }

    #[test]
    fn values_that_no_flag_takes_are_named() {
        let file = "a: {b: [c, {d: e}]}\nf: [g, [h]]\ni: &j k\nl: *j\nm: n\n";
        let values: Vec<Value> = read(file).into_iter().map(|(_, _, value)| value).collect();
        let list = Value::Other("a list whose elements are not all text");
        assert_eq!(values, [Value::Other("a mapping"), list, text("k"), Value::Other("an alias"), text("n")]);
    }

    #[test]
    fn a_file_that_is_not_yaml_is_refused_with_the_line() {
        for (file, line, words) in [
            ("a: b\nc: [d\n", 2, "this is not YAML"),
            ("a: b\nc: }\n", 2, "this is not YAML"),
            ("a: b\n---\nc: d\n", 2, "several documents"),
            ("- a\n", 1, "write keys with values"),
            ("words\n", 1, "write keys with values"),
            ("[a]: b\n", 1, "a key is the long name of a flag"),
        ] {
            let (at, error) = entries(file).expect_err(file);
            assert!(at == line && error.contains(words), "{file:?}: line {at}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_value_is_read_as_it_was(value in "\\PC{1,12}|[a-z:# \\-\\[\\]{}'\"&*!|>%@`,?\n\t]{1,12}|null|~|true") {
            prop_assume!(!value.trim().is_empty());
            let file = format!("key: {}   # comment\n", quoted(&value));
            prop_assert_eq!(read(&file), [("key".to_owned(), 1, text(&value))], "{}", file);
        }

        #[test]
        fn no_text_is_too_much_for_the_reader(text in "\\PC{0,40}|[a-z:# \\-\\[\\]{}'\"&*!|>%@`,?\n\t]{0,40}") {
            let _ = entries(&text);
        }
    }
}
