//! Keeps the pure modules pure: a test, not a convention.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that take values and return values: no I/O, no clock, no task.
const PURE: [&str; 9] =
    ["admission/pki", "contract", "controller/lease", "intent", "ipam", "kubevirt", "node/core", "ovn", "plan"];
/// What they must not name.
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
const ABOVE: [&str; 6] =
    ["crate::api", "crate::cli", "crate::config", "crate::controller", "crate::supervisor", "crate::telemetry"];

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
fn the_ovsdb_client_knows_nothing_of_vms() {
    let above = ["crate::contract", "crate::ovn", "crate::ipam", "crate::kubevirt", "crate::intent", "crate::plan"];
    let forbidden: Vec<&str> = above.iter().chain(&ABOVE).chain(&["kube::"]).copied().collect();
    let found = offences("ovsdb", &forbidden);
    assert!(found.is_empty(), "the module ovsdb must serve any database:\n{}", found.join("\n"));
}

#[test]
fn the_check_sees_what_it_should() {
    assert!(!offences("controller", &IMPURE).is_empty());
    assert!(!offences("ovsdb", &["tokio"]).is_empty());
}
