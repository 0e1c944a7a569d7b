//! FetchJWTSVID (SPIFFE Workload API §6.2.1).

use deputize_issuer::entry::parse_spiffe_id;
use spiffe::SpiffeId;

use super::{Api, Caller, unique_hints};
use crate::{
    error::Refused,
    proto::{Jwtsvid, JwtsvidRequest, JwtsvidResponse},
    source::SourceError,
};

/// JWT-SVIDs for all identities of the caller, or for the one that it names.
pub(super) async fn fetch(
    api: &Api,
    caller: &Caller,
    request: &JwtsvidRequest,
) -> Result<JwtsvidResponse, Refused> {
    check_audiences(&request.audience)?;
    let wanted = wanted_id(&request.spiffe_id)?;
    let (workload, mut entries) = api.entitled(caller).await?;
    entries.retain(|entry| wanted.as_ref().is_none_or(|id| *id == entry.spiffe_id));
    if entries.is_empty() {
        return Err(Refused::NotThatIdentity);
    }
    let hints = unique_hints(entries.iter().map(AsRef::as_ref));
    let mut svids = Vec::with_capacity(entries.len());
    for (entry, hint) in entries.iter().zip(hints) {
        match api.source.jwt_svid(&workload, entry, &request.audience).await {
            Ok(svid) => svids.push(Jwtsvid {
                spiffe_id: svid.spiffe_id.to_string(),
                svid: svid.token.expose().clone(),
                hint,
            }),
            // The entry has gone meanwhile.
            Err(SourceError::NotEntitled) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if svids.is_empty() {
        return Err(Refused::NotEntitled);
    }
    Ok(JwtsvidResponse { svids })
}

/// SPIFFE Workload API §4.5, §6.2.1: mandatory.
fn check_audiences(audiences: &[String]) -> Result<(), Refused> {
    if audiences.is_empty() {
        return Err(Refused::Invalid("audience is missing"));
    }
    if audiences.len() > MAX_AUDIENCES {
        return Err(Refused::Invalid("too many audiences"));
    }
    let is_bad = |audience: &String| {
        audience.is_empty() || audience.len() > MAX_AUDIENCE_BYTES || audience.chars().any(char::is_control)
    };
    if audiences.iter().any(is_bad) {
        return Err(Refused::Invalid("an audience has 1 to 512 bytes and no control characters"));
    }
    if audiences.iter().map(String::len).sum::<usize>() > MAX_AUDIENCES_BYTES {
        return Err(Refused::Invalid("all audiences together have at most 2048 bytes"));
    }
    Ok(())
}

/// The identity that a caller names, if it does.
pub(crate) fn wanted_id(text: &str) -> Result<Option<SpiffeId>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_spiffe_id(text).map(Some).map_err(|_| Refused::Invalid("spiffe_id is no SPIFFE ID"))
}

const MAX_AUDIENCES: usize = 16;
// As the issuer decides.
const MAX_AUDIENCE_BYTES: usize = 512;
const MAX_AUDIENCES_BYTES: usize = 2048;
