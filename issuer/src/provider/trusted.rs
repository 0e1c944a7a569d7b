//! What is configured of one trusted issuer: how its tokens look, and what they say of a person.

use super::{COMMON_CLAIM, ClaimPath};
use deputize_call::keys::Algorithm;
use std::collections::BTreeMap;

/// The resolved configuration of one trusted issuer.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// `iss`, compared byte by byte.
    pub issuer: String,
    /// The tenant whose clients may bring its tokens.
    pub tenant: String,
    /// What its claims mean.
    pub claims: ClaimMapping,
    /// Signature algorithms accepted (RFC 8725 §3.1).
    pub algorithms: Vec<Algorithm>,
    /// `typ` headers accepted.
    pub accepted_types: AcceptedTypes,
    /// Grace on `exp`, `nbf`, `iat` and `auth_time`, in seconds.
    pub leeway_seconds: u64,
    /// Greatest age since `iat`, in seconds; `iat` is then required.
    pub max_age_seconds: Option<u64>,
}

/// The `typ` headers (lower-case, without `application/`) of a provider's tokens. An empty list refuses the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedTypes {
    /// Of access tokens.
    pub access_token: Vec<String>,
    /// Of ID tokens.
    pub id_token: Vec<String>,
    /// Whether the header may have no `typ` at all.
    pub absent: bool,
}

/// Where a provider's tokens say what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMapping {
    /// What identifies the person for good.
    pub stable: StableClaim,
    /// Where groups stand.
    pub groups: Vec<GroupsClaim>,
    /// Which groups (with their prefix, without the issuer) give which role. Any one suffices.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Claims passed to policy, by the name that they have there. At most 31.
    pub extra: BTreeMap<String, ClaimPath>,
    /// Authentication context class: a text.
    pub acr: ClaimPath,
    /// Authentication methods: texts.
    pub amr: ClaimPath,
    /// Time of authentication, seconds since the epoch.
    pub auth_time: ClaimPath,
    /// What identifies one human across issuers; carried as [`COMMON_CLAIM`](super::COMMON_CLAIM). `email` counts
    /// only beside `email_verified: true`.
    pub common_claim: Option<ClaimPath>,
    /// Claims that must be there with one of these texts (`tid`, `hd`, `org_id`).
    pub required: BTreeMap<ClaimPath, Vec<String>>,
    /// The claim that names the token's kind, where the provider has one (Keycloak's `typ`).
    pub kind_claim: Option<ClaimPath>,
    /// Claims that mark an application's own token: the text begins with the given one.
    pub application_marks: Vec<(ClaimPath, String)>,
    /// The claim without which an access token is an application's own (Entra ID's `scp`).
    pub person_mark: Option<ClaimPath>,
}

/// The claim that identifies the person for good. Both kinds of token must give the same value for the same person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StableClaim {
    /// In access tokens.
    pub access_token: ClaimPath,
    /// In ID tokens.
    pub id_token: ClaimPath,
}

/// A claim that lists groups or roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsClaim {
    /// Where.
    pub path: ClaimPath,
    /// Put before each, so that a role cannot be mistaken for a group of the same name.
    pub prefix: String,
}

impl Provider {
    /// What makes this configuration useless or unsafe.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let types = &self.accepted_types;
        if self.issuer.is_empty() || self.tenant.is_empty() {
            Some("issuer and tenant may not be empty")
        } else if self.algorithms.is_empty() {
            Some("no algorithm is accepted")
        } else if types.access_token.is_empty() && types.id_token.is_empty() {
            Some("no type of token is accepted")
        } else if types.id_token.iter().any(|typ| typ == "at+jwt") {
            // RFC 9068 §2.1: `at+jwt` is what tells an access token from an ID token.
            Some("at+jwt is not a type of ID tokens")
        } else if self.leeway_seconds > MAX_LEEWAY_SECONDS {
            Some("leeway is longer than five minutes")
        } else if self.claims.extra.len() >= MAX_EXTRA_CLAIMS {
            Some("more than 31 extra claims")
        } else if self.claims.extra.contains_key(COMMON_CLAIM) {
            Some("the name common_id is taken: configure common_claim")
        } else {
            None
        }
    }
}

impl GroupsClaim {
    /// Groups at `path`, with `prefix` before each.
    pub fn new(path: &str, prefix: &str) -> Self {
        Self { path: path.into(), prefix: prefix.to_owned() }
    }
}

impl StableClaim {
    /// One claim for both kinds.
    pub fn same(path: &str) -> Self {
        Self { access_token: path.into(), id_token: path.into() }
    }
}

const MAX_LEEWAY_SECONDS: u64 = 300;
/// One place is kept for [`COMMON_CLAIM`].
const MAX_EXTRA_CLAIMS: usize = 32;
