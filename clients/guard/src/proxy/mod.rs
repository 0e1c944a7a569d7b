//! The guard as a proxy: any MCP server, unchanged, behind it.
//!
//! Whatever goes to the server goes through [`server::Channel::send`], which takes only what was verified. Whatever
//! comes from it goes through [`screen::Screen`].

mod breaker;
mod buckets;
mod events;
mod failure;
mod front;
mod handover;
mod launched;
#[cfg(feature = "tower")]
pub mod layer;
mod legible;
mod limits;
mod ordinary;
mod passage;
mod process;
mod relay;
mod reply;
mod report;
mod screen;
mod server;
mod session;
mod settings;
mod stdio;
mod streamable;
mod streams;
#[cfg(test)]
pub(crate) mod tests;
mod traceparent;
mod versions;
mod watch;

pub use front::ClientCertificate;
pub use ordinary::{Exchanger, Minted};
pub use report::{NoReports, Reports};
pub use settings::{
    HttpUpstream, LaunchedProgram, Limits, Program, ProxySettings, SettingsError, StdioUpstream, UpstreamKind,
};

use crate::{Guard, Redeemer};
use breaker::Breaker;
use deputize_client::Clock;
use limits::Meter;
use relay::Relay;
use screen::Screen;
use server::{Channel, Server, Trace};
use session::Sessions;
use std::{sync::Arc, time::Duration};
use url::Url;

/// A guard in front of one server.
pub struct Proxy {
    guard: Arc<Guard>,
    server: Arc<dyn Server>,
    sessions: Sessions,
    meter: Meter,
    breaker: Arc<Breaker>,
    watch: Arc<watch::Watch>,
    reports: Arc<dyn Reports>,
    clock: Arc<dyn Clock>,
    relist_every: Duration,
    stream_timeout: Duration,
    max_stream_bytes: usize,
    max_body_bytes: usize,
    front: front::Places,
    /// Where persons' own tokens are taken.
    ordinary: Option<ordinary::Ordinary>,
    /// Where calls are handed AWS credentials.
    handovers: Option<handover::Handovers>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Proxy {
    /// A proxy that refuses every call until its guard has a snapshot and [`Proxy::run`] has seen the server's tools.
    /// Needs a tokio runtime where it starts the server itself or hands over credentials.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(
        settings: ProxySettings,
        redeemer: Arc<dyn Redeemer>,
        reports: Arc<dyn Reports>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, SettingsError> {
        let public = Url::parse(&settings.guard.public_url)
            .map_err(|error| SettingsError::PublicUrl(error.to_string()))?;
        let (max_sessions, server): (usize, Arc<dyn Server>) = match settings.upstream {
            UpstreamKind::Http(upstream) => {
                let server = streamable::HttpServer::new(upstream, Arc::clone(&clock))?;
                (settings.max_sessions, Arc::new(server))
            }
            UpstreamKind::Stdio(upstream) => (
                settings.max_sessions.min(upstream.max_processes),
                Arc::new(stdio::StdioServer::new(upstream, Arc::clone(&clock))),
            ),
        };
        let watch = Arc::default();
        let breaker = Arc::new(Breaker::new(Arc::clone(&clock), Arc::clone(&watch)));
        let front = front::Places::of(&public, &settings.guard, settings.takes_certificates);
        let max_body_bytes = settings.guard.max_body_bytes;
        let ordinary = match (settings.guard.accept_issuers.is_empty(), settings.exchanger) {
            (true, _) => None,
            (false, Some(exchanger)) => Some(ordinary::Ordinary::new(exchanger)),
            (false, None) => return Err(SettingsError::NoExchanger),
        };
        let guard = Guard::new(settings.guard, redeemer, Arc::clone(&breaker) as _, clock.now_seconds());
        let guard = Arc::new(guard.map_err(|_| SettingsError::NoRandomness)?);
        let handovers = match (settings.hands_over_aws, settings.credential_source) {
            (false, _) => None,
            (true, Some(source)) => Some(handover::Handovers::start(&guard, source, Arc::clone(&clock))?),
            (true, None) => return Err(SettingsError::NoCredentialSource),
        };
        Ok(Arc::new(Self {
            guard,
            server,
            sessions: Sessions::new(Arc::clone(&clock), max_sessions, settings.session_idle),
            meter: Meter::new(settings.limits),
            breaker,
            watch,
            reports,
            clock,
            relist_every: settings.relist_every,
            stream_timeout: settings.stream_timeout,
            max_stream_bytes: settings.max_stream_bytes,
            max_body_bytes,
            front,
            ordinary,
            handovers,
            stop: tokio::sync::watch::Sender::new(false),
        }))
    }

    /// The guard, to be told of snapshots and revocations.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Its routes: the MCP endpoint at the path of the public URL, the metadata of RFC 9728, `/healthz`, `/readyz`.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        front::router(self)
    }

    /// Whether calls would be taken now.
    pub fn is_ready(&self) -> bool {
        self.watch.era().is_some() && self.guard.is_ready(self.clock.now_seconds(), self.clock.uptime())
    }

    /// Waits until [`Proxy::run`] has seen the server's tools and held them against what was approved.
    pub async fn looked(&self) {
        self.watch.looked().await;
    }

    /// Looks at the server's tools and ends idle sessions, until [`Proxy::stop`].
    pub async fn run(self: Arc<Self>) {
        let looking = watch::run(Arc::clone(&self), self.stop.subscribe());
        tokio::join!(looking, self.keep_house());
    }

    /// Ends [`Proxy::run`], and streams of those who only listen. Requests under way go on to their end.
    pub fn drain(&self) {
        self.stop.send_replace(true);
    }

    /// Ends everything: sessions, and the server's processes.
    pub async fn stop(&self) {
        self.drain();
        for session in self.sessions.take_all() {
            session.channel.end().await;
        }
        self.server.stop().await;
    }

    fn relay(&self, screen: Screen, channel: Arc<dyn Channel>, trace: Trace) -> Relay {
        let (lasts, max_bytes) = (self.stream_timeout, self.max_stream_bytes);
        Relay { screen, channel, trace, lasts, max_bytes, stop: self.stop.subscribe() }
    }

    async fn keep_house(&self) {
        let mut stop = self.stop.subscribe();
        let mut tick = tokio::time::interval(HOUSEKEEPING_EVERY);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            for session in self.sessions.take_idle() {
                session.channel.end().await;
            }
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("guard", &self.guard).finish_non_exhaustive()
    }
}

const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10);
