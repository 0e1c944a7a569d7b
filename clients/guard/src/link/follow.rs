//! Follows the broker: the snapshot, then each revocation, and word that nothing else is new.

use crate::{Guard, Revocation, SignedSnapshot, SnapshotError};
use deputize_client::{
    ExchangeError,
    sse::{Event, Reader, Unreadable},
};
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{Shared, memory, pause::Pause};

/// Keeps `guard` supplied, for ever. What cannot be understood, or must not be believed, ends a connection: the guard
/// then hears nothing, and stops calls when the last word is too old.
pub(super) async fn follow(shared: Arc<Shared>, guard: Arc<Guard>) {
    recall(&shared, &guard);
    let mut pause = Pause::default();
    loop {
        let trouble = listen(&shared, &guard, &mut pause).await;
        shared.connected.store(false, Ordering::Relaxed);
        tracing::warn!(%trouble, "not connected to the broker");
        tokio::time::sleep(pause.next(shared.clock.as_ref())).await;
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Broker(#[from] ExchangeError),
    #[error("the broker is silent")]
    Silent,
    #[error("the broker ended the stream")]
    Ended,
    #[error("the broker's message cannot be read")]
    Unreadable,
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl From<Unreadable> for Trouble {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// What an earlier process knew, as long as it holds.
fn recall(shared: &Shared, guard: &Guard) {
    let remembered = shared.remembered.lock().unwrap_or_else(PoisonError::into_inner).take();
    let snapshot = remembered
        .and_then(|signed| memory::reopen(signed, &shared.snapshot_keys, shared.clock.now_seconds()));
    if let Some(snapshot) = snapshot
        && let Err(error) = guard.recall(snapshot, shared.clock.uptime())
    {
        tracing::warn!(%error, "the remembered snapshot is not taken");
    }
}

async fn listen(shared: &Shared, guard: &Guard, pause: &mut Pause) -> Trouble {
    let listened: Result<std::convert::Infallible, Trouble> = async {
        let mut stream = shared.client.follow_guard_events().await?;
        let mut reader = Reader::new(MAX_EVENT_BYTES);
        let mut heard = false;
        loop {
            let chunk =
                tokio::time::timeout(SILENCE, stream.chunk()).await.map_err(|_| Trouble::Silent)??;
            for event in reader.take_in(chunk.ok_or(Trouble::Ended)?.as_ref())? {
                apply(shared, guard, &event, &mut heard).await?;
                if heard {
                    pause.reset();
                }
            }
        }
    }
    .await;
    match listened {
        Err(trouble) => trouble,
        Ok(never) => match never {},
    }
}

/// INVARIANT: word about revocations counts only after a snapshot of this connection was taken: a broker that was put
/// back to an older state has no say in what is revoked.
async fn apply(shared: &Shared, guard: &Guard, event: &Event, heard: &mut bool) -> Result<(), Trouble> {
    let uptime = shared.clock.uptime();
    match event.kind.as_str() {
        "snapshot" => {
            install(shared, guard, &event.data).await?;
            *heard = true;
            shared.connected.store(true, Ordering::Relaxed);
            shared.ready.send_replace(true);
            Ok(())
        }
        // One that we do not know of would be ignored where it must not be.
        "revocation" if *heard => {
            let revocation: Revocation =
                serde_json::from_str(&event.data).map_err(|_| Trouble::Unreadable)?;
            guard.revoke(revocation, uptime);
            Ok(())
        }
        "alive" if *heard => {
            guard.hear_revocations(uptime);
            Ok(())
        }
        _ => Err(Trouble::Unreadable),
    }
}

async fn install(shared: &Shared, guard: &Guard, data: &str) -> Result<(), Trouble> {
    let signed: SignedSnapshot = serde_json::from_str(data).map_err(|_| Trouble::Unreadable)?;
    let snapshot = signed.clone().open(&shared.snapshot_keys, shared.clock.now_seconds())?;
    let version = snapshot.version();
    let folder = {
        let mut memory = shared.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(highest) = memory.highest().filter(|highest| version < *highest) {
            return Err(SnapshotError::Older { offered: version, highest }.into());
        }
        guard.install(snapshot, shared.clock.uptime())?;
        memory.saw(version);
        memory.folder().to_owned()
    };
    let written = tokio::task::spawn_blocking(move || memory::write(&folder, version, signed)).await;
    if let Ok(Err(error)) = written {
        // This process knows it; one that starts after it might take an older one.
        tracing::error!(%error, "the snapshot is not remembered");
    }
    Ok(())
}

/// The broker says every ten seconds that it is there.
const SILENCE: Duration = Duration::from_secs(25);
/// The largest snapshot, its quotes escaped.
const MAX_EVENT_BYTES: usize = 40 * 1024 * 1024;
