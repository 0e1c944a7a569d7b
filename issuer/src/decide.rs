//! Stage 4: may this be? Grant, denial, or wait for a person.
//!
//! Rights are what the person may ∩ what the client may ∩ what is asked ∩ what policy allows; at a next hop also
//! ∩ what the calling tool lists as `downstream` and ∩ what every agent in the chain may. Never a union.

mod claims;
mod leaf;
mod node;
mod own_svid;
mod role;
mod svid;
mod target;
mod visible;

pub(crate) use leaf::Leaf;
pub(crate) use node::NodeSvidApplication;
pub use node::NodeSvidTerms;
pub(crate) use own_svid::OwnSvidApplication;
pub(crate) use role::RoleApplication;
pub use role::RoleTerms;
pub(crate) use svid::{JwtSvidApplication, X509SvidApplication, entitled};
pub use svid::{JwtSvidTerms, X509SvidTerms};
pub(crate) use target::{Pinned, Wanted};

use deputize_call::{
    action::Action,
    claims::{Confirmation, ToolCallClaims},
    json::Object,
    level::Level,
};
use std::sync::Arc;
use uuid::Uuid;

use self::{
    claims::{claims, no_longer_than},
    target::{check_call, check_scope, find_target},
};
use crate::{
    ask::{Ask, CallAsk},
    authenticate::{Caller, check_again},
    desk::{Desk, Rules},
    error::{DenialReason, IssueError},
    hop,
    lineage::Born,
    mint::Mint,
    node::SeenBy,
    policy::{Binding, Claimed, Facts, Verdict},
    record::SvidEntry,
    registry::{Tier, Tool},
    revocation::Revoked,
    risk::{self, Risk},
    verify_subject::Subject,
};

/// An exchange that has been parsed, authenticated and verified, and now wants a decision.
#[derive(Debug, Clone, Copy)]
pub struct Application<'a> {
    /// Id of the decision, made at the door.
    pub decision_id: Uuid,
    /// Who asks.
    pub caller: &'a Caller,
    /// For whom; `None` where a client asks for itself (`client_credentials`).
    pub subject: Option<&'a Subject>,
    /// For what.
    pub ask: &'a Ask,
}

/// What wants a decision: an exchange, a session of a role. Each is decided by rules of its own, and then goes the same
/// way.
pub trait Decide: Sync {
    /// What a yes lays down.
    type Terms: Mint;
    /// Decides.
    ///
    /// # Errors
    /// Every way in which the answer is no.
    fn decide(&self, desk: &Desk) -> Result<Decision<Self::Terms>, IssueError>;
}

/// What `decide` answers when it is not a denial.
#[derive(Debug)]
pub enum Decision<T> {
    /// Yes.
    Grant(Grant<T>),
    /// Not before a person has said yes.
    Wait(Wait),
}

/// Permission to mint one credential. Only this stage makes it, it can be neither copied nor built otherwise, and
/// only [`crate::record::open_record`] takes it.
///
/// INVARIANT: a `Grant` stands for one decision, and is used at most once.
#[derive(Debug)]
#[must_use = "a grant that is dropped was a decision for nothing"]
pub struct Grant<T> {
    terms: T,
}

/// What was granted to an exchange. For the record and the mint alone.
#[derive(Debug)]
pub struct ToolCallTerms {
    pub(crate) decision_id: Uuid,
    pub(crate) claims: ToolCallClaims,
    pub(crate) tier: Option<Tier>,
    pub(crate) risk: Risk,
    pub(crate) arguments: Option<Object>,
    /// How the client proved itself.
    pub(crate) method: &'static str,
    pub(crate) spent: Option<crate::authenticate::SpentId>,
    pub(crate) claimed: crate::ask::Claimed,
    pub(crate) registry_digest: String,
    pub(crate) person_issuer: Option<String>,
    pub(crate) attested: Option<Arc<SvidEntry>>,
    /// Through which node it is known who asks, where the broker did not look itself.
    pub(crate) seen_by: Option<SeenBy>,
}

/// A call that waits for a person.
#[derive(Debug)]
pub struct Wait {
    /// What a person has to do.
    pub requirement: crate::policy::Requirement,
}

