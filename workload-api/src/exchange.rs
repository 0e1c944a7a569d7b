//! Delegated exchange: a process brings its user's token and a proof of a key of its own, and gets a tool-call token in one
//! hop. Its registration entry is what a client's registration is elsewhere.

mod at_desk;
mod parameters;

pub(crate) use at_desk::exchange_at;

use deputize_issuer::words::{Remedy, Words};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, async_trait};
use uuid::Uuid;

use crate::{
    error::{Answered, Refused},
    proto::exchange::{ExchangeRequest, ExchangeResponse, delegated_exchange_server::DelegatedExchange},
    rpc::{Api, Caller, caller, wanted_id},
};

/// Why there is no token, as the broker says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotExchanged {
    /// What the process is told.
    pub words: Words,
    /// Under which id `explain` tells more; none where there was nothing to decide yet.
    pub decision_id: Option<Uuid>,
}

/// The service.
#[derive(Clone)]
pub(crate) struct Exchanges(pub(crate) Arc<Api>);

#[async_trait]
impl DelegatedExchange for Exchanges {
    async fn exchange(
        &self,
        request: Request<ExchangeRequest>,
    ) -> Result<Response<ExchangeResponse>, Answered> {
        let caller = caller(&request)?;
        Ok(Response::new(exchange(&self.0, &caller, request.get_ref()).await?))
    }
}

async fn exchange(
    api: &Api,
    caller: &Caller,
    request: &ExchangeRequest,
) -> Result<ExchangeResponse, Answered> {
    let wanted = wanted_id(&request.spiffe_id)?;
    let (workload, mut entries) = api.entitled(caller).await?;
    entries.retain(|entry| wanted.as_ref().is_none_or(|id| *id == entry.spiffe_id));
    // The broker refuses one that lets exchange nothing, and puts that on record.
    let entry = entries.iter().find(|entry| entry.exchange.is_some()).or(entries.first());
    let entry = entry.ok_or(Refused::NotThatIdentity)?;
    let exchanged = api.source.exchange(&workload, entry, request);
    match tokio::time::timeout(PATIENCE, exchanged).await {
        Ok(exchanged) => Ok(exchanged?),
        Err(_) => Err(Refused::Unavailable("the exchange takes too long: try again later").into()),
    }
}

impl NotExchanged {
    /// That nothing can be exchanged here now.
    pub fn unavailable(description: &str) -> Self {
        let words = Words { description: description.to_owned(), ..Words::unavailable() };
        Self { words, decision_id: None }
    }

    /// What helps.
    pub(crate) fn remedy(&self) -> Remedy {
        self.words.remedy
    }
}

/// The longest request: `authorization_details` of 48 KiB, a token of 16 KiB, a proof, and what else there is.
pub(crate) const MAX_REQUEST_BYTES: usize = 80 * 1024;
/// Keys of an identity provider may have to be fetched.
const PATIENCE: Duration = Duration::from_secs(30);
