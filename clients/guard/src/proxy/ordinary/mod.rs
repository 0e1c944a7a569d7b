//! Clients that know OAuth and nothing of us: they present the person's own token as it stands (RFC 6750), and the guard
//! makes the exchange that an agent of ours would have made.
//!
//! What comes of it is a token like any other, bound to the guard's own key, and the request goes on with it through
//! [`Guard::examine`](crate::Guard::examine) and [`Guard::admit`](crate::Guard::admit): there is no second way to the
//! server.

mod exchanger;
mod grants;
mod held;
mod presented;
mod throttle;

pub use self::exchanger::{Exchanger, Minted};
pub(super) use self::grants::Ordinary;

use self::{held::Moment, presented::Presented};
use super::{Proxy, reply::Trouble, versions};
use crate::{Caller, Examined, IncomingCall, Refusal, VerifiedStream, message::Message, refusal::Reason};
use serde_json::Value;
use std::{net::IpAddr, time::Duration};
use zeroize::Zeroizing;

/// A request that may run, and how its sender is spoken to.
pub(super) struct Heard {
    pub(super) examined: Examined,
    /// It presented a person's own token: the id under which it is answered.
    pub(super) ordinary: Option<Value>,
}

/// A request without a body that may be served.
pub(super) struct HeardStream {
    pub(super) stream: VerifiedStream,
    /// It presented a person's own token, which is good for so long.
    pub(super) remaining: Option<Duration>,
}

/// Header fields of a request, the guard's own token and proof in the place of the person's token.
struct Own<'c> {
    rest: Vec<(&'c str, &'c str)>,
    authorization: Zeroizing<String>,
    proof: String,
}

impl Proxy {
    /// Examines a request, whoever sends it.
    pub(super) async fn hear(&self, call: &IncomingCall<'_>, source: IpAddr) -> Result<Heard, Trouble> {
        let Some((ordinary, presented)) = self.presented(call)? else {
            let examined = self.guard.examine(call).map_err(|refusal| versions::refused(refusal, call))?;
            return Ok(Heard { examined, ordinary: None });
        };
        self.admitted(call)?;
        let message = self.guard.read(call).map_err(|reason| self.refused(call, reason, None))?;
        let id = message.whole().get("id").cloned().unwrap_or_default();
        let own = self.own(call, (ordinary, &presented), Some(&message), source).await;
        let own = own.map_err(|reason| self.refused(call, reason, Some(&id)))?;
        let examined = self.guard.examine_message(&sent_by_us(call, &own.fields()), message);
        let examined = examined.map_err(|refusal| self.told(*refusal, (ordinary, &presented), Some(&id)))?;
        Ok(Heard { examined, ordinary: Some(id) })
    }

    /// As [`Proxy::hear`], for `GET` and `DELETE`.
    pub(super) async fn hear_stream(
        &self,
        call: &IncomingCall<'_>,
        source: IpAddr,
    ) -> Result<HeardStream, Trouble> {
        let Some((ordinary, presented)) = self.presented(call)? else {
            return Ok(HeardStream { stream: self.guard.verify_stream(call).await?, remaining: None });
        };
        self.admitted(call)?;
        let own = self.own(call, (ordinary, &presented), None, source).await;
        let own = own.map_err(|reason| self.refused(call, reason, None))?;
        let stream = self.guard.verify_stream(&sent_by_us(call, &own.fields())).await;
        let stream = stream.map_err(|refusal| self.told(refusal, (ordinary, &presented), None))?;
        Ok(HeardStream { stream, remaining: Some(presented.remaining) })
    }

    /// Whether whoever sends this may call, before anything is asked for him.
    fn admitted(&self, call: &IncomingCall<'_>) -> Result<(), Trouble> {
        let callers = self.guard.config.caller_svids.as_ref();
        let admitted = callers.map_or(Ok(()), |callers| callers.admit(call));
        admitted.map_err(|reason| self.refused(call, reason, None))
    }

    /// What the request presents, where that is accepted; `None` where it brings something else.
    fn presented<'c>(&self, call: &IncomingCall<'c>) -> Result<Option<(&Ordinary, Presented<'c>)>, Trouble> {
        let Some(ordinary) = &self.ordinary else { return Ok(None) };
        let presented = Presented::of(call, &self.guard.config);
        let presented = presented.map_err(|reason| self.refused(call, reason, None))?;
        Ok(presented.map(|presented| (ordinary, presented)))
    }

    /// The guard's own token for what the request wants, with a proof of its own for this very request.
    async fn own<'c>(
        &self,
        call: &IncomingCall<'c>,
        (ordinary, presented): (&Ordinary, &Presented<'_>),
        message: Option<&Message>,
        source: IpAddr,
    ) -> Result<Own<'c>, Reason> {
        let snapshot = self.guard.current_snapshot(call.now_seconds)?;
        let now = Moment { uptime: call.uptime, version: snapshot.version() };
        let token = ordinary.token(presented, (message, &snapshot), (source, now)).await?;
        ordinary.may_send(presented, now)?;
        let (url, nonce) = (&self.guard.config.public_url, self.guard.next_nonce(call.uptime));
        let proof = ordinary.prove(call.method, url, &token, &nonce)?;
        let is_own = |name: &str| ["authorization", "dpop"].iter().any(|own| name.eq_ignore_ascii_case(own));
        let rest = call.headers.iter().filter(|(name, _)| !is_own(name)).copied().collect();
        Ok(Own { rest, authorization: Zeroizing::new(format!("DPoP {}", *token)), proof })
    }

    fn refused(&self, call: &IncomingCall<'_>, reason: Reason, id: Option<&Value>) -> Trouble {
        self.guard.refuse(reason, call.uptime, None).for_ordinary(&self.guard.config, id).into()
    }

    /// The line refused what the guard got for the request.
    fn told(
        &self,
        refusal: Refusal,
        (ordinary, presented): (&Ordinary, &Presented<'_>),
        id: Option<&Value>,
    ) -> Trouble {
        if refusal.status == 401 {
            // Revoked, or used up: the next request asks the broker anew.
            ordinary.forget(presented);
        }
        refusal.for_ordinary(&self.guard.config, id).into()
    }
}

/// The request with these fields: as far as the token goes, the guard sends it.
fn sent_by_us<'f>(call: &IncomingCall<'f>, fields: &'f [(&'f str, &'f str)]) -> IncomingCall<'f> {
    IncomingCall { headers: fields, caller: Caller::guard(), ..*call }
}

impl Own<'_> {
    fn fields(&self) -> Vec<(&str, &str)> {
        let own = [("authorization", self.authorization.as_str()), ("dpop", self.proof.as_str())];
        self.rest.iter().copied().chain(own).collect()
    }
}
