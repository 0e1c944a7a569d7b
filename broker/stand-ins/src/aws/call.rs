//! A signed request to the stand-in, as an AWS SDK would send it. The example server calls AWS so; a real one uses an
//! SDK, which takes the same two values from the guard.

use deputize_call::secret::Secret;
use deputize_client::Clock;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use url::{Host, Url};

use super::{
    role::REGION,
    signature::{Scope, authorization, basic_time},
};

/// Keys of a role session, as a container's endpoint answers them.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Keys {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

/// Where a call's keys are, and the secret that goes with them.
#[derive(Debug, Clone)]
pub struct KeySource {
    /// Their URL, on this machine.
    pub uri: String,
    /// The value of `Authorization` there.
    pub authorization: Secret<String>,
}

/// AWS, as whoever has keys sees it.
#[derive(Clone)]
pub struct Aws {
    http: reqwest::Client,
    endpoint: Url,
    clock: Arc<dyn Clock>,
}

/// What is asked: the service, for JSON the target, and the body.
#[derive(Debug)]
pub struct Ask {
    /// As its endpoint is called: `ec2`.
    pub service: &'static str,
    /// `X-Amz-Target`.
    pub target: Option<&'static str>,
    /// A form, or JSON.
    pub body: String,
}

/// What was answered.
#[derive(Debug)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// XML, or JSON.
    pub body: String,
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There are no keys for this call, and why.
    #[error("no AWS credentials: {0}")]
    NoKeys(&'static str),
    /// Nobody answered.
    #[error("AWS does not answer: {0}")]
    Unreachable(#[from] reqwest::Error),
}

impl Aws {
    /// The stand-in at this URL.
    ///
    /// # Errors
    /// If there can be no HTTP client.
    pub fn at(endpoint: Url, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        Ok(Self { http: plain_client(TIMEOUT)?, endpoint, clock })
    }

    /// Fetches the keys of a call, from this machine alone: as SDKs do with `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn keys(&self, source: &KeySource) -> Result<Keys, CallError> {
        let url = Url::parse(&source.uri).map_err(|_| CallError::NoKeys("the URI is none"))?;
        let is_here = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            _ => false,
        };
        if !is_here {
            return Err(CallError::NoKeys("the URI is not on loopback"));
        }
        let request = self.http.get(url).header("authorization", source.authorization.expose());
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(CallError::NoKeys("the guard gives none for this call"));
        }
        let body = zeroize::Zeroizing::new(response.bytes().await?.to_vec());
        serde_json::from_slice(&body).map_err(|_| CallError::NoKeys("the guard's answer is malformed"))
    }

    /// Asks, signed with these keys.
    ///
    /// # Errors
    /// [`CallError::Unreachable`]; a refusal is an answer.
    pub async fn call(&self, keys: &Keys, ask: &Ask) -> Result<Answered, CallError> {
        let time = basic_time(self.clock.now_seconds());
        let host = match (self.endpoint.host_str(), self.endpoint.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let mut headers: BTreeMap<String, String> = BTreeMap::from([
            ("host".to_owned(), host),
            ("content-type".to_owned(), ask.content_type().to_owned()),
            ("x-amz-date".to_owned(), time.clone()),
            ("x-amz-security-token".to_owned(), keys.token.clone()),
        ]);
        headers.extend(ask.target.map(|target| ("x-amz-target".to_owned(), target.to_owned())));
        let scope = Scope { time: &time, region: REGION, service: ask.service };
        let of_whom = (keys.access_key_id.as_str(), keys.secret_access_key.as_str());
        let authorization = authorization(of_whom, scope, &headers, ask.body.as_bytes());
        let mut request = self.http.post(self.endpoint.clone()).header("authorization", authorization);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        let response = request.body(ask.body.clone()).send().await?;
        Ok(Answered { status: response.status().as_u16(), body: response.text().await? })
    }
}

#[cfg(test)]
impl Keys {
    /// Keys that came in another way.
    pub(super) fn new(access_key_id: &str, secret_access_key: &str, token: &str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            token: token.to_owned(),
        }
    }

    /// Id, secret, token.
    pub(super) fn parts(&self) -> (&str, &str, &str) {
        (&self.access_key_id, &self.secret_access_key, &self.token)
    }
}

impl Ask {
    /// An action of the query protocol.
    pub fn query(service: &'static str, action: &str, parameters: &[(&str, &str)]) -> Self {
        let version = if service == "ec2" { "2016-11-15" } else { "2011-06-15" };
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action).append_pair("Version", version).extend_pairs(parameters);
        Self { service, target: None, body: form.finish() }
    }

    fn content_type(&self) -> &'static str {
        match self.target {
            None => "application/x-www-form-urlencoded; charset=utf-8",
            Some(_) => "application/x-amz-json-1.0",
        }
    }
}

impl Answered {
    /// The code of the refusal.
    pub fn code(&self) -> &str {
        let between = |start: &str, end: &str| {
            let (_, rest) = self.body.split_once(start)?;
            rest.split_once(end).map(|(code, _)| code)
        };
        between("<Code>", "</Code>").or_else(|| between("#", "\"")).unwrap_or_default()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.secret_access_key.zeroize();
        self.token.zeroize();
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

/// A client that follows nothing.
pub(super) fn plain_client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    // One provider for the process; that it is there already is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(timeout).build()
}

const TIMEOUT: Duration = Duration::from_secs(10);
