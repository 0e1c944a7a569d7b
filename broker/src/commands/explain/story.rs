//! The story of one decision, gathered from its records.

use deputize_issuer::{
    policy::PolicyEngine,
    record::{Entry, Kind},
    revocation::Revoked,
};
use serde::Serialize;
use std::fmt::Write as _;
use uuid::Uuid;

use super::{advice, svid};
use crate::commands::{
    data::DataFolder,
    moment,
    output::{Facts, clean},
};

/// What is known of a decision.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    /// `granted` or `denied`; of a registration entry `created` or `deleted`.
    decision: &'static str,
    /// Index of its record.
    index: u64,
    /// When, in UTC.
    at: String,
    /// The record.
    record: Entry,
    /// The policies that decided, as the configuration has them; only where that is the set that decided.
    policies: Vec<Policy>,
    /// Why their text is not shown, if it is not.
    policies_unknown: Option<&'static str>,
    /// What to do, for a denial.
    next: Option<String>,
    /// Whether what was granted was made.
    outcome: Option<Event>,
    /// When it was used (L3).
    redeemed: Option<Event>,
    /// When an AWS session was handed out again: the first hundred records of it.
    handed_out: Vec<Event>,
    /// What its server's guard said of it: the first hundred.
    at_the_guard: Vec<Event>,
    /// What became of its registration entry since: the first hundred changes by administration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entry_since: Vec<Event>,
    /// When it, its transaction, its person or a token it came from was revoked.
    revoked: Vec<Event>,
    /// Tokens and AWS sessions that were made from it.
    onward: Vec<Onward>,
}

#[derive(Debug, Serialize)]
struct Policy {
    id: String,
    text: Option<String>,
}

#[derive(Debug, Serialize)]
struct Event {
    index: u64,
    at: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct Onward {
    index: u64,
    decision: Option<Uuid>,
    server: Option<String>,
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_role: Option<String>,
}

impl Story {
    /// Begins with the record of a decision.
    pub(super) fn begin(index: u64, record: Entry, folder: &DataFolder) -> Self {
        let (policies, policies_unknown) = policy_texts(&record, folder.policies().as_ref());
        Self {
            decision: decision(&record),
            index,
            at: moment::format(record.at),
            policies,
            policies_unknown,
            next: next(&record, folder),
            outcome: None,
            redeemed: None,
            handed_out: Vec::new(),
            at_the_guard: Vec::new(),
            entry_since: Vec::new(),
            revoked: Vec::new(),
            onward: Vec::new(),
            record,
        }
    }

    /// Index of the record that it begins with.
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// Takes a later record into account.
    pub(super) fn go_on(&mut self, index: u64, entry: &Entry) {
        let event = |what: String| Event { index, at: moment::format(entry.at), what };
        let same_token = self.record.jti.is_some() && entry.jti == self.record.jti;
        match entry.kind {
            // Whoever abandons an intent does not know yet where it stands.
            Kind::Outcome
                if entry.decision == self.record.decision
                    && entry.intent.is_none_or(|intent| intent == self.index) =>
            {
                let reason = entry.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                let result = entry.result.as_deref().unwrap_or("unknown");
                self.outcome = Some(event(format!("{result}{reason}")));
            }
            Kind::Redemption if same_token => {
                self.redeemed =
                    Some(event(format!("by {}", entry.client.as_deref().unwrap_or("an unknown client"))));
            }
            Kind::HandedOut
                if entry.decision == self.record.decision && self.handed_out.len() < MAX_HANDED_OUT =>
            {
                let (by, times) =
                    (entry.client.as_deref().unwrap_or("an unknown client"), entry.count.unwrap_or(1));
                self.handed_out.push(event(format!("to {by}, {times} times by then")));
            }
            Kind::Guard if same_token && self.at_the_guard.len() < MAX_AT_THE_GUARD => {
                if let Some(seen) = &entry.seen {
                    let class = seen.class.as_ref().map(|class| format!(": {class}")).unwrap_or_default();
                    let by = entry.client.as_deref().unwrap_or("an unknown guard");
                    self.at_the_guard.push(event(format!("{}{class}, says {by}", seen.event)));
                }
            }
            Kind::Registration
                if svid::is_of_one_entry(&self.record, entry) && self.entry_since.len() < MAX_ENTRY_SINCE =>
            {
                let by = entry.by.as_deref().unwrap_or("somebody unknown");
                self.entry_since.push(event(format!("{}, by {by}", decision(entry))));
            }
            Kind::Revocation | Kind::Lifted => {
                let by = entry.by.as_deref().unwrap_or("somebody unknown");
                let lifted = if entry.kind == Kind::Lifted { "lifted again: " } else { "" };
                if let Some(what) = entry.revoked.iter().find_map(|revoked| self.concerned_by(revoked)) {
                    self.revoked.push(event(format!("{lifted}{what}, by {by}")));
                }
            }
            Kind::Intent if entry.pjti.is_some() && entry.pjti == self.record.jti => {
                let (server, tool) = (entry.server.clone(), entry.tool.clone());
                let aws_role = entry.aws.as_ref().map(|aws| aws.role.clone());
                self.onward.push(Onward { index, decision: entry.decision, server, tool, aws_role });
            }
            _ => {}
        }
    }

