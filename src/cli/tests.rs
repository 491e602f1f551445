use clap::builder::ValueParser;
use clap::{Arg, ArgAction};

use super::*;
use crate::config::layers::settings;

/// The words of a command line as a shell splits them, without redirections after it. Our variables before it are flags.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ' ') => words.push(String::new()),
            (None, '>' | '|' | ';') => break,
            _ => words.last_mut().expect("there is one").push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    let is_variable = |word: &&String| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| name.chars().all(|character| character.is_ascii_uppercase() || character == '_'))
    };
    let variables = words.iter().take_while(is_variable).count();
    let mut line = words.split_off(variables);
    for (name, value) in words.iter().filter_map(|word| word.strip_prefix("OVN_KUBEVIRT_")?.split_once('=')) {
        line.push(format!("--{}={value}", name.to_lowercase().replace('_', "-")));
    }
    line
}

/// The line with a name in the place of `$(command)`, `$VARIABLE` and `<placeholder>`.
fn filled(line: &str) -> String {
    let mut line = line.replace("$(hostname)", "node1").replace("<remote>", "tcp:127.0.0.1:1");
    while let Some((begin, end)) = line.find('<').and_then(|begin| Some((begin, begin + line[begin..].find('>')?))) {
        line.replace_range(begin..=end, "x");
    }
    line
}

/// Whether this is a command line of the program, and if so, why clap does not take it.
pub(crate) fn fault_of(line: &str) -> Option<String> {
    let mut words = words(&filled(line.trim().trim_start_matches("$ ")));
    if words.first().is_some_and(|word| word == "kubectl") && words.get(1).is_some_and(|word| word == "ovn-kubevirt") {
        words.remove(0);
    }
    if words.first().is_none_or(|word| word != "ovn-kubevirt" && !word.ends_with("/ovn-kubevirt")) {
        return None;
    }
    // A file may have the missing options, and a bare name is no command line.
    let is_name = words.len() < 3 || words.len() == 3 && words.iter().all(|word| !word.starts_with('-'));
    let is_partial = is_name || words.iter().any(|word| word == "--config");
    let error = Cli::command().try_get_matches_from(words).err()?;
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingRequiredArgument};
    let is_missing = matches!(error.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingRequiredArgument);
    (error.use_stderr() && !(is_partial && is_missing)).then(|| error.to_string())
}

/// Every command, with those below it, and the words by which it is called.
pub(crate) fn commands() -> Vec<(String, clap::Command)> {
    fn below(command: &clap::Command, name: &str, commands: &mut Vec<(String, clap::Command)>) {
        commands.push((name.to_owned(), command.clone()));
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            below(subcommand, &format!("{name} {}", subcommand.get_name()), commands);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut commands = Vec::new();
    below(&root, "ovn-kubevirt", &mut commands);
    commands
}

fn help(arguments: &[&str]) -> String {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    match Cli::from(&arguments).expect_err("help") {
        Refusal::Clap(help) => help.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_is_as_clap_wants_it() {
    Cli::command().debug_assert();
}

#[test]
fn a_plugin_of_kubectl_is_called_by_kubectl_in_its_usage_and_its_examples() {
    let plugin = help(&["/usr/bin/kubectl-ovn_kubevirt", "ports", "--help"]);
    assert!(plugin.contains("Usage: kubectl ovn-kubevirt ports [OPTIONS]"), "{plugin}");
    assert!(plugin.contains("\n  kubectl ovn-kubevirt ports") && !plugin.contains("\n  ovn-kubevirt"), "{plugin}");
    let own = help(&["/usr/bin/ovn-kubevirt", "ports", "--help"]);
    assert!(own.contains("Usage: ovn-kubevirt ports [OPTIONS]") && !own.contains("kubectl"), "{own}");
}

#[test]
fn the_help_of_each_command_has_examples_that_are_valid_and_its_exit_codes() {
    for (name, command) in commands() {
        // `config check node` has the examples of `config check`.
        if name.ends_with(" node") && name != "ovn-kubevirt node" {
            continue;
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<&str> =
            help.lines().filter(|line| line.starts_with("  ") && line.contains("ovn-kubevirt ")).collect();
        assert!(!examples.is_empty() && help.contains("Exit codes"), "{name}: {help}");
        for example in examples {
            assert_eq!(fault_of(example), None, "{name}: {example}");
            assert!(example.contains(&name), "{name}: {example}");
        }
        let file: Vec<&str> = help.lines().skip_while(|line| *line != "A file for --config:").skip(1).collect();
        for line in file.iter().take_while(|line| line.starts_with("  ")) {
            let key = line.trim().split(':').next().unwrap_or_default();
            assert!(settings(&command).any(|arg| arg.get_long() == Some(key)), "{name}: {line}");
        }
    }
    assert!(fault_of("ovn-kubevirt prots").is_some() && fault_of("X=y ovn-kubevirt ports --nbb").is_some());
}

/// Keys, variables and flags have one name, and each layer can say everything.
#[test]
fn each_option_of_a_service_has_a_variable_of_its_name_and_takes_a_value() {
    for (name, command) in commands()
        .into_iter()
        .filter(|(name, _)| ["run", "node"].iter().any(|of| *name == format!("ovn-kubevirt {of}")))
    {
        let flags = command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()));
        for arg in flags {
            let long = arg.get_long().expect("a long name");
            assert!(matches!(arg.get_action(), ArgAction::Set | ArgAction::Append), "{name} --{long} takes no value");
            let variable = format!("OVN_KUBEVIRT_{}", long.to_uppercase().replace('-', "_"));
            let found = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert!(arg.is_hide_set() || found == Some(variable), "{name} --{long} has the variable {found:?}");
            let is_secret = ["token", "password"].iter().any(|word| long.ends_with(word)) && !names_a_file(arg);
            assert_eq!(is_secret, arg.is_hide_env_values_set(), "{name} --{long}: hide_env_values is for secrets");
        }
    }
}

fn names_a_file(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == ValueParser::path_buf().type_id()
}
