//! Parses the command line and exits.

use std::process::ExitCode;
use std::time::Duration;

/// Nothing is left to be done when a command has ended: whatever still runs is not waited for.
const LEFTOVERS: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = ovn_kubevirt::cli::Cli::read();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ovn-kubevirt: no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli.execute());
    // What still runs may log that the others are gone: why the process ends is said after that.
    runtime.shutdown_timeout(LEFTOVERS);
    ended.report()
}
