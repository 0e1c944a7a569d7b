//! What a guard lets through. Private fields, no constructor outside of the guard: there is no other way to the server.

use deputize_call::{action::Action, claims::ToolCallClaims, digest::Digest, json::Object, level::Level};
use serde_json::Value;

/// A request that passed every check.
#[derive(Debug)]
#[cfg_attr(
    feature = "proxy",
    expect(clippy::large_enum_variant, reason = "most are calls, and each is moved once")
)]
pub enum Verified {
    /// One call of one tool; or one prompt, or one resource, to be given.
    Call(VerifiedCall),
    /// Discovery, listing, a notification.
    Listing(VerifiedListing),
    /// The client's answer to what the server asked. It may go only into the session in which the server asked that;
    /// where no sessions are kept, nowhere.
    Response(VerifiedResponse),
}

/// A call that may run, once.
pub struct VerifiedCall {
    pub(crate) claims: ToolCallClaims,
    pub(crate) token: String,
    pub(crate) action: Action,
    pub(crate) name: String,
    pub(crate) arguments: Object,
    pub(crate) input_responses: Option<Value>,
    pub(crate) request_state: Option<Value>,
    pub(crate) call_digest: Digest,
    pub(crate) mirrored: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) next_nonce: String,
    #[cfg(feature = "proxy")]
    pub(crate) aws: crate::aws::Given,
}

/// A request that only looks: its result is still to be filtered to approved tools.
pub struct VerifiedListing {
    pub(crate) claims: ToolCallClaims,
    pub(crate) method: String,
    pub(crate) body: Vec<u8>,
    pub(crate) next_nonce: String,
}

/// A response to a request of the server.
pub struct VerifiedResponse {
    pub(crate) claims: ToolCallClaims,
    pub(crate) id: Value,
    pub(crate) body: Vec<u8>,
    pub(crate) next_nonce: String,
}

/// A request to listen to the server's messages, or to end a session: it has no body.
pub struct VerifiedStream {
    pub(crate) claims: ToolCallClaims,
    pub(crate) next_nonce: String,
}

impl VerifiedCall {
    /// The token's claims: person, actors, transaction.
    pub fn claims(&self) -> &ToolCallClaims {
        &self.claims
    }
    /// The binding level of the token.
    pub fn level(&self) -> Level {
        let [detail] = &self.claims.authorization_details;
        detail.level()
    }
    /// What is done: which method this is.
    pub fn action(&self) -> Action {
        self.action
    }
    /// Name of the tool or prompt; URI of the resource, verbatim.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The arguments that were verified.
    pub fn arguments(&self) -> &Object {
        &self.arguments
    }
    /// What the client answered to the server's questions, where this is a retry of a multi-round-trip call.
    pub fn input_responses(&self) -> Option<&Value> {
        self.input_responses.as_ref()
    }
    /// The state that the server gave it for such a retry.
    pub fn request_state(&self) -> Option<&Value> {
        self.request_state.as_ref()
    }
    /// Digest of this call, at every level.
    pub fn call_digest(&self) -> Digest {
        self.call_digest
    }
    /// The body to forward, serialized from what was verified.
    pub fn rebuilt_body(&self) -> &[u8] {
        &self.body
    }
    /// The header fields that go with it. None of the request's own `Mcp-*`, `Authorization` or `DPoP` may follow.
    /// The token is spent or bound, so it helps no thief; the server learns from it who calls and brings it back
    /// for its next hop.
    pub fn forwarded_headers(&self) -> [(&'static str, &str); 4] {
        [
            ("Content-Type", "application/json"),
            ("Mcp-Method", self.action.as_str()),
            ("Mcp-Name", &self.name),
            ("Deputize-Call", &self.token),
        ]
    }
    /// The `Mcp-Param-*` fields that go with it, from the approved schema and the verified arguments.
    pub fn mirrored_headers(&self) -> &[(String, String)] {
        &self.mirrored
    }
    /// `DPoP-Nonce` of the answer (RFC 9449 §8.2).
    pub fn next_nonce(&self) -> &str {
        &self.next_nonce
    }
}

impl VerifiedResponse {
    /// The token's claims.
    pub fn claims(&self) -> &ToolCallClaims {
        &self.claims
    }
    /// The id of the server's request.
    pub fn id(&self) -> &Value {
        &self.id
    }
    /// The body to forward, serialized from what was read.
    pub fn rebuilt_body(&self) -> &[u8] {
        &self.body
    }
    /// `DPoP-Nonce` of the answer (RFC 9449 §8.2).
    pub fn next_nonce(&self) -> &str {
        &self.next_nonce
    }
}

impl VerifiedStream {
    /// The token's claims.
    pub fn claims(&self) -> &ToolCallClaims {
        &self.claims
    }
    /// `DPoP-Nonce` of the answer (RFC 9449 §8.2).
    pub fn next_nonce(&self) -> &str {
        &self.next_nonce
    }
}

impl VerifiedListing {
    /// The token's claims.
    pub fn claims(&self) -> &ToolCallClaims {
        &self.claims
    }
    /// The JSON-RPC method.
    pub fn method(&self) -> &str {
        &self.method
    }
    /// The body to forward, serialized from what was read.
    pub fn rebuilt_body(&self) -> &[u8] {
        &self.body
    }
    /// The header fields that go with it.
    pub fn forwarded_headers(&self) -> [(&'static str, &str); 2] {
        [("Content-Type", "application/json"), ("Mcp-Method", &self.method)]
    }
    /// `DPoP-Nonce` of the answer (RFC 9449 §8.2).
    pub fn next_nonce(&self) -> &str {
        &self.next_nonce
    }
}

// Arguments and tokens stay out of logs.
impl std::fmt::Debug for VerifiedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedCall")
            .field("jti", &self.claims.jti)
            .field("method", &self.action.as_str())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VerifiedListing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (jti, method) = (&self.claims.jti, &self.method);
        f.debug_struct("VerifiedListing").field("jti", jti).field("method", method).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VerifiedResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedResponse").field("jti", &self.claims.jti).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VerifiedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedStream").field("jti", &self.claims.jti).finish_non_exhaustive()
    }
}
