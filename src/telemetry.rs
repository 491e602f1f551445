//! Logs: one line for each decision, to stderr, filtered by `RUST_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Rust's exit code after a panic.
const PANICKED: i32 = 101;

/// Starts logging; JSON lines if `json` is set. From now on a panic in any task is logged and ends the process,
/// which would otherwise look healthy without the dead task.
pub fn start(json: bool) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_runtime=error,kube_client=off"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        lines.json().init();
    } else {
        // The library honours NO_COLOR only if it decides about colours itself.
        let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        lines.with_ansi(ansi).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(reason = %panic, backtrace = %std::backtrace::Backtrace::capture(), "ending: a task died");
        std::process::exit(PANICKED);
    }));
}
