//! Logs: one line a decision, to stderr, filtered by `RUST_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The exit code of a process that panicked, as Rust has it.
const PANICKED: i32 = 101;

/// Starts logging; JSON lines where `json` is set. From now on a panic anywhere is logged and ends the
/// process: a task that died must not leave one behind that looks healthy.
pub fn start(json: bool) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_runtime=error,kube_client=off"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        lines.json().init();
    } else {
        // NO_COLOR is honoured by the library only where it decides itself.
        let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        lines.with_ansi(ansi).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(reason = %panic, backtrace = %std::backtrace::Backtrace::capture(), "ending: a task died");
        std::process::exit(PANICKED);
    }));
}
