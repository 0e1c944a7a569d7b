//! The story of one role session, gathered from its records.

use deputize_issuer::record::{AwsKey, AwsSession, Entry, Kind};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};
use uuid::Uuid;

use super::named::{Event as TrailEvent, MAX_SHOWN, Named};
use crate::{
    commands::{audit::Record, output::Facts},
    moment,
};

/// What is known of a session.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    /// `RoleSessionName`: the decision.
    session: Uuid,
    /// In whose name.
    user: Option<String>,
    /// Which identity provider vouched.
    issuer: Option<String>,
    /// The server that took it.
    taken_by: Option<String>,
    /// The role, as the record has it: template, account, region, role, source identity, window.
    aws: AwsSession,
    /// Its intent.
    intent: Event,
    /// What became of it.
    outcome: Option<Event>,
    /// The key that STS gave.
    aws_key: Option<AwsKey>,
    /// When it was handed out again: the first hundred records of it.
    handed_out: Vec<Event>,
    /// The call that it was made for.
    call: Option<Call>,
    /// When its token was used.
    redeemed: Option<Event>,
    /// What the server's guard said of the call.
    at_the_guard: Vec<Event>,
    /// What it did, says CloudTrail: the first of it.
    cloudtrail: Vec<TrailEvent>,
    /// How many more events there are.
    cloudtrail_more: usize,
    /// Where CloudTrail and the log contradict each other.
    doubts: Vec<String>,
    #[serde(skip)]
    token: Option<String>,
    /// When the intent was on record, in milliseconds.
    #[serde(skip)]
    intended_ms: u64,
    /// Whether the outcome says that the session was made.
    #[serde(skip)]
    minted: bool,
    /// Whether STS may have made one whose answer nobody waited for.
    #[serde(skip)]
    unanswered: bool,
}

/// A tool call that was granted.
#[derive(Debug, Serialize)]
struct Call {
    index: u64,
    at: String,
    decision: Option<Uuid>,
    /// The agent platform.
    client: Option<String>,
    /// The agents, the one that acts now first.
    actors: Vec<String>,
    server: Option<String>,
    tool: Option<String>,
    level: Option<String>,
    /// Pseudonyms.
    arguments: BTreeMap<String, String>,
    /// What allowed it.
    policies: Vec<String>,
    txn: Option<String>,
}

#[derive(Debug, Serialize)]
struct Event {
    index: u64,
    at: String,
    what: String,
}

impl Story {
    /// Begins with the intent of a role session; other records begin none.
    pub(super) fn begin(record: &Record) -> Option<Self> {
        let entry = record.known.as_ref().filter(|entry| entry.kind == Kind::Intent)?;
        Some(Self {
            session: entry.decision?,
            user: entry.sub.clone(),
            issuer: entry.issuer.clone(),
            taken_by: entry.client.clone(),
            aws: entry.aws.clone()?,
            intent: event(record.index, entry, "on record".to_owned()),
            outcome: None,
            aws_key: None,
            handed_out: Vec::new(),
            call: None,
            redeemed: None,
            at_the_guard: Vec::new(),
            cloudtrail: Vec::new(),
            cloudtrail_more: 0,
            doubts: Vec::new(),
            token: entry.pjti.clone(),
            intended_ms: entry.at,
            minted: false,
            unanswered: false,
        })
    }

    /// `jti` of the token that it was made with.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Takes a later record of the same decision into account.
    pub(super) fn go_on(&mut self, record: &Record) {
        let Some(entry) = &record.known else { return };
        match entry.kind {
            Kind::Outcome => self.outcome(record.index, entry),
            Kind::HandedOut if self.handed_out.len() < MAX_HANDED_OUT => {
                let to = entry.client.as_deref().unwrap_or("an unknown client");
                let what = format!("to {to}, {} times by then", entry.count.unwrap_or(1));
                self.handed_out.push(event(record.index, entry, what));
            }
            _ => {}
        }
    }

    fn outcome(&mut self, index: u64, entry: &Entry) {
        let (result, reason) = (entry.result.as_deref(), entry.reason.as_deref());
        let what = format!(
            "{}{}",
            result.unwrap_or("unknown"),
            reason.map(|r| format!(": {r}")).unwrap_or_default()
        );
        self.minted = result == Some("minted");
        self.unanswered =
            result == Some("abandoned") || reason.is_some_and(|reason| UNANSWERED.contains(&reason));
        self.aws_key = entry.aws_key.clone();
        self.outcome = Some(event(index, entry, what));
    }

