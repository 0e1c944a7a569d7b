//! ValidateJWTSVID (SPIFFE Workload API §6.2.3; SPIFFE JWT-SVID §2 to §4).

use deputize_call::{
    json::Object,
    jws::{self, EmbeddedKey, JwsError, UnverifiedJws},
    keys::Algorithm,
};
use deputize_issuer::{
    entry::{Entry, parse_spiffe_id},
    svid::{Bundle, Bundles},
};
use prost_types::{ListValue, Struct, Value, value::Kind};
use spiffe::SpiffeId;
use std::sync::Arc;

use super::{Api, Caller};
use crate::{
    error::Refused,
    proto::{ValidateJwtsvidRequest, ValidateJwtsvidResponse},
};

/// Verifies a token with the authorities of its own trust domain: ours, or one that an entry of the caller federates
/// with.
pub(super) async fn validate(
    api: &Api,
    caller: &Caller,
    request: &ValidateJwtsvidRequest,
) -> Result<ValidateJwtsvidResponse, Refused> {
    // SPIFFE Workload API §4.5, §6.2.3: all fields are mandatory.
    if request.audience.is_empty() {
        return Err(Refused::Invalid("audience is missing"));
    }
    if request.svid.is_empty() {
        return Err(Refused::Invalid("svid is missing"));
    }
    let (_, entries) = api.entitled(caller).await?;
    let bundles = api.source.bundles();
    let (id, claims) = verify(request, &bundles, &entries, api.clock.now_seconds())?;
    Ok(ValidateJwtsvidResponse { spiffe_id: id.to_string(), claims: Some(to_struct(claims)) })
}

fn verify(
    request: &ValidateJwtsvidRequest,
    bundles: &Bundles,
    entries: &[Arc<Entry>],
    now_seconds: u64,
) -> Result<(SpiffeId, Object), Refused> {
    let jws = jws::parse(&request.svid, EmbeddedKey::Refused).map_err(explain)?;
    check_header(&jws)?;
    let subject = jws::string_claim(&jws.claims, "sub", MAX_ID_BYTES).map_err(explain)?;
    let id = parse_spiffe_id(subject).map_err(|_| Refused::BadToken("its subject is no SPIFFE ID"))?;
    let bundle =
        bundle_of(&id, bundles, entries).ok_or(Refused::BadToken("its trust domain is unknown here"))?;
    bundle.jwt_authorities.verify(&jws).map_err(explain)?;
    // JWT-SVID §3.3: required.
    jws::check_times(&jws.claims, now_seconds, LEEWAY_SECONDS).map_err(explain)?;
    let audiences = jws::audiences(&jws.claims, MAX_AUDIENCES).map_err(explain)?;
    if !audiences.contains(&request.audience.as_str()) {
        return Err(Refused::BadToken("it is for another audience"));
    }
    Ok((id, jws.claims))
}

fn check_header(jws: &UnverifiedJws<'_>) -> Result<(), Refused> {
    // JWT-SVID §2.1: those of RFC 7518 §3.3 to §3.5, so not EdDSA.
    if jws.header.alg == Algorithm::EdDSA {
        return Err(Refused::BadToken("its algorithm is not one of a JWT-SVID"));
    }
    // JWT-SVID §2.3. An access token (`at+jwt`) under the same keys would be another thing.
    match jws.header.typ.as_deref() {
        None | Some("jwt" | "jose") => Ok(()),
        Some(_) => Err(Refused::BadToken("its type is not that of a JWT-SVID")),
    }
}

/// SPIFFE Workload API §6.3: the bundle of the subject's own trust domain, and no other.
fn bundle_of<'b>(id: &SpiffeId, bundles: &'b Bundles, entries: &[Arc<Entry>]) -> Option<&'b Bundle> {
    if id.is_member_of(&bundles.own.trust_domain) {
        return Some(&bundles.own);
    }
    let may_know =
        entries.iter().flat_map(|entry| &entry.federates_with).any(|domain| id.is_member_of(domain));
    let theirs = |bundle: &&Arc<Bundle>| may_know && id.is_member_of(&bundle.trust_domain);
    bundles.federated.iter().find(theirs).map(AsRef::as_ref)
}

fn explain(error: JwsError) -> Refused {
    Refused::BadToken(match error {
        JwsError::TooLong => "it is too long",
        JwsError::Malformed(why) | JwsError::Header(why) | JwsError::Key(why) => why,
        JwsError::Claim("exp", _) => "it has no time to live left",
        JwsError::Claim(..) => "a claim is missing or has an unacceptable value",
        JwsError::Algorithm => "its algorithm is not allowed",
        JwsError::UnknownKey => "no key of its trust domain signed it",
        _ => "its signature does not verify",
    })
}

/// All claims, as `google.protobuf.Struct` has them. The token was parsed strictly, so they are no deeper than 32
/// levels, and no number is beyond what a double holds.
fn to_struct(claims: Object) -> Struct {
    Struct { fields: claims.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

fn to_value(value: serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(list) => {
            Kind::ListValue(ListValue { values: list.into_iter().map(to_value).collect() })
        }
        serde_json::Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    Value { kind: Some(kind) }
}

/// JWT-SVID, Appendix A: small.
const LEEWAY_SECONDS: u64 = 5;
const MAX_AUDIENCES: usize = 64;
const MAX_ID_BYTES: usize = 2048;
