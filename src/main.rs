//! Parses the command line and exits.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match ovn_kubevirt::cli::Cli::parse().execute().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ovn-kubevirt: {error:#}");
            ExitCode::FAILURE
        }
    }
}
