//! The guard as a layer before a service of the same process: an MCP server that answers each request by itself.
//!
//! The service gets the body as it was verified, and with a call an `Arc<VerifiedCall>` among the request's
//! extensions. It keeps no sessions: requests come to it without a session id, and neither GET, DELETE nor clients'
//! responses reach it, since nothing here could say whose they are. For servers with sessions use the proxy.

use super::{
    ClientCertificate,
    failure::Failure,
    handover::{AUTHORIZATION_HEADER, URI_HEADER},
    reply::Trouble,
    screen::{Asked, Passed, Screen},
    traceparent::is_traceparent,
    versions,
    watch::Watch,
};
use crate::{
    CredentialSource, Guard, IncomingCall, Verified, VerifiedCall, VerifiedListing, message::LISTEN, mirrored,
};
use axum::body::Body;
use bytes::Bytes;
use deputize_client::{Clock, sse::Reader};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Layer, Service};

/// Puts a [`Guard`] before a service.
///
/// Tell the guard of the server's tools with [`Guard::observe_tools`], and of its prompts with
/// [`Guard::observe_prompts`]: calls are refused until then.
#[derive(Clone)]
pub struct GuardLayer {
    guard: Arc<Guard>,
    clock: Arc<dyn Clock>,
    credential_source: Option<Arc<dyn CredentialSource>>,
}

/// A service behind a guard.
#[derive(Clone)]
pub struct Guarded<S> {
    layer: GuardLayer,
    inner: S,
}

impl GuardLayer {
    /// A layer of this guard. The clock must be the one that the guard's other times come from.
    pub fn new(guard: Arc<Guard>, clock: Arc<dyn Clock>) -> Self {
        Self { guard, clock, credential_source: None }
    }

    /// Lets handlers ask for the AWS credentials of their calls ([`VerifiedCall::aws_credentials`]).
    #[must_use]
    pub fn aws_credentials(mut self, source: Arc<dyn CredentialSource>) -> Self {
        self.credential_source = Some(source);
        self
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { layer: self.clone(), inner }
    }
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: hyper::body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    R: hyper::body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was found ready is the one to call; a clone of it waits for the next request.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let gate = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let passed = match gate.pass(&mut parts, body).await {
                Ok(passed) => passed,
                Err(trouble) => return Ok(gate.refusal(&trouble)),
            };
            let answered = inner.call(Request::from_parts(parts, B::from(passed.body))).await?;
            let mut response = match passed.screen {
                None => answered.map(|body| Body::new(body.map_err(Into::into))),
                Some(screen) => match screened(&screen, answered).await {
                    Ok(response) => response,
                    Err(failure) => gate.refusal(&failure.into()),
                },
            };
            // What a client would send back of itself is bound to nobody.
            for name in WITHHELD {
                response.headers_mut().remove(name);
            }
            set(response.headers_mut(), "dpop-nonce", &passed.next_nonce);
            Ok(response)
        })
    }
}

/// A request that goes on.
struct PassedOn {
    body: Bytes,
    next_nonce: String,
    /// What looks at its answer; calls' answers are the service's own.
    screen: Option<Screen>,
}

