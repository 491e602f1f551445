//! The layers of the configuration: flags, then `OVN_KUBEVIRT_*` variables, then the file of `--config`, then the deerrors.
//!
//! The clap command is the one source of truth: a key of the file is the long name of a flag. A variable or a key that no
//! stronger layer has is handed to clap as one more argument, `--key=value`. So all layers share the parsers of the flags, and
//! the rules between them (`--ca-cert` needs `--certificate`) hold across layers.
//!
//! ```text
//!  arguments --> lenient parse: which command, which flags, which file
//!  variables ----+                                |
//!  file ---------+--> each value by its flag's parser --> arguments + --key=value ... --> strict parse
//!                        |
//!                        +--> all errors at once
//! ```

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::error::ConfigError;
use super::file::{self, Entry, Value};
use super::in_force::{InForce, Setting, Source};
use crate::escaped::Escaped;

/// The id of the flag that names the file, where a command has it.
const FILE: &str = "config";
/// The variables of our flags begin so.
const PREFIX: &str = "OVN_KUBEVIRT_";
/// The value name of a flag whose own parser reads several values with commas between ends so.
const COMMA_SEPARATED: &str = ",...";

/// The variables of a process: the value of a name.
pub type Variables<'a> = &'a dyn Fn(&OsStr) -> Option<OsString>;

/// A command line that was read.
#[derive(Debug)]
pub struct Reading {
    /// The values, as clap has them.
    pub matches: ArgMatches,
    /// The values with their sources.
    pub in_force: InForce,
}

/// The reason why nothing was read.
#[derive(Debug)]
pub enum Refusal {
    /// clap has an error, or a help text to show.
    Clap(Box<clap::Error>),
    /// Values cannot be used: clap's error about the flags, if there is one, and the errors in variables and the file.
    Errors(Option<Box<clap::Error>>, Vec<ConfigError>),
    /// Values cannot be used together, as clap says; and where each comes from that is no flag.
    Together(Box<clap::Error>, Vec<ConfigError>),
}

impl Refusal {
    /// A value of a flag that cannot be used beside the others.
    pub fn of(flag: &str, text: String) -> Self {
        Self::Errors(None, vec![ConfigError::new(flag.to_owned(), text)])
    }
}

/// Reads a command line with the variables and the file that belong to it.
pub fn read(command: &Command, arguments: &[OsString], variables: Variables<'_>) -> Result<Reading, Refusal> {
    let strict = without_variables(command.clone());
    let lenient = without_requirements(strict.clone());
    let flags = match lenient.clone().try_get_matches_from(arguments) {
        Err(error) if is_help(&error) => {
            // The help of the command as it is: it names the variables.
            let shown = command.clone().try_get_matches_from(arguments);
            return Err(Refusal::Clap(Box::new(shown.err().unwrap_or(error))));
        }
        // A relation between flags may be satisfied by another layer.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => None,
        Err(error) => Some(Box::new(error)),
        Ok(_) => None,
    };
    let seen = lenient.ignore_errors(true).try_get_matches_from(arguments);
    let seen = seen.map_err(|error| Refusal::Clap(Box::new(error)))?;
    let mut built = command.clone();
    built.build();
    let mut layers = Layers::new(&built, &seen, variables);
    layers.read_file();
    layers.read_variables();
    if !layers.errors.is_empty() {
        return Err(Refusal::Errors(flags, layers.errors));
    }
    let matches = strict.try_get_matches_from(layers.extended(arguments));
    let matches = matches.map_err(|error| match flags {
        Some(_) => Refusal::Errors(Some(Box::new(error)), Vec::new()),
        None => Refusal::Together(Box::new(error), layers.notes()),
    })?;
    let in_force = layers.in_force(&matches);
    Ok(Reading { matches, in_force })
}

fn is_help(error: &clap::Error) -> bool {
    !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// The command with flags alone.
fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset)).mut_subcommands(without_variables)
}

fn without_requirements(command: Command) -> Command {
    command.mut_args(|arg| arg.required(false)).mut_subcommands(without_requirements)
}

/// The layers below the flags.
struct Layers<'a> {
    /// The command that was called, at the end of the subcommands.
    leaf: &'a Command,
    /// The whole command: the keys of others are told from typing errors.
    root: &'a Command,
    /// The flags that were given.
    flags: &'a ArgMatches,
    variables: Variables<'a>,
    path: Option<PathBuf>,
    /// What is added to the arguments, by the id of the flag.
    added: BTreeMap<String, (OsString, Source)>,
    errors: Vec<ConfigError>,
}

impl<'a> Layers<'a> {
    fn new(root: &'a Command, matches: &'a ArgMatches, variables: Variables<'a>) -> Self {
        let (leaf, flags) = leaf(root, matches);
        let mut layers = Self { leaf, root, flags, variables, path: None, added: BTreeMap::new(), errors: Vec::new() };
        layers.path = layers.path();
        layers
    }

