//! Signing a user in at an OpenID provider: authorization code with PKCE (RFC 7636), state, nonce and `iss`.
//!
//! The program is a public, native client (RFC 8252): the browser comes back to a loopback address. Against the
//! provider of `dev`, which can be asked not to show a page, no browser is needed.

#[cfg(test)]
mod tests;

use deputize_issuer::{clock::Clock, secret::Secret};
use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClientId, CsrfToken, DiscoveryError, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, LoginHint, Nonce, NonceVerifier,
    OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, StandardErrorResponse, TokenResponse as _,
    core::{
        CoreAuthPrompt, CoreAuthenticationFlow, CoreClient, CoreErrorResponseType, CoreIdTokenVerifier,
        CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreTokenResponse,
    },
};
use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use url::Url;

/// A client of one provider.
pub(crate) struct Provider {
    client: Client,
    issuer: String,
    http: ProviderHttp,
    clock: Arc<dyn Clock>,
    /// What is asked for besides the usual.
    scopes: Vec<String>,
}

/// A sign-in that waits for its answer.
pub(crate) struct PendingSignIn {
    url: Url,
    redirect_uri: Url,
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
}

/// A user who has signed in.
#[derive(Debug)]
pub(crate) struct SignedIn {
    /// `sub` at the provider.
    pub(crate) subject: String,
    /// The ID token, verified.
    pub(crate) id_token: Secret<String>,
    /// When it expires, in seconds since the epoch.
    pub(crate) expires_at_seconds: u64,
    /// With it the provider gives a newer one.
    refresh_token: Option<Secret<String>>,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error("{0:?} is no provider URL: https, or http on loopback, is required")]
    Issuer(String),
    #[error("redirect URI is not a URL: {0}")]
    RedirectUri(#[from] url::ParseError),
    #[error("the provider's metadata or keys could not be read: {0}")]
    Discovery(String),
    #[error("the provider could not be asked: {0}")]
    Unreachable(String),
    #[error("the provider refused: {error}: {description}")]
    Refused { error: String, description: String },
    #[error("the answer is not for this sign-in: {0}")]
    Foreign(&'static str),
    #[error("the provider gave nothing to refresh the sign-in with")]
    NotRefreshable,
    #[error("the token response is not acceptable: {0}")]
    Token(String),
}

impl Provider {
    /// Reads the provider's metadata and keys.
    pub(crate) async fn discover(
        issuer: &str,
        client_id: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SignInError> {
        let url = Url::parse(issuer)
            .ok()
            .filter(is_acceptable)
            .ok_or_else(|| SignInError::Issuer(issuer.to_owned()))?;
        let http = ProviderHttp::new()?;
        let issuer_url = IssuerUrl::new(issuer.to_owned()).map_err(|_| SignInError::Issuer(url.into()))?;
        let metadata =
            CoreProviderMetadata::discover_async(issuer_url, &http).await.map_err(|error| match error {
                DiscoveryError::Request(error) => SignInError::Unreachable(error.to_string()),
                error => SignInError::Discovery(error.to_string()),
            })?;
        let token_endpoint = metadata.token_endpoint().is_some_and(|endpoint| is_acceptable(endpoint.url()));
        if !token_endpoint || !is_acceptable(metadata.authorization_endpoint().url()) {
            return Err(SignInError::Discovery("an endpoint is missing or has no https".to_owned()));
        }
        let client = CoreClient::from_provider_metadata(metadata, ClientId::new(client_id.to_owned()), None);
        Ok(Self { client, issuer: issuer.to_owned(), http, clock, scopes: Vec::new() })
    }

    /// Asks for these scopes too: `offline_access`, where the provider wants that for what refreshes a sign-in.
    #[must_use]
    pub(crate) fn with_scopes(mut self, scopes: &[String]) -> Self {
        self.scopes = scopes.to_vec();
        self
    }

    /// Begins a sign-in that a person finishes in a browser. `redirect_uri` is where the answer will arrive.
    pub(crate) fn begin(
        &self,
        redirect_uri: &str,
        login_hint: Option<&str>,
    ) -> Result<PendingSignIn, SignInError> {
        self.prepare(redirect_uri, login_hint, None)
    }

    /// Signs in without a browser, at a provider that can be asked not to show a page (`prompt=none`). The redirect
    /// is read, not followed: nobody need listen at the redirect URI.
    pub(crate) async fn sign_in_silently(
        &self,
        redirect_uri: &str,
        login_hint: &str,
    ) -> Result<SignedIn, SignInError> {
        let pending = self.prepare(redirect_uri, Some(login_hint), Some(CoreAuthPrompt::None))?;
        let response =
            self.http.get(&pending.url).await.map_err(|error| SignInError::Unreachable(error.to_string()))?;
        let location = response
            .headers()
            .get(http::header::LOCATION)
            .filter(|_| response.status().is_redirection())
            .and_then(|location| Url::parse(location.to_str().ok()?).ok())
            .ok_or_else(|| SignInError::Refused {
                error: response.status().to_string(),
                description: String::from_utf8_lossy(response.body()).chars().take(200).collect(),
            })?;
        self.finish(pending, &location).await
    }

    /// Whether the provider sent the browser to this URL in answer to `pending`.
    pub(crate) fn answers(&self, pending: &PendingSignIn, answer: &Url) -> bool {
        !matches!(read_answer(&self.issuer, pending, answer), Err(SignInError::Foreign(_)))
    }

    /// Gets a newer token for a user who signed in (OpenID Connect Core §12).
    pub(crate) async fn refresh(&self, user: &SignedIn) -> Result<SignedIn, SignInError> {
        let held = user.refresh_token.as_ref().ok_or(SignInError::NotRefreshable)?;
        let refresh_token = RefreshToken::new(held.expose().clone());
        let request = self
            .client
            .exchange_refresh_token(&refresh_token)
            .map_err(|error| SignInError::Discovery(error.to_string()))?;
        let response = request.request_async(&self.http).await.map_err(refused)?;
        // §12.2: the same person; a nonce need not come again.
        let mut refreshed = self.verify(&response, |_: Option<&Nonce>| Ok(()))?;
        if refreshed.subject != user.subject {
            return Err(SignInError::Token("it is another person's".to_owned()));
        }
        if refreshed.refresh_token.is_none() {
            refreshed.refresh_token = Some(held.expose().clone().into());
        }
        Ok(refreshed)
    }

    /// Finishes a sign-in with the URL to which the provider sent the browser.
    pub(crate) async fn finish(&self, pending: PendingSignIn, answer: &Url) -> Result<SignedIn, SignInError> {
        let code = read_answer(&self.issuer, &pending, answer)?;
        let request = self
            .client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| SignInError::Discovery(error.to_string()))?
            .set_pkce_verifier(pending.verifier)
            .set_redirect_uri(std::borrow::Cow::Owned(RedirectUrl::from_url(pending.redirect_uri)));
        let response = request.request_async(&self.http).await.map_err(refused)?;
        self.verify(&response, &pending.nonce)
    }

    fn prepare(
        &self,
        redirect_uri: &str,
        login_hint: Option<&str>,
        prompt: Option<CoreAuthPrompt>,
    ) -> Result<PendingSignIn, SignInError> {
        let redirect_uri = Url::parse(redirect_uri)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = self
            .client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_redirect_uri(std::borrow::Cow::Owned(RedirectUrl::from_url(redirect_uri.clone())))
            .set_pkce_challenge(challenge)
            .add_scopes(["profile", "email"].map(|scope| Scope::new(scope.to_owned())))
            .add_scopes(self.scopes.iter().cloned().map(Scope::new));
        if let Some(login_hint) = login_hint {
            request = request.set_login_hint(LoginHint::new(login_hint.to_owned()));
        }
        if let Some(prompt) = prompt {
            request = request.add_prompt(prompt);
        }
        let (url, state, nonce) = request.url();
        Ok(PendingSignIn { url, redirect_uri, state, nonce, verifier })
    }

    /// OpenID Connect Core §3.1.3.7 and §3.1.3.8.
    fn verify(
        &self,
        response: &CoreTokenResponse,
        nonce: impl NonceVerifier,
    ) -> Result<SignedIn, SignInError> {
        let token = |problem: &dyn std::fmt::Display| SignInError::Token(problem.to_string());
        let id_token = response.id_token().ok_or_else(|| token(&"no ID token"))?;
        let verifier = self.verifier();
        let claims = id_token.claims(&verifier, nonce).map_err(|error| token(&error))?;
        if claims.authorized_party().is_some_and(|party| party != self.client.client_id()) {
            return Err(token(&"ID token was issued to another client"));
        }
        if let Some(expected) = claims.access_token_hash() {
            let algorithm = id_token.signing_alg().map_err(|error| token(&error))?;
            let key = id_token.signing_key(&verifier).map_err(|error| token(&error))?;
            let actual = AccessTokenHash::from_token(response.access_token(), algorithm, key)
                .map_err(|error| token(&error))?;
            if actual != *expected {
                return Err(token(&"at_hash does not match the access token"));
            }
        }
        Ok(SignedIn {
            subject: claims.subject().to_string(),
            id_token: id_token.to_string().into(),
            expires_at_seconds: u64::try_from(claims.expiration().timestamp()).unwrap_or_default(),
            refresh_token: response.refresh_token().map(|token| token.secret().clone().into()),
        })
    }

    fn verifier(&self) -> CoreIdTokenVerifier<'_> {
        let now = Duration::from_millis(self.clock.now_ms());
        // Not what the provider's metadata list: those could name HS256 or none (RFC 8725 §3.1).
        self.client
            .id_token_verifier()
            .set_allowed_algs(ID_TOKEN_ALGORITHMS)
            .set_time_fn(move || (std::time::UNIX_EPOCH + now).into())
    }
}

