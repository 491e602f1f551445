//! The command line.

mod ports;
mod status;

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{NodeOptions, RunOptions};

/// Fixed addresses for KubeVirt VMs on OVN.
#[derive(Debug, Parser)]
#[command(name = "ovn-kubevirt", version, about, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// Write log lines as JSON
    #[arg(long, global = true, env = "OVN_KUBEVIRT_LOG_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    log_json: bool,

    #[command(subcommand)]
    command: Command,
}

const NODE_EXAMPLES: &str = "\
Examples:
  ovn-kubevirt node --node \"$(hostname)\" --kubeconfig /etc/kubernetes/node.kubeconfig
  OVN_KUBEVIRT_NODE=node1 ovn-kubevirt node --ovs unix:/var/run/openvswitch/db.sock --http 0.0.0.0:9443
  ovs-vsctl --columns=name,external_ids find Interface 'external_ids:\"ovn-kubevirt.io/node\"!=\"\"'

In a pod of the DaemonSet (deploy/kubernetes/node) the downward API sets OVN_KUBEVIRT_NODE.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch VMs and keep their logical switch ports
    Run(Box<RunOptions>),
    /// On a node, bind the interfaces of its launcher pods to their ports, if the CNI does not
    #[command(after_help = NODE_EXAMPLES)]
    Node(Box<NodeOptions>),
    /// List the ports of VMs, straight from the northbound database
    Ports(Box<ports::PortsOptions>),
    /// Ask the running service if it is ready; exits with 1 and the reason if it is not
    Status(status::StatusOptions),
    /// Print the version
    Version,
}

/// A variable with an empty value counts as unset: a manifest that omits a value sets it so.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &std::ffi::OsStr| {
        std::env::var_os(name).is_some_and(|value| value.to_str().is_some_and(|value| value.trim().is_empty()))
    };
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(Resettable::Reset),
        false => arg,
    });
    command.mut_subcommands(without_empty_variables)
}

impl Cli {
    /// Reads the command line and the variables; ends the process if they are invalid.
    pub fn read() -> Self {
        let mut matches = without_empty_variables(Self::command()).get_matches();
        Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.format(&mut Self::command()).exit())
    }

    /// Executes the command.
    pub async fn execute(self) -> Ended {
        let done = match self.command {
            Command::Run(options) => {
                crate::telemetry::start(self.log_json);
                return Ended::Service(crate::supervisor::run(*options).await);
            }
            Command::Node(options) => {
                crate::telemetry::start(self.log_json);
                return Ended::Service(crate::supervisor::run_node(*options).await);
            }
            Command::Ports(options) => ports::print(&options).await,
            Command::Status(options) => status::print(&options).await,
            Command::Version => {
                println!("ovn-kubevirt {}", env!("CARGO_PKG_VERSION"));
                Ok(())
            }
        };
        Ended::Command(done)
    }
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
            Self::Command(Err(error)) => eprintln!("ovn-kubevirt: {error:#}"),
        }
        ExitCode::FAILURE
    }
}
