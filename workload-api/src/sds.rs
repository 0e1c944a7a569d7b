//! Secret discovery for Envoy (SDS, version 3), on the same socket: the same X.509-SVIDs and bundles, to the same processes, in
//! the form that Envoy asks for. Names are those that are usual with SPIFFE: `default`, `ROOTCA`, `ALL`, SPIFFE IDs and the
//! IDs of trust domains.

mod conversation;
mod pem;
mod secrets;
mod share;

pub(crate) use share::Shares;

use conversation::Conversation;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio_stream::Stream;
use tonic::{Request, Response, Streaming, async_trait};

use crate::{
    error::{Answered, Refused},
    proto::{
        X509svidResponse,
        secrets::{
            DiscoveryRequest, DiscoveryResponse, secret_discovery_service_server::SecretDiscoveryService,
        },
    },
    rpc::{Api, Caller, Question as _, Watch, X509Svids},
};
use share::Share;

/// The service.
pub(crate) struct Secrets {
    pub(crate) api: Arc<Api>,
    pub(crate) shares: Shares,
}

#[async_trait]
impl SecretDiscoveryService for Secrets {
    type StreamSecretsStream = Told;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Told>, Answered> {
        let caller = Caller::of(&request)?;
        let share = self.shares.enter(caller.process.user()).ok_or(Refused::Busy)?;
        // Before a word is read: who is entitled to nothing is told so at once, and takes no memory.
        let states = Watch::begin(&self.api, caller).await?;
        Ok(Response::new(Told {
            states,
            requests: request.into_inner(),
            state: None,
            conversation: Conversation::default(),
            has_ended: false,
            _share: share,
        }))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Answered> {
        let caller = Caller::of(&request)?;
        let (workload, entries) = self.api.entitled(&caller).await?;
        let state = X509Svids::answer(&self.api, &workload, &entries).await?.message;
        let mut conversation = Conversation::default();
        conversation.hear(request.get_ref())?;
        let said = conversation.say(&state)?.ok_or(Refused::Broken)?;
        Ok(Response::new(said))
    }
}

/// One stream: what the process has, as it asks for it and whenever it changes.
pub(crate) struct Told {
    states: Watch<X509Svids>,
    requests: Streaming<DiscoveryRequest>,
    state: Option<X509svidResponse>,
    conversation: Conversation,
    has_ended: bool,
    _share: Share,
}

impl Told {
    /// What is to be said now, or that nothing is.
    fn poll_said(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<DiscoveryResponse, Answered>>> {
        loop {
            if let Some(state) = &self.state
                && let Some(said) = self.conversation.say(state)?
            {
                return Poll::Ready(Some(Ok(said)));
            }
            let heard = Pin::new(&mut self.requests).poll_next(context)?;
            let changed = Pin::new(&mut self.states).poll_next(context)?;
            if heard.is_pending() && changed.is_pending() {
                return Poll::Pending;
            }
            match heard {
                Poll::Ready(Some(request)) => self.conversation.hear(&request)?,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            match changed {
                Poll::Ready(Some(state)) => {
                    self.state = Some(state);
                    self.conversation.state_changed();
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
    }
}

impl Stream for Told {
    type Item = Result<DiscoveryResponse, Answered>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(None);
        }
        let said = this.poll_said(context);
        this.has_ended = matches!(said, Poll::Ready(None | Some(Err(_))));
        said
    }
}
