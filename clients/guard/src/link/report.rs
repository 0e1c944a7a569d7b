//! Two tasks: one puts reports on disk, one sends them.

use crate::{EventRecord, MAX_EVENTS};
use deputize_client::ExchangeError;
use serde::Serialize;
use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

use super::{Shared, outbox::Outbox, pause::Pause};

/// Puts reports into the outbox.
pub(super) async fn post(shared: Arc<Shared>, mut received: mpsc::Receiver<EventRecord>) {
    loop {
        let mut records = Vec::new();
        if received.recv_many(&mut records, MAX_AT_ONCE).await == 0 {
            return;
        }
        on_disk(&shared, move |outbox| outbox.push(records)).await;
        shared.posted.notify_one();
    }
}

/// Sends what waits, the oldest first, as long as the broker takes it.
pub(super) async fn send(shared: Arc<Shared>) {
    let mut pause = Pause::default();
    loop {
        let batch = shared.outbox.lock().unwrap_or_else(PoisonError::into_inner).first(MAX_EVENTS);
        if batch.is_empty() {
            shared.posted.notified().await;
            continue;
        }
        match send_batch(&shared, &batch).await {
            Ok(()) => {
                pause.reset();
                on_disk(&shared, move |outbox| outbox.sent(&batch)).await;
            }
            Err(error) if is_final(&error) => {
                tracing::error!(%error, reports = batch.len(), "reports given up");
                on_disk(&shared, move |outbox| outbox.give_up(&batch)).await;
            }
            Err(error) => {
                tracing::debug!(%error, "reports wait");
                let asked = match error {
                    ExchangeError::RateLimited { retry_after_seconds, .. } => retry_after_seconds,
                    _ => None,
                };
                let asked = Duration::from_secs(asked.unwrap_or_default().min(MAX_WAIT_SECONDS));
                tokio::time::sleep(pause.next(shared.clock.as_ref()).max(asked)).await;
            }
        }
    }
}

#[derive(Serialize)]
struct Reports<'r> {
    events: &'r [EventRecord],
}

async fn send_batch(shared: &Shared, batch: &[EventRecord]) -> Result<(), ExchangeError> {
    let json = serde_json::to_vec(&Reports { events: batch });
    let json = json.map_err(|_| ExchangeError::Protocol("a report cannot be written"))?;
    shared.client.report_guard_events(&json).await.map(drop)
}

/// The broker does not take these, now or later.
fn is_final(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::InvalidRequest(_) | ExchangeError::Refused { status: 413 | 415, .. })
}

/// Away from the threads that serve. What cannot be written still waits in memory.
async fn on_disk(shared: &Arc<Shared>, act: impl FnOnce(&mut Outbox) -> io::Result<()> + Send + 'static) {
    let shared = Arc::clone(shared);
    let acted = tokio::task::spawn_blocking(move || {
        act(&mut shared.outbox.lock().unwrap_or_else(PoisonError::into_inner))
    });
    if let Ok(Err(error)) = acted.await {
        tracing::warn!(%error, "reports are not on disk");
    }
}

const MAX_AT_ONCE: usize = 256;
const MAX_WAIT_SECONDS: u64 = 60;
