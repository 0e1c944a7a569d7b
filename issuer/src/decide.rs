//! Stage 4: may this be? Grant, denial, or wait for a person.
//!
//! Rights are what the person may ∩ what the client may ∩ what is asked ∩ what policy allows; at a next hop also
//! ∩ what the calling tool lists as `downstream` and ∩ what every agent in the chain may. Never a union.

use deputize_call::{
    claims::{Confirmation, DETAIL_TYPE, GrantedDetail, LogPlace, PolicyRef, ToolCallClaims},
    constraints::Constraints,
    json::Object,
    level::Level,
};
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

use crate::{
    ask::{Ask, CallAsk},
    authenticate::Caller,
    clock,
    desk::{Desk, Rules},
    error::{DenialReason, IssueError},
    hop,
    policy::{Binding, Claimed, Facts, Verdict},
    registry::{Server, Tier, Tool, Verifier},
    revocation::Revoked,
    risk::{self, Risk},
    transaction::Beginner,
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

/// What `decide` answers when it is not a denial.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for one match; boxing every grant would cost more")]
pub enum Decision {
    /// Yes.
    Grant(Grant),
    /// Not before a person has said yes.
    Wait(Wait),
}

/// Permission to mint one credential. Only [`decide`] makes it, it can be neither copied nor built otherwise, and
/// only [`crate::record::open_record`] takes it.
///
/// INVARIANT: a `Grant` stands for one decision of policy, and is used at most once.
#[derive(Debug)]
#[must_use = "a grant that is dropped was a decision for nothing"]
pub struct Grant {
    terms: Terms,
}

/// What was granted.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) decision_id: Uuid,
    pub(crate) claims: ToolCallClaims,
    pub(crate) tier: Option<Tier>,
    pub(crate) risk: Risk,
    pub(crate) arguments: Option<Object>,
    pub(crate) spent: Option<crate::authenticate::SpentId>,
    pub(crate) claimed: crate::ask::Claimed,
    pub(crate) registry_digest: String,
    pub(crate) person_issuer: Option<String>,
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
pub fn decide(desk: &Desk, application: &Application<'_>) -> Result<Decision, IssueError> {
    if !desk.clock_watch.agrees(desk.clock.as_ref()) {
        return Err(IssueError::Uncertain("clocks_disagree"));
    }
    if application.ask.approval_id.is_some() {
        // No approval was ever given out: whoever comes back with one made it up.
        return Err(IssueError::Request("approval_unknown"));
    }
    let rules = desk.rules.load();
    let wanted = find_target(&rules, application)?;
    check_call(&wanted, application.ask)?;
    hop::check_ceiling(&rules, application, &wanted)?;
    check_scope(application.ask, &wanted)?;
    check_user_authentication(desk, application, &wanted)?;
    let risk = assess(application, &wanted);
    let verdict = ask_policy(desk, &rules, application, &wanted, &risk)?;
    if let Some(requirement) = requirement(&wanted, &verdict) {
        return Ok(Decision::Wait(Wait { requirement }));
    }
    let claims = claims(desk, application, &wanted, &verdict, rules.policies.digest())?;
    check_not_revoked(desk, &claims)?;
    remember_lineage(desk, application, &wanted, &claims)?;
    Ok(Decision::Grant(Grant {
        terms: Terms {
            decision_id: application.decision_id,
            claims,
            tier: wanted.tool.as_ref().map(|tool| tool.record.tier),
            risk,
            arguments: wanted.arguments(application.ask).cloned(),
            spent: application.caller.spent(),
            claimed: application.ask.claimed.clone(),
            registry_digest: rules.registry.digest().to_string(),
            person_issuer: application.subject.map(|subject| subject.person().issuer.clone()),
        },
    }))
}

impl Grant {
    /// Gives the terms up to the record; the grant is gone.
    pub(crate) fn into_terms(self) -> Terms {
        self.terms
    }
}

/// The registered target of an ask.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) server: Arc<Server>,
    pub(crate) tool: Option<Arc<Tool>>,
    pub(crate) level: Level,
}

