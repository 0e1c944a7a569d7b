//! The keys of OpenID providers: found by discovery, refreshed ahead of their time, good while a provider is down.

#[cfg(test)]
mod tests;

use super::fetch::{FetchError, Fetched, Fetcher};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use deputize_call::{jws::JwsError, keys::KeySet};
use deputize_issuer::provider::{KeyGeneration, KeysUnavailable, ProviderKeys};
use openidconnect::core::CoreProviderMetadata;
use reqwest::Url;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::Instant,
};

/// The keys of any number of issuers, each refreshed by a task of its own, which ends when this is dropped.
pub struct OidcKeys {
    issuers: HashMap<String, Arc<Issuer>>,
    _refreshing: JoinSet<()>,
}

/// Where one issuer's keys come from.
#[derive(Clone)]
pub struct IssuerSource {
    /// `iss`. Its metadata stands at `{issuer}/.well-known/openid-configuration` (OpenID Connect Discovery §4).
    pub issuer: String,
    /// Where the key set stands, for an issuer without metadata.
    pub jwks_uri: Option<Url>,
    /// How it is reached.
    pub fetcher: Arc<dyn FetchJson>,
}

/// Fetches one small JSON document.
#[async_trait]
pub trait FetchJson: Send + Sync {
    /// The document at `url`.
    async fn get_json(&self, url: &Url) -> Result<Fetched, FetchError>;
}

#[async_trait]
impl FetchJson for Fetcher {
    async fn get_json(&self, url: &Url) -> Result<Fetched, FetchError> {
        Fetcher::get_json(self, url).await
    }
}

/// How long keys are good, and how often an issuer may be asked for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Least time between two fetches that unknown key ids cause.
    pub cooldown: Duration,
    /// For how long the last good set serves while the issuer cannot be reached.
    pub stale_limit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { cooldown: Duration::from_secs(30), stale_limit: Duration::from_secs(24 * 3600) }
    }
}

/// A uniformly random number, so that replicas do not ask all at once.
pub type Jitter = fn() -> u32;

struct Issuer {
    source: IssuerSource,
    timing: Timing,
    known: ArcSwapOption<Known>,
    /// Held while fetching: one flight at a time, and whoever waits shares what it brings.
    flight: Mutex<Flight>,
    /// Whether one flight has come back.
    asked: watch::Sender<bool>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<KeySet>,
    generation: u64,
    fetched_at: Instant,
}

#[derive(Default)]
struct Flight {
    discovered: Option<(Url, Instant)>,
    last_for_unknown_key: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("metadata not acceptable: {0}")]
    Metadata(String),
    #[error("metadata of another issuer")]
    Issuer,
    #[error("key set not acceptable: {0}")]
    Keys(#[from] JwsError),
}

impl OidcKeys {
    /// Asks every issuer in the background, now and again from time to time; waits for none. Until an issuer has
    /// answered, its keys are unavailable; one that does not is tried again soon. Keys known to `previous` are
    /// carried over. Within a runtime.
    pub fn start(
        sources: Vec<IssuerSource>,
        timing: Timing,
        jitter: Jitter,
        previous: Option<&Self>,
    ) -> Self {
        let mut issuers = HashMap::new();
        let mut refreshing = JoinSet::new();
        for source in sources {
            let issuer = Arc::new(Issuer::new(source, timing, previous));
            issuer.measure();
            issuers.insert(issuer.source.issuer.clone(), Arc::clone(&issuer));
            refreshing.spawn(issuer.keep_fresh(jitter));
        }
        Self { issuers, _refreshing: refreshing }
    }

    /// Waits until every issuer was asked once, whatever it answered.
    pub async fn asked_once(&self) {
        for issuer in self.issuers.values() {
            // The sender lives as long as its issuer does.
            let _ = issuer.asked.subscribe().wait_for(|asked| *asked).await;
        }
    }

    fn issuer(&self, issuer: &str) -> Result<&Arc<Issuer>, KeysUnavailable> {
        self.issuers.get(issuer).ok_or(KeysUnavailable)
    }
}

#[async_trait]
impl ProviderKeys for OidcKeys {
    async fn keys(&self, issuer: &str) -> Result<KeyGeneration, KeysUnavailable> {
        self.issuer(issuer)?.known()
    }

    async fn keys_for_unknown_kid(
        &self,
        issuer: &str,
        seen_generation: u64,
    ) -> Result<KeyGeneration, KeysUnavailable> {
        let issuer = self.issuer(issuer)?;
        // A task of its own: a caller that goes away does not take the fetch with it, which others wait for.
        let fetch = tokio::spawn(Arc::clone(issuer).look_for_newer(seen_generation));
        if fetch.await.is_err() {
            tracing::error!(issuer = issuer.source.issuer, "fetching keys panicked");
        }
        issuer.known()
    }
}

impl Issuer {
    fn new(source: IssuerSource, timing: Timing, previous: Option<&OidcKeys>) -> Self {
        let before = previous.and_then(|previous| previous.issuers.get(&source.issuer));
        let before = before.filter(|before| before.source.jwks_uri == source.jwks_uri);
        let known = before.and_then(|before| before.known.load_full());
        let asked = watch::Sender::new(false);
        Self { source, timing, known: ArcSwapOption::new(known), flight: Mutex::default(), asked }
    }

    /// What is known and not yet too old.
    fn known(&self) -> Result<KeyGeneration, KeysUnavailable> {
        let known = self.known.load();
        let known = known.as_ref().filter(|known| known.fetched_at.elapsed() <= self.timing.stale_limit);
        let known = known.ok_or(KeysUnavailable)?;
        Ok(KeyGeneration { keys: Arc::clone(&known.keys), generation: known.generation })
    }

