//! `ovn-kubevirt config`: checks and prints what `run` or `node` would read.
//!
//! Everything is read and checked before a command is executed ([`crate::config::read`]), so these two only print.

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::{examples, print as write};
use crate::config::{ApiOptions, InForce, NodeOptions, RunOptions};

/// The commands of `config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the flags, the variables and the file that `run` would read, or `node`
    #[command(after_help = examples::CHECK)]
    Check(Options),
    /// Print the values that would be in force for `run`, or `node`, and the source of each
    #[command(after_help = examples::SHOW)]
    Show(Options),
}

/// The flags of `run`, or the command `node` with its own. The values are in [`InForce`].
#[derive(Debug)]
pub(super) struct Options {
    /// The API of `run`.
    api: Option<ApiOptions>,
}

impl ConfigCommand {
    /// Checks the rules that clap does not know.
    pub(super) fn check(&self) -> Result<(), String> {
        let (Self::Check(options) | Self::Show(options)) = self;
        options.api.as_ref().map_or(Ok(()), ApiOptions::check)
    }
}

impl Args for Options {
    fn augment_args(command: Command) -> Command {
        let node = Command::new("node").about("The same for `node`");
        RunOptions::augment_args(command)
            .args_conflicts_with_subcommands(true)
            .disable_help_subcommand(true)
            .subcommand(NodeOptions::augment_args(node))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_of_run = matches.subcommand_name().is_none();
        Ok(Self { api: is_of_run.then(|| ApiOptions::from_arg_matches(matches)).transpose()? })
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

/// Prints `ok`, or the values.
pub(super) fn print(command: &ConfigCommand, in_force: &InForce) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check(_) => write("ok\n"),
        ConfigCommand::Show(_) => write(&in_force.to_string()),
    }
}
