//! Sessions of AWS roles, asked of AWS STS.
//!
//! With a web identity nothing secret of AWS is held: the request is not even signed. Where AWS cannot reach us, long-lived
//! keys of one user from files sign `AssumeRole` instead. Nothing is taken from the environment, from AWS's own
//! configuration files or from an instance's metadata: whoever can set a variable could otherwise say who gives us roles.
//!
//! Times: one attempt may take two seconds, for the name, the connection and the answer; there are two attempts at most,
//! and all of it, the wait between them included, ends after four and a half. What STS has not answered by then is a
//! [`StsRefusal::Timeout`], and nothing was issued that anybody holds.

mod answer;
mod call;
mod places;
mod refusal;
#[cfg(test)]
mod tests;
mod transport;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use deputize_issuer::{
    clock::Clock,
    mint::{RoleCredentials, RoleOrder, SecurityTokenService, StsRefusal},
    secret::Secret,
    templates::RenderedSession,
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use self::{answer::Role, places::Places, transport::Transport};
use super::fetch::{FetchError, Reach, system_lookup};

/// How STS is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsSettings {
    /// Where, with `{region}` for the session's region; AWS's own endpoint of the region if `None`.
    pub endpoint: Option<String>,
    /// How far that may be.
    pub reach: Reach,
    /// Calls a second for roles of one account; as many may come at once.
    pub calls_per_second: NonZeroU32,
    /// Keys of the user who assumes roles, instead of the web identity.
    pub keys: Option<UserKeys>,
}

/// Long-lived keys of an AWS user, or of a session that something else keeps fresh: in files that are read for each
/// call, so that new ones hold at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserKeys {
    /// `AccessKeyId`.
    pub access_key_id: String,
    /// File with the `SecretAccessKey`.
    pub secret_access_key_file: PathBuf,
    /// File with the `SessionToken`, where the keys are those of a session.
    pub session_token_file: Option<PathBuf>,
}

/// AWS STS.
pub struct Sts {
    held: ArcSwap<Held>,
    /// Calls under way: each holds a connection and a little memory.
    places: Places,
    clock: Arc<dyn Clock>,
}

struct Held {
    settings: StsSettings,
    transport: Transport,
    /// Only accounts that are configured come here, so the map is as bounded as the configuration.
    rate: Arc<DefaultKeyedRateLimiter<String>>,
    /// How long one attempt may take.
    attempt: Duration,
}

impl Sts {
    /// STS, asked as these settings say.
    ///
    /// # Errors
    /// [`FetchError::Setup`]: the certificates cannot be read.
    pub fn new(settings: StsSettings, clock: Arc<dyn Clock>) -> Result<Self, FetchError> {
        Self::with_bounds(settings, clock, (MAX_CALLS, ATTEMPT_TIMEOUT))
    }

    fn with_bounds(
        settings: StsSettings,
        clock: Arc<dyn Clock>,
        (calls, attempt): (usize, Duration),
    ) -> Result<Self, FetchError> {
        let rate = rate_of(&settings);
        let transport = Transport::new(settings.reach.clone(), system_lookup(), attempt)?;
        let held = Held { settings, transport, rate, attempt };
        Ok(Self { held: ArcSwap::from_pointee(held), places: Places::new(calls), clock })
    }

    /// Takes other settings from the next call on. Nothing is forgotten of how often was asked, unless the rate is
    /// another.
    ///
    /// # Errors
    /// As [`Sts::new`]; the old settings stay.
    pub fn change(&self, settings: StsSettings) -> Result<(), FetchError> {
        let held = self.held.load();
        let attempt = held.attempt;
        let is_same_rate = held.settings.calls_per_second == settings.calls_per_second;
        let rate = if is_same_rate { Arc::clone(&held.rate) } else { rate_of(&settings) };
        // Made anew in any case: the file of certificates may have others in it.
        let transport = Transport::new(settings.reach.clone(), system_lookup(), attempt)?;
        self.held.store(Arc::new(Held { settings, transport, rate, attempt }));
        Ok(())
    }

    /// Asks for one session, and counts.
    async fn ask(
        &self,
        session: &RenderedSession,
        web_identity: &Secret<String>,
    ) -> Result<RoleCredentials, StsRefusal> {
        let began = self.clock.uptime();
        let answered = self.ask_bounded(session, web_identity).await;
        let outcome = match &answered {
            Ok(credentials) => {
                note_size(session, credentials.packed_policy_percent);
                "granted"
            }
            Err(refusal) => refusal.reason(),
        };
        metrics::counter!("deputize_sts_calls_total", "outcome" => outcome).increment(1);
        metrics::histogram!("deputize_sts_call_seconds", "outcome" => outcome)
            .record(self.clock.uptime().saturating_sub(began));
        answered
    }

    async fn ask_bounded(
        &self,
        session: &RenderedSession,
        web_identity: &Secret<String>,
    ) -> Result<RoleCredentials, StsRefusal> {
        let held = self.held.load_full();
        let role = Role::of(session).ok_or(StsRefusal::Unintelligible)?;
        held.rate.check_key(&role.account.to_owned()).map_err(|_| StsRefusal::Throttled)?;
        let _place = self.places.take(role.account).ok_or(StsRefusal::Throttled)?;
        let answered = call::call(&held, session, web_identity).await?;
        answer::check(answered, (session, &role), self.clock.now_seconds())
    }
}

#[async_trait]
impl SecurityTokenService for Sts {
    async fn assume_role(&self, order: RoleOrder<'_>) -> Result<RoleCredentials, StsRefusal> {
        self.ask(order.session(), order.web_identity()).await
    }
}

fn rate_of(settings: &StsSettings) -> Arc<DefaultKeyedRateLimiter<String>> {
    Arc::new(RateLimiter::keyed(Quota::per_second(settings.calls_per_second)))
}

/// STS packs policy and tags, and refuses what is over 100 %: whoever is near learns it before a longer value is.
fn note_size(session: &RenderedSession, percent: Option<u8>) {
    let Some(percent) = percent else { return };
    metrics::gauge!("deputize_sts_packed_policy_percent", "template" => session.template.clone())
        .set(f64::from(percent));
    if percent > MANY_PERCENT {
        tracing::warn!(
            template = session.template,
            percent,
            "session policy and tags nearly fill what STS takes"
        );
    }
}

impl std::fmt::Debug for Sts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sts").field("settings", &self.held.load().settings).finish_non_exhaustive()
    }
}

/// Calls under way at once, for all accounts together.
const MAX_CALLS: usize = 256;
/// Name, connection, TLS, answer: all of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const MANY_PERCENT: u8 = 80;
