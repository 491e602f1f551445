//! Traffic between guests: pings at exact intervals, and a TCP connection in use.

use serde_json::Value;

use super::Script;

/// A TCP connection in use.
#[derive(Debug)]
pub struct Echo {
    pub(super) script: Script,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Echoed {
    /// Answers.
    pub echoes: u64,
    /// Connections that ended before their time.
    pub resets: u64,
    /// The longest time without an answer.
    pub silence_ms: f64,
}

impl Echo {
    /// Ends it.
    pub fn end(mut self) -> Echoed {
        self.script.input.take();
        let answer: Value = serde_json::from_str(&self.script.answer()).expect("a line of JSON");
        let number = |key: &str| answer[key].as_u64().unwrap_or_else(|| panic!("{key} in {answer}"));
        let silence_ms = answer["silence_ms"].as_f64().expect("a number");
        Echoed { echoes: number("echoes"), resets: number("resets"), silence_ms }
    }
}

/// Pings that are under way.
#[derive(Debug)]
pub struct Probe {
    pub(super) script: Script,
}

/// What came of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probed {
    /// Requests.
    pub sent: u64,
    /// Never answered.
    pub lost: u64,
    /// Answered twice.
    pub duplicates: u64,
    /// Answered after more than 50 ms.
    pub late: u64,
    /// The longest time without any answer.
    pub silence_ms: f64,
    /// When that ended, in seconds since the epoch.
    pub resumed: f64,
    /// How busy the machine was, in percent.
    pub busy: u64,
}

/// What came of them, and of each when it was sent, in seconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Pings {
    /// All of them.
    pub probed: Probed,
    /// Those that were never answered.
    pub unanswered: Vec<f64>,
    /// The first and the last that were answered.
    pub answered: Option<(f64, f64)>,
}

impl Probe {
    /// Ends them.
    pub fn end(self) -> Probed {
        self.end_with_times().probed
    }

    /// Ends them, and returns the times of the silence too.
    pub fn end_with_times(mut self) -> Pings {
        self.script.input.take();
        let answer: Value = serde_json::from_str(&self.script.answer()).expect("a line of JSON");
        let number = |key: &str| answer[key].as_u64().unwrap_or_else(|| panic!("{key} in {answer}"));
        let time = |key: &str| answer[key].as_f64();
        let silence_ms = time("silence_ms").expect("a number");
        let resumed = time("resumed").expect("a number");
        let (sent, lost, duplicates) = (number("sent"), number("lost"), number("duplicates"));
        let probed = Probed { sent, lost, duplicates, late: number("late"), silence_ms, resumed, busy: number("busy") };
        let unanswered = answer["unanswered"].as_array().expect("a list").iter().filter_map(Value::as_f64).collect();
        Pings { probed, unanswered, answered: time("first").zip(time("last")) }
    }
}
