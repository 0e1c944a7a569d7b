//! Why a request is refused, and how that is said: the only place with HTTP statuses and OAuth error codes.

use crate::{config::GuardConfig, message::Call};
use deputize_call::{
    constraints::ConstraintError, json::JsonError, jws::JwsError, level::Level, schema::SchemaError,
};
use serde_json::{Value, json};

/// Why, in our words. For logs; the caller gets the [`Refusal`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The body is longer than the configured size.
    #[error("body too large")]
    TooLarge,
    /// Not `POST`.
    #[error("method not allowed")]
    HttpMethod,
    /// Not plain `application/json`.
    #[error("media type or encoding not accepted")]
    MediaType,
    /// A header that may stand once stands twice.
    #[error("repeated header {0}")]
    RepeatedHeader(&'static str),
    /// Not strict JSON.
    #[error("body: {0}")]
    Json(JsonError),
    /// Strict JSON, but not one JSON-RPC request.
    #[error("message: {0}")]
    Message(&'static str),
    /// A method that no token admits.
    #[error("method is not known")]
    UnknownMethod,
    /// A header says something else than the body.
    #[error("header {0} differs from the body")]
    HeaderMismatch(&'static str),
    /// No token.
    #[error("no token")]
    NoToken,
    /// The token is not acceptable.
    #[error("token: {0}")]
    Token(JwsError),
    /// The token does not belong here, or not to this sender.
    #[error("token refused: {0}")]
    TokenRefused(&'static str),
    /// The TLS client is no workload that may call.
    #[error("caller: {0}")]
    Caller(&'static str),
    /// Nothing is known now by which the TLS client's SVID could be verified.
    #[error("no bundles that callers' SVIDs are verified by")]
    NoBundles,
    /// The proof is missing or not acceptable.
    #[error("proof: {0}")]
    Proof(JwsError),
    /// No `DPoP` header.
    #[error("no proof")]
    NoProof,
    /// The proof was seen before.
    #[error("proof seen before")]
    ProofReplayed,
    /// The proof needs one of our nonces.
    #[error("nonce missing, foreign or stale")]
    Nonce,
    /// The token is for something else.
    #[error("scope: {0}")]
    Scope(&'static str),
    /// The tool is not approved, or no longer what was approved.
    #[error("tool: {0}")]
    Tool(&'static str),
    /// The arguments are not valid.
    #[error("arguments: {0}")]
    Arguments(SchemaError),
    /// The arguments are outside of the token's constraints.
    #[error("constraints: {0}")]
    Constraints(ConstraintError),
    /// This is another call than the one that was granted.
    #[error("call digest differs")]
    CallDiffers,
    /// The token, or something that it stands on, is revoked.
    #[error("revoked")]
    Revoked,
    /// The token was used as often as it may be.
    #[error("token used up")]
    UsedUp,
    /// A person's own token that cannot be exchanged here.
    #[error("user token: {0}")]
    UserToken(&'static str),
    /// A person's own token that lacks a scope which its issuer would have given.
    #[error("user token lacks a scope")]
    UserScope,
    /// The broker gives no token for this call.
    #[error("denied: {description}")]
    Denied {
        /// What it says.
        description: String,
        /// What an operator asks `explain` about.
        decision_id: Option<String>,
    },
    /// A person has to decide first.
    #[error("waiting for a person")]
    Waiting {
        /// Where.
        approval_uri: Option<String>,
        /// What an operator asks `explain` about.
        decision_id: Option<String>,
    },
    /// The person has to sign in again, more strongly or more recently (RFC 9470).
    #[error("user authentication too weak or too old")]
    UserAuthentication {
        /// Any of these satisfies.
        acr_values: Vec<String>,
        /// How old the sign-in may be, in seconds.
        max_age_seconds: Option<u64>,
        /// What an operator asks `explain` about.
        decision_id: Option<String>,
    },
    /// Over a rate.
    #[error("rate limited")]
    Limited {
        /// Seconds after which to come back.
        retry_after_seconds: u64,
    },
    /// Something that a decision needs is not at hand: fail closed.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
}

/// The answer to a refused request.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// `error` (RFC 6750 §3.1, RFC 9449 §7.1); empty where the request had no token at all.
    pub error: &'static str,
    /// What is wrong and what to do.
    pub description: String,
    /// Values of `WWW-Authenticate`.
    pub challenges: Vec<String>,
    /// Value of `DPoP-Nonce`.
    pub dpop_nonce: Option<String>,
    /// The `authorization_details` that would be needed (403 `insufficient_scope`).
    pub authorization_details: Option<Value>,
    /// Value of `Retry-After`.
    pub retry_after_seconds: Option<u64>,
    /// Where the answer goes to a client that knows nothing of us: the id of its request (null where it is not known),
    /// for an error of JSON-RPC.
    pub rpc_id: Option<Value>,
    /// Why, in our words.
    pub reason: Reason,
}

/// What would have to be granted for the call at hand.
#[derive(Debug, Clone)]
pub(crate) struct Needed {
    pub(crate) scope: String,
    pub(crate) details: Value,
}

impl Needed {
    /// What this call would need.
    pub(crate) fn for_call(config: &GuardConfig, call: &Call, level: Level) -> Self {
        let mut detail = json!({
            "type": deputize_call::claims::DETAIL_TYPE,
            "locations": [config.resource],
            "actions": [call.action.as_str()],
            "identifier": call.name,
        });
        if level == Level::L3
            && let Some(members) = detail.as_object_mut()
        {
            members.insert("arguments".to_owned(), Value::Object(call.arguments.clone()));
        }
        Self { scope: call.action.scope(&call.name), details: Value::Array(vec![detail]) }
    }

    /// Listing needs a token without `authorization_details`.
    pub(crate) fn for_listing() -> Self {
        Self { scope: "mcp:list".to_owned(), details: Value::Array(Vec::new()) }
    }
}

impl Refusal {
    pub(crate) fn new(
        reason: Reason,
        config: &GuardConfig,
        nonce: Option<String>,
        needed: Option<Needed>,
    ) -> Self {
        let (status, error, description) = render(&reason);
        let mut refusal = Self {
            status,
            error,
            description: description.to_owned(),
            challenges: Vec::new(),
            dpop_nonce: nonce,
            authorization_details: None,
            retry_after_seconds: (status == 503).then_some(RETRY_AFTER_SECONDS),
            rpc_id: None,
            reason,
        };
        match &refusal.reason {
            Reason::Arguments(error) => refusal.description = format!("{description} ({error})"),
            Reason::Constraints(error) => refusal.description = format!("{description} ({error})"),
            Reason::Denied { description: said, .. } => {
                refusal.description = format!("{description}: {said}")
            }
            Reason::Limited { retry_after_seconds } => {
                refusal.retry_after_seconds = Some(*retry_after_seconds)
            }
            _ => {}
        }
        let needed = needed.filter(|_| status == 403);
        if matches!(status, 401 | 403) {
            refusal.challenges = vec![challenge(error, config, needed.as_ref())];
        }
        if refusal.reason == Reason::NoToken && !config.accept_issuers.is_empty() {
            // First, for there are clients that read the first alone.
            refusal.challenges.insert(0, bearer_challenge(&refusal.reason, config));
        }
        refusal.authorization_details = needed.map(|needed| needed.details);
        refusal
    }

    /// As a client hears it that knows OAuth and nothing of us: no proof is demanded of it, and what it is told is an
    /// error of JSON-RPC under the id of its request.
    #[cfg(feature = "proxy")]
    pub(crate) fn for_ordinary(self, config: &GuardConfig, id: Option<&Value>) -> Self {
        let reason = match self.reason {
            // What is wrong with the guard's own token and proof is nothing that its caller could mend.
            Reason::Token(_)
            | Reason::TokenRefused(_)
            | Reason::Proof(_)
            | Reason::NoProof
            | Reason::ProofReplayed
            | Reason::Nonce
            | Reason::UsedUp => Reason::Unavailable("the guard's own token was refused"),
            reason => reason,
        };
        let mut refusal = Self::new(reason, config, None, None);
        refusal.challenges = match refusal.reason {
            // Clients that see a challenge send the user to sign in again: only where that helps.
            _ if refusal.status == 401 => vec![bearer_challenge(&refusal.reason, config)],
            Reason::UserScope => vec![bearer_challenge(&refusal.reason, config)],
            _ => Vec::new(),
        };
        refusal.rpc_id = Some(id.cloned().unwrap_or_default());
        refusal
    }

    /// The JSON body of the answer.
    pub fn body(&self) -> Value {
        let mut body = json!({ "error": self.error, "error_description": self.description });
        let Some(members) = body.as_object_mut() else { return body };
        if let Some(details) = &self.authorization_details {
            members.insert("authorization_details".to_owned(), details.clone());
        }
        let (decision_id, approval_uri) = match &self.reason {
            Reason::Waiting { approval_uri, decision_id } => (decision_id, approval_uri.as_ref()),
            Reason::Denied { decision_id, .. } | Reason::UserAuthentication { decision_id, .. } => {
                (decision_id, None)
            }
            _ => (&None, None),
        };
        for (name, value) in [("decision_id", decision_id.as_ref()), ("approval_uri", approval_uri)] {
            if let Some(value) = value {
                members.insert(name.to_owned(), json!(value));
            }
        }
        match &self.rpc_id {
            None => body,
            Some(id) => {
                let error = json!({ "code": REFUSED, "message": self.description, "data": body });
                json!({ "jsonrpc": "2.0", "id": id, "error": error })
            }
        }
    }
}

/// Status, code, and a sentence that gives nothing of the inside away. Every reason has its own arm.
fn render(reason: &Reason) -> (u16, &'static str, &'static str) {
    match reason {
        Reason::TooLarge => (413, "invalid_request", "the body is too large: send less"),
        Reason::HttpMethod => (405, "invalid_request", "use POST"),
        Reason::MediaType => (415, "invalid_request", "send uncompressed application/json in UTF-8"),
        Reason::RepeatedHeader(_) => (400, "invalid_request", "a header that may stand once was sent twice"),
        Reason::Json(_) => {
            (400, "invalid_request", "the body is not strict JSON: unique members, exact numbers, one value")
        }
        Reason::Message(what) => (400, "invalid_request", what),
        Reason::UnknownMethod => (403, "insufficient_scope", "no token admits this method"),
        Reason::HeaderMismatch(_) => (400, "invalid_request", "an Mcp- header differs from the body"),
        Reason::NoToken => (401, "", "send a token for this resource"),
        Reason::Token(_) | Reason::TokenRefused(_) => {
            (401, "invalid_token", "the token is not good here: exchange anew for this resource")
        }
        Reason::Caller(_) => (
            403,
            "access_denied",
            "show the X.509-SVID of a workload that may call here, in the TLS handshake",
        ),
        Reason::NoBundles => {
            (503, "temporarily_unavailable", "no bundles to verify an X.509-SVID by: come back later")
        }
        Reason::Proof(_) | Reason::NoProof | Reason::ProofReplayed => (
            401,
            "invalid_dpop_proof",
            "send one fresh proof of the token's key for this URL, method and token",
        ),
        Reason::Nonce => {
            (401, "use_dpop_nonce", "repeat with the nonce of the DPoP-Nonce header in the proof")
        }
        Reason::Scope(_) | Reason::CallDiffers => {
            (403, "insufficient_scope", "the token is for something else: exchange for exactly this call")
        }
        Reason::Tool(_) => (403, "insufficient_scope", "this tool is not approved as it is now"),
        Reason::Arguments(_) => {
            (403, "insufficient_scope", "the arguments do not satisfy the approved schema")
        }
        Reason::Constraints(_) => {
            (403, "insufficient_scope", "the arguments are outside of the token's constraints")
        }
        Reason::Revoked => (401, "invalid_token", "the token was revoked"),
        Reason::UsedUp => (401, "invalid_token", "the token was used as often as it may be: exchange anew"),
        Reason::UserToken(_) => {
            (401, "invalid_token", "the token is not good here: get one for this resource from its issuer")
        }
        Reason::UserScope => (
            403,
            "insufficient_scope",
            "the token lacks a scope: ask its issuer for what the challenge names",
        ),
        Reason::Denied { .. } => (403, "insufficient_scope", "this call is not allowed"),
        Reason::Waiting { .. } => (
            403,
            "authorization_pending",
            "a person has to approve this call first: let them decide, then call again with the same arguments",
        ),
        Reason::UserAuthentication { .. } => (
            401,
            "insufficient_user_authentication",
            "the user has to sign in again for this call, more strongly or more recently",
        ),
        Reason::Limited { .. } => (429, "temporarily_unavailable", "too many calls: come back later"),
        Reason::Unavailable(_) => {
            (503, "temporarily_unavailable", "the call cannot be decided now: come back later")
        }
    }
}

/// RFC 9449 §7.1, RFC 6750 §3, RFC 9728 §5.1. Nothing in it comes from the request but the scope, whose
/// characters are checked.
fn challenge(error: &str, config: &GuardConfig, needed: Option<&Needed>) -> String {
    let mut challenge =
        format!("DPoP resource_metadata=\"{}\", algs=\"ES256 EdDSA\"", quotable(&config.resource_metadata));
    if !error.is_empty() {
        challenge.push_str(&format!(", error=\"{error}\""));
    }
    if let Some(needed) = needed {
        challenge.push_str(&format!(", scope=\"{}\"", quotable(&needed.scope)));
    }
    challenge
}

/// RFC 6750 §3, RFC 9728 §5.1, RFC 9470 §3: for clients that present a person's own token.
fn bearer_challenge(reason: &Reason, config: &GuardConfig) -> String {
    let mut challenge = format!("Bearer resource_metadata=\"{}\"", quotable(&config.resource_metadata));
    let (_, error, description) = render(reason);
    if !error.is_empty() {
        challenge.push_str(&format!(", error=\"{error}\", error_description=\"{description}\""));
    }
    if let Reason::UserAuthentication { acr_values, max_age_seconds, .. } = reason {
        if !acr_values.is_empty() {
            let values: Vec<String> = acr_values.iter().map(|value| quotable(value)).collect();
            challenge.push_str(&format!(", acr_values=\"{}\"", values.join(" ")));
        }
        if let Some(seconds) = max_age_seconds {
            challenge.push_str(&format!(", max_age=\"{seconds}\""));
        }
    }
    if !config.accept_scopes.is_empty() {
        let scopes: Vec<String> = config.accept_scopes.iter().map(|scope| quotable(scope)).collect();
        challenge.push_str(&format!(", scope=\"{}\"", scopes.join(" ")));
    }
    challenge
}

fn quotable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).take(MAX_QUOTED_CHARS).collect()
}

/// Outside of what JSON-RPC reserves (JSON-RPC 2.0 §5.1): the guard refused something.
const REFUSED: i64 = 1;
const RETRY_AFTER_SECONDS: u64 = 1;
const MAX_QUOTED_CHARS: usize = 256;
