//! The AWS SDK's requests over our own HTTP client: addresses are checked, nothing is followed, answers are small.

use aws_sdk_sts::{
    config::{
        HttpClient, RuntimeComponents,
        http::{HttpRequest, HttpResponse},
    },
    error::ConnectorError,
};
use aws_smithy_runtime_api::{
    client::http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use reqwest::{Method, Url, header};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::super::fetch::{CheckedClient, FetchError, Lookup, Patience, Reach, from_reqwest};

/// Carries requests to STS.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: CheckedClient,
    attempt: Duration,
    attempts: Arc<AtomicU32>,
}

impl Transport {
    /// Each attempt may take this long.
    pub(super) fn new(reach: Reach, lookup: Lookup, attempt: Duration) -> Result<Self, FetchError> {
        let patience = Patience { connect: CONNECT_TIMEOUT, total: attempt, idle: IDLE_TIMEOUT };
        Ok(Self { client: CheckedClient::new(reach, lookup, patience)?, attempt, attempts: Arc::default() })
    }

    /// The same, for one call: its attempts are counted from here on.
    pub(super) fn counting(&self) -> Self {
        Self { attempts: Arc::default(), ..self.clone() }
    }

    /// How often STS was asked.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    async fn exchange(&self, request: &HttpRequest) -> Result<HttpResponse, FetchError> {
        let url = Url::parse(request.uri()).map_err(|_| FetchError::Url("not a URL"))?;
        let method =
            Method::from_bytes(request.method().as_bytes()).map_err(|_| FetchError::Url("not a method"))?;
        let body = request.body().bytes().unwrap_or_default().to_vec();
        let mut ours = self.client.request(method, &url)?.header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in request.headers().iter() {
            ours = ours.header(name, value);
        }
        let response = ours.body(body).send().await.map_err(from_reqwest)?;
        receive(response).await
    }
}

async fn receive(mut response: reqwest::Response) -> Result<HttpResponse, FetchError> {
    // Nothing is inflated: a small answer cannot grow.
    if response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(FetchError::MediaType);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(from_reqwest)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let status = StatusCode::try_from(response.status().as_u16()).map_err(|_| FetchError::MediaType)?;
    let mut answer = HttpResponse::new(status, SdkBody::from(body));
    // `Date` and the request's id are all that is read of them.
    for name in ["date", "x-amzn-requestid"] {
        if let Some(value) = response.headers().get(name).and_then(|value| value.to_str().ok()) {
            answer.headers_mut().append(name, value.to_owned());
        }
    }
    Ok(answer)
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let transport = self.clone();
        self.attempts.fetch_add(1, Ordering::Relaxed);
        HttpConnectorFuture::new(async move {
            // The client's own timeout does not cover name resolution.
            let answered = tokio::time::timeout(transport.attempt, transport.exchange(&request)).await;
            answered.unwrap_or(Err(FetchError::Timeout)).map_err(in_words_of_the_sdk)
        })
    }
}

impl HttpClient for Transport {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Which failures are tried once more is decided by this.
fn in_words_of_the_sdk(error: FetchError) -> ConnectorError {
    match error {
        FetchError::Timeout => ConnectorError::timeout(error.into()),
        FetchError::Transport(_) => ConnectorError::io(error.into()),
        FetchError::Setup(_)
        | FetchError::Url(_)
        | FetchError::Address
        | FetchError::Status(_)
        | FetchError::MediaType
        | FetchError::TooLarge => ConnectorError::other(error.into(), None),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than addresses of AWS's endpoints stay what they are: a call on a connection that is open costs one journey.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Answers of STS have some 2 KiB, most of it the session token.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;
