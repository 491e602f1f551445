//! Keeps `docs/contract.md` and the pages for owners and operators complete: a test, not a convention.
//!
//! Keys and Event reasons are found in the text of the source, so that they count wherever they are declared. Tables and
//! columns are those that the replicas ask a server for.

mod metrics;
mod pages;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::contract::annotations::SERVED;
use crate::layering::sources;
use crate::node::core::LocalSwitch;
use crate::ovn::{Northbound, Southbound};
use crate::ovsdb::{Replica, TableSpec};
use crate::plan::Problem;

const CONTRACT: &str = "docs/contract.md";
const OWNERS: &str = "docs/vm-owners.md";
const TROUBLESHOOTING: &str = "docs/troubleshooting.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The words that stand between backticks.
fn quoted(page: &str) -> BTreeSet<String> {
    page.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(ToOwned::to_owned).collect()
}

/// The lines of a folder's source, or of one file's, without tests and comments.
fn code(place: &str) -> Vec<String> {
    let place = root().join("src").join(place);
    let files = if place.is_dir() { sources(&place) } else { vec![place] };
    let is_test = |file: &Path| file.iter().any(|part| part == "tests" || part == "tests.rs");
    let mut lines = Vec::new();
    for file in files.iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut within_tests = false;
        for line in text.lines() {
            within_tests = (within_tests || line == "mod tests {") && line != "}";
            if !within_tests {
                lines.push(line.split("//").next().unwrap_or_default().to_owned());
            }
        }
    }
    lines
}

fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

fn is_constant(line: &&String) -> bool {
    line.contains("const ") && line.contains("&str")
}

/// The first words between backticks of the rows below a heading, up to the next heading of its level.
fn rows_below(page: &str, heading: &str) -> BTreeSet<String> {
    let level = heading.split(' ').next().unwrap_or_default();
    let below = page.lines().skip_while(|line| *line != heading).skip(1);
    let rows = below.take_while(|line| !line.starts_with(&format!("{level} "))).filter(|line| line.starts_with("| `"));
    let words = rows.flat_map(|row| row.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2));
    words.map(ToOwned::to_owned).collect()
}

/// The page has the same entries as the code.
#[track_caller]
fn assert_same(page: &str, what: &str, documented: &BTreeSet<String>, declared: &BTreeSet<String>) {
    let missing: Vec<_> = declared.difference(documented).collect();
    assert!(missing.is_empty(), "{page} lacks these {what}: {missing:?}. Add a row for each");
    let stale: Vec<_> = documented.difference(declared).collect();
    assert!(stale.is_empty(), "{page} has these {what}, and the code lacks them: {stale:?}. Remove their rows");
}

#[test]
fn every_key_of_a_row_is_in_the_contract() {
    let lines = code("contract/keys.rs");
    let keys: BTreeSet<&str> = lines.iter().filter(is_constant).flat_map(|line| literals(line)).collect();
    assert!(keys.len() > 15, "{keys:?}");
    let words = quoted(&page(CONTRACT));
    // A key that ends in a dot has the instance's name appended.
    let has = |key: &str| words.contains(key) || key.ends_with('.') && words.contains(&format!("{key}<instance>"));
    let missing: Vec<_> = keys.iter().filter(|key| !has(key)).collect();
    assert!(missing.is_empty(), "{CONTRACT} lacks these keys: {missing:?}. Add a row for each");
}

#[test]
fn every_key_of_our_domain_and_of_kubernetes_is_in_the_contract() {
    let lines = code("");
    let is_key = |text: &&str| text.contains("kubevirt.io/") || text.contains("kubernetes.io/");
    let constants = lines.iter().filter(is_constant).flat_map(|line| literals(line)).filter(is_key);
    let constants: BTreeSet<String> = constants.filter(|key| !key.ends_with('/')).map(ToOwned::to_owned).collect();
    assert!(constants.len() > 10, "{constants:?}");
    let words = quoted(&page(CONTRACT));
    let keys = words.iter().filter(|word| word.starts_with("ovn-kubevirt.io/"));
    let documented: BTreeSet<String> = keys.map(|key| key.replace("<instance>", "")).collect();
    let (ours, others) = constants.into_iter().partition(|key| key.starts_with("ovn-kubevirt.io/"));
    assert_same(CONTRACT, "keys", &documented, &ours);
    let missing: Vec<_> = others.difference(&words).collect();
    assert!(missing.is_empty(), "{CONTRACT} lacks these keys: {missing:?}. Add a row for each");
}