impl PendingSignIn {
    /// Where the user's browser has to go.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }
}

/// Why a token request came to nothing.
fn refused(error: RequestTokenError<HttpError, StandardErrorResponse<CoreErrorResponseType>>) -> SignInError {
    match error {
        RequestTokenError::ServerResponse(refusal) => SignInError::Refused {
            error: refusal.error().as_ref().to_owned(),
            description: refusal.error_description().cloned().unwrap_or_default(),
        },
        RequestTokenError::Request(error) => SignInError::Unreachable(error.to_string()),
        error => SignInError::Token(error.to_string()),
    }
}

/// The code in the provider's answer, once the answer is known to belong to this sign-in.
fn read_answer(issuer: &str, pending: &PendingSignIn, answer: &Url) -> Result<String, SignInError> {
    let mut endpoint = answer.clone();
    endpoint.set_query(None);
    if endpoint != pending.redirect_uri {
        return Err(SignInError::Foreign("it went to another redirect URI"));
    }
    let mut parameters = HashMap::new();
    for (name, value) in answer.query_pairs().take(MAX_PARAMETERS) {
        if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(SignInError::Foreign("a parameter stands twice"));
        }
    }
    if parameters.get("state") != Some(pending.state.secret()) {
        return Err(SignInError::Foreign("state does not match"));
    }
    // RFC 9207 §2.4: an answer that names another issuer is a mix-up attack.
    if parameters.get("iss").is_some_and(|named| named != issuer) {
        return Err(SignInError::Foreign("another issuer answered"));
    }
    if let Some(error) = parameters.remove("error") {
        let description = parameters.remove("error_description").unwrap_or_default();
        return Err(SignInError::Refused { error, description });
    }
    parameters.remove("code").ok_or(SignInError::Foreign("there is no code in it"))
}

