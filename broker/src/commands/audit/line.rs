//! One record of the log, as it is shown.

use deputize_issuer::{
    entry::Draft,
    record::{Entry, Kind, SvidEntry, SvidKind},
    revocation::Revoked,
};
use serde::Serialize;
use serde_json::Value;

use crate::commands::{moment, output::clean};

/// One record.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Its index.
    pub index: u64,
    /// What it says, member for member.
    pub entry: Value,
    /// The same, if this program knows such records.
    #[serde(skip)]
    pub known: Option<Entry>,
}

impl Record {
    /// Reads a record. One that a newer program wrote, or that is no JSON, is still shown.
    pub fn read(index: u64, bytes: &[u8]) -> Self {
        let entry = serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()));
        Self { index, entry, known: serde_json::from_slice(bytes).ok() }
    }

    /// One line for people: index, time, kind, then what is known.
    pub fn line(&self) -> String {
        let Some(entry) = &self.known else {
            return format!("{:>8}  not understood: {}", self.index, clean(&self.entry.to_string()));
        };
        let mut line =
            format!("{:>8}  {}  {:<13}", self.index, moment::format(entry.at), kind_name(entry.kind));
        let count = entry.count.map(|count| count.to_string());
        let intent = entry.intent.map(|index| index.to_string());
        let policies = entry.policy.as_ref().map(|policy| policy.ids.join(",")).filter(|ids| !ids.is_empty());
        let members: [(&str, Option<&str>); 21] = [
            ("saw", entry.seen.as_ref().map(|seen| seen.event.as_str())),
            ("class", entry.seen.as_ref().and_then(|seen| seen.class.as_deref())),
            ("result", entry.result.as_deref()),
            ("reason", entry.reason.as_deref()),
            ("count", count.as_deref()),
            ("level", entry.level.as_deref()),
            ("tool", entry.tool.as_deref()),
            ("server", entry.server.as_deref()),
            ("client", entry.client.as_deref()),
            ("actor", entry.actors.first().map(String::as_str)),
            ("sub", entry.sub.as_deref()),
            ("policies", policies.as_deref()),
            ("intent", intent.as_deref()),
            ("node", entry.node.as_deref()),
            ("by", entry.by.as_deref()),
            ("registry", entry.registry.as_deref().filter(|_| entry.kind == Kind::Configuration)),
            ("detail", entry.detail.as_deref()),
            ("access_key", entry.aws_key.as_ref().map(|key| key.access_key_id.as_str())),
            ("jti", entry.jti.as_deref().filter(|_| names_a_token(entry))),
            ("txn", entry.txn.as_deref()),
            ("tenant", entry.tenant.as_deref().filter(|_| entry.decision.is_none())),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                push(&mut line, name, value);
            }
        }
        if let Some(svid) = &entry.spiffe {
            push_svid(&mut line, svid);
        }
        if let Some(draft) = &entry.registration {
            push_draft(&mut line, draft);
        }
        if let Some(bundle) = &entry.bundle {
            push(&mut line, "trust_domain", &bundle.trust_domain);
            push(&mut line, "sequence", &bundle.sequence.to_string());
            push(&mut line, "from", &bundle.from);
        }
        for revoked in &entry.revoked {
            let (name, id) = revoked_parts(revoked);
            push(&mut line, name, id);
        }
        if let Some(decision) = entry.decision {
            push(&mut line, "decision", &decision.to_string());
        }
        line
    }
}

/// Whether a token is what a record is about, and nothing else names it.
fn names_a_token(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Redemption | Kind::Guard | Kind::HandedOut) || entry.is_of_an_svid()
}

fn push_svid(line: &mut String, svid: &SvidEntry) {
    let audiences = svid.audiences.join(",");
    let until = svid.not_after.map(moment::format_seconds);
    let members = [
        ("svid", svid.svid.map(svid_name)),
        ("entry", svid.entry.as_deref()),
        ("spiffe_id", svid.spiffe_id.as_deref()),
        ("aud", Some(audiences.as_str()).filter(|audiences| !audiences.is_empty())),
        ("serial", svid.serial.as_deref()),
        ("until", until.as_deref()),
        ("node", Some(svid.node.as_str())),
        ("attested", svid.attested.as_deref()),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            push(line, name, value);
        }
    }
    for selector in &svid.asked_by {
        push(line, "asked_by", selector);
    }
}

fn push_draft(line: &mut String, draft: &Draft) {
    push(line, "entry", &draft.id);
    if !draft.spiffe_id.is_empty() {
        push(line, "spiffe_id", &draft.spiffe_id);
    }
    for selector in &draft.selectors {
        push(line, "selector", selector);
    }
    for node in &draft.nodes {
        push(line, "node", node);
    }
    if let Some(end) = draft.expires_at_seconds {
        push(line, "until", &moment::format_seconds(end));
    }
}

/// What an SVID is.
pub fn svid_name(kind: SvidKind) -> &'static str {
    match kind {
        SvidKind::X509 => "X.509-SVID",
        SvidKind::Jwt => "JWT-SVID",
    }
}

/// A kind's name, as the records have it.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Intent => "intent",
        Kind::Outcome => "outcome",
        Kind::Denial => "denial",
        Kind::Denials => "denials",
        Kind::Refusals => "refusals",
        Kind::HandedOut => "handed_out",
        Kind::Spent => "spent",
        Kind::Revocation => "revocation",
        Kind::Lifted => "lifted",
        Kind::Redemption => "redemption",
        Kind::Guard => "guard",
        Kind::Drift => "drift",
        Kind::Start => "start",
        Kind::Configuration => "configuration",
        Kind::Registration => "registration",
        Kind::Node => "node",
        Kind::Bundle => "bundle",
    }
}

/// What kind of thing is revoked, and which.
pub fn revoked_parts(revoked: &Revoked) -> (&'static str, &str) {
    match revoked {
        Revoked::Token(id) => ("token", id),
        Revoked::Transaction(id) => ("transaction", id),
        Revoked::Person(id) => ("person", id),
    }
}

/// A value with a space in it is quoted: it cannot look like two members.
fn push(line: &mut String, name: &str, value: &str) {
    let value = clean(value);
    let value = if value.contains([' ', '"', '=']) { format!("{value:?}") } else { value.into_owned() };
    line.push_str(&format!(" {name}={value}"));
}
