//! ValidateJWTSVID (SPIFFE Workload API §6.2.3; SPIFFE JWT-SVID §2 to §4).

use deputize_call::json::Object;
use deputize_issuer::{
    entry::Entry,
    svid::{Bundles, VerifiedJwtSvid, verify_jwt_svid},
};
use prost_types::{ListValue, Struct, Value, value::Kind};
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
    let bundles = known_to(&entries, &api.source.bundles());
    let verified = verify_jwt_svid(&request.svid, &bundles, api.clock.now_seconds(), &request.audience);
    let VerifiedJwtSvid { spiffe_id, claims, .. } = verified.map_err(Refused::BadToken)?;
    Ok(ValidateJwtsvidResponse { spiffe_id: spiffe_id.to_string(), claims: Some(to_struct(claims)) })
}

/// SPIFFE Workload API §6.3: ours, and of the others those that the caller may know.
fn known_to(entries: &[Arc<Entry>], bundles: &Bundles) -> Bundles {
    let may_know = |domain| entries.iter().any(|entry: &Arc<Entry>| entry.federates_with.contains(domain));
    let federated = bundles.federated.iter().filter(|bundle| may_know(&bundle.trust_domain));
    Bundles { own: Arc::clone(&bundles.own), federated: federated.cloned().collect() }
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
