//! Keeps the pure modules pure, and names and comments free of riddles: a test, not a convention.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that take values and return values: no I/O, no clock, no task.
const PURE: [&str; 9] =
    ["admission/pki", "contract", "controller/lease", "intent", "ipam", "kubevirt", "node/core", "ovn", "plan"];
/// The names that they must not use.
const IMPURE: [&str; 14] = [
    "tokio",
    "kube::",
    "jsonrpsee",
    "axum",
    "tracing",
    "std::fs",
    "std::io",
    "std::net::Tcp",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "async fn",
    "Connection",
    "Shared",
];
/// Modules that do things; the pure ones must not lean on them.
const ABOVE: [&str; 8] = [
    "crate::admission",
    "crate::api",
    "crate::cli",
    "crate::config",
    "crate::controller",
    "crate::node",
    "crate::supervisor",
    "crate::telemetry",
];

/// Pronouns that stand for a thing without its name: the glossary of CONTRIBUTING.md has the names.
const RIDDLES: [&str; 5] = ["nobody", "nobodys", "somebody", "whoever", "whom"];

/// The source files in a folder and those below it.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The lines of code that name something forbidden: `file:line: text`.
fn offences(module: &str, forbidden: &[&str]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module);
    let mut found = Vec::new();
    for file in sources(&folder) {
        let text = fs::read_to_string(&file).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if forbidden.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

/// Returns true if the comment of a line, or the name of the function that it declares, has one of [`RIDDLES`].
fn is_riddle(line: &str) -> bool {
    let (code, comment) = line.split_once("//").unwrap_or((line, ""));
    let name = code.split_once("fn ").and_then(|(_, declared)| declared.split(['(', '<']).next()).unwrap_or_default();
    let mut words = [comment, name].into_iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric()));
    words.any(|word| RIDDLES.iter().any(|riddle| word.eq_ignore_ascii_case(riddle)))
}

#[test]
fn names_and_comments_name_their_subject() {
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let text = fs::read_to_string(&file).expect("a source file");
            let riddles = text.lines().enumerate().filter(|(_, line)| is_riddle(line));
            found.extend(riddles.map(|(number, line)| format!("{}:{}: {}", file.display(), number + 1, line.trim())));
        }
    }
    assert!(found.is_empty(), "write the thing in the place of {}:\n{}", RIDDLES.join(", "), found.join("\n"));
}

#[test]
fn pure_modules_do_no_io() {
    for module in PURE {
        let forbidden: Vec<&str> = IMPURE.iter().chain(&ABOVE).copied().collect();
        let found = offences(module, &forbidden);
        assert!(found.is_empty(), "the module {module} must stay pure:\n{}", found.join("\n"));
    }
}

#[test]
fn the_contract_uses_no_other_module() {
    let found = offences("contract", &["crate::", "super::super"]);
    assert!(found.is_empty(), "the module contract must name no other module of ours:\n{}", found.join("\n"));
}

#[test]
fn the_ovsdb_client_uses_no_module_about_vms() {
    let above = ["crate::contract", "crate::ovn", "crate::ipam", "crate::kubevirt", "crate::intent", "crate::plan"];
    let forbidden: Vec<&str> = above.iter().chain(&ABOVE).chain(&["kube::"]).copied().collect();
    let found = offences("ovsdb", &forbidden);
    assert!(found.is_empty(), "the module ovsdb must serve any database:\n{}", found.join("\n"));
}

#[test]
fn the_checks_find_forbidden_words() {
    assert!(!offences("controller", &IMPURE).is_empty());
    assert!(!offences("ovsdb", &["tokio"]).is_empty());
    let pronoun = RIDDLES[0];
    for line in [format!("    /// The port is {pronoun}'s."), format!("async fn {pronoun}_waits<T>(")] {
        assert!(is_riddle(&line), "{line}");
    }
    assert!(!is_riddle(&format!("let owner = \"{pronoun}\";")));
}
