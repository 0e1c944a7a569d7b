//! `deputize entry create`: one entry from options, or all entries of a file.

use deputize_issuer::clock::{Clock as _, SystemClock};
use http::Method;
use serde_json::Value;
use std::path::PathBuf;

use super::{ENTRIES, Shown};
use crate::{
    commands::{
        admin_socket::BrokerArgs,
        exit::{CommandError, CommandResult, Exit},
        output::Output,
    },
    config::{raw::EntryFile, read},
    moment,
};

/// Make one. It holds at once, and stays when the broker restarts
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize entry create --spiffe-id spiffe://example.org/agents/support --selector unix:uid:1000
  deputize entry create --id web --spiffe-id spiffe://example.org/web --selector systemd:id:web.service \\
      --selector unix:path:/usr/bin/web --dns-name web.example.org --x509-svid-ttl 600
  deputize entry create --spiffe-id spiffe://example.org/try --selector unix:user:alice --expires-in 2h
  deputize entry create --file entries.yaml                     all that an entry can say but exchange

Who may exchange users' tokens (`exchange`), files of `spiffe.entries` alone say.
All selectors of an entry must be true of a process. `deputize svid fetch --explain --pid PID` shows which are.")]
pub(super) struct Args {
    /// SPIFFE ID that it entitles to
    #[arg(long, value_name = "ID", required_unless_present = "file", requires = "selectors")]
    spiffe_id: Option<String>,
    /// What must be true of a process; may be given again
    #[arg(long = "selector", value_name = "KIND:VALUE", requires = "spiffe_id")]
    selectors: Vec<String>,
    /// Its name [default: a new UUID]
    #[arg(long, requires = "spiffe_id")]
    id: Option<String>,
    /// Node whose processes it is for, or all of a cluster (…/node/kubernetes/CLUSTER/*); may be given again [default: the
    /// broker's own]
    #[arg(long = "node", value_name = "ID", requires = "spiffe_id")]
    nodes: Vec<String>,
    /// Life of its X.509-SVIDs
    #[arg(long, value_name = "SECONDS", requires = "spiffe_id")]
    x509_svid_ttl: Option<u64>,
    /// Life of its JWT-SVIDs
    #[arg(long, value_name = "SECONDS", requires = "spiffe_id")]
    jwt_svid_ttl: Option<u64>,
    /// What tells several identities of one process apart
    #[arg(long, default_value = "", hide_default_value = true, requires = "spiffe_id")]
    hint: String,
    /// DNS name in its X.509-SVIDs; may be given again
    #[arg(long = "dns-name", value_name = "NAME", requires = "spiffe_id")]
    dns_names: Vec<String>,
    /// Foreign trust domain whose bundle its processes get; may be given again
    #[arg(long, value_name = "DOMAIN", requires = "spiffe_id")]
    federates_with: Vec<String>,
    /// When it ends, in UTC: 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", requires = "spiffe_id", conflicts_with = "expires_in")]
    expires_at: Option<String>,
    /// After how long it ends: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "SPAN", requires = "spiffe_id")]
    expires_in: Option<String>,
    /// A file of entries instead, as the broker's own are
    #[arg(long, value_name = "FILE", conflicts_with = "spiffe_id")]
    file: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerArgs,
}

pub(super) async fn run(args: Args, output: Output) -> CommandResult {
    let broker = args.broker.find()?;
    let entries = match &args.file {
        Some(file) => of_file(file)?,
        None => vec![args.entry()?],
    };
    for entry in entries {
        let created = broker.ask(Method::POST, ENTRIES, Some(&entry)).await?;
        output.record(&created, || {
            let text = Shown::of(&created).map_or_else(|| created.to_string(), |shown| shown.to_text());
            format!("✔ made\n{}", text.trim_end())
        })?;
    }
    Ok(Exit::Ok)
}

fn of_file(file: &std::path::Path) -> Result<Vec<Value>, CommandError> {
    let wrong =
        |error: &dyn std::fmt::Display| CommandError::failure(error, "correct the file and try again");
    let entries = read::read_yaml_documents::<EntryFile>(file).map_err(|error| wrong(&error))?;
    if entries.is_empty() {
        return Err(wrong(&format!("{}: there is no entry in it", file.display())));
    }
    entries.into_iter().map(|entry| serde_json::to_value(entry).map_err(|error| wrong(&error))).collect()
}

impl Args {
    fn entry(&self) -> Result<Value, CommandError> {
        let entry = EntryFile {
            id: self.id.clone().unwrap_or_default(),
            spiffe_id: self.spiffe_id.clone().unwrap_or_default(),
            selectors: self.selectors.clone(),
            nodes: self.nodes.clone(),
            x509_svid_ttl_seconds: self.x509_svid_ttl,
            jwt_svid_ttl_seconds: self.jwt_svid_ttl,
            hint: self.hint.clone(),
            dns_names: self.dns_names.clone(),
            federates_with: self.federates_with.clone(),
            exchange: None,
            expires_at: self.end()?,
        };
        let unserializable = |error| CommandError::failure(error, "report this");
        let mut value = serde_json::to_value(entry).map_err(unserializable)?;
        if let (None, Some(members)) = (&self.id, value.as_object_mut()) {
            members.remove("id");
        }
        Ok(value)
    }

    fn end(&self) -> Result<Option<String>, CommandError> {
        let Some(span) = &self.expires_in else { return Ok(self.expires_at.clone()) };
        let seconds = moment::parse_span(span)
            .map_err(|problem| CommandError::usage(problem, "correct --expires-in"))?;
        let now_seconds = SystemClock::start().now_seconds();
        Ok(Some(moment::format_seconds(now_seconds.saturating_add(seconds))))
    }
}