/// Decides.
///
/// # Errors
/// Every way in which the answer is no: [`IssueError::Target`], [`IssueError::AuthorizationDetails`],
/// [`IssueError::LevelTooLow`], [`IssueError::Scope`], [`IssueError::UserAuthentication`], [`IssueError::Denied`];
/// and [`IssueError::Uncertain`] where what it needs is not certain.
pub fn decide(desk: &Desk, application: &Application<'_>) -> Result<Decision<ToolCallTerms>, IssueError> {
    if !desk.clock_watch.agrees(desk.clock.as_ref()) {
        return Err(IssueError::Uncertain("clocks_disagree"));
    }
    if application.ask.approval_id.is_some() {
        // No approval was ever given out: whoever comes back with one made it up.
        return Err(IssueError::Request("approval_unknown"));
    }
    let rules = desk.rules.load();
    let entry_ends = check_again(desk, &rules, application.caller)?;
    let wanted = find_target(&rules, application)?;
    check_drift(desk, &wanted)?;
    check_call(&wanted, application.ask)?;
    hop::check_ceiling(desk, &rules, application, &wanted)?;
    check_scope(application.ask, &wanted)?;
    check_user_authentication(desk, application, &wanted)?;
    let risk = assess(application, &wanted);
    let verdict = ask_policy(desk, &rules, application, &wanted, &risk)?;
    if let Some(requirement) = requirement(&wanted, &verdict) {
        return Ok(Decision::Wait(Wait { requirement }));
    }
    let shown = visible::shown(desk, &rules, application, &wanted)?;
    let claims = claims(desk, application, &wanted, (&verdict, rules.policies.digest()), shown)?;
    let claims = no_longer_than(entry_ends, claims)?;
    check_not_revoked(desk, &claims)?;
    remember_lineage(desk, &rules, application, &wanted, &claims)?;
    Ok(Decision::Grant(Grant {
        terms: ToolCallTerms {
            decision_id: application.decision_id,
            claims,
            tier: wanted.tool.as_ref().map(|tool| tool.record.tier),
            risk,
            arguments: wanted.arguments(application.ask).cloned(),
            method: application.caller.method(),
            spent: application.caller.spent(),
            claimed: application.ask.claimed.clone(),
            registry_digest: rules.registry.digest().to_string(),
            person_issuer: application.subject.map(|subject| subject.person().issuer.clone()),
            attested: application.caller.attested().cloned(),
            seen_by: application.caller.witness().cloned(),
        },
    }))
}

impl Decide for Application<'_> {
    type Terms = ToolCallTerms;
    fn decide(&self, desk: &Desk) -> Result<Decision<ToolCallTerms>, IssueError> {
        decide(desk, self)
    }
}

impl<T> Grant<T> {
    pub(crate) fn terms(&self) -> &T {
        &self.terms
    }

    /// Gives the terms up to the record; the grant is gone.
    pub(crate) fn into_terms(self) -> T {
        self.terms
    }
}

/// Neither the person nor the transaction may have been revoked.
fn check_not_revoked(desk: &Desk, claims: &ToolCallClaims) -> Result<(), IssueError> {
    let refuse = |reason| Err(IssueError::SubjectToken { reason, detail: String::new() });
    if desk.revocations.any_revoked(&[Revoked::Person(claims.sub.clone())]) {
        return refuse("person_disabled");
    }
    if desk.revocations.any_revoked(&[Revoked::Transaction(claims.txn.clone())]) {
        return refuse("transaction_revoked");
    }
    Ok(())
}

/// RFC 9470: strong and recent enough for this tool.
fn check_user_authentication(
    desk: &Desk,
    application: &Application<'_>,
    wanted: &Wanted,
) -> Result<(), IssueError> {
    let (Some(subject), Some(tool)) = (application.subject, &wanted.tool) else { return Ok(()) };
    let (person, record) = (subject.person(), &tool.record);
    let strong = record.acr_values.is_empty()
        || person.acr.as_ref().is_some_and(|acr| record.acr_values.contains(acr));
    let recent = record.max_age_seconds.is_none_or(|max_age| {
        person.auth_time.is_some_and(|at| at.saturating_add(max_age) >= desk.clock.now_seconds())
    });
    if strong && recent {
        return Ok(());
    }
    Err(IssueError::UserAuthentication {
        acr_values: record.acr_values.clone(),
        max_age_seconds: record.max_age_seconds,
    })
}

fn assess(application: &Application<'_>, wanted: &Wanted) -> Risk {
    risk::assess(&risk::Look {
        server: &wanted.server,
        tool: wanted.tool.as_deref(),
        level: wanted.level,
        delegation_depth: application.subject.map_or(0, |subject| subject.act().chain().skip(1).count()),
        arguments_seen: wanted.arguments(application.ask).is_some(),
    })
}

/// Policy, for the agent that acts now and again for each one before it: a chain may do what all of it may.
fn ask_policy(
    desk: &Desk,
    rules: &Rules,
    application: &Application<'_>,
    wanted: &Wanted,
    risk: &Risk,
) -> Result<Verdict, IssueError> {
    let chain = chain(application);
    let Some((acting, predecessors)) = chain.split_first() else {
        return Err(IssueError::Internal("empty_actor_chain"));
    };
    let mut facts = facts(desk, application, wanted, risk, (acting, predecessors));
    let mut verdict = allowed(rules.policies.evaluate(&facts))?;
    for predecessor in predecessors {
        hop::check_predecessor(&desk.known(rules), predecessor, application, wanted)?;
        facts.actor = predecessor;
        // What a policy demands for one agent of the chain is demanded of the whole.
        verdict.requires.extend(allowed(rules.policies.evaluate(&facts))?.requires);
    }
    Ok(verdict)
}

/// Who acts, from the agent that acts now back to the first.
fn chain(application: &Application<'_>) -> Vec<String> {
    match application.subject {
        Some(subject) => subject.act().chain().map(str::to_owned).collect(),
        None => vec![application.caller.client().actor().to_owned()],
    }
}

