//! What a decision is made of, and what it says.

use crate::{
    person::Person,
    registry::{DataClass, Server, Tool},
};
use deputize_call::{constraints::Constraints, json::Object, level::Level};

/// One request, as policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's tenant; the person's and the server's must be the same.
    pub tenant: &'a str,
    /// The user; `None` for a client that asks for itself (`client_credentials`, L0 only).
    pub person: Option<&'a Person>,
    /// The authenticated client.
    pub client_id: &'a str,
    /// Who acts now: `act.sub`, a SPIFFE ID or a client id.
    pub actor: &'a str,
    /// The actor's predecessors, nearest first.
    pub actor_chain: &'a [String],
    /// The server asked for.
    pub server: &'a Server,
    /// The tool asked for; `None` at L0.
    pub tool: Option<&'a Tool>,
    /// MCP method: `tools/call`, `tools/list`, `resources/read`, `prompts/get`.
    pub action: &'a str,
    /// Binding level asked for.
    pub level: Level,
    /// What the person's presence at the first server rests on.
    pub binding: Binding,
    /// Whom the issuer made a person's token for that was presented as it stood ([`Binding::Bearer`]).
    pub bearer_client: Option<&'a str>,
    /// The call's arguments, at L3.
    pub arguments: Option<&'a Object>,
    /// L3 by `call_digest` alone: policies that read arguments deny.
    pub call_digest_only: bool,
    /// What the arguments are constrained to, at L2.
    pub constraints: Option<&'a Constraints>,
    /// What the client claims of itself.
    pub claimed: Claimed<'a>,
    /// Risk score, 0–100.
    pub risk_score: u8,
    /// An approval that was given to this very call.
    pub approval: Option<&'a ApprovalFacts>,
    /// Sensitivity of what the transaction has read so far.
    pub data_classes_read: &'a [DataClass],
    /// Seconds since the epoch.
    pub now: u64,
}

/// What the agent that asks has proved about the token that began this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binding {
    /// That it holds a DPoP key (RFC 9449), to which its token is bound.
    Dpop,
    /// That it holds a client certificate (RFC 8705).
    Mtls,
    /// Nothing: it presented the person's token to the server as it stood (RFC 6750), and the server's guard exchanged
    /// it. Whoever steals such a token can do the same.
    Bearer,
}

/// What a client says of the circumstances: recorded and shown to policy *as claimed*.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claimed<'a> {
    /// The application that hosts the agent.
    pub host: Option<&'a str>,
    /// The model.
    pub model: Option<&'a str>,
    /// The workflow.
    pub workflow: Option<&'a str>,
    /// The request that led to this one.
    pub parent_request_id: Option<&'a str>,
}

/// An approval that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalFacts {
    /// Which of the two kinds.
    pub kind: Requirement,
    /// Who gave it.
    pub by: Vec<String>,
}

/// What a policy asks for beside its permission: `@require_approval("confirm")` or `("approve")`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The user confirms.
    Confirm,
    /// Others approve.
    Approve,
}

/// The answer of the policy engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether policy allows the request.
    pub allowed: bool,
    /// The policies that decided, sorted: those which permit, those which forbid, or those which failed; none for
    /// a denial by default.
    pub policy_ids: Vec<String>,
    /// Why the request could not be evaluated. Never empty where a policy failed; then `allowed` is false. Holds no
    /// value of an argument.
    pub errors: Vec<String>,
    /// What the deciding permits ask for, sorted: all of it, not one of it.
    pub requires: Vec<Requirement>,
}

impl Verdict {
    /// A denial for a reason that lies outside the policies.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self { allowed: false, policy_ids: Vec::new(), errors: vec![reason.into()], requires: Vec::new() }
    }
}

impl Binding {
    /// `"dpop"`, `"mtls"`, `"bearer"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dpop => "dpop",
            Self::Mtls => "mtls",
            Self::Bearer => "bearer",
        }
    }
}

impl Requirement {
    /// `"confirm"`, `"approve"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Approve => "approve",
        }
    }

    /// The requirement of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Confirm, Self::Approve].into_iter().find(|requirement| requirement.as_str() == name)
    }
}
