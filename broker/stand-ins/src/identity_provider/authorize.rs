//! `GET /authorize`: who wants to sign in where, and the page on which to choose (OpenID Connect Core §3.1.2).

use super::{
    IdentityProvider, SCOPES,
    codes::{NoCode, PendingCode},
    parameters::Parameters,
    users::{self, USERS, User},
};
use axum::{
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use std::{fmt::Write as _, sync::Arc};
use url::Url;

/// Answers an authorization request: with a code where the user is named and no page is wanted, else with the page.
pub(crate) async fn authorize(
    State(provider): State<Arc<IdentityProvider>>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    if query.len() > MAX_QUERY_BYTES {
        return refuse_here("the request is too long");
    }
    let Ok(parameters) = Parameters::parse(query.as_bytes()) else {
        return refuse_here("a parameter stands twice, or there are too many");
    };
    // RFC 6749 §4.1.2.1: while client and redirect URI are in doubt, nobody is redirected.
    let Some((client_id, redirect_uri)) = known_client(&provider, &parameters) else {
        return refuse_here("client_id is unknown, or redirect_uri is not one of this client's");
    };
    let state = parameters.get("state");
    match answer(&provider, &parameters, client_id, &redirect_uri) {
        Ok(Answer::Page) => page(&parameters, client_id),
        Ok(Answer::Code(code)) => redirect(&provider, redirect_uri, state, &[("code", &code)]),
        Err((error, description)) => redirect(
            &provider,
            redirect_uri,
            state,
            &[("error", error.as_str()), ("error_description", description)],
        ),
    }
}

/// The page's stylesheet, apart so that the page needs no inline style.
pub(crate) async fn stylesheet() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("sign_in.css"))
}

enum Answer {
    Page,
    Code(String),
}

fn answer(
    provider: &IdentityProvider,
    parameters: &Parameters,
    client_id: &str,
    redirect_uri: &Url,
) -> Result<Answer, (AuthorizeError, &'static str)> {
    let code_challenge = check_request(parameters)?;
    let user = parameters.get("login_hint").and_then(users::find);
    let silent = parameters.get("prompt") == Some("none");
    let user = match (silent, user) {
        (true, Some(user)) => user,
        (true, None) => return Err((AuthorizeError::LoginRequired, "say who with login_hint")),
        (false, _) => return Ok(Answer::Page),
    };
    let scope = parameters.get("scope").unwrap_or_default();
    let scope: Vec<&str> =
        SCOPES.into_iter().filter(|known| scope.split(' ').any(|asked| asked == *known)).collect();
    let pending = PendingCode {
        user,
        client_id: client_id.to_owned(),
        redirect_uri: redirect_uri.as_str().to_owned(),
        code_challenge: code_challenge.to_owned(),
        nonce: parameters.get("nonce").map(str::to_owned),
        scope: scope.join(" "),
        auth_time: provider.clock.now_seconds(),
    };
    match provider.codes.give(pending, &*provider.clock) {
        Ok(code) => Ok(Answer::Code(code)),
        Err(NoCode::Full) => Err((AuthorizeError::TemporarilyUnavailable, "too many sign-ins are under way")),
        Err(NoCode::NoRandomness(_)) => Err((AuthorizeError::ServerError, "the system gave no randomness")),
    }
}

/// The code challenge of a request that this provider can answer.
fn check_request(parameters: &Parameters) -> Result<&str, (AuthorizeError, &'static str)> {
    if parameters.get("request").is_some() || parameters.get("request_uri").is_some() {
        return Err((AuthorizeError::RequestNotSupported, "request objects are not supported"));
    }
    if parameters.get("response_type") != Some("code") {
        return Err((AuthorizeError::UnsupportedResponseType, "response_type must be code"));
    }
    if parameters.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err((AuthorizeError::InvalidRequest, "response_mode must be query"));
    }
    if !parameters.get("scope").unwrap_or_default().split(' ').any(|scope| scope == "openid") {
        return Err((AuthorizeError::InvalidScope, "scope must contain openid"));
    }
    // RFC 9700 §2.1.1: public clients must use PKCE; RFC 7636 §4.2: a S256 challenge is 43 characters long.
    let challenge = parameters.get("code_challenge").filter(|challenge| {
        challenge.len() == 43
            && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    });
    match (challenge, parameters.get("code_challenge_method")) {
        (Some(challenge), Some("S256")) => Ok(challenge),
        _ => Err((AuthorizeError::InvalidRequest, "code_challenge with method S256 is required")),
    }
}

/// The client and redirect URI, if they belong together.
fn known_client<'p>(provider: &IdentityProvider, parameters: &'p Parameters) -> Option<(&'p str, Url)> {
    let client_id = parameters.get("client_id")?;
    let client = provider.clients.iter().find(|client| client.client_id == client_id)?;
    let text = parameters.get("redirect_uri")?;
    let url = Url::parse(text).ok()?;
    // RFC 8252 §7.3: http to a loopback address, on any port. All else is exact, spelling included.
    let loopback = url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "[::1]"));
    let plain = url.as_str() == text && url.username().is_empty() && url.password().is_none();
    let bare = url.query().is_none() && url.fragment().is_none();
    let known = client.redirect_paths.iter().any(|path| path == url.path());
    (loopback && plain && bare && known).then_some((client_id, url))
}

fn redirect(
    provider: &IdentityProvider,
    mut to: Url,
    state: Option<&str>,
    answer: &[(&str, &str)],
) -> Response {
    to.query_pairs_mut()
        .extend_pairs(answer)
        .extend_pairs(state.map(|state| ("state", state)))
        // RFC 9207 §2: who answers, so that a client with several providers cannot be confused.
        .append_pair("iss", &provider.issuer);
    // RFC 9700 §4.12: 303, never 307.
    let mut response = Redirect::to(to.as_str()).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn refuse_here(reason: &'static str) -> Response {
    (StatusCode::BAD_REQUEST, reason).into_response()
}

/// One link for each user: the same request, with the choice made.
fn page(parameters: &Parameters, client_id: &str) -> Response {
    let mut links = String::new();
    for User { name, full_name, purpose, .. } in &USERS {
        // Form encoding leaves nothing but `&` that means something in an attribute.
        let query = parameters.encode_with(&[("login_hint", name), ("prompt", "none")]).replace('&', "&amp;");
        let _ = write!(
            links,
            r#"<li><a href="authorize?{query}"><b>{full_name}</b> <span>{purpose}</span></a></li>"#
        );
    }
    let client: String = url::form_urlencoded::byte_serialize(client_id.as_bytes()).collect();
    let page = include_str!("sign_in.html").replace("{client}", &client).replace("{users}", &links);
    let headers = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'self'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(page)).into_response()
}

/// RFC 6749 §4.1.2.1 and OpenID Connect Core §3.1.2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthorizeError {
    InvalidRequest,
    InvalidScope,
    LoginRequired,
    RequestNotSupported,
    ServerError,
    TemporarilyUnavailable,
    UnsupportedResponseType,
}

impl AuthorizeError {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::LoginRequired => "login_required",
            Self::RequestNotSupported => "request_not_supported",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::UnsupportedResponseType => "unsupported_response_type",
        }
    }
}

const MAX_QUERY_BYTES: usize = 8 * 1024;
