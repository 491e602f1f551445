//! Logs: one line for each decision, to stderr, filtered by `RUST_LOG`, or by operators while the process runs.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

/// Rust's exit code after a panic.
const PANICKED: i32 = 101;
/// The filter without `RUST_LOG`.
const USUAL: &str = "info,kube_runtime=error,kube_client=off";

/// The filter of the log, which may be set while the process runs. Clones set the same one.
#[derive(Clone)]
pub struct LogFilter(Arc<Inner>);

struct Inner {
    present: Mutex<String>,
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LogFilter").field(&self.present()).finish()
    }
}

impl LogFilter {
    /// A filter that is applied by this function.
    pub fn new(present: String, set: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { present: Mutex::new(present), set: Box::new(set) }))
    }

    /// The present filter.
    pub fn present(&self) -> String {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the filter, and returns the one before.
    ///
    /// # Errors
    /// If the filter cannot be read. The one before stays.
    pub fn set(&self, filter: &str) -> Result<String, String> {
        let read = EnvFilter::builder().parse(filter).map_err(|error| error.to_string())?;
        if filter.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        let mut present = self.0.present.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.set)(read)?;
        Ok(std::mem::replace(&mut *present, filter.to_owned()))
    }
}

/// Starts logging; JSON lines if `json` is set. From now on a panic in any task is logged and ends the process,
/// which would otherwise look healthy without the dead task.
pub fn start(json: bool) -> LogFilter {
    let given = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|given| EnvFilter::try_new(given).is_ok());
    let present = given.unwrap_or_else(|| USUAL.to_owned());
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&present)).with_writer(std::io::stderr);
    let filter = if json {
        let lines = lines.json().with_filter_reloading();
        let handle = lines.reload_handle();
        lines.init();
        LogFilter::new(present, move |filter| handle.reload(filter).map_err(|error| error.to_string()))
    } else {
        // The library honours NO_COLOR only if it decides about colours itself.
        let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let lines = lines.with_ansi(ansi).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.init();
        LogFilter::new(present, move |filter| handle.reload(filter).map_err(|error| error.to_string()))
    };
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(reason = %panic, backtrace = %std::backtrace::Backtrace::capture(), "ending: a task died");
        std::process::exit(PANICKED);
    }));
    filter
}