    fn concerned_by(&self, revoked: &Revoked) -> Option<&'static str> {
        let is = |member: &Option<String>, id: &String| member.as_ref() == Some(id);
        match revoked {
            Revoked::Token(id) if is(&self.record.jti, id) => Some("the token"),
            Revoked::Token(id) if is(&self.record.pjti, id) => Some("the token that it was made from"),
            Revoked::Transaction(id) if is(&self.record.txn, id) => Some("the whole transaction"),
            Revoked::Person(id) if is(&self.record.sub, id) => Some("everything in this person's name"),
            Revoked::Token(_) | Revoked::Transaction(_) | Revoked::Person(_) => None,
        }
    }

    /// The story for people.
    pub(super) fn to_text(&self) -> String {
        let record = &self.record;
        let id = record.decision.map(|id| id.to_string()).unwrap_or_default();
        let mut text = format!("{} {id} at {}\n", heading(self.decision), self.at);
        let mut facts = Facts::default();
        facts.add_some("who", record.client.as_deref().map(|client| self.who(client)));
        facts.add_some(
            "for",
            record.sub.as_deref().map(|sub| match &record.issuer {
                Some(issuer) => format!("{sub}, vouched for by {issuer}"),
                None => sub.to_owned(),
            }),
        );
        facts.add_some(
            "presented by",
            record.bearer.as_ref().map(|by| {
                format!("{}, says {}: a bearer token, which proves nothing of who sent it", by.client, by.iss)
            }),
        );
        facts.add_some("tenant", record.tenant.as_deref());
        facts.add_some("what", self.what());
        facts.add_some("level", record.level.as_deref().map(level_words));
        for (name, pseudonym) in &record.arguments {
            facts.add(
                "argument",
                format!("{name} = {pseudonym} (a pseudonym: equal values have equal ones for 30 days)"),
            );
        }
        facts.add_some(
            "risk",
            record.risk.map(|risk| format!("{risk} of 100: {}", words(&record.risk_reasons))),
        );
        for (name, value) in &record.claimed {
            facts.add("claimed", format!("{name} = {value} (by the client, unverified)"));
        }
        facts.add_some("reason", record.reason.as_deref());
        facts.add_some("detail", record.detail.as_deref().filter(|_| !record.is_of_an_svid()));
        facts.add_some("transaction", record.txn.as_deref());
        facts.add_some(
            "token",
            record
                .jti
                .as_deref()
                .zip(record.exp)
                .map(|(jti, exp)| format!("{jti}, good until {}", moment::format_seconds(exp))),
        );
        facts.add_some("made from", record.pjti.as_deref());
        self.session(&mut facts);
        svid::tell(record, &mut facts);
        facts.add_some("policy set", record.policy.as_ref().map(|policy| policy.digest.as_str()));
        self.afterwards(&mut facts);
        facts.add("record", format!("{}; `deputize audit prove {}` proves it", self.index, self.index));
        let _ = write!(text, "{facts}");
        self.write_policies(&mut text);
        if let Some(next) = &self.next {
            let _ = writeln!(text, "  next: {next}");
        }
        text
    }

    /// The session of an AWS role, where it is one.
    fn session(&self, facts: &mut Facts) {
        let Some(aws) = &self.record.aws else { return };
        facts.add("AWS role", format!("{} in {}, by template {}", aws.role, aws.region, aws.template));
        facts.add(
            "AWS session",
            format!(
                "{}, for {}, good until {}",
                aws.session_name,
                aws.source_identity,
                moment::format_seconds(aws.window_end)
            ),
        );
        facts.add("its call", format!("`deputize audit query --aws-session {}` tells it", aws.session_name));
    }

    fn who(&self, client: &str) -> String {
        match self.record.actors.split_first() {
            None => client.to_owned(),
            Some((actor, [])) if actor == client => client.to_owned(),
            Some((actor, [])) => format!("{client}, acting as {actor}"),
            Some((actor, before)) => {
                format!("{client}, acting as {actor}, after {}", before.join(", after "))
            }
        }
    }

    fn what(&self) -> Option<String> {
        let server = self.record.server.as_deref()?;
        let tier = self.record.tier.as_deref().map(|tier| format!(" (tier {tier})")).unwrap_or_default();
        Some(match &self.record.tool {
            Some(tool) => format!("{tool}{tier} on {server}"),
            None => format!("listing on {server}"),
        })
    }

