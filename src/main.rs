//! Parses the command line and exits.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    ovn_kubevirt::cli::Cli::parse().execute().await
}
