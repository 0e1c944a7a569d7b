//! Logs and metrics of the process. Messages are constant, data is in fields.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{io::IsTerminal, sync::OnceLock};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    fmt,
    layer::{Layered, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

/// Sends log lines to stderr; `DEPUTIZE_LOG` filters (`info` by default).
pub fn start(format: LogFormat, default_level: &str) {
    let filter = EnvFilter::try_from_env("DEPUTIZE_LOG").unwrap_or_else(|_| EnvFilter::new(default_level));
    let lines = fmt::layer().with_writer(std::io::stderr);
    // A second subscriber in one process would be refused: the first stays.
    let _ = match format {
        LogFormat::Text => filtered(filter, lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => filtered(filter, lines.json().flatten_event(true)).try_init(),
    };
}

/// INVARIANT: whatever the filter says, what libraries would show of requests and answers at their lowest levels is left
/// out where secrets are in them.
pub fn filtered<L: Layer<Registry> + Send + Sync>(
    filter: EnvFilter,
    lines: L,
) -> Layered<impl Layer<Registry> + Send + Sync, Registry> {
    tracing_subscriber::registry().with(lines.with_filter(filter.and(filter_fn(shows_no_secrets))))
}

/// The AWS SDK traces whole requests to STS, web identity included, and whole answers.
fn shows_no_secrets(of: &Metadata<'_>) -> bool {
    !of.target().starts_with("aws_") || *of.level() <= Level::INFO
}

/// The recorder of this process's metrics; made on first use.
///
/// # Errors
/// If another recorder is installed.
pub fn metrics() -> Result<PrometheusHandle, String> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE
        .get_or_init(|| PrometheusBuilder::new().install_recorder().map_err(|error| error.to_string()))
        .clone()
}
