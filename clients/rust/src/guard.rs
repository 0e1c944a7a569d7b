//! What a guard asks of the broker in the name of its server: a fresh assertion (RFC 7523) is the bearer of each
//! request.

use crate::{
    answer,
    client::{Client, Credential},
    error::ExchangeError,
    transport::{receive, unreachable},
};
use serde::Deserialize;

/// A stream of what a guard has to know, as it comes.
pub struct GuardStream {
    response: reqwest::Response,
}

#[derive(Deserialize)]
struct Accepted {
    accepted: usize,
}

impl Client {
    /// Follows what the guard of this server has to know (`text/event-stream`).
    ///
    /// # Errors
    /// [`ExchangeError`]; a client with a bootstrap secret cannot ask this.
    pub async fn follow_guard_events(&self) -> Result<GuardStream, ExchangeError> {
        let url = &self.endpoints().await?.guard_events;
        let response = self.transport.send_bearer(url, &self.bearer()?, None).await?;
        if response.status().as_u16() == 200 {
            return Ok(GuardStream { response });
        }
        Err(answer::refusal(&receive(response).await?))
    }

    /// Reports what the guard of this server saw: the JSON of `{"events": […]}`. How many were accepted.
    ///
    /// # Errors
    /// As [`Client::follow_guard_events`].
    pub async fn report_guard_events(&self, json: &[u8]) -> Result<usize, ExchangeError> {
        let url = &self.endpoints().await?.guard_events;
        let response = self.transport.send_bearer(url, &self.bearer()?, Some(json)).await?;
        let received = receive(response).await?;
        if received.status != 200 {
            return Err(answer::refusal(&received));
        }
        let accepted: Accepted = serde_json::from_slice(&received.body)
            .map_err(|_| ExchangeError::Protocol("the answer to a report is malformed"))?;
        Ok(accepted.accepted)
    }

    fn bearer(&self) -> Result<zeroize::Zeroizing<String>, ExchangeError> {
        match &self.credential {
            Credential::Key(key) => self.assertion(key),
            Credential::Secret(_) | Credential::Certificate(_) => {
                Err(ExchangeError::Protocol("a guard needs a key, not a secret or a certificate"))
            }
        }
    }
}

impl GuardStream {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`ExchangeError::Unreachable`].
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]>>, ExchangeError> {
        self.response.chunk().await.map_err(unreachable)
    }
}

impl std::fmt::Debug for GuardStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardStream").finish_non_exhaustive()
    }
}
