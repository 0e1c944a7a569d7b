//! One token's claims, read once, and the checks that run each time it is presented.

use super::{
    MayAct, PARTY_CLAIMS, Provider, SubjectTokenType, UserTokenError, delegation, describe, kind::TokenKind,
};
use crate::{client::AcceptedBearer, person::Person};
use deputize_call::{
    claims::{Actor, Confirmation},
    digest::sha256,
    json::Object,
    jws::{self, UnverifiedJws},
};
use std::sync::Arc;

/// A user's token that passed every check.
#[derive(Debug, Clone)]
pub struct VerifiedUserToken {
    /// Who it speaks for.
    pub person: Arc<Person>,
    /// `exp`, seconds since the epoch.
    pub expires_at: u64,
    /// SHA-256 of what was signed: the same for every form of one token, whatever its encoding as ECDSA signature
    /// (of which each has a twin) or its encryption.
    pub token_hash: [u8; 32],
    /// Who alone may act for the person, if the token says so.
    pub may_act: Option<MayAct>,
    /// Who already acts for the person.
    pub act: Option<Actor>,
    /// The key that the token is bound to.
    pub bound_to: Option<Confirmation>,
    /// Its audiences.
    pub audiences: Arc<[String]>,
    /// The client that it was made for, where it names one alone.
    pub party: Option<Arc<str>>,
}

/// What a token must be this time.
pub(super) struct Asked<'a> {
    pub(super) kind: SubjectTokenType,
    pub(super) tenant: &'a str,
    pub(super) brought: Brought<'a>,
    pub(super) now_seconds: u64,
    /// Whether an application may stand behind it rather than a person.
    pub(super) applications: bool,
}

/// In which capacity somebody brings it: whom it must have been made for.
pub(super) enum Brought<'a> {
    /// It was issued to the client that brings it: `aud`, and the authorized party, are on this list.
    IssuedTo(&'a [String]),
    /// It was presented to a server, whose guard brings it.
    PresentedTo { resource: &'a str, accepted: &'a [AcceptedBearer] },
}