    /// The file of `--config`, or of its variable.
    fn path(&self) -> Option<PathBuf> {
        let arg = self.leaf.get_arguments().find(|arg| arg.get_id() == FILE)?;
        let flag = self.is_flag(arg).then(|| self.flags.get_raw(FILE)?.next_back()).flatten().map(OsStr::to_owned);
        flag.or_else(|| self.variable(arg)).map(PathBuf::from)
    }

    fn is_flag(&self, arg: &Arg) -> bool {
        self.flags.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    }

    /// The value of the flag's variable. An empty one counts as absent: a manifest that omits a value sets it so.
    fn variable(&self, arg: &Arg) -> Option<OsString> {
        let value = (self.variables)(arg.get_env()?)?;
        let is_empty = value.to_str().is_some_and(|value| value.trim().is_empty());
        (!is_empty).then_some(value)
    }

    fn read_variables(&mut self) {
        let leaf = self.leaf;
        for arg in settings(leaf) {
            let (Some(name), Some(value), false) = (arg.get_env(), self.variable(arg), self.is_flag(arg)) else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            match check(arg, &value) {
                Ok(()) => {
                    self.added.insert(arg.get_id().to_string(), (value, Source::Variable(name)));
                }
                Err(text) => self.errors.push(ConfigError::new(name, text)),
            }
        }
    }

    fn read_file(&mut self) {
        let Some(path) = self.path.clone() else { return };
        let place = |line: usize| format!("{}:{line}", path.display());
        let entries = match file::load(&path) {
            Ok(text) => file::entries(&text).map_err(|(line, text)| ConfigError::new(place(line), text)),
            Err(error) => Err(error),
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.errors.push(error),
        };
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        for entry in entries {
            let place = place(entry.line);
            let first = lines.insert(entry.key.clone(), entry.line);
            let read = match first {
                Some(first) => Err(format!("the key {} is on line {first} already: remove one", Escaped(&entry.key))),
                None => self.read_entry(entry, &place),
            };
            if let Err(text) = read {
                self.errors.push(ConfigError::new(place, text));
            }
        }
    }

    fn read_entry(&mut self, entry: Entry, place: &str) -> Result<(), String> {
        let arg = self.leaf.get_arguments().find(|arg| is_setting(arg) && arg.get_long() == Some(&entry.key));
        let Some(arg) = arg else { return Err(self.unknown(&entry.key)) };
        let Some(value) = text(arg, entry.value)? else { return Ok(()) };
        check(arg, OsStr::new(&value)).map_err(|error| format!("{}: {error}", entry.key))?;
        if !self.is_flag(arg) {
            self.added.insert(arg.get_id().to_string(), (value.into(), Source::File(place.to_owned())));
        }
        Ok(())
    }

    /// The message about a key that the command does not have.
    fn unknown(&self, key: &str) -> String {
        let shown = Escaped(key);
        if key == FILE {
            return format!("the key {shown} would name another file: name one by --{FILE} alone");
        }
        let services =
            self.root.get_subcommands().filter(|service| service.get_arguments().any(|arg| arg.get_id() == FILE));
        let of = services.into_iter().find(|service| settings(service).any(|arg| arg.get_long() == Some(key)));
        if let Some(service) = of {
            return format!(
                "the key {shown} is for `{}`, which has a file of its own: remove it here",
                service.get_name()
            );
        }
        let spelled = spelled(key);
        let names = settings(self.leaf).filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
        let nearest = names.map(|name| (strsim::jaro_winkler(&spelled, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((likeness, name)) if likeness > 0.8 => format!("the key {shown} is unknown: did you mean {name}?"),
            _ => format!("the key {shown} is unknown: a key is the long name of a flag, without the hyphens before it"),
        }
    }

    /// The arguments with one more for each value of a weaker layer.
    fn extended(&self, arguments: &[OsString]) -> Vec<OsString> {
        let mut added = Vec::new();
        for arg in self.leaf.get_arguments() {
            let Some((value, _)) = self.added.get(arg.get_id().as_str()) else { continue };
            // What is off by default and off here conflicts with nothing.
            if !(is_false(arg, value) && arg.get_default_values() == ["false"]) {
                let mut argument = OsString::from(format!("--{}=", arg.get_long().unwrap_or_default()));
                argument.push(value);
                added.push(argument);
            }
        }
        let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        let (before, after) = arguments.split_at(end);
        [before, &added, after].concat()
    }

    /// Where the values of clap's last error may come from.
    fn notes(&self) -> Vec<ConfigError> {
        let note = |(id, (_, source)): (&String, &(OsString, Source))| {
            let arg = self.leaf.get_arguments().find(|arg| arg.get_id() == id.as_str())?;
            Some(ConfigError::new(source.to_string(), format!("sets --{}", arg.get_long()?)))
        };
        self.added.iter().filter_map(note).collect()
    }

    fn in_force(self, matches: &ArgMatches) -> InForce {
        let (_, matches) = leaf(self.root, matches);
        let setting = |arg: &Arg| {
            let id = arg.get_id().as_str();
            let source = match self.added.get(id) {
                Some((_, source)) => source.clone(),
                None if self.is_flag(arg) => Source::Flag,
                None => Source::Default,
            };
            let separator = arg.get_value_delimiter().map_or_else(|| ",".to_owned(), String::from);
            let joined = |values: Vec<&OsStr>| {
                values.iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(&separator)
            };
            let value = matches.get_raw(id).map(|values| joined(values.collect()));
            let deerrors: Vec<&OsStr> = arg.get_default_values().iter().map(|value| value.as_ref()).collect();
            Setting {
                key: arg.get_long().unwrap_or_default().to_owned(),
                is_default: source == Source::Default || value.as_ref().is_some_and(|value| *value == joined(deerrors)),
                value,
                source,
                is_secret: arg.is_hide_env_values_set(),
                is_hidden: arg.is_hide_set(),
            }
        };
        InForce { file: self.path.clone(), settings: settings(self.leaf).map(setting).collect() }
    }
}

/// The last subcommand that was called, and its values.
fn leaf<'a>(root: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    let (mut command, mut matches) = (root, matches);
    while let Some((name, below)) = matches.subcommand() {
        let Some(subcommand) = command.find_subcommand(name) else { break };
        (command, matches) = (subcommand, below);
    }
    (command, matches)
}

/// The flags that a file may set.
pub(crate) fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| is_setting(arg))
}