impl GuardLayer {
    async fn pass<B>(&self, parts: &mut Parts, body: B) -> Result<PassedOn, Trouble>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if parts.method != Method::POST {
            return Err(Failure::NoStream.into());
        }
        let body = read(body, self.guard.config.max_body_bytes).await?;
        let headers = std::mem::take(&mut parts.headers);
        let fields = super::passage::fields(&headers)?;
        let certificate = parts.extensions.get::<ClientCertificate>();
        let call = IncomingCall {
            method: "POST",
            headers: &fields,
            body: &body,
            client_certificate: certificate.map(ClientCertificate::thumbprint),
            caller: certificate.map(ClientCertificate::caller).unwrap_or_default(),
            uptime: self.clock.uptime(),
            now_seconds: self.clock.now_seconds(),
        };
        let examined = self.guard.examine(&call).map_err(|refusal| versions::refused(refusal, &call))?;
        if examined.message.method() == LISTEN {
            return Err(versions::unknown_method(&call));
        }
        let id = examined.message.whole().get("id").cloned();
        let verified = self.guard.admit(examined).await?;
        parts.headers = kept(&headers);
        match verified {
            Verified::Call(call) => Ok(self.call(parts, call)),
            Verified::Listing(listing) => Ok(self.listing(parts, listing, id)),
            Verified::Response(_) => Err(Failure::NoSession.into()),
        }
    }

    fn call(&self, parts: &mut Parts, call: VerifiedCall) -> PassedOn {
        set(&mut parts.headers, "mcp-method", call.action().as_str());
        set(&mut parts.headers, "mcp-name", &mirrored::encode(call.name()));
        for (name, value) in call.mirrored_headers() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                parts.headers.insert(name, value);
            }
        }
        let body = Bytes::copy_from_slice(call.rebuilt_body());
        let next_nonce = call.next_nonce().to_owned();
        if let Some(source) = &self.credential_source {
            call.give_aws(&self.guard, source, &self.clock);
        }
        parts.extensions.insert(Arc::new(call));
        PassedOn { body, next_nonce, screen: None }
    }

    fn listing(&self, parts: &mut Parts, listing: VerifiedListing, id: Option<Value>) -> PassedOn {
        set(&mut parts.headers, "mcp-method", listing.method());
        let body = Bytes::copy_from_slice(listing.rebuilt_body());
        let next_nonce = listing.next_nonce().to_owned();
        let method = listing.method().to_owned();
        let screen = id.map(|id| Screen {
            guard: Arc::clone(&self.guard),
            watch: Arc::new(Watch::default()),
            clock: Arc::clone(&self.clock),
            claims: listing.claims().clone(),
            asked: Some(Asked { id, method }),
            session: None,
            streams_alone: false,
        });
        PassedOn { body, next_nonce, screen }
    }

    fn refusal(&self, trouble: &Trouble) -> Response<Body> {
        let mut response = trouble.response();
        if !response.headers().contains_key("dpop-nonce") {
            set(response.headers_mut(), "dpop-nonce", &self.guard.next_nonce(self.clock.uptime()));
        }
        response
    }
}

/// Header fields that go on: how the message is framed, and where it was sent, so that the service can check that.
/// Nothing else that a client says reaches it, for nobody verified it: no credentials, no cookies, no `Forwarded` or
/// `X-Forwarded-…`, which speak for a reverse proxy, and no `Deputize-…`, which speaks for a guard.
fn kept(headers: &HeaderMap) -> HeaderMap {
    let is_kept = |(name, value): &(&HeaderName, &HeaderValue)| match name.as_str() {
        "traceparent" => value.to_str().is_ok_and(is_traceparent),
        name => KEPT.contains(&name),
    };
    headers.iter().filter(is_kept).map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn read<B>(body: B, max_bytes: usize) -> Result<Bytes, Failure>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match Limited::new(body, max_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::BodyTooLarge),
        Err(_) => Err(Failure::BodyBroken),
    }
}

/// The answer to a request that only looks: reduced to what the caller may see, or not given at all.
async fn screened<R>(screen: &Screen, answered: Response<R>) -> Result<Response<Body>, Failure>
where
    R: hyper::body::Body<Data = Bytes>,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (mut parts, body) = answered.into_parts();
    let bytes = read(body, MAX_LISTING_BYTES).await.map_err(|_| Failure::TooLarge)?;
    let media = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let texts: Vec<String> = if media.starts_with(b"text/event-stream") {
        let events = Reader::new(MAX_LISTING_BYTES).take_in(&bytes)?;
        events.into_iter().map(|event| event.data).filter(|data| !data.is_empty()).collect()
    } else {
        vec![String::from_utf8_lossy(&bytes).into_owned()]
    };
    for text in texts {
        let message = serde_json::from_str(&text).map_err(|_| Failure::Broken("what is no message"))?;
        if let Passed::Last(message, _) = screen.pass(message)? {
            parts.headers.remove(header::CONTENT_LENGTH);
            set(&mut parts.headers, "content-type", "application/json");
            return Ok(Response::from_parts(parts, Body::from(Value::Object(message).to_string())));
        }
    }
    Err(Failure::Broken("no response"))
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

impl std::fmt::Debug for GuardLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardLayer").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl<S> std::fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("guard", &self.layer.guard).finish_non_exhaustive()
    }
}

const KEPT: [&str; 6] = ["accept", "content-type", "host", "origin", "user-agent", "mcp-protocol-version"];
const WITHHELD: [&str; 4] = ["set-cookie", "mcp-session-id", URI_HEADER, AUTHORIZATION_HEADER];
const MAX_LISTING_BYTES: usize = 8 * 1024 * 1024;
