//! `docs/reference.md`, made from the clap command: a test compares the page, and `make reference` writes it.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command};

use super::tests::commands;
use crate::config::layers::{settings, takes_list};

const PAGE: &str = "docs/reference.md";
/// Set to 1, this variable has the test write the page instead of comparing it.
const REWRITE: &str = "OVN_KUBEVIRT_REWRITE";
/// The commands with a file.
const SERVICES: [&str; 2] = ["ovn-kubevirt run", "ovn-kubevirt node"];

const OPENING: &str = "\
# Reference of the command line

Made from the code by `make reference`; `cli::reference` is a test that compares this page with the code.

`run` and `node` take each option from the first of these places that has it:

1. its flag;
2. its variable `OVN_KUBEVIRT_*`;
3. its key in the YAML file that `--config` or `OVN_KUBEVIRT_CONFIG` names;
4. its default.

A key is the name of the flag without the hyphens before it. A value is written as for the flag. Where the column *in the file* says
\"or a list\", a YAML list does the same as values with commas between. An empty value counts as absent, in a variable and in the file.
A key that is unknown, or written twice, is refused, and so is a value that its flag would refuse. The file is read once, at the start.

```yaml
# /etc/ovn-kubevirt.yaml
nb: [\"tcp:192.0.2.1:6641\", \"tcp:192.0.2.2:6641\", \"tcp:192.0.2.3:6641\"]
default-switch: ovn-default
http: 0.0.0.0:9443
allow: [explicit, excluded]
```

`ovn-kubevirt config check` prints `ok`, or every error with its place. `ovn-kubevirt config show` prints what would be in force, as a file
whose comments have the sources. At the start, `run` and `node` log what differs from the defaults (`configuration`), by source. A secret
is never printed.

A boolean flag without a value is `true`: `--no-lease` and `--no-lease=true` are the same, and `--no-lease=false` turns off what a variable
or the file has turned on.
";

fn page() -> String {
    let mut page = OPENING.to_owned();
    let commands = commands();
    let run = commands.iter().find(|(name, _)| name == SERVICES[0]).map(|(_, command)| command);
    for (name, command) in &commands {
        // `config check node` is under `config check`.
        if SERVICES.iter().any(|service| name == service) || !name.ends_with(" node") {
            section(&mut page, name, command, run.filter(|_| !SERVICES.contains(&name.as_str())));
        }
    }
    page
}

/// The section of a command. `run` is given where its flags need not be repeated.
fn section(page: &mut String, name: &str, command: &Command, run: Option<&Command>) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let level = name.split(' ').count() + 1;
    let _ = writeln!(page, "\n{} `{name}`\n\n{about}.\n", "#".repeat(level.min(4)));
    let usage = command.clone().bin_name(name.to_owned()).render_usage().to_string();
    let _ = writeln!(page, "```text\n{}\n```", usage.trim_start_matches("Usage: ").trim().replace("\n       ", "\n"));
    let is_shown = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let flags: Vec<&Arg> = command.get_arguments().filter(is_shown).collect();
    let has_those_of_run =
        run.is_some_and(|run| settings(run).all(|arg| command.get_arguments().any(|own| own.get_id() == arg.get_id())));
    if has_those_of_run {
        let _ = writeln!(
            page,
            "\nIts flags are those of [`run`](#ovn-kubevirt-run), and of [`node`](#ovn-kubevirt-node) after the word `node`."
        );
    } else if name.split(' ').count() == 1 || !flags.iter().all(|arg| arg.is_global_set()) {
        let has_file = SERVICES.contains(&name);
        let _ = writeln!(page, "\n| flag | variable |{} default | |", if has_file { " in the file |" } else { "" });
        let _ = writeln!(page, "|---|---|{}---|---|", if has_file { "---|" } else { "" });
        for arg in flags.iter().filter(|arg| has_file || name.split(' ').count() == 1 || !arg.is_global_set()) {
            row(page, arg, command, has_file);
        }
    }
    if let Some(help) = command.get_after_help() {
        let _ = writeln!(page, "\n```text\n{}\n```", help.to_string().trim());
    }
}

fn row(page: &mut String, arg: &Arg, command: &Command, has_file: bool) {
    let code = |text: String| if text.is_empty() { text } else { format!("`{text}`") };
    let flag = arg.to_string();
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    let required = if arg.is_required_set() { "required" } else { "" };
    let default = if defaults.is_empty() { required.to_owned() } else { code(defaults.join(",")) };
    let key =
        settings(command).find(|setting| setting.get_id() == arg.get_id()).and_then(Arg::get_long).unwrap_or_default();
    let list = if takes_list(arg) { ", or a list" } else { "" };
    let key = if has_file { format!(" {}{list} |", code(key.to_owned())) } else { String::new() };
    let _ = writeln!(page, "| `{flag}` | {} |{key} {default} | {help} |", code(variable));
}

#[test]
fn the_reference_is_as_the_code_has_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let made = page();
    if std::env::var_os(REWRITE).is_some_and(|value| value == "1") {
        std::fs::write(&path, &made).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = made.lines().zip(written.lines()).find(|(made, written)| made != written);
    assert!(made == written, "{PAGE} differs from the code, first at {differs:?}. Write it anew: make reference");
}