/// https, or http to this very machine (RFC 8252 §7.3).
fn is_acceptable(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => matches!(url.host_str(), Some("127.0.0.1" | "[::1]")),
        _ => false,
    }
}

/// How openidconnect asks a provider: through our HTTP client, without redirects, with limits on time and size.
#[derive(Debug, Clone)]
struct ProviderHttp(reqwest::Client);

/// Why a provider could not be asked.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error("{0}")]
    Request(#[from] reqwest::Error),
    #[error("{0}")]
    Response(#[from] http::Error),
    #[error("the answer is larger than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
}

impl ProviderHttp {
    fn new() -> Result<Self, SignInError> {
        // Whoever installs it first, it is this one everywhere.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // RFC 9700 §4.12 and openidconnect's own advice: a followed redirect is a request forged.
        let builder =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(REQUEST_TIMEOUT);
        builder.build().map(Self).map_err(|error| SignInError::Unreachable(error.to_string()))
    }

    async fn get(&self, url: &Url) -> Result<HttpResponse, HttpError> {
        let request = http::Request::get(url.as_str()).body(Vec::new())?;
        self.send(request).await
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut response = self.0.execute(request.try_into()?).await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(HttpError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::builder().status(response.status()).body(body)?;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

impl<'c> openidconnect::AsyncHttpClient<'c> for ProviderHttp {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

impl std::fmt::Debug for PendingSignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingSignIn")
            .field("redirect_uri", &self.redirect_uri.as_str())
            .finish_non_exhaustive()
    }
}

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

const ID_TOKEN_ALGORITHMS: [CoreJwsSigningAlgorithm; 7] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 256 * 1024;
const MAX_PARAMETERS: usize = 32;