#[test]
fn every_table_and_column_is_in_the_contract() {
    let tables: Vec<TableSpec> = [
        Northbound::TABLES,
        Northbound::OPTIONAL_TABLES,
        Southbound::TABLES,
        Southbound::OPTIONAL_TABLES,
        LocalSwitch::TABLES,
    ]
    .concat();
    let column_names = |table: &TableSpec| {
        let name = table.name;
        table.columns.iter().map(move |column| format!("{name}.{}", column.name))
    };
    let declared: BTreeSet<String> = tables.iter().flat_map(column_names).collect();
    let is_of_one =
        |word: &String| word.split_once('.').is_some_and(|(name, _)| tables.iter().any(|table| table.name == name));
    let documented = quoted(&page(CONTRACT)).into_iter().filter(is_of_one).collect();
    assert_same(CONTRACT, "columns", &documented, &declared);
}

#[test]
fn every_annotation_of_a_nic_is_in_the_contract_the_owners_page_and_the_message_about_the_others() {
    let served: BTreeSet<String> = SERVED.iter().map(|what| format!("P.kubernetes.io/{what}")).collect();
    for name in [CONTRACT, OWNERS] {
        let words = quoted(&page(name));
        let documented: BTreeSet<String> =
            words.into_iter().filter(|word| word.starts_with("P.kubernetes.io/")).collect();
        assert_eq!(documented, served, "{name}");
    }
    let message = Problem::Unserved(vec!["x".to_owned()]).to_string();
    for what in SERVED {
        assert!(message.contains(what), "{message} does not name {what}");
    }
}

#[test]
fn every_reason_of_an_event_is_in_the_contract_and_in_troubleshooting() {
    let lines: Vec<String> = ["plan", "controller/reporter", "node"].into_iter().flat_map(code).collect();
    // Two words and more in camel case.
    let is_reason = |text: &&str| {
        let capitals = text.chars().filter(char::is_ascii_uppercase).count();
        let plain = text.chars().all(|character| character.is_ascii_alphabetic());
        plain && capitals > 1 && capitals < text.len() / 2 && text.starts_with(|first: char| first.is_ascii_uppercase())
    };
    let found = lines.iter().flat_map(|line| literals(line)).filter(is_reason);
    let reasons: BTreeSet<String> = found.map(ToOwned::to_owned).collect();
    for name in [CONTRACT, TROUBLESHOOTING] {
        assert_same(name, "reasons", &rows_below(&page(name), "## Events"), &reasons);
    }
}

/// A renamed test would leave a long run empty, and the test runner calls that a success.
#[test]
fn every_filter_of_make_soak_selects_a_test() {
    let makefile = page("Makefile");
    let rule = makefile.lines().skip_while(|line| !line.starts_with("soak:")).skip(1);
    let runs = rule.take_while(|line| line.starts_with('\t')).filter(|line| line.contains(" --lib "));
    let filters: Vec<&str> =
        runs.filter_map(|line| line.split_once(" -- ")).flat_map(|(_, end)| end.split(' ')).collect();
    let sources: Vec<String> =
        sources(&root().join("src")).iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let is_test = |line: &str, filter: &str| line.trim_start().starts_with("fn ") && line.contains(filter);
    let selects = |filter: &str| sources.iter().flat_map(|text| text.lines()).any(|line| is_test(line, filter));
    let empty: Vec<&&str> = filters.iter().filter(|filter| !selects(filter)).collect();
    assert!(filters.len() > 1 && empty.is_empty(), "no test has these words of `make soak`: {empty:?} of {filters:?}");
}
