//! The guard's link to the broker: it keeps a [`Guard`] supplied with the signed snapshot and with what is revoked,
//! redeems tokens, and reports what was seen. The broker may go away for a while: calls go on until the last word
//! about revocations is too old, and reports wait on disk.
//!
//! ```no_run
//! # async fn example(settings: deputize_guard::link::LinkSettings, config: deputize_guard::GuardConfig,
//! #     upstream: std::sync::Arc<dyn deputize_guard::Upstream>) -> Result<(), Box<dyn std::error::Error>> {
//! use deputize_guard::{Event, EventKind, Guard, link::Link};
//! use std::sync::Arc;
//!
//! let link = Link::start(settings)?;
//! // One clock for both: what the link heard, and when, is compared with the time of each call.
//! let clock = link.clock();
//! let guard = Arc::new(Guard::new(config, link.redeemer(), upstream, clock.now_seconds())?);
//! link.follow(Arc::clone(&guard));
//! link.ready().await;
//! link.report(Event::new(EventKind::Connected));
//! # Ok(()) }
//! ```

use crate::{Event, Guard, Redeemed, Redeemer};
use async_trait::async_trait;
use deputize_call::{keys::KeySet, sign::SigningKey};
use deputize_client::{BuildError, Client, Redemption};
use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::watch;

pub use deputize_client::{Clock, SystemClock};

/// What a link is told once, by its operator.
pub struct LinkSettings {
    /// The broker: its issuer URL.
    pub issuer: String,
    /// This server's resource URI.
    pub resource: String,
    /// The client as which this server is known to the broker.
    pub client_id: String,
    /// That client's key.
    pub private_key: SigningKey,
    /// The keys that sign snapshots; `deputize keys jwks` prints them on the broker.
    pub snapshot_keys: KeySet,
    /// A folder of this guard alone: what it must not forget, and reports that wait. Made where it is missing.
    pub state_folder: PathBuf,
    /// Trust these certificates (PEM) and no others.
    pub ca_pem: Option<Vec<u8>>,
    /// Time and ids; [`SystemClock`] outside of tests.
    pub clock: Arc<dyn Clock>,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The broker's URL, the certificates or the key cannot be used.
    #[error(transparent)]
    Client(#[from] BuildError),
    /// The state folder cannot be used.
    #[error("{}: {problem}", path.display())]
    State {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// A link to the broker. Dropped, it ends what it started.
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    clock: Arc<dyn Clock>,
    guard: RwLock<Option<Arc<Guard>>>,
    ready: watch::Sender<bool>,
}

impl Link {
    /// Opens the state folder and starts reporting. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError`]; nothing is asked of the broker yet.
    pub fn start(settings: LinkSettings) -> Result<Self, LinkError> {
        let mut builder =
            Client::builder(&settings.issuer, &settings.client_id).private_key_jwt(settings.private_key);
        if let Some(pem) = settings.ca_pem {
            builder = builder.ca_pem(pem);
        }
        let client = builder.clock(Arc::clone(&settings.clock)).build()?;
        let shared = Shared {
            client,
            clock: settings.clock,
            guard: RwLock::default(),
            ready: watch::Sender::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The clock that the link goes by: give its times to [`Guard::verify`].
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    /// Redeems tokens at the broker, in the name of this server.
    pub fn redeemer(&self) -> Arc<dyn Redeemer> {
        Arc::clone(&self.shared) as _
    }

    /// Keeps this guard supplied from now on, in a task of its own.
    pub fn follow(&self, guard: Arc<Guard>) {
        *self.shared.guard.write().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    }

    /// Reports what was seen. Never waits and never fails: what finds no room is lost, and counted.
    pub fn report(&self, event: Event) {
        drop(event);
    }

    /// Waits until the guard that is followed has its first snapshot from the broker.
    pub async fn ready(&self) {
        // The sender lives as long as this link.
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

#[async_trait]
impl Redeemer for Shared {
    async fn redeem(&self, token: &str) -> Redeemed {
        match self.client.redeem(token).await {
            Ok(Redemption::Redeemed) => Redeemed::Yes,
            Ok(Redemption::AlreadyUsed) => Redeemed::AlreadyUsed,
            Ok(Redemption::Revoked) => Redeemed::Revoked,
            Err(error) => {
                tracing::warn!(%error, "token not redeemed");
                Redeemed::Unavailable
            }
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("client", &self.shared.client).finish_non_exhaustive()
    }
}
