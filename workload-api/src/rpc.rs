//! The methods of the Workload API (SPIFFE Workload API §5.2, §6.2).

mod bundles;
mod jwt;
mod validate;
mod watch;
mod x509;

use deputize_issuer::{clock::Clock, entry::Entry, workload::Workload};
use prost::Message;
use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch as channel;
use tonic::{
    Request, Response, async_trait,
    codec::{BufferSettings, Codec},
};
use tonic_prost::ProstCodec;

use crate::{
    error::{Answered, Refused},
    held::Held,
    proto::{
        JwtBundlesRequest, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse,
        X509BundlesRequest, X509svidRequest, spiffe_workload_api_server::SpiffeWorkloadApi,
    },
    reception::Process,
    room::Room,
    source::SvidSource,
};
use bundles::{Bundled, JwtBundles, X509Bundles};
pub(crate) use jwt::wanted_id;
pub(crate) use watch::{Question, Watch};
pub(crate) use x509::X509Svids;

/// What all methods work with.
pub(crate) struct Api {
    pub(crate) source: Arc<dyn SvidSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) held: Arc<Held>,
    pub(crate) bundled: Bundled,
    pub(crate) room: Arc<Room>,
}

/// Who calls: the same for all calls of one connection.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) process: Arc<dyn Process>,
    /// Turns true when the server stops.
    pub(crate) stop: channel::Receiver<bool>,
    /// As it was found last: open streams share it.
    pub(crate) known: Arc<Mutex<Option<Arc<Workload>>>>,
}

/// The service.
#[derive(Clone)]
pub(crate) struct Methods(pub(crate) Arc<Api>);

#[async_trait]
impl SpiffeWorkloadApi for Methods {
    type FetchX509SVIDStream = Watch<X509Svids>;
    type FetchX509BundlesStream = Watch<X509Bundles>;
    type FetchJWTBundlesStream = Watch<JwtBundles>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Watch<X509Svids>>, Answered> {
        Ok(Response::new(Watch::begin(&self.0, Caller::of(&request)?).await?))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Watch<X509Bundles>>, Answered> {
        Ok(Response::new(Watch::begin(&self.0, Caller::of(&request)?).await?))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Answered> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(jwt::fetch(&self.0, &caller, request.get_ref()).await?))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Watch<JwtBundles>>, Answered> {
        Ok(Response::new(Watch::begin(&self.0, Caller::of(&request)?).await?))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Answered> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(validate::validate(&self.0, &caller, request.get_ref()).await?))
    }
}

impl Api {
    /// Who the caller is now, and what it is entitled to: never nothing.
    pub(crate) async fn entitled(
        &self,
        caller: &Caller,
    ) -> Result<(Arc<Workload>, Vec<Arc<Entry>>), Refused> {
        let workload = caller.attest().await?;
        let entries = self.source.entitled(&workload);
        if entries.is_empty() {
            return Err(Refused::NoIdentity(self.source.denied(&workload)));
        }
        self.room.welcome(caller.process.user());
        Ok((workload, entries))
    }
}

impl Caller {
    /// Who sent a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Refused> {
        // INVARIANT: whoever accepts a connection says who is at its other end.
        request.extensions().get::<Self>().cloned().ok_or(Refused::Broken)
    }

    async fn attest(&self) -> Result<Arc<Workload>, Refused> {
        let found = self.process.attest().await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref() {
            Some(known) if **known == found => Ok(Arc::clone(known)),
            _ => Ok(Arc::clone(known.insert(Arc::new(found)))),
        }
    }
}

/// Hints that no other has before it: where two entries have the same, the first keeps it (SPIFFE Workload API §5.2.1).
fn unique_hints<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for entry in entries {
        // Many may have none.
        let is_taken = hints.contains(&entry.hint);
        hints.push(if is_taken { String::new() } else { entry.hint.clone() });
    }
    hints
}

/// Messages as gRPC has them, in buffers no larger than they are: an open stream keeps its buffer.
pub struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}

const BUFFER_BYTES: usize = 64;
const YIELD_BYTES: usize = 32 * 1024;
