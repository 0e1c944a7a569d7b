//! The claims of a tool-call token (RFC 9068 `at+jwt`, with `act`, `cnf`, `authorization_details`).

use crate::{
    action::Action, constraints::Constraints, digest::Digest, jws::JwsError, level::Level, offers::Shown,
};
use serde::{Deserialize, Serialize};

/// `typ` of a tool-call token (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";
/// `type` of our one `authorization_details` entry (RFC 9396).
pub const DETAIL_TYPE: &str = "mcp_tool_call";

/// All claims of a tool-call token. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCallClaims {
    /// The broker.
    pub iss: String,
    /// The person in whose name the call runs; for a client's own L0 token, the client.
    pub sub: String,
    /// The tenant, which client, server and person share.
    pub tenant: String,
    /// The server's resource URI, alone.
    pub aud: String,
    /// The OAuth client that made the exchange.
    pub client_id: String,
    /// Issued at.
    pub iat: u64,
    /// Not before.
    pub nbf: u64,
    /// Expires.
    pub exp: u64,
    /// Unique id of the token.
    pub jti: String,
    /// Names the tool, prompt or resource; `mcp:list` at L0.
    pub scope: String,
    /// The key that the bearer must prove.
    pub cnf: Confirmation,
    /// Who acts for `sub`. Absent only where a client acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    /// Where the person's own token was presented to a server as it stood, and that server's guard made the exchange:
    /// by whom. Constant through every hop; absent where an agent exchanged for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<PresentedBy>,
    /// The transaction, constant through every hop.
    pub txn: String,
    /// `jti` of the token this one was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pjti: Option<String>,
    /// What was granted; exactly one entry.
    pub authorization_details: [GrantedDetail; 1],
    /// Its place in the audit log.
    pub log: LogPlace,
}

/// `cnf` (RFC 7800): `jkt` (RFC 9449 §6.1) or `x5t#S256` (RFC 8705 §3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Confirmation {
    /// SHA-256 JWK thumbprint of the DPoP key.
    #[serde(rename = "jkt")]
    Jkt(String),
    /// SHA-256 of the client certificate.
    #[serde(rename = "x5t#S256")]
    X5tS256(String),
}

/// `act` (RFC 8693 §4.1): who acts now; its predecessors nest inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The acting party: a client's configured actor (often a SPIFFE ID) or its `client_id`.
    pub sub: String,
    /// Who acted before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

/// The client that presented a person's token as a bearer token (RFC 6750): as its issuer says, for nothing proves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresentedBy {
    /// The identity provider.
    pub iss: String,
    /// Whom it made the token for (`azp`, `client_id`).
    pub client: String,
}

/// The one `authorization_details` entry, as granted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedDetail {
    /// Always [`DETAIL_TYPE`].
    #[serde(rename = "type")]
    pub detail_type: String,
    /// The server's resource URI, alone.
    pub locations: [String; 1],
    /// JSON-RPC methods: one at L1 and above, the listing methods at L0.
    pub actions: Vec<String>,
    /// Tool, prompt or resource; absent at L0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// The approved definition of the tool; absent at L0, and for prompts and resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_digest: Option<Digest>,
    /// The approved definition of the prompt; for prompts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_digest: Option<Digest>,
    /// The approved manifest of the server.
    pub manifest_digest: Digest,
    /// L3: the one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_digest: Option<Digest>,
    /// L2: what each argument may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// How many calls; 1 at L3, absent at L0 and L1 where none is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
    /// L0: what lists show. A token without it shows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
    /// What allowed it.
    pub policy: PolicyRef,
}

/// The policy set and the policies in it that allowed a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRef {
    /// Digest of the whole policy set.
    pub digest: String,
    /// Ids of the determining policies.
    pub ids: Vec<String>,
}

/// Where the intent record of a token stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPlace {
    /// The replica that made the token: the origin of its log.
    pub origin: String,
    /// The record's index in that log.
    pub index: u64,
}

