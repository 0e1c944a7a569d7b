//! What guards report: on record within a quota, each report once; and a tool that drifted is stopped.
//!
//! A guard names the call that it speaks of. That goes on record as such where a token for its own server bears it out:
//! no guard writes into the transactions of others.

use deputize_call::{
    action::Action,
    digest::{Digest, sha256},
};
use deputize_guard::{EventKind, EventRecord, MAX_DETAIL_BYTES, MAX_EVENTS};
use deputize_issuer::{
    authenticate::Caller,
    drift::Drifted,
    error::IssueError,
    log::LogReader,
    record::{self, Entry, Kind, Named, Seen},
    registry::Server,
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

use super::Guards;

/// How much each server's guards may report, and whose turn it is.
#[derive(Debug)]
pub(super) struct Quotas {
    limiter: DefaultKeyedRateLimiter<String>,
    /// One request of a server at a time: what is recorded is remembered before the next one looks.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Quotas {
    pub(super) fn new(events_per_second: u32) -> Self {
        let rate = NonZeroU32::new(events_per_second).unwrap_or(NonZeroU32::MIN);
        // Whatever the rate, a full request passes at once.
        let quota = Quota::per_second(rate).allow_burst(rate.max(FULL_REQUEST));
        Self { limiter: RateLimiter::keyed(quota), turns: Mutex::default() }
    }

    fn admit(&self, resource: &str, count: usize) -> Result<(), IssueError> {
        let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        match self.limiter.check_key_n(&resource.to_owned(), count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(IssueError::RateLimited { retry_after_seconds: 1 }),
        }
    }

    /// Only registered servers come here, so the map is as bounded as the registry.
    fn turn(&self, resource: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(resource.to_owned()).or_default())
    }
}

/// A report that was read.
struct Report {
    id: Uuid,
    record: EventRecord,
    /// Whether the call that it names is one of a token for its server.
    is_confirmed: bool,
}

impl Guards {
    /// Takes what a guard of `server` reports. How many reports that were, those included that came before.
    ///
    /// # Errors
    /// [`IssueError::Request`]: a report is malformed, and none was taken; [`IssueError::RateLimited`],
    /// [`IssueError::RecordUnavailable`]: come again with all of them.
    pub async fn report(
        &self,
        caller: &Caller,
        server: &Server,
        events: Vec<EventRecord>,
    ) -> Result<usize, IssueError> {
        let count = events.len() as u64;
        self.take(caller, server, events).await.inspect_err(|error| {
            metrics::counter!("deputize_guard_events_refused_total", "reason" => error.reason())
                .increment(count);
        })
    }

    async fn take(
        &self,
        caller: &Caller,
        server: &Server,
        events: Vec<EventRecord>,
    ) -> Result<usize, IssueError> {
        let resource = &server.record.resource;
        let accepted = events.len();
        let reports = read(events)?;
        let turn = self.quotas.turn(resource);
        let _turn = turn.lock().await;
        let uptime = self.desk.clock.uptime();
        let mut ids = HashSet::new();
        let mut fresh = reports;
        fresh.retain(|report| ids.insert(report.id) && !self.seen.contains(tag(resource, report.id), uptime));
        self.quotas.admit(resource, fresh.len())?;
        for report in fresh.iter().filter(|report| report.record.kind == EventKind::Drifted) {
            self.stop_drifted(caller, server, &report.record).await?;
        }
        if fresh.is_empty() {
            record::record_spent(&self.desk, caller.spent()).await?;
        }
        let fresh = self.confirm(resource, fresh).await?;
        let entries = fresh.iter().map(|report| entry(self.desk.clock.now_ms(), report)).collect();
        record::record_seen(&self.desk, caller, resource, entries).await?;
        for report in &fresh {
            // Where there is no room, a report that comes again is recorded again.
            self.seen.take(tag(resource, report.id), uptime);
            metrics::counter!("deputize_guard_events_total", "kind" => report.record.kind.as_str())
                .increment(1);
        }
        Ok(accepted)
    }

    /// Finds out which of them speak of a token for this server: one that is live, or one whose place in the log is
    /// named, however long ago it was made.
    async fn confirm(&self, resource: &str, mut reports: Vec<Report>) -> Result<Vec<Report>, IssueError> {
        for report in &mut reports {
            let event = &report.record;
            report.is_confirmed = match (&event.jti, &event.txn) {
                (Some(jti), txn) => self.desk.lineage.bears_out(jti, resource, txn.as_deref()),
                (None, Some(_)) => false,
                (None, None) => true,
            };
        }
        if reports.iter().all(|report| report.is_confirmed || report.record.index.is_none()) {
            return Ok(reports);
        }
        let (reader, resource) = (self.reader.clone(), resource.to_owned());
        let sought = move || {
            for report in reports.iter_mut().filter(|report| !report.is_confirmed) {
                report.is_confirmed = is_on_record(&reader, &resource, &report.record);
            }
            reports
        };
        tokio::task::spawn_blocking(sought).await.map_err(|_| IssueError::Internal("events_not_confirmed"))
    }

