//! The command line.

mod ports;

use clap::{Parser, Subcommand};

use crate::config::{NorthboundOptions, RunOptions};

/// Fixed addresses for KubeVirt VMs on OVN.
#[derive(Debug, Parser)]
#[command(name = "ovn-kubevirt", version, about, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// Write log lines as JSON
    #[arg(long, global = true, env = "OVN_KUBEVIRT_LOG_JSON")]
    log_json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch VMs and keep their logical switch ports
    Run(Box<RunOptions>),
    /// List the ports of VMs, straight from the northbound database
    Ports(NorthboundOptions),
    /// Print the version
    Version,
}

impl Cli {
    /// Does what it says.
    pub async fn execute(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run(options) => {
                crate::telemetry::start(self.log_json);
                crate::supervisor::run(*options).await
            }
            Command::Ports(options) => ports::print(&options).await,
            Command::Version => {
                println!("ovn-kubevirt {}", env!("CARGO_PKG_VERSION"));
                Ok(())
            }
        }
    }
}