impl ToolCallClaims {
    /// Checks what the types alone do not say: the claims agree with each other, and the entry has the shape of its
    /// level. A token that fails this was not made by a broker of ours.
    pub fn check(&self) -> Result<(), JwsError> {
        let named = [
            ("sub", &self.sub),
            ("tenant", &self.tenant),
            ("client_id", &self.client_id),
            ("jti", &self.jti),
            ("scope", &self.scope),
            ("txn", &self.txn),
        ];
        for (name, value) in named {
            if value.is_empty() {
                return Err(JwsError::Claim(name, "empty"));
            }
        }
        if self.exp < self.nbf || self.exp < self.iat {
            return Err(JwsError::Claim("exp", "before the token begins"));
        }
        let (Confirmation::Jkt(thumbprint) | Confirmation::X5tS256(thumbprint)) = &self.cnf;
        if thumbprint.parse::<Digest>().is_err() {
            return Err(JwsError::Claim("cnf", "not a SHA-256 thumbprint"));
        }
        if self.act.iter().flat_map(Actor::chain).any(str::is_empty) {
            return Err(JwsError::Claim("act", "empty sub"));
        }
        if self.bearer.as_ref().is_some_and(|by| by.iss.is_empty() || by.client.is_empty()) {
            return Err(JwsError::Claim("bearer", "empty"));
        }
        let [detail] = &self.authorization_details;
        let [location] = &detail.locations;
        if *location != self.aud {
            return Err(bad_detail("location is not the audience"));
        }
        detail.check()
    }
}

impl GrantedDetail {
    /// The binding level that this entry expresses.
    pub fn level(&self) -> Level {
        match (&self.identifier, &self.call_digest, &self.constraints) {
            (_, Some(_), _) => Level::L3,
            (_, None, Some(_)) => Level::L2,
            (Some(_), None, None) => Level::L1,
            (None, None, None) => Level::L0,
        }
    }
    /// Whether the entry has exactly the members of its level.
    fn check(&self) -> Result<(), JwsError> {
        if self.detail_type != DETAIL_TYPE {
            return Err(bad_detail("unknown type"));
        }
        if self.actions.is_empty() || self.actions.iter().any(String::is_empty) {
            return Err(bad_detail("no action"));
        }
        let level = self.level();
        if level == Level::L0 {
            if self.tool_digest.is_some() || self.prompt_digest.is_some() {
                return Err(bad_detail("a tool's digest without the tool"));
            }
            let is_sound = self.shown.as_ref().is_none_or(Shown::is_well_formed);
            return if is_sound { Ok(()) } else { Err(bad_detail("malformed lists")) };
        }
        if self.shown.is_some() {
            return Err(bad_detail("lists, and something to do"));
        }
        if self.identifier.as_deref().is_none_or(str::is_empty) || self.actions.len() != 1 {
            return Err(bad_detail("not exactly one action on one identifier"));
        }
        let action = self.actions.first().and_then(|action| Action::from_method(action));
        if self.tool_digest.is_some() != (action == Some(Action::CallTool))
            || self.prompt_digest.is_some() != (action == Some(Action::GetPrompt))
        {
            return Err(bad_detail("a tool or prompt that is not pinned, or pinned as another"));
        }
        match (level, self.max_uses) {
            (Level::L2, None) | (Level::L1 | Level::L2, Some(0)) => {
                Err(bad_detail("max_uses missing or zero"))
            }
            (Level::L3, uses) if uses != Some(1) => Err(bad_detail("one call, but not one use")),
            // A call digest beside constraints would leave open which of them binds.
            (Level::L3, _) if self.constraints.is_some() => Err(bad_detail("two bindings")),
            _ => match self.constraints.as_ref().map(Constraints::check) {
                Some(Err(_)) => Err(bad_detail("malformed constraints")),
                Some(Ok(())) | None => Ok(()),
            },
        }
    }
}

impl Actor {
    /// The actors from the one that acts now back to the first.
    pub fn chain(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self), |actor| actor.act.as_deref()).map(|actor| actor.sub.as_str())
    }
}

fn bad_detail(reason: &'static str) -> JwsError {
    JwsError::Claim("authorization_details", reason)
}
