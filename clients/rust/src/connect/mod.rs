//! The agent's side as a local MCP server: any MCP client can use a guarded server without knowing of it.
//!
//! Each call of the local client gets a token of its own, made in the user's name for exactly that call, and a proof
//! for it. Everything else passes through: ids, progress, cancellation, what the server says unasked, and every
//! version of MCP from 2025-06-18 on. Tokens stay here: the local client sees none.

mod approvals;
mod conversation;
mod deliver;
mod failure;
mod front;
mod grants;
mod headers;
mod levels;
mod message;
mod mirrored;
mod outbox;
mod relay;
mod remote;
mod session;
mod stdio;
#[cfg(test)]
mod tests;
mod tools;
pub mod user_tokens;

use crate::{BuildError, Client, metadata::checked_url};
use approvals::Approvals;
pub use deputize_call::level::Level;
use grants::Grants;
use levels::Levels;
use remote::Remote;
use std::{sync::Arc, time::Duration};
use tools::Tools;
use user_tokens::UserTokens;

/// A guarded MCP server, reached in one user's name.
pub struct Connector {
    client: Arc<Client>,
    users: Arc<dyn UserTokens>,
    resource: String,
    remote: Remote,
    tools: Tools,
    levels: Arc<Levels>,
    approvals: Approvals,
    request_timeout: Duration,
}

/// Which server, and how.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// Where the server is: https, or http on loopback.
    pub url: String,
    /// Its resource URI at the broker, where that is another than its URL.
    pub resource: Option<String>,
    /// How tightly to bind the token of a call of a tool of which nothing is known: [`Level::L3`] for that call
    /// alone, or [`Level::L1`] for the tool, where its tier allows that.
    pub unknown_tools: Level,
    /// How long the server may take for an answer.
    pub request_timeout: Duration,
    /// Certificates (PEM) to trust instead of the platform's.
    pub ca_pem: Option<Vec<u8>>,
}

impl ConnectSettings {
    /// The server at this URL, with everything else as is best for most.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            resource: None,
            unknown_tools: Level::L3,
            request_timeout: Duration::from_secs(300),
            ca_pem: None,
        }
    }
}

impl Connector {
    /// Connects `client`, in the name of the user whose token `users` gives. Nothing is sent yet.
    ///
    /// # Errors
    /// If the URL or the certificates are of no use.
    pub fn new(
        client: Arc<Client>,
        users: Arc<dyn UserTokens>,
        settings: ConnectSettings,
    ) -> Result<Arc<Self>, BuildError> {
        let url = checked_url(&settings.url).ok_or(BuildError::Url("the server's URL"))?;
        let http = crate::transport::http(settings.ca_pem.as_deref(), None)?;
        let remote = Remote::new(http, url, Arc::clone(&client), settings.request_timeout);
        Ok(Arc::new(Self {
            resource: settings.resource.unwrap_or(settings.url),
            remote,
            client,
            users,
            tools: Tools::default(),
            levels: Arc::new(Levels::new(settings.unknown_tools)),
            approvals: Approvals::default(),
            request_timeout: settings.request_timeout,
        }))
    }

    fn grants(&self) -> Grants {
        let (client, users) = (Arc::clone(&self.client), Arc::clone(&self.users));
        Grants::new(client, users, &self.resource, Arc::clone(&self.levels))
    }

    fn uptime(&self) -> Duration {
        self.client.clock.uptime()
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("resource", &self.resource).finish_non_exhaustive()
    }
}
