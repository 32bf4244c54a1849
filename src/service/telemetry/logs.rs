//! Logs on standard error, for people or in JSON, one event a line.
//!
//! Results of commands are no logs: they go through `cli::output`. Invariant: a closed standard error
//! loses log lines and nothing else.

use std::io::{self, IsTerminal};

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The filter does not parse.
    #[error("the log filter {filter:?} is not valid")]
    Filter {
        /// As it was given.
        filter: String,
        /// Why not.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process logs already.
    #[error("logging was started twice in one process")]
    StartedTwice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the whole process. The filter is a list of `target=level`, for example
/// `info,quorate::consensus=debug`; without a level of its own a target logs from `info` up.
pub(super) fn start(
    format: LogFormat,
    filter: &str,
    spans: Option<impl Layer<Registry> + Send + Sync>,
) -> Result<(), LogsError> {
    let filter = parse_filter(filter)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(format == LogFormat::Human && io::stderr().is_terminal())
        // Its complaint about a closed standard error would go to standard error, and panic.
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // The filter is for lines alone: which spans are exported is not the log's business.
    let lines = lines.with_filter(filter);
    tracing_subscriber::registry().with(spans).with(lines).try_init().map_err(LogsError::StartedTwice)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogsError> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|source| LogsError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::parse_filter;

    #[test]
    fn a_filter_that_does_not_parse_is_refused_and_an_empty_one_means_info() {
        assert!(parse_filter("quorate=loud").is_err());
        assert_eq!(parse_filter("").expect("it is empty").to_string(), "info");
        assert!(parse_filter("info,quorate::consensus=debug").is_ok());
    }
}
