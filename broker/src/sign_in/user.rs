//! A user who signs in, as the source of tokens for exchanges. What keeps the sign-in alive is in memory alone.

#[cfg(test)]
mod tests;

use super::{
    loopback::Loopback,
    provider::{PendingSignIn, Provider, SignInError, SignedIn},
};
use async_trait::async_trait;
use deputize_client::{
    TokenType,
    connect::user_tokens::{UserToken, UserTokenError, UserTokens},
};
use deputize_issuer::clock::Clock;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};

/// Signs the user in where that is needed: tells the URL, waits for the browser, and refreshes as long as the
/// provider lets.
pub(crate) struct SignedInUser(Arc<Desk>);

struct Desk {
    provider: Provider,
    clock: Arc<dyn Clock>,
    /// Tells where the user has to go.
    tell: Box<dyn Fn(&str) + Send + Sync>,
    state: Mutex<State>,
}

enum State {
    Nobody,
    /// The user was told this URL; the sender is gone once that came to something.
    Waiting(String, watch::Receiver<()>),
    Failed(SignInError),
    SignedIn(Box<SignedIn>),
}

impl SignedInUser {
    /// Nobody yet, at this provider.
    pub(crate) fn new(
        provider: Provider,
        clock: Arc<dyn Clock>,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Desk { provider, clock, tell: Box::new(tell), state: Mutex::new(State::Nobody) }))
    }

    /// Sends the user to the provider, without waiting for an answer.
    pub(crate) async fn begin(&self) -> Result<(), SignInError> {
        let mut state = self.0.state.lock().await;
        *state = self.0.begin().await?;
        Ok(())
    }
}

#[async_trait]
impl UserTokens for SignedInUser {
    async fn current(&self) -> Result<UserToken, UserTokenError> {
        let waiting = match self.0.advance().await? {
            Progress::Token(token) => return Ok(token),
            Progress::Waiting(url, done) => (url, done),
        };
        let (url, mut done) = waiting;
        // An error is what says that it is over.
        if tokio::time::timeout(PATIENCE, done.changed()).await.is_ok()
            && let Progress::Token(token) = self.0.advance().await?
        {
            return Ok(token);
        }
        Err(UserTokenError::new(
            format!("the user has to sign in at {url}"),
            "let the user open that address in a browser on this machine, then try again",
        ))
    }

    async fn refused(&self, token: &UserToken) {
        if let State::SignedIn(user) = &mut *self.0.state.lock().await
            && user.id_token.expose() == token.expose()
        {
            // The next one asks for it refreshes, or begins anew.
            user.expires_at_seconds = 0;
        }
    }
}

enum Progress {
    Token(UserToken),
    Waiting(String, watch::Receiver<()>),
}

impl Desk {
    /// What can be had now: a token, or what to wait for.
    async fn advance(self: &Arc<Self>) -> Result<Progress, UserTokenError> {
        let mut state = self.state.lock().await;
        let present = std::mem::replace(&mut *state, State::Nobody);
        let next = match present {
            State::SignedIn(user) if self.is_fresh(&user) => Ok(State::SignedIn(user)),
            State::SignedIn(user) => match self.refreshed(&user).await {
                Some(user) => Ok(State::SignedIn(Box::new(user))),
                None => self.begin().await,
            },
            State::Waiting(url, done) => Ok(State::Waiting(url, done)),
            State::Nobody => self.begin().await,
            // Told once; who asks again begins anew.
            State::Failed(error) => Err(error),
        };
        *state = next.map_err(|error| {
            UserTokenError::new(format!("the sign-in failed: {error}"), "try again, and sign in anew")
        })?;
        match &*state {
            State::SignedIn(user) => {
                UserToken::new(user.id_token.expose(), TokenType::IdToken).map(Progress::Token)
            }
            State::Waiting(url, done) => Ok(Progress::Waiting(url.clone(), done.clone())),
            State::Nobody | State::Failed(_) => {
                Err(UserTokenError::new("nobody is signed in", "try again, and sign in anew"))
            }
        }
    }

    async fn begin(self: &Arc<Self>) -> Result<State, SignInError> {
        let loopback =
            Loopback::listen().await.map_err(|error| SignInError::Unreachable(error.to_string()))?;
        let pending = self.provider.begin(loopback.redirect_uri().as_str(), None)?;
        let url = pending.url().to_string();
        (self.tell)(&url);
        let (done, waiting) = watch::channel(());
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            let _done = done;
            let outcome = tokio::time::timeout(SIGN_IN_WITHIN, desk.finish(loopback, pending)).await;
            *desk.state.lock().await = match outcome {
                Ok(Ok(user)) => State::SignedIn(Box::new(user)),
                Ok(Err(error)) => State::Failed(error),
                // Nobody came: the next request tells another URL.
                Err(_) => State::Nobody,
            };
        });
        Ok(State::Waiting(url, waiting))
    }

    async fn finish(&self, mut loopback: Loopback, pending: PendingSignIn) -> Result<SignedIn, SignInError> {
        while let Some(answer) = loopback.next().await {
            // Any program of this machine, and any page, can send something here.
            if self.provider.answers(&pending, &answer) {
                return self.provider.finish(pending, &answer).await;
            }
        }
        Err(SignInError::Foreign("no answer came"))
    }

    /// The same user with a newer token, if the provider gives one without asking him.
    async fn refreshed(&self, user: &SignedIn) -> Option<SignedIn> {
        match self.provider.refresh(user).await {
            Ok(user) => Some(user),
            Err(error) => {
                tracing::info!(%error, "the sign-in cannot be refreshed");
                None
            }
        }
    }

    /// Whether the token is good for a while yet.
    fn is_fresh(&self, user: &SignedIn) -> bool {
        user.expires_at_seconds > self.clock.now_seconds().saturating_add(MARGIN_SECONDS)
    }
}

const MARGIN_SECONDS: u64 = 60;
/// How long a request waits for the user: less than MCP clients usually do.
const PATIENCE: Duration = Duration::from_secs(45);
const SIGN_IN_WITHIN: Duration = Duration::from_secs(600);
