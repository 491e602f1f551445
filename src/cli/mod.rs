//! The command line.

mod ports;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::RunOptions;

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

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch VMs and keep their logical switch ports
    Run(Box<RunOptions>),
    /// List the ports of VMs, straight from the northbound database
    Ports(Box<ports::PortsOptions>),
    /// Ask the running service whether it is ready; exits with 1 and the reason when it is not
    Status(status::StatusOptions),
    /// Print the version
    Version,
}

impl Cli {
    /// Does what it says; a failure is told on stderr, by `run` as its last log line.
    pub async fn execute(self) -> ExitCode {
        let done = match self.command {
            Command::Run(options) => {
                crate::telemetry::start(self.log_json);
                let ended = crate::supervisor::run(*options).await;
                return match ended {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        tracing::error!(reason = format!("{error:#}"), "ending");
                        ExitCode::FAILURE
                    }
                };
            }
            Command::Ports(options) => ports::print(&options).await,
            Command::Status(options) => status::print(&options).await,
            Command::Version => {
                println!("ovn-kubevirt {}", env!("CARGO_PKG_VERSION"));
                Ok(())
            }
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("ovn-kubevirt: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
