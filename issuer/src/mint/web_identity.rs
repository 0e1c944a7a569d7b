//! The web identity: the token by which STS knows that a session of a role was decided here, for whom, and as what
//! (OpenID Connect Core §2; AWS STS, `AssumeRoleWithWebIdentity`, session tags and source identity).
//!
//! It says itself what the session will be: neither tags nor source identity can be changed on the way, nor can it be
//! taken to another role. It goes to STS and nowhere else.

use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

use crate::{
    clock::{self, Clock},
    decide::RoleTerms,
    error::IssueError,
    keys::KeySource,
    secret::Secret,
};

/// What signs web identities, and for whom. Keys of their own: no tool-call token is ever taken for one, or the other
/// way round.
#[derive(Debug)]
pub struct WebIdentity {
    /// Its keys, which turn with time. The one that signs is of the algorithm that is configured.
    pub keys: Arc<KeySource>,
    /// `iss`: where AWS finds discovery and keys.
    pub issuer: String,
    /// `aud`: as the account's identity provider has it.
    pub audience: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    /// Trust policies name it: `template:{tenant}:{name}`.
    sub: String,
    aud: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    #[serde(rename = "https://aws.amazon.com/tags")]
    tags: Tags<'a>,
    #[serde(rename = "https://aws.amazon.com/source_identity")]
    source_identity: &'a str,
    #[serde(rename = "https://aws.amazon.com/roles")]
    roles: [&'a str; 1],
}

#[derive(Serialize)]
struct Tags<'a> {
    /// Each a list of one value, as STS wants them.
    principal_tags: BTreeMap<&'a str, [&'a str; 1]>,
    /// None: whatever the session assumes next would carry them on.
    transitive_tag_keys: [&'a str; 0],
}

/// Signs the web identity of one session.
pub(super) fn sign(
    with: &WebIdentity,
    terms: &RoleTerms,
    clock: &dyn Clock,
) -> Result<Secret<String>, IssueError> {
    let (now, session) = (clock.now_seconds(), &terms.session);
    let principal_tags = session.tags.iter().map(|(key, value)| (key.as_str(), [value.as_str()])).collect();
    let claims = Claims {
        iss: &with.issuer,
        sub: format!("template:{}:{}", terms.claims.tenant, session.template),
        aud: &with.audience,
        iat: now,
        nbf: now,
        exp: now + LIFETIME_SECONDS,
        jti: clock::new_id(clock)?.to_string(),
        tags: Tags { principal_tags, transitive_tag_keys: [] },
        source_identity: &session.source_identity,
        roles: [&session.role_arn],
    };
    let signed = with.keys.ring().current.sign(TYP, &claims);
    signed.map(Secret::new).map_err(|_| IssueError::Internal("web_identity_not_signed"))
}

const TYP: &str = "JWT";
/// It is used at once.
const LIFETIME_SECONDS: u64 = 60;
