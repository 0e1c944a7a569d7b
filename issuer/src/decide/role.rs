//! May this call have a session of an AWS role? The one template for it decides: what the person, the call and the
//! registry say must fit, and nothing is left open.

use deputize_call::{
    claims::{GrantedDetail, ToolCallClaims},
    constraints::{Constraint, Constraints},
    json::Object,
};

use super::{Decide, Decision, Grant, Wait};
use crate::{
    authenticate::{Caller, SpentId, check_again},
    desk::{Desk, Rules},
    error::IssueError,
    policy::Requirement,
    role_session::VerifiedCall,
    templates::{Approval, Call, Refused, RenderedSession, Source, Template},
};
use uuid::Uuid;

/// A call that was verified, and now wants a session of a role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoleApplication<'a> {
    /// The server that was called.
    pub(crate) caller: &'a Caller,
    /// The call.
    pub(crate) call: &'a VerifiedCall<'a>,
    /// The template that the server expects, where it names one.
    pub(crate) template: Option<&'a str>,
}

/// What was granted to a call. For the record and the mint alone.
#[derive(Debug)]
pub struct RoleTerms {
    pub(crate) decision_id: Uuid,
    pub(crate) client_id: String,
    pub(crate) claims: ToolCallClaims,
    pub(crate) arguments: Object,
    pub(crate) person_issuer: String,
    pub(crate) registry_digest: String,
    pub(crate) account: String,
    pub(crate) session: RenderedSession,
    /// How the server proved itself.
    pub(crate) method: &'static str,
    pub(crate) spent: Option<SpentId>,
}

impl Decide for RoleApplication<'_> {
    type Terms = RoleTerms;

    fn decide(&self, desk: &Desk) -> Result<Decision<RoleTerms>, IssueError> {
        if !desk.clock_watch.agrees(desk.clock.as_ref()) {
            return Err(IssueError::Uncertain("clocks_disagree"));
        }
        let rules = desk.rules.load();
        check_again(desk, &rules, self.caller)?;
        let claims = self.call.claims();
        if claims.exp <= desk.clock.now_seconds() {
            // What it got already it may get again, but nothing new.
            return Err(token("subject_token_expired"));
        }
        // The persons of other calls are not remembered.
        if !rules.templates.any_for(&claims.aud, self.call.tool()) {
            return Err(no_session("no_template", ""));
        }
        let person = desk.lineage.person(&claims.jti).ok_or(token("subject_unknown_since_restart"))?;
        let server = rules.registry.server(&claims.aud).ok_or(token("token_not_active"))?;
        let call = Call {
            server: &claims.aud,
            server_region: server.record.region.as_deref(),
            tool: self.call.tool(),
            person: &person,
            client: &claims.client_id,
            chain_depth: claims.act.as_ref().map_or(0, |act| act.chain().count()),
            arguments: self.call.arguments(),
            transaction: &claims.txn,
            decision: self.caller.decision_id(),
        };
        let template = find_template(&rules, &call, self.template)?;
        check_nothing_is_open(template, claims)?;
        let session = template.render(&call, desk.clock.as_ref()).map_err(|refused| refusal(&refused))?;
        if let Some(requirement) = requirement(session.approval) {
            return Ok(Decision::Wait(Wait { requirement }));
        }
        Ok(Decision::Grant(Grant {
            terms: RoleTerms {
                decision_id: self.caller.decision_id(),
                client_id: self.caller.client().id.clone(),
                claims: claims.clone(),
                arguments: self.call.arguments().clone(),
                person_issuer: person.issuer.clone(),
                registry_digest: rules.registry.digest().to_string(),
                account: template.file().aws.account.clone(),
                session,
                method: self.caller.method(),
                spent: self.caller.spent(),
            },
        }))
    }
}

/// The one template for this call: the one that is named, where one is, and of an account that the operator lists.
fn find_template<'r>(
    rules: &'r Rules,
    call: &Call<'_>,
    named: Option<&str>,
) -> Result<&'r Template, IssueError> {
    let mut matching = rules.templates.iter().filter(|template| template.matches(call).is_ok());
    let template = match (matching.next(), matching.next()) {
        (Some(template), None) => template,
        (None, _) => return Err(no_session("no_template", "")),
        // Those that overlap are not loaded; if some did, none of them would be the right one.
        (Some(_), Some(_)) => return Err(no_session("several_templates", "")),
    };
    let file = template.file();
    if named.is_some_and(|named| named != file.name) {
        return Err(no_session(
            "another_template",
            &format!("the template for this call is {:?}", file.name),
        ));
    }
    if !rules.aws_accounts.allow(&file.aws.account) {
        return Err(no_session("account_not_allowed", &format!("of the template {:?}", file.name)));
    }
    Ok(template)
}

/// A token for one call fixes every argument. One that constrains arguments must leave no choice in those that the
/// template takes.
fn check_nothing_is_open(template: &Template, claims: &ToolCallClaims) -> Result<(), IssueError> {
    let [GrantedDetail { call_digest: None, constraints, .. }] = &claims.authorization_details else {
        return Ok(());
    };
    for (name, param) in &template.file().params {
        let Source::Argument(pointer) = &param.from else { continue };
        if !constraints.as_ref().is_some_and(|constraints| is_fixed(constraints, pointer)) {
            return Err(IssueError::AuthorizationDetails {
                reason: "parameter_left_open",
                detail: format!("the token leaves {name} open: exchange for exact arguments, or one value"),
            });
        }
    }
    Ok(())
}

/// Whether the value at the pointer, or one that it lies in, is the only one there can be.
fn is_fixed(constraints: &Constraints, pointer: &str) -> bool {
    constraints.iter().any(|(at, constraint)| {
        let is_there = pointer.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_there && has_one_value(constraint)
    })
}

fn has_one_value(constraint: &Constraint) -> bool {
    let one_of = constraint.one_of.as_ref().is_some_and(|values| values.len() == 1);
    one_of || (constraint.minimum.is_some() && constraint.minimum == constraint.maximum)
}

/// What a person has to do first, beyond what was demanded for the call itself.
fn requirement(approval: Approval) -> Option<Requirement> {
    match approval {
        Approval::None => None,
        Approval::Confirm => Some(Requirement::Confirm),
        Approval::Approve => Some(Requirement::Approve),
    }
}

fn refusal(refused: &Refused) -> IssueError {
    let reason = match refused {
        Refused::NotForThisCall(_) => "no_template",
        Refused::Parameter { .. } => "parameter_outside_its_type",
        Refused::Residency(_) => "residency",
        Refused::SourceIdentity(_) => "source_identity",
        Refused::SessionName(_) => "session_name",
        Refused::Tag { .. } => "session_tag",
        Refused::TooLong(_) => "session_policy_too_long",
    };
    no_session(reason, &refused.to_string())
}

fn no_session(reason: &'static str, detail: &str) -> IssueError {
    IssueError::NoSession { reason, detail: detail.to_owned() }
}

fn token(reason: &'static str) -> IssueError {
    IssueError::SubjectToken { reason, detail: String::new() }
}
