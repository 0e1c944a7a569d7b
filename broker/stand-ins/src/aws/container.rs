//! Credentials for SDKs of one's own: an endpoint as a container has it, behind which stands one call in alice's name.
//!
//! Each time the window is nearly over, the whole line is gone through again: alice's token becomes a tool-call token,
//! and the server that would be called with it asks the broker for the role session.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use deputize_call::{json::Object, secret::Secret};
use deputize_client::{AwsAsk, Client, Clock, ExchangeError, ExchangeRequest};
use std::{sync::Arc, time::Duration};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::{
    identity_provider::{IdentityProvider, IdentityProviderError},
    random::{NoRandomness, fill_random},
};

/// The call behind the endpoint, and who takes part in it.
pub struct Grant {
    /// Where alice's tokens come from.
    pub provider: Arc<IdentityProvider>,
    /// The client for which they are made.
    pub platform: &'static str,
    /// The agent.
    pub agent: Client,
    /// The server that would be called.
    pub server: Client,
    /// Its resource URI.
    pub resource: String,
    /// The tool.
    pub tool: &'static str,
    /// What it is called with.
    pub arguments: Object,
    /// Says when keys are to be made anew.
    pub clock: Arc<dyn Clock>,
}

/// The endpoint.
pub struct Container {
    grant: Grant,
    authorization: Secret<String>,
    /// Who is first makes them anew; the others wait for these.
    held: Mutex<Option<Held>>,
}

struct Held {
    text: Zeroizing<String>,
    until_seconds: u64,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    User(#[from] IdentityProviderError),
    #[error(transparent)]
    Broker(#[from] ExchangeError),
}

impl Container {
    /// An endpoint under a new secret.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(grant: Grant) -> Result<Self, NoRandomness> {
        let mut random = Zeroizing::new([0_u8; 32]);
        fill_random(random.as_mut())?;
        let authorization = BASE64_URL_SAFE_NO_PAD.encode(random.as_ref()).into();
        Ok(Self { grant, authorization, held: Mutex::default() })
    }

    /// What a request must bring as `Authorization`.
    pub fn authorization(&self) -> &Secret<String> {
        &self.authorization
    }

    /// Its one route: [`PATH`].
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route(PATH, get(credentials)).with_state(Arc::clone(self))
    }

    async fn current(&self) -> Result<Zeroizing<String>, Refused> {
        let mut held = self.held.lock().await;
        let soon = self.grant.clock.now_seconds().saturating_add(RENEW_BEFORE_SECONDS);
        if let Some(held) = held.as_ref().filter(|held| soon < held.until_seconds) {
            return Ok(held.text.clone());
        }
        let new = self.grant.go_through().await?;
        let text = new.text.clone();
        *held = Some(new);
        Ok(text)
    }
}

impl Grant {
    /// The whole line.
    async fn go_through(&self) -> Result<Held, Refused> {
        let user_token = self.provider.issue_user_token("alice", self.platform, USER_TOKEN_LIFETIME)?;
        let request = ExchangeRequest::new(&self.resource, user_token.expose())
            .call(self.tool, self.arguments.clone().into())
            .workflow("dev");
        let token = self.agent.exchange(&request).await?;
        let asked = AwsAsk::new(token.access_token(), &self.arguments);
        let credentials = self.server.aws_credentials(&asked).await?;
        Ok(Held { text: credentials.to_container_json(), until_seconds: credentials.expires_at_seconds() })
    }
}

async fn credentials(State(container): State<Arc<Container>>, headers: HeaderMap) -> Response {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    if !bool::from(given.ct_eq(container.authorization.expose().as_bytes())) {
        return (StatusCode::UNAUTHORIZED, "give the authorization_token of the ready file as Authorization")
            .into_response();
    }
    let json = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match container.current().await {
        Ok(text) => (json, text.as_str().to_owned()).into_response(),
        Err(error) => {
            tracing::warn!(%error, "no credentials for the container endpoint");
            (StatusCode::SERVICE_UNAVAILABLE, "the broker gives no credentials now").into_response()
        }
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("tool", &self.grant.tool).finish_non_exhaustive()
    }
}

/// Where the credentials are.
pub const PATH: &str = "/credentials";
const USER_TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// A request that is signed now still arrives in the window.
const RENEW_BEFORE_SECONDS: u64 = 60;
