//! Tables as kubectl prints them, in colour on a terminal.

use std::io::{self, IsTerminal, Write};

use crate::escaped::EscapedWhole;

/// The colour of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    /// None.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// It is under way.
    Busy,
    /// A person has to act.
    Bad,
    /// It is of little interest.
    Faint,
}

impl Tone {
    /// The codes of a terminal (ECMA-48 SGR).
    fn codes(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain => ("", ""),
            Self::Good => ("\u{1b}[32m", "\u{1b}[0m"),
            Self::Busy => ("\u{1b}[33m", "\u{1b}[0m"),
            Self::Bad => ("\u{1b}[31m", "\u{1b}[0m"),
            Self::Faint => ("\u{1b}[2m", "\u{1b}[0m"),
        }
    }
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    /// A name in a database may hold codes that a terminal would obey: invisible characters are escaped.
    pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: EscapedWhole(text.as_ref()).to_string(), tone }
    }
}

/// Returns true if stdout is a terminal whose owner takes colours (<https://no-color.org>).
pub(super) fn takes_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns as wide as their widest cell, three spaces apart. `widths` are at least those of before, so that the rows of a
/// watch stay in their columns.
pub(super) fn table(header: Option<&[&str]>, rows: &[Vec<Cell>], widths: &mut Vec<usize>, colours: bool) -> String {
    let header: Vec<Vec<Cell>> =
        header.iter().map(|header| header.iter().map(|text| Cell::new(*text)).collect()).collect();
    let lines: Vec<&Vec<Cell>> = header.iter().chain(rows).collect();
    for line in &lines {
        widths.resize(widths.len().max(line.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line.iter()) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        for (index, (cell, width)) in line.iter().zip(widths.iter()).enumerate() {
            let (on, off) = if colours { cell.tone.codes() } else { ("", "") };
            let is_last = index + 1 == line.len();
            let padding = if is_last { 0 } else { width - cell.text.chars().count() + 3 };
            text.push_str(on);
            text.push_str(&cell.text);
            text.push_str(off);
            text.extend(std::iter::repeat_n(' ', padding));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Prints to stdout. A reader that has had enough, as in `ports | head`, is no error.
pub(super) fn print(text: &str) -> io::Result<Printed> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Printed::Taken),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::Closed),
        Err(error) => Err(error),
    }
}

/// Whether there is still a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Printed {
    /// The text was taken.
    Taken,
    /// The reader is gone.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_codes_of_a_terminal_is_shown_and_not_obeyed() {
        let name = format!("sw\u{1b}[2J\n{}", "x".repeat(300));
        let text = table(None, &[vec![Cell::new(&name)]], &mut Vec::new(), true);
        assert_eq!(text, format!("sw\\u{{1b}}[2J\\n{}\n", "x".repeat(300)));
    }

    #[test]
    fn columns_are_aligned_whatever_their_colours() {
        let row = |name: &str, state: &str, tone| vec![Cell::new(name), Cell::toned(state, tone), Cell::new("")];
        let rows = [row("b/a", "bound", Tone::Good), row("longer/näme", "pending", Tone::Bad)];
        let mut widths = Vec::new();
        let text = table(Some(&["VM", "STATE", "MORE"]), &rows, &mut widths, false);
        assert_eq!(text, "VM            STATE     MORE\nb/a           bound\nlonger/näme   pending\n");
        let coloured = table(Some(&["VM", "STATE", "MORE"]), &rows, &mut widths, true);
        let plain = ["\u{1b}[32m", "\u{1b}[31m", "\u{1b}[0m"]
            .iter()
            .fold(coloured.clone(), |text, code| text.replace(code, ""));
        assert!(coloured.contains("\u{1b}[31mpending\u{1b}[0m") && plain == text, "{coloured:?}");
        // A watch goes on in the same columns.
        assert_eq!(table(None, &[row("c", "d", Tone::Plain)], &mut widths, false), "c             d\n");
    }
}
