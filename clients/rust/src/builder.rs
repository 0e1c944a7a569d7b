//! How a client is set up.

use crate::{
    cache::TokenCache,
    client::{Client, Credential},
    clock::{Clock, SystemClock},
    metadata::{Endpoints, checked_url},
    sealed::DecryptionKey,
    transport::{ClientCertificate, Transport},
};
use deputize_call::{
    jws::JwsError,
    sign::{SigningAlgorithm, SigningKey},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// Sets up a [`Client`]; begin with [`Client::builder`].
pub struct ClientBuilder {
    issuer: String,
    client_id: String,
    credential: Option<Credential>,
    dpop_key: Option<SigningKey>,
    decryption_keys: Vec<DecryptionKey>,
    ca_pem: Option<Vec<u8>>,
    token_endpoint: Option<String>,
    timeout: Duration,
    cache_capacity: usize,
    clock: Arc<dyn Clock>,
}

/// Why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Neither a key, nor a certificate, nor a secret was given.
    #[error("no credential: give a signing key, a certificate or a bootstrap secret")]
    NoCredential,
    /// A URL is not https (http is for loopback alone), or not a URL.
    #[error("{0} is not an https URL (http is for loopback alone)")]
    Url(&'static str),
    /// The CA certificates cannot be read.
    #[error("the CA certificates cannot be read: {0}")]
    CaPem(String),
    /// The client's own certificate or its key cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(String),
    /// The TLS or HTTP stack cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(String),
    /// A decryption key cannot be used.
    #[error("the decryption key cannot be used: {0}")]
    DecryptionKey(&'static str),
    /// A key cannot be generated.
    #[error("the proof key cannot be generated: {0}")]
    Key(#[from] JwsError),
}

impl ClientBuilder {
    pub(crate) fn new(issuer: &str, client_id: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            credential: None,
            dpop_key: None,
            decryption_keys: Vec::new(),
            ca_pem: None,
            token_endpoint: None,
            timeout: Duration::from_secs(10),
            cache_capacity: 1_000,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Authenticates with signed assertions (RFC 7523).
    #[must_use]
    pub fn private_key_jwt(mut self, key: SigningKey) -> Self {
        self.credential = Some(Credential::Key(Box::new(key)));
        self
    }

    /// Authenticates with a bootstrap secret, where the broker allows one.
    #[must_use]
    pub fn bootstrap_secret(mut self, secret: impl Into<String>) -> Self {
        self.credential = Some(Credential::Secret(Zeroizing::new(secret.into())));
        self
    }

    /// Authenticates with a TLS certificate (RFC 8705 §2): one of an authority that the broker knows, one of its own, or
    /// an X.509-SVID. `certificate_pem` begins with it, and goes on with what leads to its authority; `key_pem` is its
    /// private key. Both are read when the client is built: one with a certificate that follows is a new one.
    ///
    /// Tokens are bound to the key of the proofs as ever.
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.credential = Some(Credential::Certificate(ClientCertificate {
            certificate_pem: certificate_pem.into(),
            key_pem: Zeroizing::new(key_pem.into()),
        }));
        self
    }

    /// The key of its proofs; by default a fresh one that dies with the client.
    #[must_use]
    pub fn dpop_key(mut self, key: SigningKey) -> Self {
        self.dpop_key = Some(key);
        self
    }

    /// A key that the broker seals answers to ([`Client::aws_credentials`]). While keys change, give the old one and the
    /// new one.
    #[must_use]
    pub fn decryption_key(mut self, key: DecryptionKey) -> Self {
        self.decryption_keys.push(key);
        self
    }

    /// Trusts these certificates (PEM) and no others.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// The token endpoint, instead of discovery; the other endpoints are then those under the issuer.
    #[must_use]
    pub fn token_endpoint(mut self, url: &str) -> Self {
        self.token_endpoint = Some(url.to_owned());
        self
    }

    /// How long a request may take; 10 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many tokens are cached; 1,000 by default, 0 for none.
    #[must_use]
    pub fn cache_capacity(mut self, capacity: usize) -> Self {
        self.cache_capacity = capacity;
        self
    }

    /// Another source of time and ids.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The client. Nothing is sent yet: metadata is fetched at the first request.
    pub fn build(self) -> Result<Client, BuildError> {
        checked_url(&self.issuer).ok_or(BuildError::Url("the issuer"))?;
        let endpoints = match &self.token_endpoint {
            None => OnceCell::new(),
            Some(url) => {
                checked_url(url).ok_or(BuildError::Url("the token endpoint"))?;
                OnceCell::new_with(Some(Endpoints::under(&self.issuer, url)))
            }
        };
        let dpop_key = match self.dpop_key {
            Some(key) => key,
            None => SigningKey::generate(SigningAlgorithm::ES256)?,
        };
        let credential = self.credential.ok_or(BuildError::NoCredential)?;
        let shown = match &credential {
            Credential::Certificate(certificate) => Some(certificate),
            Credential::Key(_) | Credential::Secret(_) => None,
        };
        Ok(Client {
            transport: Transport::new(self.ca_pem.as_deref(), shown, self.timeout)?,
            credential,
            cache: TokenCache::new(self.cache_capacity),
            issuer: self.issuer,
            client_id: self.client_id,
            dpop_key,
            decryption_keys: self.decryption_keys,
            endpoints,
            clock: self.clock,
            nonce: std::sync::Mutex::default(),
        })
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (issuer, client_id) = (&self.issuer, &self.client_id);
        f.debug_struct("ClientBuilder")
            .field("issuer", issuer)
            .field("client_id", client_id)
            .finish_non_exhaustive()
    }
}