    /// Takes a record of the token into account that it was made with.
    pub(super) fn of_the_call(&mut self, record: &Record) {
        let Some(entry) = &record.known else { return };
        let by = entry.client.as_deref().unwrap_or("an unknown client");
        match entry.kind {
            Kind::Intent if self.call.is_none() => self.call = Some(Call::of(record.index, entry)),
            Kind::Redemption => self.redeemed = Some(event(record.index, entry, format!("by {by}"))),
            Kind::Guard if self.at_the_guard.len() < MAX_AT_THE_GUARD => {
                let seen = entry.seen.as_ref().map_or("something", |seen| seen.event.as_str());
                self.at_the_guard.push(event(record.index, entry, format!("{seen}, says {by}")));
            }
            _ => {}
        }
    }

    /// Holds all that AWS says against what the record says; of what does not fit, so much is kept as is read.
    pub(super) fn compare(&mut self, named: &Named) {
        let mut doubts = self.doubts_of_the_session(named);
        for seen in &named.events {
            doubts.extend(self.doubts_of(seen));
        }
        let more = doubts.len().saturating_sub(MAX_SHOWN);
        if more > 0 {
            doubts.truncate(MAX_SHOWN);
            doubts.push(format!("and {more} more doubts"));
        }
        self.doubts = doubts;
        self.cloudtrail = named.events.iter().take(MAX_SHOWN).cloned().collect();
        self.cloudtrail_more = named.events.len().saturating_sub(MAX_SHOWN);
    }

    fn doubts_of_the_session(&self, named: &Named) -> Vec<String> {
        let aws = &self.aws;
        let role = aws.role.rsplit('/').next().unwrap_or_default();
        let mut doubts = Vec::new();
        for assumed in &named.arns {
            if (&assumed.account, assumed.role.as_str()) != (&aws.account, role) {
                doubts.push(format!("{} is not the role that was asked for", assumed.arn));
            }
        }
        let acted = named.events.iter().any(|seen| !seen.takes_a_role);
        if !self.minted && !named.events.is_empty() && (acted || !self.unanswered) {
            let became = self.outcome.as_ref().map_or("no outcome", |outcome| outcome.what.as_str());
            doubts
                .push(format!("CloudTrail saw the session, but the log does not say it was made: {became}"));
        }
        // CloudTrail may deliver an event more than once, with the same id.
        let taken: BTreeSet<&str> = named
            .events
            .iter()
            .filter(|seen| seen.takes_a_role && seen.error.is_none())
            .map(|seen| seen.id.as_str())
            .collect();
        let attempts = self.attempts();
        if taken.len() > attempts {
            doubts.push(format!(
                "the role was taken {} times in this name, and the broker asked for it {attempts} times",
                taken.len()
            ));
        }
        if self.call.is_none() {
            doubts
                .push("the call that it was made for is not in this log: ask the other replicas'".to_owned());
        }
        doubts
    }

    /// How often STS was asked: what it answers too late is a session all the same, which nobody holds.
    fn attempts(&self) -> usize {
        let recorded = self.aws_key.as_ref().and_then(|key| usize::try_from(key.attempts).ok());
        recorded.unwrap_or(if self.unanswered { MOST_ATTEMPTS } else { 1 })
    }

    fn doubts_of(&self, seen: &TrailEvent) -> Vec<String> {
        let aws = &self.aws;
        let what = format!("event {}, {}", seen.id, seen.action);
        let mut doubts = Vec::new();
        match &seen.source_identity {
            Some(identity) if *identity == aws.source_identity => {}
            Some(_) => doubts.push(format!("{what}: another source identity than was asked for")),
            None => doubts.push(format!("{what}: without a source identity, which each session has")),
        }
        let known = self.aws_key.as_ref().map(|key| key.access_key_id.as_str());
        let is_another = known.zip(seen.access_key.as_deref()).is_some_and(|(known, seen)| known != seen);
        // One that was taken in an attempt that STS answered too late gave a key that nobody holds.
        if is_another && !(seen.takes_a_role && self.attempts() > 1) {
            doubts.push(format!("{what}: with another access key than STS gave for this call"));
        }
        // Times of one form are in the order of their texts.
        let earliest = moment::format_seconds((self.intended_ms / 1000).saturating_sub(CLOCKS_APART_SECONDS));
        if seen.at < earliest {
            doubts.push(format!("{what}: before the session was on record"));
        }
        if seen.error.is_none() && seen.at > moment::format_seconds(aws.window_end) {
            doubts.push(format!("{what}: allowed after the window's end"));
        }
        doubts
    }