    async fn keep_fresh(self: Arc<Self>, jitter: Jitter) {
        let mut failures = 0_u32;
        loop {
            let wait = match self.refresh().await {
                // Ahead of expiry, so that no request ever waits for it.
                Ok(good_for) => {
                    failures = 0;
                    good_for.mul_f64(0.75)
                }
                Err(_) => {
                    failures = failures.saturating_add(1);
                    RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_LONGEST)
                }
            };
            // Up to a tenth sooner.
            let sooner = wait.mul_f64(0.1 * f64::from(jitter()) / f64::from(u32::MAX));
            tokio::time::sleep(wait.saturating_sub(sooner)).await;
        }
    }

    async fn refresh(&self) -> Result<Duration, RefreshError> {
        self.fetch(&mut *self.flight.lock().await).await
    }

    /// Fetches once more, unless another did meanwhile or did so just now.
    async fn look_for_newer(self: Arc<Self>, seen_generation: u64) {
        let mut flight = self.flight.lock().await;
        let newer = self.known().is_ok_and(|known| known.generation > seen_generation);
        let cooling = flight.last_for_unknown_key.is_some_and(|last| last.elapsed() < self.timing.cooldown);
        if !newer && !cooling {
            flight.last_for_unknown_key = Some(Instant::now());
            // Counted and logged there. What was known stays good.
            let _ = self.fetch(&mut flight).await;
        }
    }

    /// One flight. Answers for how long the keys are good; on any failure what was known stays.
    async fn fetch(&self, flight: &mut Flight) -> Result<Duration, RefreshError> {
        let outcome = self.fetch_keys(flight).await;
        let issuer = &self.source.issuer;
        let word = outcome.as_ref().map_or_else(RefreshError::reason, |_| "ok");
        metrics::counter!("deputize_jwks_fetches_total", "issuer" => issuer.clone(), "outcome" => word)
            .increment(1);
        if let Err(error) = &outcome {
            // The metadata may point to where the keys no longer are.
            flight.discovered = None;
            if self.known().is_ok() {
                tracing::warn!(issuer, error = %error, "identity provider's keys not refreshed, the known ones stay good");
            } else {
                tracing::warn!(issuer, error = %error, "identity provider's keys not available, its tokens wait for them");
            }
        }
        self.measure();
        self.asked.send_replace(true);
        outcome
    }

    fn measure(&self) {
        let issuer = &self.source.issuer;
        let available = if self.known().is_ok() { 1.0 } else { 0.0 };
        metrics::gauge!("deputize_provider_keys_available", "issuer" => issuer.clone()).set(available);
        let age = self.known.load().as_ref().map(|known| known.fetched_at.elapsed().as_secs_f64());
        metrics::gauge!("deputize_jwks_age_seconds", "issuer" => issuer.clone())
            .set(age.unwrap_or(f64::INFINITY));
    }

    async fn fetch_keys(&self, flight: &mut Flight) -> Result<Duration, RefreshError> {
        let jwks_uri = self.jwks_uri(flight).await?;
        let fetched = self.source.fetcher.get_json(&jwks_uri).await?;
        self.remember(KeySet::from_jwks(&fetched.body)?);
        Ok(fetched.max_age.unwrap_or(GOOD_FOR_DEFAULT).clamp(GOOD_FOR_LEAST, GOOD_FOR_MOST))
    }

    async fn jwks_uri(&self, flight: &mut Flight) -> Result<Url, RefreshError> {
        if let Some(configured) = &self.source.jwks_uri {
            return Ok(configured.clone());
        }
        if let Some((jwks_uri, at)) = &flight.discovered
            && at.elapsed() < DISCOVERY_GOOD_FOR
        {
            return Ok(jwks_uri.clone());
        }
        // OpenID Connect Discovery §4.1: a terminating slash is removed first.
        let issuer = self.source.issuer.trim_end_matches('/');
        let url = Url::parse(&format!("{issuer}/.well-known/openid-configuration"))
            .map_err(|error| RefreshError::Metadata(error.to_string()))?;
        let fetched = self.source.fetcher.get_json(&url).await?;
        let metadata: CoreProviderMetadata = serde_json::from_slice(&fetched.body)
            .map_err(|error| RefreshError::Metadata(error.to_string()))?;
        // OpenID Connect Discovery §4.3: identical to the issuer that was asked for.
        if metadata.issuer().as_str() != self.source.issuer {
            return Err(RefreshError::Issuer);
        }
        let jwks_uri = metadata.jwks_uri().url().clone();
        flight.discovered = Some((jwks_uri.clone(), Instant::now()));
        Ok(jwks_uri)
    }

    fn remember(&self, keys: KeySet) {
        let fetched_at = Instant::now();
        let known = match self.known.load_full() {
            Some(known) if known.keys.to_jwks() == keys.to_jwks() => Known { fetched_at, ..(*known).clone() },
            before => {
                // INVARIANT: the generation grows when, and only when, the set changes.
                let generation = before.map_or(0, |known| known.generation) + 1;
                tracing::info!(issuer = self.source.issuer, generation, "identity provider's keys changed");
                Known { keys: Arc::new(keys), generation, fetched_at }
            }
        };
        self.known.store(Some(Arc::new(known)));
    }
}

impl RefreshError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::Metadata(_) => "metadata",
            Self::Issuer => "issuer",
            Self::Keys(_) => "keys",
        }
    }
}

impl std::fmt::Debug for OidcKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcKeys").field("issuers", &self.issuers.keys()).finish_non_exhaustive()
    }
}

const GOOD_FOR_DEFAULT: Duration = Duration::from_secs(3600);
const GOOD_FOR_LEAST: Duration = Duration::from_secs(300);
const GOOD_FOR_MOST: Duration = Duration::from_secs(24 * 3600);
const DISCOVERY_GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
