//! Delegated exchange: a process brings its user's token and a proof of a key of its own, and gets a tool-call token in one
//! hop. Its registration entry is what a client's registration is elsewhere.

mod at_desk;
mod heard;
mod parameters;

pub(crate) use at_desk::exchange_at;
pub use at_desk::{Asking, exchange_by};
pub use heard::Heard;

use deputize_issuer::{
    entry::Entry,
    words::{Remedy, Words},
};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, async_trait};
use uuid::Uuid;

use crate::{
    error::{Answered, Refused},
    proto::exchange::{ExchangeRequest, ExchangeResponse, delegated_exchange_server::DelegatedExchange},
    rpc::{Api, Caller, wanted_id},
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
        let caller = Caller::of(&request)?;
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
    let entry = acting(&entries)?;
    let exchanged = api.source.exchange(&workload, entry, request);
    let exchanged = match tokio::time::timeout(PATIENCE, exchanged).await {
        Ok(exchanged) => exchanged?,
        Err(_) => {
            return Err(Refused::Unavailable("the exchange takes too long: try again later").into());
        }
    };
    // Keys may have had to be fetched: by now the process may have become another program, and then this is not its.
    let (_, entries) = api.entitled(caller).await?;
    let is_still = |now: &Arc<Entry>| now.id == entry.id && now.exchange == entry.exchange;
    if entries.iter().any(is_still) { Ok(exchanged) } else { Err(Refused::NotEntitled.into()) }
}

/// The one that acts. Where several identities may exchange, whoever asks must say which: the names of entries must not
/// decide in whose name something is done.
fn acting(entries: &[Arc<Entry>]) -> Result<&Arc<Entry>, Refused> {
    let mut exchanging = entries.iter().filter(|entry| entry.exchange.is_some());
    // The broker refuses one that lets exchange nothing, and puts that on record.
    let entry = exchanging.next().or(entries.first()).ok_or(Refused::NotThatIdentity)?;
    match exchanging.all(|other| other.spiffe_id == entry.spiffe_id) {
        true => Ok(entry),
        false => {
            Err(Refused::Invalid("several identities of this process may exchange: say which with spiffe_id"))
        }
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
pub const MAX_REQUEST_BYTES: usize = 80 * 1024;
/// Keys of an identity provider may have to be fetched.
const PATIENCE: Duration = Duration::from_secs(30);
