//! The values in force, each with its source: for `config show`, and for the log at the start.

use std::fmt::{self, Write};
use std::path::PathBuf;

use super::file::quoted;

/// What stands in the place of a secret.
const HIDDEN: &str = "(not shown)";

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag,
    /// A variable of this name.
    Variable(String),
    /// A key of the file: `<path>:<line>`.
    File(String),
    /// No layer has it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Flag => "flag",
            Self::Variable(place) | Self::File(place) => place,
            Self::Default => "default",
        })
    }
}

/// A flag of the command, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The key of the file, which is the long name of the flag.
    pub(super) key: String,
    /// Its value, as the flag takes it.
    pub(super) value: Option<String>,
    /// Where the value comes from.
    pub(super) source: Source,
    /// Whether it is what it would be if no layer had it.
    pub(super) is_default: bool,
    /// Whether it must not be shown.
    pub(super) is_secret: bool,
    /// Whether the flag is for tests alone.
    pub(super) is_hidden: bool,
}

impl Setting {
    fn shown(&self) -> Option<String> {
        let value = self.value.as_deref()?;
        Some(if self.is_secret { HIDDEN.to_owned() } else { quoted(value).into_owned() })
    }
}

/// The values of a command, each with its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    pub(super) file: Option<PathBuf>,
    pub(super) settings: Vec<Setting>,
}

impl InForce {
    /// One line in the log: the values that differ from the defaults, by their source.
    pub fn log(&self) {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        tracing::info!(
            file,
            flags = self.changed(|source| *source == Source::Flag),
            variables = self.changed(|source| matches!(source, Source::Variable(_))),
            keys = self.changed(|source| matches!(source, Source::File(_))),
            "configuration"
        );
    }

    /// Whether no layer has a value for this key.
    pub fn is_default(&self, key: &str) -> bool {
        self.settings.iter().all(|setting| setting.key != key || setting.source == Source::Default)
    }

    fn changed(&self, is_meant: impl Fn(&Source) -> bool) -> Option<String> {
        let mut texts = Vec::new();
        for setting in self.settings.iter().filter(|setting| !setting.is_default && is_meant(&setting.source)) {
            texts.push(format!("{}={}", setting.key, setting.shown().unwrap_or_default()));
        }
        (!texts.is_empty()).then(|| texts.join(" "))
    }
}

/// A file for `--config`, with the source of each value as a comment. A flag without a value, and a secret, is a comment as a
/// whole.
impl fmt::Display for InForce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for setting in self.settings.iter().filter(|setting| !(setting.is_hidden && setting.is_default)) {
            let comment = if setting.value.is_none() || setting.is_secret { "# " } else { "" };
            let mut line = format!("{comment}{}:", setting.key);
            if let Some(value) = setting.shown() {
                write!(line, " {value}")?;
            }
            let source = if setting.value.is_none() { "not set".to_owned() } else { setting.source.to_string() };
            lines.push((line, source));
        }
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(WIDEST);
        for (line, source) in lines {
            writeln!(formatter, "{line:<width$}  # {source}")?;
        }
        Ok(())
    }
}

/// The column of the comments is at most this far right.
const WIDEST: usize = 60;
