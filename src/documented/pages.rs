//! The pages for readers: their commands, their examples, their links, and an entry for each thing that may go wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{OWNERS, TROUBLESHOOTING, assert_same, code, literals, page, root, rows_below};
use crate::cli::tests::fault_of;
use crate::contract::annotations::{RETAIN, SERVED};

const OPERATING: &str = "docs/operating.md";
/// The kinds of fenced blocks. `sh run` is run by `documents::` of the integration tests; `example` needs a cluster, a build or
/// root; the others have no commands.
const KINDS: [&str; 7] = ["sh run", "sh example", "console example", "yaml", "json", "rust", "text"];
/// Made from the code: its examples are tested there.
const REFERENCE: &str = "docs/reference.md";
/// A line that begins with one of these is a command.
const PROGRAMS: [&str; 13] = [
    "$",
    "cargo",
    "cat",
    "curl",
    "docker",
    "docker-compose",
    "kubectl",
    "make",
    "ovn-kubevirt",
    "ovn-nbctl",
    "ovn-sbctl",
    "ovs-vsctl",
    "ovsdb-client",
];

/// A fenced block: the words behind its fence, and its lines.
struct Block {
    kind: String,
    lines: Vec<String>,
}

/// All pages, by their path in the repository.
fn pages() -> Vec<String> {
    fn below(folder: &Path, pages: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => below(&path, pages),
                false if path.extension().is_some_and(|extension| extension == "md") => pages.push(path),
                false => {}
            }
        }
    }
    let mut found: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into();
    for folder in ["docs", "deploy"] {
        below(&root().join(folder), &mut found);
    }
    let relative = |path: &PathBuf| path.strip_prefix(root()).expect("below the root").display().to_string();
    found.iter().map(relative).collect()
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(kind) => {
                is_open = true;
                blocks.push(Block { kind: kind.to_owned(), lines: Vec::new() });
            }
            None if is_open => blocks.last_mut().expect("one is open").lines.push(line.to_owned()),
            None => {}
        }
    }
    blocks
}

/// The lines outside of blocks.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

#[test]
fn every_block_says_whether_a_test_runs_it_and_each_command_of_the_program_is_valid() {
    let mut checked = 0;
    for name in pages() {
        let text = page(&name);
        for Block { kind, lines } in blocks(&text) {
            assert!(
                KINDS.contains(&kind.as_str()),
                "{name}: a block is ```{kind}, and not one of {KINDS:?}: {lines:#?}"
            );
            let commands = lines.join("\n").replace("\\\n", " ");
            for line in commands.lines().filter(|_| name != REFERENCE) {
                let first = line.split_whitespace().next().unwrap_or_default();
                // A picture is indented.
                let is_command = line.starts_with(first) && PROGRAMS.contains(&first);
                assert!(kind != "text" || !is_command, "{name}: a block of text has the command {line}");
                checked += usize::from(first == "ovn-kubevirt");
                assert_eq!(fault_of(line), None, "{name}: {line}");
            }
        }
        for words in prose(&text).split('`').skip(1).step_by(2).filter(|words| words.starts_with("ovn-kubevirt ")) {
            let is_sentence = ["is", "cannot"].contains(&words.split(' ').nth(1).unwrap_or_default());
            assert!(is_sentence || fault_of(words).is_none(), "{name}: {words}: {:?}", fault_of(words));
        }
    }
    assert!(checked > 5, "{checked} command lines were found");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for name in pages() {
        let text = page(&name);
        let prose = prose(&text);
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&name).parent().expect("a folder");
            let target = if file.is_empty() { root().join(&name) } else { root().join(folder).join(file) };
            assert!(target.exists(), "{name}: {link} leads to no file");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target).expect("a page"));
                assert!(anchors.contains(anchor), "{name}: {link} leads to no heading: {anchors:?}");
            }
        }
    }
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_annotation_has_an_example_on_the_owners_page() {
    let blocks = blocks(&page(OWNERS));
    let examples: Vec<String> =
        blocks.iter().filter(|block| block.kind == "yaml").map(|block| block.lines.join("\n")).collect();
    for key in SERVED.map(|what| format!("kubernetes.io/{what}:")).into_iter().chain([format!("{RETAIN}:")]) {
        assert!(examples.iter().any(|example| example.contains(&key)), "{OWNERS} has no example of {key}");
    }
}

/// A text with dots in the place of values.
fn without_values(text: &str) -> String {
    let mut parts = text.split(['{', '}']);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    while let (Some(_), Some(rest)) = (parts.next(), parts.next()) {
        plain.push_str("...");
        plain.push_str(rest);
    }
    plain
}

#[test]
fn every_reason_of_readyz_is_in_troubleshooting() {
    // Whole sentences, from the places that make the answer.
    let of = |file: &str| -> BTreeSet<String> {
        let lines = code(file);
        let texts = lines.iter().flat_map(|line| literals(line)).map(|text| without_values(&text.replace("\\\"", "")));
        texts.filter(|text| text.starts_with("the ") && text.split(' ').count() > 4).collect()
    };
    let mut reasons: BTreeSet<String> = ["controller/status.rs", "controller/kubernetes/health.rs", "node/status.rs"]
        .into_iter()
        .flat_map(of)
        .collect();
    assert!(reasons.len() > 6, "{reasons:?}");
    reasons.extend(of("controller/link.rs").into_iter().filter(|text| text.starts_with("the cluster")));
    let documented = rows_below(&page(TROUBLESHOOTING), "## The service is not ready");
    let reason = |text: &String| text.starts_with("the ");
    let documented: BTreeSet<String> = documented.into_iter().filter(reason).collect();
    assert_same(TROUBLESHOOTING, "reasons of /readyz", &documented, &reasons);
}

/// The name of an alert is its anchor: each rule has it as its runbook.
#[test]
fn every_alert_has_a_section_for_operators() {
    let rules = page("deploy/monitoring/alerts.yaml");
    let alerts = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).map(str::trim);
    let alerts: BTreeSet<String> = alerts.map(ToOwned::to_owned).collect();
    let text = page(OPERATING);
    let below =
        text.lines().skip_while(|line| *line != "## Alerts").skip(1).take_while(|line| !line.starts_with("## "));
    let sections = below.filter_map(|line| line.strip_prefix("### ")).map(ToOwned::to_owned).collect();
    assert_same(OPERATING, "alerts", &sections, &alerts);
}
