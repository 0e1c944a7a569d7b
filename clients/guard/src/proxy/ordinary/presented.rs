//! A person's own token in a request, as far as it can be judged without its issuer's keys: the broker has those. What
//! is garbage by itself is refused here, before it costs the broker anything.

use crate::{GuardConfig, IncomingCall, refusal::Reason};
use deputize_call::{
    digest::sha256,
    json::Object,
    jws::{self, EmbeddedKey, UnverifiedJws},
};
use serde_json::Value;
use std::time::Duration;

/// A person's own token that may be good here.
pub(super) struct Presented<'t> {
    pub(super) token: &'t str,
    /// SHA-256 of it: nothing else of it is kept.
    pub(super) tag: [u8; 32],
    /// Stands for the person that it speaks of, if it is good.
    pub(super) person: [u8; 32],
    /// How long it may still be used.
    pub(super) remaining: Duration,
}

impl<'t> Presented<'t> {
    /// The token of a request that presents one (RFC 6750 §2.1). `None`: the request brings something else, or nothing,
    /// and goes the way of all others.
    pub(super) fn of(call: &IncomingCall<'t>, config: &GuardConfig) -> Result<Option<Self>, Reason> {
        let header = call.single("authorization")?.and_then(|header| header.split_once(' '));
        let Some((_, token)) = header.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return Ok(None);
        };
        let jws = jws::parse(token, EmbeddedKey::Refused).map_err(|_| Reason::UserToken("malformed"))?;
        let issuer = text(&jws, "iss")?;
        if issuer == config.issuer {
            // One of the broker's own. Whether it needs no proof is for those to judge who judge all of them.
            return Ok(None);
        }
        if !config.accept_issuers.iter().any(|accepted| accepted == issuer) {
            return Err(Reason::UserToken("of another issuer"));
        }
        // MCP, token handling: never a token that was made for somebody else.
        let audiences = jws::audiences(&jws.claims, MAX_AUDIENCES);
        let audiences = audiences.map_err(|_| Reason::UserToken("for nobody"))?;
        if !audiences.contains(&config.resource.as_str()) {
            return Err(Reason::UserToken("for another resource"));
        }
        let times = jws::check_times(&jws.claims, call.now_seconds, config.leeway_seconds);
        let times = times.map_err(|_| Reason::UserToken("expired, or not yet valid"))?;
        // RFC 9449 §7.2: a bound token is never taken as a bearer token, with or without a proof. The guard could not
        // pass the proof on; who has the key exchanges by itself.
        if jws.claims.contains_key("cnf") || call.single("dpop")?.is_some() {
            return Err(Reason::UserToken("bound to a key"));
        }
        if !has_scopes(&jws.claims, &config.accept_scopes) {
            return Err(Reason::UserScope);
        }
        let person = sha256(format!("{issuer}\0{}", text(&jws, "sub")?).as_bytes());
        let remaining = Duration::from_secs(times.exp.saturating_sub(call.now_seconds));
        Ok(Some(Self { token, tag: sha256(token.as_bytes()), person, remaining }))
    }
}

fn text<'c>(jws: &'c UnverifiedJws<'_>, name: &'static str) -> Result<&'c str, Reason> {
    jws::string_claim(&jws.claims, name, MAX_URI_BYTES).map_err(|_| Reason::UserToken("lacks a claim"))
}

/// `scope` (RFC 9068 §2.2.3), or `scp` as some providers call it, there perhaps as an array.
fn has_scopes(claims: &Object, wanted: &[String]) -> bool {
    let has = |wanted: &String| {
        ["scope", "scp"].into_iter().filter_map(|name| claims.get(name)).any(|given| match given {
            Value::String(scopes) => scopes.split(' ').any(|scope| scope == wanted),
            Value::Array(scopes) => scopes.iter().any(|scope| scope.as_str() == Some(wanted)),
            _ => false,
        })
    };
    wanted.iter().all(has)
}

const MAX_URI_BYTES: usize = 2048;
const MAX_AUDIENCES: usize = 16;
