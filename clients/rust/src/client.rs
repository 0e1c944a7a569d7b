//! The client: proves itself, exchanges, and remembers what may be remembered.

use crate::{
    answer,
    builder::ClientBuilder,
    cache::{CacheKey, TokenCache},
    clock::Clock,
    error::ExchangeError,
    metadata::Endpoints,
    request::ExchangeRequest,
    sealed::DecryptionKey,
    token::ToolToken,
    transport::{ClientCertificate, Post, Received, Transport},
};
use deputize_call::{
    dpop::{self, NewProof},
    json::Object,
    keys::PublicKey,
    sign::SigningKey,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;
use url::form_urlencoded;
use zeroize::Zeroizing;

/// A client of one broker. Share it: it holds connections, the last nonce and the cache.
pub struct Client {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) credential: Credential,
    pub(crate) dpop_key: SigningKey,
    /// What answers may be sealed to.
    pub(crate) decryption_keys: Vec<DecryptionKey>,
    pub(crate) transport: Transport,
    pub(crate) endpoints: OnceCell<Endpoints>,
    pub(crate) cache: TokenCache,
    pub(crate) clock: Arc<dyn Clock>,
    /// The nonce that the broker gave last.
    pub(crate) nonce: Mutex<Option<String>>,
}

/// How the client proves who it is.
pub(crate) enum Credential {
    Key(Box<SigningKey>),
    Secret(Zeroizing<String>),
    /// What every connection to the broker shows (RFC 8705 §2).
    Certificate(ClientCertificate),
}

/// What the broker knows of a token (RFC 7662 §2.2).
#[derive(Debug, Clone, PartialEq)]
pub struct Introspection {
    /// Whether it is good now.
    pub active: bool,
    /// All members of the answer.
    pub members: Object,
}

/// The answer of the broker about the use of an L3 token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption {
    /// First use, and now it is used.
    Redeemed,
    /// Used before.
    AlreadyUsed,
    /// Revoked, expired, or not a token of this broker.
    Revoked,
}

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Redeemed {
    redeemed: bool,
    reason: Option<String>,
}

impl Client {
    /// Sets up a client of the broker `issuer`, which knows it as `client_id`.
    pub fn builder(issuer: &str, client_id: &str) -> ClientBuilder {
        ClientBuilder::new(issuer, client_id)
    }

    /// Exchanges for a token, or takes one from the cache where the same was asked before and the level allows it.
    pub async fn exchange(&self, request: &ExchangeRequest) -> Result<ToolToken, ExchangeError> {
        let form = request.form()?;
        let key = request.may_be_cached().then(|| CacheKey::of(&form));
        let asked = self.clock.uptime();
        if let Some(cached) = key.and_then(|key| self.cache.take(key, asked)) {
            return Ok(cached);
        }
        let url = &self.endpoints().await?.token;
        let form = self.authenticated(&form)?;
        let mut received = self.post_with_proof(url, &form, request.wait_seconds()).await?;
        if answer::needs_nonce(&received) {
            // RFC 9449 §8: once more, with the nonce. A challenge consumed nothing, so the assertion is still good.
            received = self.post_with_proof(url, &form, request.wait_seconds()).await?;
        }
        let token = answer::token(&received)?;
        if let Some(key) = key {
            self.cache.keep(key, &token, asked);
        }
        Ok(token)
    }

    /// A proof for one request to a server (RFC 9449 §4.2). `nonce` is the last that this server gave.
    pub fn proof_for(
        &self,
        method: &str,
        url: &str,
        access_token: &str,
        nonce: Option<&str>,
    ) -> Result<String, ExchangeError> {
        self.prove(method, url, Some(access_token), nonce)
    }

    /// Asks the broker about a token (RFC 7662).
    pub async fn introspect(&self, token: &str) -> Result<Introspection, ExchangeError> {
        let url = &self.endpoints().await?.introspection;
        let received = self.post_token(url, token).await?;
        let members: Object = serde_json::from_slice(&received.body)
            .map_err(|_| ExchangeError::Protocol("the introspection response is malformed"))?;
        let active = members.get("active").and_then(serde_json::Value::as_bool);
        let active = active.ok_or(ExchangeError::Protocol("the introspection response lacks active"))?;
        Ok(Introspection { active, members })
    }

