//! `deputize audit query`: the records that fit.

use deputize_issuer::{
    clock::{Clock as _, SystemClock},
    record::{Entry, Kind},
    revocation::Revoked,
};
use std::path::PathBuf;
use uuid::Uuid;

use super::{
    Record,
    line::kind_name,
    session::{self, Asked},
};
use crate::commands::{
    data::{DataArgs, unreadable},
    exit::{CommandError, CommandResult, Exit},
    moment,
    output::{Output, note},
    progress,
};

/// Shows the records that fit every given condition, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize audit query --kind denial --since 1h
  deputize audit query --txn tx_7f… -o json
  deputize audit query --tool refund_payment --since 2026-11-01 --until 2026-12-01
  deputize audit query --spiffe-id spiffe://example.org/agents/support --kind intent
  deputize audit query --aws-session arn:aws:sts::111122223333:assumed-role/restart-instance/0193a5f2-…
  deputize audit query --cloudtrail event.json

A value that ends in * fits whatever begins like it: --sub 'user:acme:*'.

--aws-session and --cloudtrail tell the story of a session of an AWS role: for whom, by which agent, for which call,
allowed by what, and what it did. Exit code 1: a session is not in this log, or CloudTrail contradicts the log.")]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// Transaction
    #[arg(long)]
    txn: Option<String>,
    /// Decision; `deputize explain` tells its whole story
    #[arg(long, value_name = "ID")]
    decision: Option<Uuid>,
    /// Client that asked
    #[arg(long)]
    client: Option<String>,
    /// Person in whose name
    #[arg(long)]
    sub: Option<String>,
    /// Tool
    #[arg(long)]
    tool: Option<String>,
    /// Resource URI of the server
    #[arg(long)]
    server: Option<String>,
    /// SPIFFE ID of an SVID, or of a registration entry
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
    /// Registration entry, by its id: what was issued or refused by it, and who made or deleted it
    #[arg(long, value_name = "ID")]
    entry: Option<String>,
    /// Kind of record: intent, outcome, denial, denials, refusals, handed_out, spent, revocation, redemption, start,
    /// configuration, registration, node
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// Not before: a time in UTC, or so long ago (15m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Stop after so many
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Session of an AWS role, by its ARN or by its name (RoleSessionName): back to the call
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["cloudtrail", "txn", "decision", "client", "sub", "tool", "server", "spiffe_id", "entry", "kind", "since", "until", "limit"])]
    aws_session: Option<String>,
    /// An event of CloudTrail, or a file of them: from each session of Deputize back to the call
    #[arg(long, value_name = "FILE", conflicts_with_all = ["txn", "decision", "client", "sub", "tool", "server", "spiffe_id", "entry", "kind", "since", "until", "limit"])]
    cloudtrail: Option<PathBuf>,
}

pub(super) fn run(args: &Args, output: Output) -> CommandResult {
    let asked = args.aws_session.as_deref().map(Asked::Session);
    if let Some(asked) = asked.or(args.cloudtrail.as_deref().map(Asked::Trail)) {
        return session::run(asked, &args.data.find()?.log()?, output);
    }
    let now_ms = SystemClock::start().now_ms();
    let time = |text: &Option<String>| {
        let parsed = text.as_ref().map(|text| moment::parse(text, now_ms)).transpose();
        parsed.map_err(|problem| CommandError::usage(problem, "correct --since or --until"))
    };
    let (since, until) = (time(&args.since)?, time(&args.until)?);
    let reader = args.data.find()?.log()?;
    let bar = progress::records("searching", reader.size());
    let mut found = 0;
    for entry in reader.entries(0, reader.size()) {
        let (index, bytes) = entry.map_err(unreadable)?;
        bar.inc(1);
        let record = Record::read(index, &bytes);
        let fits = record.known.as_ref().is_some_and(|entry| args.fits(entry, since, until));
        if !fits {
            continue;
        }
        bar.suspend(|| output.record(&record, || record.line()))?;
        found += 1;
        if found >= args.limit {
            break;
        }
    }
    bar.finish_and_clear();
    if found == 0 {
        note(&format!("none of {} records fits", reader.size()));
    }
    Ok(Exit::Ok)
}

impl Args {
    fn fits(&self, entry: &Entry, since: Option<u64>, until: Option<u64>) -> bool {
        let revokes = |kind: fn(String) -> Revoked, asked: &Option<String>| {
            asked.as_ref().is_some_and(|id| entry.revoked.contains(&kind(id.clone())))
        };
        since.is_none_or(|since| entry.at >= since)
            && until.is_none_or(|until| entry.at < until)
            && self.kind.is_none_or(|kind| entry.kind == kind)
            && self.decision.is_none_or(|decision| entry.decision == Some(decision))
            && (matches(&self.txn, entry.txn.as_ref()) || revokes(Revoked::Transaction, &self.txn))
            && (matches(&self.sub, entry.sub.as_ref()) || revokes(Revoked::Person, &self.sub))
            && matches(&self.client, entry.client.as_ref())
            && matches(&self.tool, entry.tool.as_ref())
            && matches(&self.server, entry.server.as_ref())
            && matches(&self.spiffe_id, spiffe_id(entry))
            && matches(&self.entry, registration_entry(entry))
    }
}

/// Whose an SVID is, whom an entry would make of a process, or which node was changed or refused.
fn spiffe_id(entry: &Entry) -> Option<&String> {
    let of_svid = entry.spiffe.as_ref().and_then(|svid| svid.spiffe_id.as_ref());
    of_svid.or(entry.registration.as_ref().map(|draft| &draft.spiffe_id)).or(entry.node.as_ref())
}

fn registration_entry(entry: &Entry) -> Option<&String> {
    let of_svid = entry.spiffe.as_ref().and_then(|svid| svid.entry.as_ref());
    of_svid.or(entry.registration.as_ref().map(|draft| &draft.id))
}

fn matches(asked: &Option<String>, value: Option<&String>) -> bool {
    match (asked, value) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(asked), Some(value)) => match asked.strip_suffix('*') {
            Some(beginning) => value.starts_with(beginning),
            None => value == asked,
        },
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|_| {
        let known = [
            Kind::Intent,
            Kind::Outcome,
            Kind::Denial,
            Kind::Denials,
            Kind::Refusals,
            Kind::HandedOut,
            Kind::Spent,
            Kind::Revocation,
            Kind::Lifted,
            Kind::Redemption,
            Kind::Guard,
            Kind::Drift,
            Kind::Start,
            Kind::Configuration,
            Kind::Registration,
            Kind::Node,
            Kind::Bundle,
        ];
        format!("one of {}", known.map(kind_name).join(", "))
    })
}
