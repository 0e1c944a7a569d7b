//! A cluster of Kubernetes, asked whose a token is (`authentication.k8s.io/v1`, TokenReview).

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use deputize_issuer::node::{ReviewFailed, Reviewed, TokenReview};
use reqwest::{Method, StatusCode, Url, header};
use serde::Deserialize;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::fetch::{CheckedClient, FetchError, Patience, Reach, collect, from_reqwest, system_lookup};

/// The API server of one cluster.
pub struct ClusterApi {
    client: CheckedClient,
    url: Url,
    /// What the broker proves itself by there; read anew each time, for it is renewed.
    token_file: PathBuf,
    timeout: Duration,
    places: Semaphore,
}

impl ClusterApi {
    /// The one at this address, whose certificate these authorities vouch for.
    ///
    /// # Errors
    /// If the certificates cannot be read, or the address is none.
    pub fn new(api: &Url, ca_file: Option<PathBuf>, token_file: PathBuf) -> Result<Self, FetchError> {
        Self::assemble(api, ca_file, (token_file, TIMEOUT))
    }

    fn assemble(
        api: &Url,
        ca_file: Option<PathBuf>,
        (token_file, timeout): (PathBuf, Duration),
    ) -> Result<Self, FetchError> {
        // A cluster's API is inside of the network, as a rule; who configures it says where.
        let reach = Reach { allow_private_addresses: true, allow_http: false, ca_file };
        let patience = Patience { connect: CONNECT_TIMEOUT, total: timeout, idle: Duration::ZERO };
        let url = api
            .join("/apis/authentication.k8s.io/v1/tokenreviews")
            .map_err(|_| FetchError::Url("no base"))?;
        let client = CheckedClient::of_one(reach, system_lookup(), patience)?;
        client.check_url(&url)?;
        Ok(Self { client, url, token_file, timeout, places: Semaphore::new(REVIEWS_AT_ONCE) })
    }

    async fn ask(&self, token: &str, audience: &str) -> Result<Reviewed, FetchError> {
        let own = tokio::fs::read_to_string(&self.token_file).await.map(Zeroizing::new);
        let own =
            own.map_err(|error| FetchError::Setup(format!("{}: {error}", self.token_file.display())))?;
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [audience] },
        });
        let request = self
            .client
            .request(Method::POST, &self.url)?
            .bearer_auth(own.trim())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity");
        let response = request.body(review.to_string()).send().await.map_err(from_reqwest)?;
        if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let body = collect(response, MAX_ANSWER_BYTES).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| FetchError::MediaType)?;
        // What is no review says nothing of the token: neither that it is good, nor that it is not.
        if answer.kind == "TokenReview" { Ok(answer.into()) } else { Err(FetchError::MediaType) }
    }
}

#[async_trait]
impl TokenReview for ClusterApi {
    async fn review(&self, token: &str, audience: &str) -> Result<Reviewed, ReviewFailed> {
        // Anybody may ask for a review: many at once do not become many requests at once.
        let _place = self.places.try_acquire().map_err(|_| ReviewFailed)?;
        // The client's own timeout does not cover name resolution.
        let asked = tokio::time::timeout(self.timeout, self.ask(token, audience)).await;
        asked.unwrap_or(Err(FetchError::Timeout)).map_err(|error| {
            tracing::warn!(%error, api = %self.url, "no token review");
            ReviewFailed
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    kind: String,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: BTreeMap<String, Vec<String>>,
}

impl From<Answer> for Reviewed {
    fn from(Answer { status, .. }: Answer) -> Self {
        Self {
            authenticated: status.authenticated,
            audiences: status.audiences,
            username: status.user.username,
            extra: status.user.extra,
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 256 * 1024;
const REVIEWS_AT_ONCE: usize = 16;