    fn afterwards(&self, facts: &mut Facts) {
        if self.record.kind == Kind::Intent {
            let made = match (&self.record.aws, self.record.is_of_an_svid()) {
                (Some(_), _) => "session",
                (None, true) => "SVID",
                (None, false) => "token",
            };
            facts.add(
                "outcome",
                self.outcome.as_ref().map_or_else(
                    || {
                        format!(
                            "not recorded: the process ended before it could be; treat the {made} as issued"
                        )
                    },
                    |outcome| format!("{} at {}", outcome.what, outcome.at),
                ),
            );
        }
        facts.add_some("used", self.redeemed.as_ref().map(|event| format!("{} at {}", event.what, event.at)));
        for event in &self.handed_out {
            facts.add("again", format!("{}, at {}", event.what, event.at));
        }
        for event in &self.at_the_guard {
            facts.add("at the guard", format!("{} at {}", event.what, event.at));
        }
        for event in &self.entry_since {
            facts.add("entry since", format!("{} at {}", event.what, event.at));
        }
        for event in &self.revoked {
            facts.add("revoked", format!("{} at {}", event.what, event.at));
        }
        for onward in &self.onward {
            let what = onward.tool.as_deref().or(onward.server.as_deref()).unwrap_or("unknown");
            let decision = onward.decision.map(|id| id.to_string()).unwrap_or_default();
            let role = onward.aws_role.as_ref().map(|role| format!(", as {role}")).unwrap_or_default();
            facts.add("onward", format!("{what}{role}, decision {decision}"));
        }
    }

    fn write_policies(&self, text: &mut String) {
        for policy in &self.policies {
            let _ = writeln!(text, "  policy {}", clean(&policy.id));
            for line in policy.text.iter().flat_map(|text| text.lines()) {
                let _ = writeln!(text, "    {}", clean(line));
            }
        }
        if let Some(reason) = self.policies_unknown {
            let _ = writeln!(text, "  ({reason})");
        }
    }
}

/// What to do about a denial. To a process says its entry what a client's registration says to others.
fn next(record: &Entry, folder: &DataFolder) -> Option<String> {
    let reason = record.reason.as_deref().filter(|_| record.kind == Kind::Denial)?;
    let entry = record.spiffe.as_ref().and_then(|svid| svid.entry.as_deref());
    let in_entry = entry.and_then(|entry| advice::what_to_do_in_entry(reason, &folder.place_of_entry(entry)));
    Some(in_entry.unwrap_or_else(|| advice::what_to_do(reason).to_owned()))
}

/// What was decided, in a word.
fn decision(record: &Entry) -> &'static str {
    match (record.kind, record.result.as_deref()) {
        (Kind::Denial, _) => "denied",
        (Kind::Registration, Some("deleted")) => "deleted",
        (Kind::Registration, _) => "created",
        (Kind::Node, Some("token_created")) => "token",
        (Kind::Node, Some("banned")) => "banned",
        (Kind::Node, Some("lifted")) => "lifted",
        (Kind::Node, _) => "evicted",
        _ => "granted",
    }
}

fn heading(decision: &str) -> &'static str {
    match decision {
        "denied" => "✖ denied",
        "created" => "✔ entry created",
        "deleted" => "✔ entry deleted",
        "token" => "✔ join token made",
        "banned" => "✔ node banned",
        "lifted" => "✔ node may be one again",
        "evicted" => "✔ node has to attest itself anew",
        _ => "✔ granted",
    }
}

/// The texts of the policies that decided: only if the set is the one that decided, or they would tell another story.
fn policy_texts(record: &Entry, engine: Option<&PolicyEngine>) -> (Vec<Policy>, Option<&'static str>) {
    let Some(decided) = &record.policy else { return (Vec::new(), None) };
    let same = engine.filter(|engine| engine.digest() == decided.digest);
    let unknown = match (engine, same) {
        (None, _) => Some("no policies to compare with: give --config to see their text"),
        (Some(_), None) => Some("the policies have changed since: their text is not shown"),
        (Some(_), Some(_)) => None,
    };
    let policies = decided
        .ids
        .iter()
        .map(|id| Policy { id: id.clone(), text: same.and_then(|engine| engine.policy_text(id)) });
    (policies.collect(), unknown)
}

fn level_words(level: &str) -> String {
    let good_for = match level {
        "L0" => "discovery and listing on one server",
        "L1" => "one tool, any arguments",
        "L2" => "one tool, every argument constrained",
        "L3" => "one call: this tool, these exact arguments, once",
        _ => "unknown",
    };
    format!("{level}: {good_for}")
}

fn words(reasons: &[String]) -> String {
    if reasons.is_empty() { "nothing counts against it".to_owned() } else { reasons.join(", ") }
}

const MAX_HANDED_OUT: usize = 100;
const MAX_AT_THE_GUARD: usize = 100;
const MAX_ENTRY_SINCE: usize = 100;
