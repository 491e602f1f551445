//! `log.setLevel`: the filter of the log, while the process runs.

use std::sync::Arc;

use super::failure::{Failure, Reason};
use super::method::Method;
use super::model::{LogLevel, LogParams};
use super::sources::Api;
use crate::escaped::{Escaped, EscapedError};

/// The most bytes of a filter.
const LONGEST_FILTER: usize = 1_024;

/// `log.setLevel`
pub(super) struct SetLevel;

impl Method for SetLevel {
    const NAME: &'static str = "log.setLevel";
    const SUMMARY: &'static str = "Sets the filter of the log until the process ends.";
    const ERRORS: &'static [Reason] = &[];
    type Params = LogParams;
    type Answer = LogLevel;

    async fn call(api: Arc<Api>, LogParams { filter }: LogParams) -> Result<LogLevel, Failure> {
        if filter.len() > LONGEST_FILTER {
            return Err(Failure::invalid(format!(
                "The filter has {} bytes. Write one of at most {LONGEST_FILTER}.",
                filter.len()
            )));
        }
        // The new filter may suppress every line.
        tracing::warn!(before = api.sources.log.present(), filter, "an operator asks for another filter of the log");
        let before = api.sources.log.set(&filter).map_err(|error| {
            Failure::invalid(format!(
                "The filter \"{}\" cannot be read: {}. Write one as for RUST_LOG, such as info,ovn_kubevirt=debug.",
                Escaped(&filter),
                EscapedError(&error)
            ))
        })?;
        Ok(LogLevel { before })
    }
}
