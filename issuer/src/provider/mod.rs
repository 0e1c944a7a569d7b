//! Users' tokens from OpenID providers. A token is good for a person when its issuer is configured, its own keys
//! signed it, and audience, parties, times, kind and tenant agree. No I/O: keys come through [`ProviderKeys`].

mod claim_path;
mod delegation;
mod describe;
mod error;
mod kind;
mod preset;
#[cfg(test)]
mod tests;
mod trusted;
mod verified;

pub use self::{
    claim_path::ClaimPath,
    delegation::MayAct,
    error::{KeysUnavailable, UserTokenError},
    kind::SubjectTokenType,
    preset::Preset,
    trusted::{AcceptedTypes, ClaimMapping, GroupsClaim, Provider, StableClaim},
    verified::VerifiedUserToken,
};

use self::verified::{Asked, Brought, ReadToken};
use crate::client::AcceptedBearer;
use async_trait::async_trait;
use deputize_call::{
    digest::sha256,
    jws::{self, EmbeddedKey, JwsError, MAX_TOKEN_BYTES, UnverifiedJws},
    keys::KeySet,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// The trusted issuers, and the tokens of theirs that were verified lately.
pub struct Providers {
    providers: HashMap<String, Provider>,
    keys: Arc<dyn ProviderKeys>,
    decrypter: Option<Arc<dyn TokenDecrypter>>,
    /// By SHA-256 of the token as it was presented.
    verified: moka::sync::Cache<[u8; 32], Arc<Verified>>,
}

/// Signature verified and claims read, under this generation of its issuer's keys. Nothing else is remembered:
/// every other check runs each time.
struct Verified {
    generation: u64,
    token: ReadToken,
}

/// An issuer's keys. Answers at once from what is known; the second question may wait for one fetch.
#[async_trait]
pub trait ProviderKeys: Send + Sync {
    /// The keys of this issuer as known now.
    async fn keys(&self, issuer: &str) -> Result<KeyGeneration, KeysUnavailable>;
    /// A token names a key that `seen_generation` lacks: perhaps the issuer rotated. Implementations fetch at most
    /// once per cooldown, however many ask, and answer what they then know.
    async fn keys_for_unknown_kid(
        &self,
        issuer: &str,
        seen_generation: u64,
    ) -> Result<KeyGeneration, KeysUnavailable>;
}

/// A set of keys, and a number that grows whenever the set changes.
#[derive(Debug, Clone)]
pub struct KeyGeneration {
    /// The keys.
    pub keys: Arc<KeySet>,
    /// Grows only when the set changes.
    pub generation: u64,
}

/// Opens a token that was encrypted to us. What is inside is verified as if it had come bare.
pub trait TokenDecrypter: Send + Sync {
    /// The plaintext of a compact JWE (five parts).
    fn decrypt(&self, jwe: &str) -> Result<Zeroizing<String>, UserTokenError>;
}

/// Why a set of providers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("identity provider {issuer}: {problem}")]
pub struct ProviderError {
    /// The issuer concerned.
    pub issuer: String,
    /// What is wrong with it, in lower case without a full stop.
    pub problem: &'static str,
}

impl Providers {
    /// These issuers and no others. Fails where one is configured twice or in a way that could accept nothing.
    pub fn new(
        providers: Vec<Provider>,
        keys: Arc<dyn ProviderKeys>,
        decrypter: Option<Arc<dyn TokenDecrypter>>,
    ) -> Result<Self, ProviderError> {
        let mut by_issuer = HashMap::new();
        for provider in providers {
            if let Some(problem) = provider.problem() {
                return Err(ProviderError { issuer: provider.issuer, problem });
            }
            if let Some(twice) = by_issuer.insert(provider.issuer.clone(), provider) {
                return Err(ProviderError { issuer: twice.issuer, problem: "is configured twice" });
            }
        }
        let verified = moka::sync::Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|_, verified: &Arc<Verified>| verified.token.weight())
            .time_to_live(CACHE_TIME)
            .build();
        Ok(Self { providers: by_issuer, keys, decrypter, verified })
    }

    /// Whether this issuer is configured.
    pub fn trusts(&self, issuer: &str) -> bool {
        self.providers.contains_key(issuer)
    }

    /// Verifies a user's token brought by a client of `tenant` whose list of acceptable audiences and authorized
    /// parties is `allowed_audiences`. Tokens behind which no person stands are refused.
    #[expect(clippy::too_many_arguments, reason = "five facts about one token, from five places")]
    pub async fn verify(
        &self,
        token: &str,
        kind: SubjectTokenType,
        tenant: &str,
        allowed_audiences: &[String],
        now_seconds: u64,
    ) -> Result<VerifiedUserToken, UserTokenError> {
        let brought = Brought::IssuedTo(allowed_audiences);
        self.verify_as(token, &Asked { kind, tenant, brought, now_seconds, applications: false }).await
    }

    /// Verifies a user's access token that was presented to the server `resource` as it stands, and brought by that
    /// server's guard: made for that server, for a client that it accepts.
    pub async fn verify_presented(
        &self,
        token: &str,
        tenant: &str,
        (resource, accepted): (&str, &[AcceptedBearer]),
        now_seconds: u64,
    ) -> Result<VerifiedUserToken, UserTokenError> {
        let kind = SubjectTokenType::AccessToken;
        let brought = Brought::PresentedTo { resource, accepted };
        self.verify_as(token, &Asked { kind, tenant, brought, now_seconds, applications: false }).await
    }

    /// Verifies an actor's token (RFC 8693 §2.1, `actor_token`): as [`Self::verify`], but an application's own
    /// token will do, for an actor may be one.
    #[expect(clippy::too_many_arguments, reason = "five facts about one token, from five places")]
    pub async fn verify_actor(
        &self,
        token: &str,
        kind: SubjectTokenType,
        tenant: &str,
        allowed_audiences: &[String],
        now_seconds: u64,
    ) -> Result<VerifiedUserToken, UserTokenError> {
        let brought = Brought::IssuedTo(allowed_audiences);
        self.verify_as(token, &Asked { kind, tenant, brought, now_seconds, applications: true }).await
    }

    async fn verify_as(&self, token: &str, asked: &Asked<'_>) -> Result<VerifiedUserToken, UserTokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwsError::TooLong.into());
        }
        let presented = sha256(token.as_bytes());
        if let Some(known) = self.verified.get(&presented) {
            let provider = self.provider(known.token.issuer())?;
            known.token.check(provider, asked)?;
            if self.keys.keys(&provider.issuer).await?.generation == known.generation {
                return Ok(known.token.verified());
            }
        }
        let decrypted = self.decrypt(token)?;
        let jws = jws::parse(decrypted.as_ref().map_or(token, |inside| inside), EmbeddedKey::Refused)?;
        // Unverified as yet: it only chooses whose keys must have signed.
        let provider = self.provider(jws::string_claim(&jws.claims, "iss", MAX_ISSUER_BYTES)?)?;
        let read = ReadToken::read(provider, &jws)?;
        read.check(provider, asked)?;
        let generation = self.verify_signature(provider, &jws).await?;
        let verified = read.verified();
        self.verified.insert(presented, Arc::new(Verified { generation, token: read }));
        Ok(verified)
    }

    fn provider(&self, issuer: &str) -> Result<&Provider, UserTokenError> {
        self.providers.get(issuer).ok_or(UserTokenError::UnknownIssuer)
    }

    fn decrypt(&self, token: &str) -> Result<Option<Zeroizing<String>>, UserTokenError> {
        if !is_jwe(token) {
            return Ok(None);
        }
        let decrypter =
            self.decrypter.as_ref().ok_or(UserTokenError::Encrypted("decryption is not configured"))?;
        let inside = decrypter.decrypt(token)?;
        if is_jwe(&inside) {
            return Err(UserTokenError::Encrypted("encrypted twice"));
        }
        Ok(Some(inside))
    }

    /// Verifies under the issuer's own keys; says under which generation.
    async fn verify_signature(
        &self,
        provider: &Provider,
        jws: &UnverifiedJws<'_>,
    ) -> Result<u64, UserTokenError> {
        if !provider.algorithms.contains(&jws.header.alg) {
            return Err(UserTokenError::Algorithm);
        }
        let mut known = self.keys.keys(&provider.issuer).await?;
        if known.keys.find(jws).is_err() {
            known = self.keys.keys_for_unknown_kid(&provider.issuer, known.generation).await?;
        }
        known.keys.verify(jws)?;
        Ok(known.generation)
    }
}

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Providers").field("issuers", &self.providers.keys()).finish_non_exhaustive()
    }
}

/// RFC 7516 §7.1: five parts.
fn is_jwe(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').take(5).count() == 4
}

/// The name under which [`ClaimMapping::common_claim`] stands in [`Person::claims`](crate::person::Person::claims).
pub const COMMON_CLAIM: &str = "common_id";
/// Who a token was issued to, in the spellings of OpenID Connect Core §2, RFC 9068, Entra ID and Okta.
const PARTY_CLAIMS: [&str; 4] = ["azp", "client_id", "appid", "cid"];
const MAX_ISSUER_BYTES: usize = 2048;
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
const CACHE_TIME: Duration = Duration::from_secs(3600);
