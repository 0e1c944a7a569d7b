//! `spiffe-conformance`: examines any server of the SPIFFE Workload API, requirement by requirement.
//!
//!     cargo run -p deputize-conformance --bin spiffe-conformance -- --socket unix:///run/agent.sock

use clap::{Parser, ValueEnum};
use deputize_conformance::workload_api::{Examination, Level, Report, examine};
use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

/// Examines a server of the SPIFFE Workload API: each requirement of the SPIFFE specifications that a client can see,
/// whether it holds, and where it does not, why.
///
/// It asks as the process that it is: register an identity for it first, or say --unentitled. It changes nothing; each
/// SVID that it gets is thrown away. Exit codes: 0 every MUST holds, 1 one does not, 2 usage, 6 unreachable.
#[derive(Parser)]
#[command(name = "spiffe-conformance")]
struct Arguments {
    /// The endpoint, as SPIFFE_ENDPOINT_SOCKET has it: unix:///path/to/socket
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_parser = socket_path)]
    socket: PathBuf,
    /// The trust domain that the server must have bundles of; that of the SVIDs if it is not said
    #[arg(long)]
    trust_domain: Option<String>,
    /// This process has no identity there: examine the refusals
    #[arg(long)]
    unentitled: bool,
    /// Also fail if a SHOULD does not hold
    #[arg(long)]
    strict: bool,
    /// For how long to watch a stream after its first message, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=3600))]
    watch: u64,
    /// How to print the report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let examination = Examination {
        socket: arguments.socket.clone(),
        trust_domain: arguments.trust_domain.clone(),
        entitled: !arguments.unentitled,
        watch: Duration::from_secs(arguments.watch),
    };
    match examine(&examination).await {
        Ok(report) => tell(&arguments, &report),
        Err(ended) => {
            let socket = arguments.socket.display();
            let _ = writeln!(
                std::io::stderr(),
                "{socket}: {ended}. Is the server running, and is this its socket?"
            );
            ExitCode::from(UNREACHABLE)
        }
    }
}

fn tell(arguments: &Arguments, report: &Report) -> ExitCode {
    let text = match arguments.output {
        Output::Table => report.table(),
        Output::Json => serde_json::to_string_pretty(report).map(|text| text + "\n").unwrap_or_default(),
    };
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    let failed = !report.failures(Level::Must).is_empty()
        || arguments.strict && !report.failures(Level::Should).is_empty();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// SPIFFE Workload Endpoint §4: the scheme `unix`, no authority, an absolute path, and nothing else.
fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix:").unwrap_or_default();
    let path = path.strip_prefix("//").unwrap_or(path);
    let is_path = path.starts_with('/') && path.len() > 1 && !path.contains(['?', '#']);
    if is_path { Ok(path.into()) } else { Err("an endpoint is unix:///path/to/socket".to_owned()) }
}

const UNREACHABLE: u8 = 6;
