//! Before anything is verified: a name for the request, and a rate for its source address.

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::HeaderValue;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};
use tracing::Instrument;

use super::error::DoorError;

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
        let key = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => v4.into(),
                None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            },
        };
        self.limiter.check_key(&key).is_ok()
    }
}

/// Refuses an address over its rate.
pub async fn limit_source(State(limit): State<Arc<SourceLimit>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    match peer {
        Some(peer) if !limit.admits(peer) => {
            metrics::counter!("deputize_refusals_total", "reason" => DoorError::RateLimited.reason()).increment(1);
            DoorError::RateLimited.into_response()
        }
        _ => next.run(request).await,
    }
}

/// Gives the request an id, a span, and common headers on its answer.
pub async fn name_request(request: Request<Body>, next: Next) -> Response {
    let id = uuid::Uuid::now_v7().to_string();
    let span = tracing::info_span!("request", request_id = %id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    let headers = response.headers_mut();
    super::error::insert(headers, "x-request-id", &id);
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
