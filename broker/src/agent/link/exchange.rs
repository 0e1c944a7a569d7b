//! `POST /node/exchange`, and the broker's words where it says no.

use deputize_workload_api::{
    exchange::{Heard, MAX_REQUEST_BYTES, NotExchanged},
    node::wire::{ExchangeAnswer, ExchangeAsk},
};
use reqwest::{Client, Response, header};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Link, LinkError, MOST_BODIES_BYTES, Reach, collect, send};

/// Asks once: what came too late or was lost may have been decided, and its proof is used up then. Whoever asked makes a new
/// one.
pub(super) async fn exchange(link: &Link, ask: &ExchangeAsk) -> Result<ExchangeAnswer, NotExchanged> {
    let client = link.client.load_full();
    let is_followed = link.is_followed.load(Ordering::Acquire);
    let patience = if is_followed { PATIENCE } else { PATIENCE_WITHOUT_STREAM };
    match once((&client, &link.reach), (ask, patience)).await {
        // Refused at the door, where nothing is used up: the node renewed its SVID meanwhile, and has shown the new one
        // elsewhere.
        Err(NoAnswer::NotANode) if !Arc::ptr_eq(&client, &link.client.load_full()) => {
            once((&link.client.load_full(), &link.reach), (ask, patience)).await
        }
        answered => answered,
    }
    .map_err(NoAnswer::told)
}

/// Why there is no token.
enum NoAnswer {
    /// The broker says why.
    Refused(NotExchanged),
    /// It does not know this node by what was shown, or does no more.
    NotANode,
    /// It cannot be asked, or its answer is not understood.
    Away,
}

impl NoAnswer {
    fn told(self) -> NotExchanged {
        match self {
            Self::Refused(refused) => refused,
            Self::NotANode => NotExchanged::unavailable("this node has to attest itself anew"),
            Self::Away => NotExchanged::unavailable("the broker cannot be asked now"),
        }
    }
}

async fn once(
    place: (&Client, &Reach),
    (ask, patience): (&ExchangeAsk, Duration),
) -> Result<ExchangeAnswer, NoAnswer> {
    let away = |error: LinkError| {
        tracing::warn!(%error, "an exchange was not answered");
        NoAnswer::Away
    };
    let response = send(place, "/node/exchange", (ask, MOST_BYTES, patience)).await.map_err(away)?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let text = collect(response).await.map_err(away)?;
    serde_json::from_slice(&text)
        .map_err(|_| away(LinkError::Away("its answer is not understood".to_owned())))
}

async fn refusal(response: Response) -> NoAnswer {
    let status = response.status().as_u16();
    if status == 401 {
        return NoAnswer::NotANode;
    }
    let said = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let nonce = said("dpop-nonce");
    let retry_after_seconds = said(header::RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
    let text = collect(response).await.unwrap_or_default();
    let mut heard: Heard = serde_json::from_slice(&text).unwrap_or_default();
    (heard.nonce, heard.retry_after_seconds, heard.is_of_a_rate) =
        (nonce, retry_after_seconds, status == 429);
    NoAnswer::Refused(heard.into_refusal())
}

/// A process and a request, as the broker takes them: of quotes and backslashes, which JSON writes as two, there may be many.
const MOST_BYTES: usize = MOST_BODIES_BYTES + 2 * MAX_REQUEST_BYTES;
/// Less than the socket waits, more than an identity provider may take for its keys.
const PATIENCE: Duration = Duration::from_secs(25);
/// Where the broker's stream is gone: it is there in a moment, or not at all, and others wait for the place.
const PATIENCE_WITHOUT_STREAM: Duration = Duration::from_secs(5);