/// What policy is asked about.
fn facts<'f>(
    desk: &Desk,
    application: &Application<'f>,
    wanted: &'f Wanted,
    risk: &Risk,
    (actor, actor_chain): (&'f str, &'f [String]),
) -> Facts<'f> {
    let ask = application.ask;
    let client = application.caller.client();
    let bearer = application.subject.and_then(Subject::bearer);
    Facts {
        tenant: &client.tenant,
        person: application.subject.map(|subject| subject.person().as_ref()),
        client_id: &client.id,
        actor,
        actor_chain,
        server: &wanted.server,
        tool: wanted.tool.as_deref(),
        action: wanted.tool.as_ref().map_or("tools/list", |tool| tool.action.as_str()),
        level: wanted.level,
        binding: match (bearer, application.caller.confirmation()) {
            (None, Some(Confirmation::Jkt(_))) => Binding::Dpop,
            (None, Some(Confirmation::X5tS256(_))) => Binding::Mtls,
            (Some(_), _) | (None, None) => Binding::Bearer,
        },
        bearer_client: bearer.map(|by| by.client.as_str()),
        arguments: wanted.arguments(ask),
        call_digest_only: matches!(&ask.call, CallAsk::Call(call) if call.arguments.is_none()),
        constraints: match &ask.call {
            CallAsk::Constrained { constraints, .. } => Some(constraints),
            CallAsk::Listing | CallAsk::Tool { .. } | CallAsk::Call(_) => None,
        },
        claimed: Claimed {
            host: ask.claimed.host.as_deref(),
            model: ask.claimed.model.as_deref(),
            workflow: ask.claimed.workflow.as_deref(),
            parent_request_id: ask.claimed.parent_request_id.as_deref(),
        },
        risk_score: risk.score,
        approval: None,
        data_classes_read: &[],
        now: desk.clock.now_seconds(),
    }
}

/// A definition that changed behind its approval is not what policy and people have judged (S-18).
fn check_drift(desk: &Desk, wanted: &Wanted) -> Result<(), IssueError> {
    match &wanted.tool {
        Some(tool) if desk.drifts.has_drifted(&wanted.server, tool) => {
            Err(IssueError::AuthorizationDetails {
                reason: "tool_drifted",
                detail: "the server no longer defines this tool as it was approved; it has to be reviewed"
                    .to_owned(),
            })
        }
        Some(_) | None => Ok(()),
    }
}

fn allowed(verdict: Verdict) -> Result<Verdict, IssueError> {
    if verdict.allowed {
        return Ok(verdict);
    }
    tracing::debug!(policy_ids = ?verdict.policy_ids, errors = ?verdict.errors, "policy denied");
    Err(IssueError::Denied(DenialReason::Policy { ids: verdict.policy_ids, errors: verdict.errors }))
}

/// High waits for the user, critical for others, and policy may ask for more at any tier.
fn requirement(wanted: &Wanted, verdict: &Verdict) -> Option<crate::policy::Requirement> {
    use crate::policy::Requirement;
    let by_tier = match wanted.tool.as_ref().map(|tool| tool.record.tier) {
        Some(Tier::Critical) => Some(Requirement::Approve),
        Some(Tier::High) => Some(Requirement::Confirm),
        Some(Tier::Medium | Tier::Low) | None => None,
    };
    verdict.requires.iter().copied().chain(by_tier).max()
}

/// Held for what may have children, is one, or may lead to a session of a role, which is the person's. Before anything
/// is minted, so that a revocation of the parent which comes in between finds the child.
fn remember_lineage(
    desk: &Desk,
    rules: &Rules,
    application: &Application<'_>,
    wanted: &Wanted,
    claims: &ToolCallClaims,
) -> Result<(), IssueError> {
    let Some(subject) = application.subject else { return Ok(()) };
    let server = &wanted.server.record.resource;
    let leads_on = |tool: &Arc<Tool>| {
        let has_template = tool.action == Action::CallTool && rules.templates.any_for(server, &tool.name);
        !tool.record.downstream.is_empty() || has_template
    };
    let leads_on = wanted.level <= Level::L1 || wanted.tool.as_ref().is_some_and(leads_on);
    if !leads_on && claims.pjti.is_none() {
        return Ok(());
    }
    let born = Born {
        jti: &claims.jti,
        parent: claims.pjti.as_deref(),
        person: Some(Arc::clone(subject.person())),
        client_id: &claims.client_id,
        audience: &claims.aud,
        txn: &claims.txn,
        expires_at: claims.exp,
    };
    desk.lineage.remember(born, claims.iat)?;
    if subject.parent().is_some_and(|parent| desk.is_revoked(&parent.claims)) {
        return Err(IssueError::SubjectToken { reason: "subject_token_revoked", detail: String::new() });
    }
    Ok(())
}

/// What an L0 token's scope says.
pub const LISTING_SCOPE: &str = "mcp:list";
/// What an L0 token lets do.
pub const LISTING_ACTIONS: [&str; 5] =
    ["server/discover", "tools/list", "resources/list", "resources/templates/list", "prompts/list"];
const DEFAULT_MAX_USES: u32 = 10;