fn is_setting(arg: &Arg) -> bool {
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    takes_value && arg.get_long().is_some() && arg.get_id() != FILE
}

/// Whether a flag takes several values, so that a key of the file takes a list.
pub(crate) fn takes_list(arg: &Arg) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    arg.get_value_delimiter().is_some() || names.iter().any(|name| name.ends_with(COMMA_SEPARATED))
}

/// The value of a key as its flag takes it; `None` if it counts as absent.
fn text(arg: &Arg, value: Value) -> Result<Option<String>, String> {
    let key = arg.get_long().unwrap_or_default();
    match value {
        Value::Absent => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::List(items) if takes_list(arg) => match arg.get_value_delimiter() {
            // Without an element it is a flag that is not given.
            Some(_) if items.is_empty() => Ok(None),
            delimiter => Ok(Some(items.join(&delimiter.unwrap_or(',').to_string()))),
        },
        Value::List(_) => Err(format!("{key} takes one value: write it without a list")),
        Value::Other(what) => Err(format!("{key} takes a value, and this is {what}")),
    }
}

/// Whether the flag's parser takes the value. The error has the value, and the parser's reason.
fn check(arg: &Arg, value: &OsStr) -> Result<(), String> {
    let reason = match alone(arg, value) {
        Ok(_) => return Ok(()),
        Err(error) => match std::error::Error::source(&error) {
            Some(reason) => reason.to_string(),
            None => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        },
    };
    // A parser may name the value itself.
    let text = value.to_string_lossy();
    match arg.is_hide_env_values_set() || reason.contains(&format!("\"{text}\"")) {
        true => Err(reason),
        false => Err(format!("\"{}\": {reason}", Escaped(&text))),
    }
}

/// The value by the flag's own parser, without other flags.
fn alone(arg: &Arg, value: &OsStr) -> Result<ArgMatches, clap::Error> {
    let mut alone = Arg::new("value")
        .long("value")
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone())
        .require_equals(true);
    if let Some(delimiter) = arg.get_value_delimiter() {
        alone = alone.value_delimiter(delimiter);
    }
    let mut argument = OsString::from("--value=");
    argument.push(value);
    Command::new("value").no_binary_name(true).arg(alone).try_get_matches_from([argument])
}

fn is_false(arg: &Arg, value: &OsStr) -> bool {
    let parsed = alone(arg, value).ok();
    parsed.is_some_and(|matches| matches!(matches.try_get_one::<bool>("value"), Ok(Some(false))))
}

/// A key as it would be spelled: `default_switch`, `defaultSwitch` and `OVN_KUBEVIRT_DEFAULT_SWITCH` are near to it.
fn spelled(key: &str) -> String {
    let key = key.trim_start_matches('-');
    if let Some(name) = key.strip_prefix(PREFIX) {
        return name.to_lowercase().replace('_', "-");
    }
    let mut spelled = String::new();
    for character in key.chars() {
        if character.is_ascii_uppercase() && !spelled.is_empty() && !spelled.ends_with('-') {
            spelled.push('-');
        }
        spelled.push(if character == '_' { '-' } else { character.to_ascii_lowercase() });
    }
    spelled
}

#[cfg(test)]
mod tests;