    /// Stops issuing for a tool of this server that is no longer what is approved now. In force before anything is
    /// waited for, and on record by itself: below the reserve too, for it can be caused once for each approval.
    async fn stop_drifted(
        &self,
        caller: &Caller,
        server: &Server,
        event: &EventRecord,
    ) -> Result<(), IssueError> {
        // Of another server's tool, or of one that nobody approved, a guard has nothing to say.
        let tool = event.tool.as_deref().and_then(|name| match event.action.unwrap_or(Action::CallTool) {
            Action::CallTool => server.tool(name),
            Action::GetPrompt => server.prompt(name),
            Action::ReadResource => None,
        });
        let Some(tool) = tool else { return Ok(()) };
        let seen_against = event.detail.as_ref().and_then(|detail| detail.get("approved"));
        let earlier = seen_against.and_then(|digest| serde_json::from_value::<Digest>(digest.clone()).ok());
        // It waited while another definition was approved.
        if earlier.is_some_and(|earlier| earlier != tool.tool_digest) {
            return Ok(());
        }
        let drifted = Drifted::from_approved(server, tool);
        if !self.desk.drifts.hold(&drifted) {
            return Ok(());
        }
        let action = tool.action.as_str();
        tracing::warn!(
            server = server.record.id,
            tool = tool.name,
            action,
            "drifted: nothing is issued for it"
        );
        metrics::counter!("deputize_drifts_total").increment(1);
        let stopped = self.record_stop(caller, &drifted, event.detail.as_ref()).await;
        if stopped.is_err() {
            // The guard reports it again. Where the log takes nothing, nothing is issued meanwhile.
            self.desk.drifts.release(&drifted);
        }
        stopped
    }

    async fn record_stop(
        &self,
        caller: &Caller,
        drifted: &Drifted,
        difference: Option<&Value>,
    ) -> Result<(), IssueError> {
        let by = ("stopped", caller.client().id.as_str());
        record::record_drift(&self.desk, drifted, by, difference).await?;
        let stored = self.desk.drifts.store(drifted.clone()).await;
        stored.map_err(|_| IssueError::RecordUnavailable("drift_not_stored"))
    }
}

/// Checks everything before anything is taken.
fn read(events: Vec<EventRecord>) -> Result<Vec<Report>, IssueError> {
    if events.len() > MAX_EVENTS {
        return Err(IssueError::Request("too_many_events"));
    }
    events.into_iter().map(|record| Ok(Report { id: check(&record)?, record, is_confirmed: false })).collect()
}

fn check(event: &EventRecord) -> Result<Uuid, IssueError> {
    let id = Uuid::try_parse(&event.id).ok().filter(|id| id.get_version_num() == 7);
    // One spelling for each id, or it could come twice.
    let id = id.filter(|id| id.hyphenated().to_string() == event.id);
    let id = id.ok_or(IssueError::Request("event_id_is_no_uuidv7"))?;
    let sound = |text: &Option<String>| {
        text.as_deref().is_none_or(|text| {
            (1..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
        })
    };
    if ![&event.txn, &event.jti, &event.tool, &event.class].into_iter().all(sound) {
        return Err(IssueError::Request("event_text_not_acceptable"));
    }
    if event.detail.as_ref().is_some_and(|detail| detail.to_string().len() > MAX_DETAIL_BYTES) {
        return Err(IssueError::Request("event_detail_too_long"));
    }
    if event.kind == EventKind::Drifted && event.tool.is_none() {
        return Err(IssueError::Request("drift_without_tool"));
    }
    Ok(id)
}

/// Whether the log has, at the place that is named, the intent of the token that is named, for this server.
fn is_on_record(reader: &LogReader, resource: &str, event: &EventRecord) -> bool {
    let entry = event.index.and_then(|index| reader.entry(index).ok());
    let entry = entry.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
    entry.is_some_and(|entry| {
        entry.kind == Kind::Intent
            && entry.server.as_deref() == Some(resource)
            && event.jti.is_some()
            && entry.jti == event.jti
            && (event.txn.is_none() || entry.txn == event.txn)
    })
}

fn entry(now_ms: u64, report: &Report) -> Entry {
    let event = &report.record;
    let named = Named { txn: event.txn.clone(), jti: event.jti.clone() };
    let (confirmed, unconfirmed) =
        if report.is_confirmed { (Some(named), None) } else { (None, Some(named)) };
    let Named { txn, jti } = confirmed.unwrap_or_default();
    Entry {
        txn,
        jti,
        tool: event.tool.clone(),
        action: event.action.filter(|action| *action != Action::CallTool),
        seen: Some(Seen {
            id: report.id,
            event: event.kind.as_str().to_owned(),
            at: event.at_ms,
            class: event.class.clone(),
            bytes: event.bytes,
            detail: event.detail.clone(),
            unconfirmed,
        }),
        ..Entry::new(Kind::Guard, now_ms)
    }
}

/// Stands for one report of one server.
pub(super) fn tag(resource: &str, id: Uuid) -> [u8; 16] {
    let digest = sha256(format!("event\0{resource}\0{id}").as_bytes());
    let mut tag = [0; 16];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = from;
    }
    tag
}

/// [`MAX_EVENTS`].
const FULL_REQUEST: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
const MAX_TEXT_BYTES: usize = 256;
