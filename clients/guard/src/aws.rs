//! AWS credentials of one call: asked for when they are first wanted, once, and kept until their window or the call ends.

use crate::{Guard, VerifiedCall, refusal::Reason};
use async_trait::async_trait;
use deputize_call::{claims::ToolCallClaims, json::Object};
use deputize_client::{AwsAsk, AwsCredentials, Clock, ErrorDetails, ExchangeError};
use serde_json::Value;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Asks the broker for the AWS credentials of a call, in the name of the guard's server.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// The credentials of this call.
    async fn ask(&self, call: &AwsAsk<'_>) -> Result<AwsCredentials, ExchangeError>;
}

impl std::fmt::Debug for dyn CredentialSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialSource")
    }
}

/// The credentials of one call. Dropped, it wipes them.
pub(crate) struct CallCredentials {
    guard: Arc<Guard>,
    source: Arc<dyn CredentialSource>,
    clock: Arc<dyn Clock>,
    claims: ToolCallClaims,
    tool: String,
    token: Zeroizing<String>,
    arguments: Object,
    input_responses: Option<Value>,
    request_state: Option<Value>,
    /// Held while the broker is asked: whoever else wants them waits for the same answer.
    state: Mutex<State>,
}

enum State {
    Unknown,
    Kept(Arc<AwsCredentials>),
    /// `until` an instant of the clock's uptime; for good without one.
    Refused {
        error: ExchangeError,
        until: Option<Duration>,
    },
}

impl CallCredentials {
    pub(crate) fn of(
        call: &VerifiedCall,
        guard: &Arc<Guard>,
        source: &Arc<dyn CredentialSource>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            guard: Arc::clone(guard),
            source: Arc::clone(source),
            clock: Arc::clone(clock),
            claims: call.claims.clone(),
            tool: call.name.clone(),
            token: Zeroizing::new(call.token.clone()),
            arguments: call.arguments.clone(),
            input_responses: call.input_responses.clone(),
            request_state: call.request_state.clone(),
            state: Mutex::new(State::Unknown),
        })
    }

    /// The credentials: from memory until their window ends, else from the broker.
    ///
    /// INVARIANT: what the call stands on is not revoked, as far as the guard has heard, when it gives them; what it kept
    /// of a call that is goes with the next question.
    pub(crate) async fn get(self: &Arc<Self>) -> Result<Arc<AwsCredentials>, ExchangeError> {
        self.refuse_revoked()?;
        if let Some(known) = self.known(&*self.state.lock().await) {
            return known;
        }
        let this = Arc::clone(self);
        // Whoever asks may lose patience and ask again: what is under way goes on, and serves him then.
        let asking = tokio::spawn(async move { this.ask().await });
        let answer = asking.await.unwrap_or(Err(ExchangeError::Protocol("a fault of the guard")));
        // It may have taken a while.
        self.refuse_revoked()?;
        answer
    }

    /// Why the call is good no longer, or why nothing can be said of that.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        self.guard.check_revocation(&self.claims, Some(&self.tool), self.clock.uptime())
    }

    fn refuse_revoked(&self) -> Result<(), ExchangeError> {
        if !self.guard.is_revoked(&self.claims, &self.tool) {
            return Ok(());
        }
        // Where somebody holds it, he asks the broker, and comes by here with the answer.
        if let Ok(mut state) = self.state.try_lock() {
            *state = State::Unknown;
        }
        Err(ExchangeError::InvalidRequest(ErrorDetails {
            code: "invalid_request".to_owned(),
            description: "what the call stands on was revoked".to_owned(),
            decision_id: None,
        }))
    }

    async fn ask(&self) -> Result<Arc<AwsCredentials>, ExchangeError> {
        let mut state = self.state.lock().await;
        if let Some(known) = self.known(&state) {
            return known;
        }
        *state = State::Unknown;
        let ask = AwsAsk::new(&self.token, &self.arguments)
            .steered_by(self.input_responses.as_ref(), self.request_state.as_ref());
        let answer = self.source.ask(&ask).await.map(Arc::new);
        *state = match &answer {
            Ok(credentials) => State::Kept(Arc::clone(credentials)),
            Err(error) => State::Refused { error: error.clone(), until: self.again(error) },
        };
        answer
    }

    fn known(&self, state: &State) -> Option<Result<Arc<AwsCredentials>, ExchangeError>> {
        match state {
            State::Kept(credentials) if self.clock.now_seconds() < credentials.expires_at_seconds() => {
                Some(Ok(Arc::clone(credentials)))
            }
            State::Refused { error, until } if until.is_none_or(|until| self.clock.uptime() < until) => {
                Some(Err(error.clone()))
            }
            State::Unknown | State::Kept(_) | State::Refused { .. } => None,
        }
    }

    /// When it may be asked again. A no stays one; an SDK that tries again and again asks nobody.
    fn again(&self, error: &ExchangeError) -> Option<Duration> {
        let pause = match error {
            ExchangeError::RateLimited { retry_after_seconds, .. }
            | ExchangeError::Unavailable { retry_after_seconds, .. } => {
                Duration::from_secs(retry_after_seconds.unwrap_or(1)).clamp(LEAST_PAUSE, LONGEST_PAUSE)
            }
            ExchangeError::Unreachable(_) => LEAST_PAUSE,
            _ => return None,
        };
        Some(self.clock.uptime() + pause)
    }
}

/// What gives a call its credentials, where it runs in the guard's own process.
#[derive(Default)]
pub(crate) struct Given(OnceLock<Arc<CallCredentials>>);

impl VerifiedCall {
    /// AWS credentials for what this call names, and nothing else: asked of the broker when they are first wanted, once,
    /// and the same until their window ends, or the guard hears that the call is revoked.
    ///
    /// # Errors
    /// [`ExchangeError`]: policy or the role template says no, or the broker cannot say. Also where the guard was given
    /// nobody to ask (`GuardLayer::aws_credentials`).
    pub async fn aws_credentials(&self) -> Result<Arc<AwsCredentials>, ExchangeError> {
        match self.aws.0.get() {
            Some(credentials) => credentials.get().await,
            None => Err(ExchangeError::Protocol("the guard was not told whom to ask for AWS credentials")),
        }
    }

    #[cfg(feature = "tower")]
    pub(crate) fn give_aws(
        &self,
        guard: &Arc<Guard>,
        source: &Arc<dyn CredentialSource>,
        clock: &Arc<dyn Clock>,
    ) {
        // Given once, as it is verified once.
        let _ = self.aws.0.set(CallCredentials::of(self, guard, source, clock));
    }
}

const LEAST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
