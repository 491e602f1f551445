//! An error of the configuration.

use std::fmt;

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: String,
    text: String,
}

impl ConfigError {
    pub(super) fn new(place: String, text: String) -> Self {
        Self { place, text }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.text)
    }
}
