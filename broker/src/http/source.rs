//! Before anything is verified: a name for the request, and a rate for its source address.

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use deputize_issuer::{clock, desk::Desk};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::HeaderValue;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};
use tracing::Instrument;
use uuid::Uuid;

use super::error::{self, DoorError};

/// A rate for each source address; IPv6 by its /64, which one party owns whole.
#[derive(Debug)]
pub struct SourceLimit {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
}

impl SourceLimit {
    /// This many requests a second, with a burst of as many.
    pub fn new(per_second: u32) -> Self {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::keyed(Quota::per_second(rate)) }
    }

    /// Forgets addresses whose bucket is full again. Called every few seconds: the map is bounded by the rate.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    fn admits(&self, address: IpAddr) -> bool {
        self.limiter.check_key(&network_of(address)).is_ok()
    }
}

/// The address, or of IPv6 its /64, which one party owns whole.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

/// Refuses an address over its rate.
pub async fn limit_source(State(limit): State<Arc<SourceLimit>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    match peer {
        Some(peer) if !limit.admits(peer) => refuse(DoorError::RateLimited),
        _ => next.run(request).await,
    }
}

/// Counts a refusal of the door, and answers it.
pub fn refuse(error: DoorError) -> Response {
    metrics::counter!("deputize_refusals_total", "reason" => error.reason()).increment(1);
    error.into_response()
}

/// The id of a request, and of whatever is decided about it: every handler finds it among the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(pub Uuid);

/// Gives the request its id, a span, and common headers on its answer. Refusals of the door are put into words here,
/// where the id is known.
pub async fn name_request(State(desk): State<Arc<Desk>>, mut request: Request<Body>, next: Next) -> Response {
    let issuer = &desk.settings.issuer;
    let Ok(id) = clock::new_id(desk.clock.as_ref()) else {
        return error::in_words(DoorError::Unavailable, refuse(DoorError::Unavailable), issuer, None);
    };
    request.extensions_mut().insert(RequestId(id));
    let span = tracing::info_span!("request", request_id = %id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Some(refusal) = response.extensions_mut().remove::<DoorError>() {
        response = error::in_words(refusal, response, issuer, Some(id));
    }
    let headers = response.headers_mut();
    error::insert(headers, "x-request-id", &id.to_string());
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