/// The claims of one token, parsed. Holds nothing that depends on when or by whom it is presented.
pub(super) struct ReadToken {
    kind: TokenKind,
    of_application: bool,
    /// `exp`, `nbf`, `iat` as they stand.
    times: Object,
    parties: Vec<(&'static str, String)>,
    verified: VerifiedUserToken,
    weight: u32,
}

impl ReadToken {
    /// Reads the claims and all that they imply by themselves.
    pub(super) fn read(provider: &Provider, jws: &UnverifiedJws<'_>) -> Result<Self, UserTokenError> {
        let claims = &jws.claims;
        let kind = TokenKind::read(provider, &jws.header, claims)?;
        jws::string_claim(claims, "sub", MAX_SUBJECT_BYTES)?;
        let times: Object = ["exp", "nbf", "iat"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), claims.get(name)?.clone())))
            .collect();
        let mut parties = Vec::new();
        for name in PARTY_CLAIMS.into_iter().filter(|name| claims.contains_key(*name)) {
            parties.push((name, jws::string_claim(claims, name, MAX_PARTY_BYTES)?.to_owned()));
        }
        let verified = VerifiedUserToken {
            person: Arc::new(describe::person(provider, kind, claims)?),
            expires_at: claims.get("exp").and_then(serde_json::Value::as_u64).unwrap_or_default(),
            token_hash: sha256(jws.signing_input.as_bytes()),
            may_act: delegation::may_act(claims)?,
            act: delegation::act(claims)?,
            bound_to: delegation::bound_to(claims)?,
            audiences: jws::audiences(claims, MAX_AUDIENCES)?.into_iter().map(str::to_owned).collect(),
            party: match parties.split_first() {
                Some(((_, party), more)) if more.iter().all(|(_, other)| other == party) => {
                    Some(party.as_str().into())
                }
                _ => None,
            },
        };
        // Parsed claims take about as much again as their text, plus a fixed overhead.
        let weight = u32::try_from(2 * jws.signing_input.len() + 1024).unwrap_or(u32::MAX);
        let of_application = describe::is_of_application(provider, kind, claims);
        Ok(Self { kind, of_application, times, parties, verified, weight })
    }

    /// The checks that depend on the moment and on who asks. Cheap: they run before any signature is verified.
    pub(super) fn check(&self, provider: &Provider, asked: &Asked<'_>) -> Result<(), UserTokenError> {
        if provider.tenant != asked.tenant {
            return Err(UserTokenError::Tenant);
        }
        self.kind.check(asked.kind)?;
        if self.of_application && !asked.applications {
            return Err(UserTokenError::NotAPerson);
        }
        let times = jws::check_times(&self.times, asked.now_seconds, provider.leeway_seconds)?;
        let latest = asked.now_seconds.saturating_add(provider.leeway_seconds);
        if let Some(max_age) = provider.max_age_seconds {
            let oldest = asked.now_seconds.saturating_sub(max_age.saturating_add(provider.leeway_seconds));
            if times.iat.is_none_or(|iat| iat < oldest) {
                return Err(UserTokenError::TooOld);
            }
        }
        if self.verified.person.auth_time.is_some_and(|auth_time| auth_time > latest) {
            return Err(UserTokenError::AuthTime);
        }
        match asked.brought {
            Brought::IssuedTo(allowed) => self.check_audience(allowed),
            Brought::PresentedTo { resource, accepted } => self.check_presented(resource, accepted),
        }
    }

    /// RFC 9068 §4 and RFC 8707 §2: made for this server, and for no other that could present it here in turn. What
    /// is the issuer's own (itself, and its userinfo endpoint) may stand beside it, for the issuer could make any token;
    /// whatever else is below its URL may be another server.
    fn check_presented(&self, resource: &str, accepted: &[AcceptedBearer]) -> Result<(), UserTokenError> {
        let issuer = self.issuer();
        let accepted = accepted.iter().find(|accepted| accepted.issuer == issuer);
        let accepted = accepted.ok_or(UserTokenError::UnknownIssuer)?;
        let is_issuers_own = |audience: &String| {
            let rest = audience.strip_prefix(issuer.trim_end_matches('/'));
            matches!(rest, Some("" | "/" | "/userinfo"))
        };
        let is_here = |audience: &String| audience == resource;
        let audiences = &self.verified.audiences;
        if !audiences.iter().any(is_here)
            || !audiences.iter().all(|audience| is_here(audience) || is_issuers_own(audience))
        {
            return Err(UserTokenError::Audience);
        }
        match &self.verified.party {
            Some(party) if accepted.admits(party) => Ok(()),
            Some(_) => Err(UserTokenError::AuthorizedParty("not accepted here")),
            None => Err(UserTokenError::AuthorizedParty("none, or several")),
        }
    }

    fn check_audience(&self, allowed: &[String]) -> Result<(), UserTokenError> {
        let on_list = |name: &String| allowed.contains(name);
        let audiences = &self.verified.audiences;
        let fits = match self.kind {
            TokenKind::Access => audiences.iter().any(on_list),
            // OpenID Connect Core §3.1.3.7, check 3: no audiences that the client does not trust.
            TokenKind::Id | TokenKind::Unmarked => audiences.iter().all(on_list),
        };
        if !fits {
            return Err(UserTokenError::Audience);
        }
        match self.parties.iter().find(|(_, party)| !on_list(party)) {
            Some((name, _)) => Err(UserTokenError::AuthorizedParty(name)),
            None => Ok(()),
        }
    }

    pub(super) fn issuer(&self) -> &str {
        &self.verified.person.issuer
    }
    pub(super) fn verified(&self) -> VerifiedUserToken {
        self.verified.clone()
    }
    /// Bytes held, roughly.
    pub(super) fn weight(&self) -> u32 {
        self.weight
    }
}

const MAX_SUBJECT_BYTES: usize = 255;
const MAX_PARTY_BYTES: usize = 2048;
const MAX_AUDIENCES: usize = 16;