    /// Whether something does not fit.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// The story for people.
    pub(super) fn to_text(&self) -> String {
        let mark = if self.is_doubtful() { "‼" } else { "✔" };
        let mut text = format!("{mark} AWS session {}\n", self.session);
        let mut facts = Facts::default();
        let vouched = self.issuer.as_ref().map(|issuer| format!(", vouched for by {issuer}"));
        let user = self.user.as_ref().map(|user| format!("{user}{}", vouched.unwrap_or_default()));
        facts.add_some("for", user);
        if let Some(call) = &self.call {
            call.tell(&mut facts);
        }
        let told = |event: &Event| format!("{} at {}, record {}", event.what, event.at, event.index);
        facts.add_some("used", self.redeemed.as_ref().map(told));
        for event in &self.at_the_guard {
            facts.add("at the guard", told(event));
        }
        let (aws, until) = (&self.aws, moment::format_seconds(self.aws.window_end));
        let by = format!("by template {}, until {until}", aws.template);
        facts.add("role", format!("{} as {}, {by}", aws.role, aws.source_identity));
        facts.add_some("taken by", self.taken_by.as_deref());
        let outcome = self.outcome.as_ref().map_or_else(
            || format!("not recorded; the intent is record {}: treat it as made", self.intent.index),
            told,
        );
        facts.add("session", outcome);
        facts.add_some("access key", self.aws_key.as_ref().map(|key| key.access_key_id.as_str()));
        for event in &self.handed_out {
            facts.add("again", told(event));
        }
        for event in &self.cloudtrail {
            let became = event.error.as_ref().map_or("allowed", String::as_str);
            facts.add(
                "in CloudTrail",
                format!("{} {}: {became} {}", event.at, event.action, event.parameters),
            );
        }
        if self.cloudtrail_more > 0 {
            facts.add("in CloudTrail", format!("and {} more events", self.cloudtrail_more));
        }
        for doubt in &self.doubts {
            facts.add("doubt", doubt);
        }
        let _ = write!(text, "{facts}");
        let decisions = [self.call.as_ref().and_then(|call| call.decision), Some(self.session)];
        for decision in decisions.into_iter().flatten() {
            let _ = writeln!(text, "  `deputize explain {decision}` tells more");
        }
        text
    }
}

impl Call {
    fn of(index: u64, entry: &Entry) -> Self {
        Self {
            index,
            at: moment::format(entry.at),
            decision: entry.decision,
            client: entry.client.clone(),
            actors: entry.actors.clone(),
            server: entry.server.clone(),
            tool: entry.tool.clone(),
            level: entry.level.clone(),
            arguments: entry.arguments.clone(),
            policies: entry.policy.as_ref().map(|policy| policy.ids.clone()).unwrap_or_default(),
            txn: entry.txn.clone(),
        }
    }

    fn tell(&self, facts: &mut Facts) {
        let client = self.client.as_deref().unwrap_or("an unknown client");
        let who = match self.actors.split_first() {
            None => client.to_owned(),
            Some((actor, [])) => format!("{client}, acting as {actor}"),
            Some((actor, before)) => {
                format!("{client}, acting as {actor}, after {}", before.join(", after "))
            }
        };
        facts.add("by", who);
        let (tool, server) = (self.tool.as_deref().unwrap_or("?"), self.server.as_deref().unwrap_or("?"));
        let level = self.level.as_deref().unwrap_or("?");
        facts.add(
            "call",
            format!("{tool} on {server}, {level}, granted at {}, record {}", self.at, self.index),
        );
        for (name, pseudonym) in &self.arguments {
            facts.add("argument", format!("{name} = {pseudonym} (a pseudonym)"));
        }
        facts.add("policies", self.policies.join(", "));
        facts.add_some("transaction", self.txn.as_deref());
    }
}

fn event(index: u64, entry: &Entry, what: String) -> Event {
    Event { index, at: moment::format(entry.at), what }
}

/// Reasons that leave open whether STS made a session.
const UNANSWERED: [&str; 2] = ["sts_timeout", "sts_unreachable"];
/// How often STS is asked for one session at most.
const MOST_ATTEMPTS: usize = 2;
const MAX_HANDED_OUT: usize = 100;
const MAX_AT_THE_GUARD: usize = 100;
/// How far AWS's clock and the broker's may be apart.
const CLOCKS_APART_SECONDS: u64 = 60;