impl Wanted {
    fn arguments<'a>(&self, ask: &'a Ask) -> Option<&'a Object> {
        match &ask.call {
            CallAsk::Call(call) => call.arguments.as_ref(),
            CallAsk::Listing | CallAsk::Tool { .. } | CallAsk::Constrained { .. } => None,
        }
    }
}

/// The server and tool, if they are registered, enabled, of this tenant, and within the client's reach.
fn find_target(rules: &Rules, application: &Application<'_>) -> Result<Wanted, IssueError> {
    let client = application.caller.client();
    let ask = application.ask;
    let server = rules.registry.server(ask.resource.as_str()).ok_or(IssueError::Target("server_unknown"))?;
    if server.record.tenant != client.tenant {
        return Err(IssueError::Target("server_of_another_tenant"));
    }
    if !server.record.enabled {
        return Err(IssueError::Target("server_disabled"));
    }
    // Before the tool is looked up: what a server has is told to those alone who may reach it.
    if !client.may_reach(ask.resource.as_str(), None) {
        return Err(IssueError::Target("beyond_the_clients_reach"));
    }
    let tool = match ask.call.tool_name() {
        None => None,
        Some(name) => Some(Arc::clone(
            server
                .tool(name)
                .filter(|tool| tool.record.enabled)
                .ok_or_else(|| details("tool_unknown", "the server has no approved tool of this name"))?,
        )),
    };
    if !client.may_reach(ask.resource.as_str(), ask.call.tool_name()) {
        return Err(IssueError::Target("beyond_the_clients_reach"));
    }
    if application.subject.is_none() && !client.client_credentials {
        return Err(IssueError::Request("client_credentials_not_allowed"));
    }
    if application.subject.is_none() && ask.call.level() > Level::L0 {
        return Err(details(
            "client_credentials_beyond_listing",
            "a client's own token is good for listing alone",
        ));
    }
    Ok(Wanted { server: Arc::clone(server), tool, level: ask.call.level() })
}

/// The level that the tier demands, and arguments that fit the pinned schema.
fn check_call(wanted: &Wanted, ask: &Ask) -> Result<(), IssueError> {
    let Some(tool) = &wanted.tool else { return Ok(()) };
    if wanted.level < tool.least_level {
        return Err(IssueError::LevelTooLow { least: tool.least_level });
    }
    // A plain RFC 9068 verifier cannot see the call, so a tighter binding there would be a promise without a keeper.
    if wanted.server.record.verifier == Verifier::Rfc9068
        && (wanted.level > Level::L1 || tool.record.tier >= Tier::High)
    {
        return Err(IssueError::Target("server_without_guard"));
    }
    match &ask.call {
        CallAsk::Call(call) => {
            if let Some(arguments) = &call.arguments {
                tool.schema
                    .validate(arguments)
                    .map_err(|error| details("arguments_miss_the_schema", &error.to_string()))?;
            }
            Ok(())
        }
        CallAsk::Constrained { constraints, max_uses, .. } => {
            let most = tool.record.max_uses.unwrap_or(DEFAULT_MAX_USES);
            if max_uses.is_some_and(|uses| uses > most) {
                return Err(details("max_uses_beyond_the_record", "fewer uses, please"));
            }
            // They go into the token, which no verifier reads beyond its size limit.
            if serde_json::to_vec(constraints).map_or(true, |bytes| bytes.len() > MAX_CONSTRAINTS_BYTES) {
                return Err(details("constraints_too_large", "at most 8 KiB of constraints"));
            }
            check_constraints_cover(tool, constraints)
        }
        CallAsk::Listing | CallAsk::Tool { .. } => Ok(()),
    }
}

