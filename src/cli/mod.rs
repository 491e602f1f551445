//! The command line.

mod config;
mod examples;
mod files;
mod plugin;
mod ports;
#[cfg(test)]
mod reference;
mod source;
mod status;
mod switches;
mod table;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::api::rpc::{ClientError, Failure, Reason};
use crate::config::{InForce, NodeOptions, Refusal, RunOptions};

/// The name of the program as a plugin of kubectl, which runs it as `kubectl ovn-kubevirt`.
const PLUGIN: &str = "kubectl-ovn_kubevirt";
/// The exit code of a command line, a variable or a file that cannot be used: clap's own.
const UNUSABLE: i32 = 2;

/// Fixed addresses for KubeVirt VMs on OVN.
#[derive(Debug, Parser)]
#[command(name = "ovn-kubevirt", version, about, max_term_width = 100, propagate_version = true, after_help = examples::ALL)]
pub struct Cli {
    /// Write log lines as JSON
    #[arg(long, global = true, env = "OVN_KUBEVIRT_LOG_JSON", value_name = "BOOLEAN", default_value_t = false, hide_possible_values = true,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    log_json: bool,

    /// The values that were read, with their sources.
    #[arg(skip)]
    in_force: InForce,

    /// Called by kubectl, as its plugin.
    #[arg(skip)]
    is_plugin: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch VMs and keep their logical switch ports
    #[command(after_help = examples::RUN)]
    Run(Box<RunOptions>),
    /// On a node, bind the interfaces of its launcher pods to their ports, if the CNI does not
    #[command(after_help = examples::NODE)]
    Node(Box<NodeOptions>),
    /// List the ports of VMs, or explain those of one VM
    #[command(after_help = examples::PORTS)]
    Ports(Box<ports::PortsOptions>),
    /// List the logical switches, with the use of their subnets
    #[command(after_help = examples::SWITCHES)]
    Switches(Box<switches::SwitchesOptions>),
    /// Ask the running service if it is ready; exits with 1 and the reason if it is not
    #[command(after_help = examples::STATUS)]
    Status(status::StatusOptions),
    /// Check the configuration of `run` or `node`, or print what is in force
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(config::ConfigCommand),
    /// Print a script that completes commands and flags in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(files::CompletionsOptions),
    /// Write the manual pages, one for each command, into a folder
    #[command(after_help = examples::MAN)]
    Man(files::ManOptions),
    /// Print the version
    #[command(after_help = examples::VERSION)]
    Version,
}

impl Cli {
    /// Reads the command line, the variables and the file; ends the process if they are invalid.
    pub fn read() -> Self {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        match Self::from(&arguments) {
            Ok(cli) => cli,
            Err(refusal) => refuse(refusal),
        }
    }

    fn from(arguments: &[OsString]) -> Result<Self, Refusal> {
        let is_plugin = is_plugin(arguments);
        let command = match is_plugin {
            true => examples::of_plugin(Self::command().bin_name(examples::CALLED_AS_PLUGIN)),
            false => Self::command(),
        };
        let reading = crate::config::read(&command, arguments, &|name| std::env::var_os(name))?;
        let cli = Self::from_arg_matches(&reading.matches).map_err(|error| Refusal::Clap(Box::new(error)))?;
        let api = match &cli.command {
            Command::Run(options) => options.api.check(),
            Command::Config(command) => command.check(),
            _ => Ok(()),
        };
        api.map_err(|error| Refusal::of("--api", error))?;
        Ok(Self { in_force: reading.in_force, is_plugin, ..cli })
    }

    /// Executes the command.
    pub async fn execute(self) -> Ended {
        let Self { log_json, in_force, is_plugin, command, .. } = self;
        let finds_service = is_plugin && in_force.is_default("api") && in_force.is_default("nb");
        let done = match command {
            Command::Run(options) => {
                let log = crate::telemetry::start(log_json);
                in_force.log();
                return Ended::Service(crate::supervisor::run(*options, log).await);
            }
            Command::Node(options) => {
                crate::telemetry::start(log_json);
                in_force.log();
                return Ended::Service(crate::supervisor::run_node(*options).await);
            }
            Command::Ports(mut options) => match forwarded(finds_service, options.source_mut()).await {
                Ok(_forwarded) => ports::print(&options).await,
                Err(error) => Err(error),
            },
            Command::Switches(mut options) => match forwarded(finds_service, options.source_mut()).await {
                Ok(_forwarded) => switches::print(&options).await,
                Err(error) => Err(error),
            },
            Command::Status(options) if is_plugin && in_force.is_default("http") => {
                status::print_of_leader(options).await
            }
            Command::Status(options) => status::print(&options).await,
            Command::Config(command) => config::print(&command, &in_force),
            Command::Completions(options) => files::print_completions(&options, Self::command()),
            Command::Man(options) => files::write_pages(&options, Self::command()),
            Command::Version => print(&format!("ovn-kubevirt {}\n", env!("CARGO_PKG_VERSION"))),
        };
        Ended::Command(done)
    }
}

/// Forwards a port to the API of the process that writes, if the command is to find the service by itself.
async fn forwarded(
    finds_service: bool,
    source: &mut source::SourceOptions,
) -> anyhow::Result<Option<plugin::Forwarded>> {
    if finds_service { source.forward().await.map(Some) } else { Ok(None) }
}

/// Whether the program was called by the name of the plugin: its usage lines and examples begin with `kubectl` then.
fn is_plugin(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name == PLUGIN)
}

/// Prints the reasons why the command line cannot be used, or the help that was asked for, and ends the process.
fn refuse(refusal: Refusal) -> ! {
    let (flags, errors, is_note) = match refusal {
        Refusal::Clap(error) => error.exit(),
        Refusal::Errors(flags, errors) => (flags, errors, false),
        Refusal::Together(error, notes) => (Some(error), notes, true),
    };
    if let Some(error) = flags {
        let _ = error.print();
    }
    for error in errors {
        eprintln!("{}: {error}", if is_note { "note" } else { "error" });
    }
    std::process::exit(UNUSABLE)
}

/// Writes to stdout. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;

    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// The exit code where the object that a command names does not exist.
const NOT_FOUND: u8 = 3;

fn is_not_found(error: &anyhow::Error) -> bool {
    let by_failure = |failure: &Failure| failure.reason == Reason::NotFound;
    let by_answer =
        |error: &ClientError| matches!(error, ClientError::Answered { code, .. } if *code == Reason::NotFound.code());
    error.downcast_ref().is_some_and(by_failure) || error.downcast_ref().is_some_and(by_answer)
}

/// The outcome of a command.
#[derive(Debug)]
pub enum Ended {
    /// `run` or `node`: a failure is its last log line.
    Service(anyhow::Result<()>),
    /// Another command: a failure goes to stderr.
    Command(anyhow::Result<()>),
}

impl Ended {
    /// Reports a failure, and returns the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Service(Ok(())) | Self::Command(Ok(())) => return ExitCode::SUCCESS,
            Self::Service(Err(error)) => tracing::error!(reason = format!("{error:#}"), "ending"),
            Self::Command(Err(error)) => {
                eprintln!("ovn-kubevirt: {error:#}");
                if is_not_found(&error) {
                    return ExitCode::from(NOT_FOUND);
                }
            }
        }
        ExitCode::FAILURE
    }
}

#[cfg(test)]
pub(crate) mod tests;