    /// Revokes a token (RFC 7009), and with it what was made from it.
    pub async fn revoke(&self, token: &str) -> Result<(), ExchangeError> {
        self.cache.forget(token);
        let url = &self.endpoints().await?.revocation;
        self.post_token(url, token).await.map(drop)
    }

    /// Takes a token out of the cache, for example because a server no longer accepts it.
    pub fn forget(&self, token: &ToolToken) {
        self.cache.forget(token.access_token());
    }

    /// Redeems an L3 token at the broker, as the guard of its audience.
    pub async fn redeem(&self, token: &str) -> Result<Redemption, ExchangeError> {
        let url = &self.endpoints().await?.redemption;
        let received = self.post_token(url, token).await?;
        let answer: Redeemed = serde_json::from_slice(&received.body)
            .map_err(|_| ExchangeError::Protocol("the redemption response is malformed"))?;
        match (answer.redeemed, answer.reason.as_deref()) {
            (true, _) => Ok(Redemption::Redeemed),
            (false, Some("already_used")) => Ok(Redemption::AlreadyUsed),
            (false, _) => Ok(Redemption::Revoked),
        }
    }

    /// The public half of the key that its tokens are bound to.
    pub fn dpop_public_key(&self) -> &PublicKey {
        self.dpop_key.public()
    }

    /// The client's id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) async fn endpoints(&self) -> Result<&Endpoints, ExchangeError> {
        self.endpoints.get_or_try_init(|| Endpoints::discover(&self.transport, &self.issuer)).await
    }

    async fn post_with_proof(
        &self,
        url: &str,
        form: &str,
        wait_seconds: Option<u64>,
    ) -> Result<Received, ExchangeError> {
        let nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let proof = self.prove("POST", url, None, nonce.as_deref())?;
        let received =
            self.transport.post(&Post { url, form, proof: Some(&proof), wait_seconds, accept: JSON }).await?;
        // RFC 9449 §8.2: any answer may bring the nonce for the next request.
        if let Some(next) = &received.dpop_nonce {
            *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(next.clone());
        }
        Ok(received)
    }

    async fn post_token(&self, url: &str, token: &str) -> Result<Received, ExchangeError> {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
        let form = self.authenticated(&Zeroizing::new(form))?;
        let post = Post { url, form: &form, proof: None, wait_seconds: None, accept: JSON };
        let received = self.transport.post(&post).await?;
        if received.status == 200 { Ok(received) } else { Err(answer::refusal(&received)) }
    }

    /// The parameters with those that prove the client (RFC 7523 §2.2; RFC 6749 §2.3.1).
    pub(crate) fn authenticated(&self, form: &str) -> Result<Zeroizing<String>, ExchangeError> {
        let mut form = form_urlencoded::Serializer::new(form.to_owned());
        form.append_pair("client_id", &self.client_id);
        match &self.credential {
            // RFC 8705 §2: the connection says it.
            Credential::Certificate(_) => {}
            Credential::Secret(secret) => {
                form.append_pair("client_secret", secret);
            }
            Credential::Key(key) => {
                form.append_pair(
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                );
                form.append_pair("client_assertion", &self.assertion(key)?);
            }
        }
        Ok(Zeroizing::new(form.finish()))
    }

    /// A fresh assertion (RFC 7523 §3).
    pub(crate) fn assertion(&self, key: &SigningKey) -> Result<Zeroizing<String>, ExchangeError> {
        let iat = self.clock.now_seconds();
        let assertion = Assertion {
            iss: &self.client_id,
            sub: &self.client_id,
            aud: &self.issuer,
            jti: self.clock.unique_id(),
            iat,
            exp: iat + ASSERTION_SECONDS,
        };
        let signed = key.sign("client-authentication+jwt", &assertion);
        signed.map(Zeroizing::new).map_err(ExchangeError::Key)
    }

    fn prove(
        &self,
        htm: &str,
        htu: &str,
        access_token: Option<&str>,
        nonce: Option<&str>,
    ) -> Result<String, ExchangeError> {
        let (jti, iat) = (self.clock.unique_id(), self.clock.now_seconds());
        let proof = NewProof { htm, htu, jti: &jti, iat, nonce, access_token };
        dpop::prove(&self.dpop_key, &proof).map_err(ExchangeError::Key)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (issuer, client_id) = (&self.issuer, &self.client_id);
        f.debug_struct("Client").field("issuer", issuer).field("client_id", client_id).finish_non_exhaustive()
    }
}

const ASSERTION_SECONDS: u64 = 60;
const JSON: &str = "application/json";