/// An argument without a constraint is refused at the guard: a token that leaves a required one open could never be
/// used, and one that constrains what the tool does not have is a mistake. Both are said now.
fn check_constraints_cover(tool: &Tool, constraints: &Constraints) -> Result<(), IssueError> {
    let schema = tool.record.definition.get("inputSchema");
    let names = |member: &str| -> Vec<&str> {
        match schema.and_then(|schema| schema.get(member)) {
            Some(Value::Object(properties)) => properties.keys().map(String::as_str).collect(),
            Some(Value::Array(required)) => required.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    };
    let constrained: Vec<String> = constraints
        .iter()
        .filter_map(|(pointer, _)| pointer.split('/').nth(1))
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
        .collect();
    let properties = names("properties");
    if let Some(unknown) = constrained.iter().find(|name| !properties.contains(&name.as_str())) {
        return Err(details(
            "constraint_on_unknown_argument",
            &format!("the tool has no argument {unknown}"),
        ));
    }
    match names("required")
        .into_iter()
        .find(|name| !constrained.iter().any(|constrained| constrained == name))
    {
        Some(open) => {
            Err(details("constraints_leave_an_argument_open", &format!("constrain the argument {open} too")))
        }
        None => Ok(()),
    }
}

/// `scope` may narrow to what is granted anyway; it can never add to it.
fn check_scope(ask: &Ask, wanted: &Wanted) -> Result<(), IssueError> {
    let granted = scope(wanted);
    match &ask.scope {
        Some(asked) if asked.iter().any(|scope| scope != granted) => {
            Err(IssueError::Scope("scope_beyond_the_tool"))
        }
        Some(_) | None => Ok(()),
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
    let ask = application.ask;
    let client = application.caller.client();
    let chain: Vec<String> = match application.subject {
        Some(subject) => subject.act().chain().map(str::to_owned).collect(),
        None => vec![client.actor().to_owned()],
    };
    let Some((acting, predecessors)) = chain.split_first() else {
        return Err(IssueError::Internal("empty_actor_chain"));
    };
    let mut facts = Facts {
        tenant: &client.tenant,
        person: application.subject.map(|subject| subject.person().as_ref()),
        client_id: &client.id,
        actor: acting,
        actor_chain: predecessors,
        server: &wanted.server,
        tool: wanted.tool.as_deref(),
        action: if wanted.tool.is_some() { "tools/call" } else { "tools/list" },
        level: wanted.level,
        binding: Binding::Dpop,
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
    };
    let mut verdict = allowed(rules.policies.evaluate(&facts))?;
    for predecessor in predecessors {
        hop::check_predecessor(rules, predecessor, application, wanted)?;
        facts.actor = predecessor;
        // What a policy demands for one agent of the chain is demanded of the whole.
        verdict.requires.extend(allowed(rules.policies.evaluate(&facts))?.requires);
    }
    Ok(verdict)
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

/// Everything that the token will say, but for its place in the log.
fn claims(
    desk: &Desk,
    application: &Application<'_>,
    wanted: &Wanted,
    verdict: &Verdict,
    policy_digest: &str,
) -> Result<ToolCallClaims, IssueError> {
    let (caller, ask) = (application.caller, application.ask);
    let client = caller.client();
    let now = desk.clock.now_seconds();
    let sub = application.subject.map_or(client.id.as_str(), |subject| &subject.person().sub);
    let act = application.subject.map(|subject| subject.act().clone());
    let parent = application.subject.and_then(Subject::parent).map(|parent| &parent.claims);
    let actor = act.as_ref().map_or(client.actor(), |act| &act.sub);
    let beginner = Beginner { tenant: &client.tenant, client_id: &client.id, sub, actor };
    let txn = match (parent, &ask.transaction_id) {
        (Some(parent), Some(id)) if *id != parent.txn => {
            return Err(IssueError::Request("transaction_of_another_token"));
        }
        (Some(parent), _) => parent.txn.clone(),
        (None, Some(id)) => desk.transactions.go_on(desk.clock.as_ref(), beginner, id)?,
        (None, None) => desk.transactions.begin(desk.clock.as_ref(), beginner)?,
    };
    let lifetime = lifetime_seconds(wanted);
    // Never longer than the token it is made from: or a chain of exchanges would live for ever.
    let exp = parent.map_or(now + lifetime, |parent| parent.exp.min(now + lifetime));
    Ok(ToolCallClaims {
        iss: desk.settings.issuer.clone(),
        sub: sub.to_owned(),
        tenant: client.tenant.clone(),
        aud: wanted.server.record.resource.clone(),
        client_id: client.id.clone(),
        iat: now,
        nbf: now,
        exp,
        jti: clock::new_id(desk.clock.as_ref())?.to_string(),
        scope: scope(wanted).to_owned(),
        cnf: Confirmation::Jkt(caller.jkt().ok_or(IssueError::Proof("proof_missing"))?.to_owned()),
        act,
        txn,
        pjti: parent.map(|parent| parent.jti.clone()),
        authorization_details: [detail(application, wanted, verdict, policy_digest)],
        log: LogPlace { origin: desk.audit.origin().to_owned(), index: 0 },
    })
}

fn detail(
    application: &Application<'_>,
    wanted: &Wanted,
    verdict: &Verdict,
    policy_digest: &str,
) -> GrantedDetail {
    let (call_digest, constraints, max_uses) = match &application.ask.call {
        CallAsk::Listing => (None, None, None),
        CallAsk::Tool { .. } => (None, None, wanted.tool.as_ref().and_then(|tool| tool.record.max_uses)),
        CallAsk::Constrained { constraints, max_uses, .. } => {
            let most = wanted.tool.as_ref().and_then(|tool| tool.record.max_uses).unwrap_or(DEFAULT_MAX_USES);
            (None, Some(constraints.clone()), Some(max_uses.unwrap_or(most)))
        }
        CallAsk::Call(call) => (Some(call.call_digest), None, Some(1)),
    };
    GrantedDetail {
        detail_type: DETAIL_TYPE.to_owned(),
        locations: [wanted.server.record.resource.clone()],
        actions: match wanted.tool {
            Some(_) => vec!["tools/call".to_owned()],
            None => LISTING_ACTIONS.iter().map(|&action| action.to_owned()).collect(),
        },
        identifier: wanted.tool.as_ref().map(|tool| tool.name.clone()),
        tool_digest: wanted.tool.as_ref().map(|tool| tool.tool_digest),
        manifest_digest: wanted.server.manifest_digest,
        call_digest,
        constraints,
        max_uses,
        policy: PolicyRef {
            digest: policy_digest.to_owned(),
            // Each of them would have allowed it alone; the token has room for some.
            ids: verdict.policy_ids.iter().take(MAX_POLICY_IDS).cloned().collect(),
        },
    }
}

/// Held for what may have children, or is one. Before anything is minted, so that a revocation of the parent which
/// comes in between finds the child.
fn remember_lineage(
    desk: &Desk,
    application: &Application<'_>,
    wanted: &Wanted,
    claims: &ToolCallClaims,
) -> Result<(), IssueError> {
    let Some(subject) = application.subject else { return Ok(()) };
    let may_have_children = wanted.level <= Level::L1
        || wanted.tool.as_ref().is_some_and(|tool| !tool.record.downstream.is_empty());
    if !may_have_children && claims.pjti.is_none() {
        return Ok(());
    }
    let person = Some(Arc::clone(subject.person()));
    desk.lineage.remember(&claims.jti, claims.pjti.as_deref(), person, (claims.exp, claims.iat))?;
    if subject.parent().is_some_and(|parent| desk.is_revoked(&parent.claims)) {
        return Err(IssueError::SubjectToken { reason: "subject_token_revoked", detail: String::new() });
    }
    Ok(())
}

fn scope(wanted: &Wanted) -> &str {
    wanted.tool.as_ref().map_or(LISTING_SCOPE, |tool| &tool.name)
}

fn lifetime_seconds(wanted: &Wanted) -> u64 {
    wanted
        .tool
        .as_ref()
        .and_then(|tool| tool.record.lifetime_seconds)
        .unwrap_or(DEFAULT_LIFETIME_SECONDS)
        .clamp(30, 120)
}

fn details(reason: &'static str, detail: &str) -> IssueError {
    IssueError::AuthorizationDetails { reason, detail: detail.to_owned() }
}

/// What an L0 token's scope says.
pub const LISTING_SCOPE: &str = "mcp:list";
/// What an L0 token lets do.
pub const LISTING_ACTIONS: [&str; 5] =
    ["server/discover", "tools/list", "resources/list", "resources/templates/list", "prompts/list"];
const DEFAULT_LIFETIME_SECONDS: u64 = 60;
const DEFAULT_MAX_USES: u32 = 10;
const MAX_CONSTRAINTS_BYTES: usize = 8 * 1024;
const MAX_POLICY_IDS: usize = 16;
