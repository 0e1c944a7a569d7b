//! The tokens of one conversation: one for listing that is kept while it lives, and for each call the one that it
//! takes. All of them belong to one transaction, as long as the broker goes on with it.

use super::{
    approvals::Approval,
    failure::Failure,
    levels::Levels,
    user_tokens::{UserToken, UserTokens},
};
use crate::{Client, Detail, ExchangeError, ExchangeRequest, ToolToken};
use deputize_call::{action::Action, digest::sha256, json::Object, level::Level};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Gets tokens in the user's name.
pub(super) struct Grants {
    pub(super) client: Arc<Client>,
    pub(super) users: Arc<dyn UserTokens>,
    pub(super) resource: String,
    pub(super) levels: Arc<Levels>,
    listing: tokio::sync::Mutex<Option<Listing>>,
    transaction: Mutex<Option<String>>,
}

/// A token for listing that lives.
struct Listing {
    token: ToolToken,
    /// SHA-256 of the user's token that it was made from: another user's is another.
    user: [u8; 32],
    until: Duration,
}

/// A call, as far as its token goes.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) action: Action,
    /// Name of the tool or prompt; URI of the resource.
    pub(super) name: String,
    pub(super) arguments: Object,
    pub(super) input_responses: Option<Value>,
    pub(super) request_state: Option<Value>,
}

impl Grants {
    pub(super) fn new(
        client: Arc<Client>,
        users: Arc<dyn UserTokens>,
        resource: &str,
        levels: Arc<Levels>,
    ) -> Self {
        let (listing, transaction) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { client, users, resource: resource.to_owned(), levels, listing, transaction }
    }

    /// A token for everything but calls (L0).
    pub(super) async fn listing(&self) -> Result<ToolToken, Failure> {
        // Held during the exchange: who comes meanwhile waits for the same token, and for its transaction.
        let mut listing = self.listing.lock().await;
        let user = sha256(self.users.current().await?.expose().as_bytes());
        let now = self.client.clock.uptime();
        if let Some(held) = listing.as_ref().filter(|held| held.user == user && now < held.until) {
            return Ok(held.token.clone());
        }
        *listing = None;
        let token = self.exchange((Action::CallTool, &Detail::Listing), None).await?;
        let until = now + Duration::from_secs(token.expires_in_seconds()).saturating_sub(MARGIN);
        *listing = Some(Listing { token: token.clone(), user, until });
        Ok(token)
    }

    /// A token for this call, of the least level that its tool is known to take.
    pub(super) async fn call(&self, call: &Call, approval: Option<&Approval>) -> Result<ToolToken, Failure> {
        let level = self.levels.of(&call.scope());
        let error = match self.exchange((call.action, &call.detail(level)), approval).await {
            Err(Failure::Exchange(error)) => error,
            outcome => return outcome,
        };
        // What the broker says of the level is learned; it never gives less than the tool's tier demands.
        let other = match (&error, level) {
            (ExchangeError::InvalidAuthorizationDetails(_), Level::L1) => Level::L3,
            // A server without a guard takes no tokens for single calls.
            (ExchangeError::InvalidTarget(_), Level::L3) => Level::L1,
            _ => return Err(Failure::Exchange(error)),
        };
        match self.exchange((call.action, &call.detail(other)), approval).await {
            Ok(token) => {
                self.levels.learn(&call.scope(), other);
                Ok(token)
            }
            // The first answer says more of what is wrong.
            Err(_) => Err(Failure::Exchange(error)),
        }
    }

    /// The server does not accept this token.
    pub(super) async fn forget(&self, token: &ToolToken) {
        self.client.forget(token);
        let mut listing = self.listing.lock().await;
        if listing.as_ref().is_some_and(|held| held.token.access_token() == token.access_token()) {
            *listing = None;
        }
    }

    async fn exchange(
        &self,
        detail: (Action, &Detail),
        approval: Option<&Approval>,
    ) -> Result<ToolToken, Failure> {
        let user = self.users.current().await?;
        let transaction = self.transaction();
        let error = match self.ask(&user, transaction.as_deref(), detail, approval).await {
            Err(error @ ExchangeError::InvalidRequest(_)) => error,
            outcome => return Ok(outcome?),
        };
        // Either the transaction is over (an hour, another person), or the user's token is.
        self.users.refused(&user).await;
        let renewed = self.users.current().await?;
        if transaction.is_none() && renewed.expose() == user.expose() {
            return Err(error.into());
        }
        *self.transaction.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(self.ask(&renewed, None, detail, approval).await?)
    }

    async fn ask(
        &self,
        user: &UserToken,
        transaction: Option<&str>,
        (action, detail): (Action, &Detail),
        approval: Option<&Approval>,
    ) -> Result<ToolToken, ExchangeError> {
        let mut request = ExchangeRequest::new(&self.resource, user.expose())
            .subject_token_type(user.kind())
            .action(action)
            .detail(detail.clone());
        if let Some(transaction) = transaction {
            request = request.transaction(transaction);
        }
        if let Some(approval) = approval {
            request = request.approval(&approval.id, Some(APPROVAL_WAIT_SECONDS));
        }
        let token = self.client.exchange(&request).await?;
        let begun = token.transaction_id().to_owned();
        *self.transaction.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        Ok(token)
    }

    fn transaction(&self) -> Option<String> {
        self.transaction.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Call {
    /// What it is known by among tools, prompts and resources.
    pub(super) fn scope(&self) -> String {
        self.action.scope(&self.name)
    }

    fn detail(&self, level: Level) -> Detail {
        let name = self.name.clone();
        match level {
            // Responses steer a call: only a token for exactly this call covers them.
            Level::L0 | Level::L1 if self.input_responses.is_none() && self.request_state.is_none() => {
                Detail::Tool { name }
            }
            _ => Detail::Call {
                name,
                arguments: Value::Object(self.arguments.clone()),
                input_responses: self.input_responses.clone(),
                request_state: self.request_state.clone(),
            },
        }
    }
}

/// A token is not sent out when it could expire on its way.
const MARGIN: Duration = Duration::from_secs(5);
/// How long the broker may hold its answer back while a person decides.
const APPROVAL_WAIT_SECONDS: u64 = 25;
