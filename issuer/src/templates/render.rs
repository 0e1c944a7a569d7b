//! A call and a template become a session. What does not fit is refused; nothing is stripped, cut or replaced.

use deputize_call::json::Object;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

use super::{
    MAX_POLICY_CHARACTERS, MAX_WINDOW_SECONDS, Template,
    evaluate::{self, Probe, Verdict},
    file::{Approval, Fact, Match, Source, SourceIdentity, TagPart},
    parameter::escape,
    policy::{self, Document},
    session::{check_name, check_tag_value},
};
use crate::{
    clock::Clock,
    person::{ClaimValue, Person},
};
use deputize_call::digest::Digest;

/// A call that was verified: who calls what, with which arguments.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Resource URI of the server.
    pub server: &'a str,
    /// Where the server runs, as its registry record says.
    pub server_region: Option<&'a str>,
    /// The tool.
    pub tool: &'a str,
    /// In whose name.
    pub person: &'a Person,
    /// The client that acts.
    pub client: &'a str,
    /// How many agents stand in the chain.
    pub chain_depth: usize,
    /// The arguments whose digest the token fixes.
    pub arguments: &'a Object,
    /// Id of the transaction.
    pub transaction: &'a str,
    /// Id of the decision.
    pub decision: Uuid,
}

/// What STS is to be asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedSession {
    /// Name of the template.
    pub template: String,
    /// Its version.
    pub template_hash: Digest,
    /// The role.
    pub role_arn: String,
    /// Its region: where STS is asked, and the only one that ARNs in the policy name.
    pub region: String,
    /// The session policy, at most [`MAX_POLICY_CHARACTERS`] of JSON.
    pub policy: String,
    /// How long the credentials live, in seconds. What they can do ends earlier, with the window.
    pub duration_seconds: u32,
    /// When the window ends, seconds since the Unix epoch.
    pub window_end_seconds: u64,
    /// Session tags.
    pub tags: BTreeMap<String, String>,
    /// `SourceIdentity`.
    pub source_identity: String,
    /// `RoleSessionName`.
    pub session_name: String,
    /// Who has to agree first.
    pub approval: Approval,
    document: Document,
}

/// Why a call gets no session. No value of the call is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The template is for other calls.
    #[error("the template is not for this call: {0}")]
    NotForThisCall(&'static str),
    /// A parameter has no value, or one outside its type.
    #[error("parameter {name:?}: {reason}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Person, server and role are not of one place.
    #[error("residency: {0}")]
    Residency(&'static str),
    /// STS would not take it.
    #[error("source identity: {0}")]
    SourceIdentity(&'static str),
    /// STS would not take it.
    #[error("session name: {0}")]
    SessionName(&'static str),
    /// A tag has no value, or one that STS would not take.
    #[error("tag {key:?}: {reason}")]
    Tag {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The policy is longer than STS takes.
    #[error("the session policy has {0} characters; STS takes 2048")]
    TooLong(usize),
}

impl RenderedSession {
    /// What each statement grants, and that it grants no more: tried on its own resource, on a neighbour and after the
    /// window.
    pub fn probes(&self) -> Vec<Probe> {
        evaluate::probes(&self.document, self.window_end_seconds)
    }

    /// What comes of a request, as far as the session policy goes: this action, on this resource, at this second, with
    /// these values of condition keys.
    pub fn verdict(
        &self,
        action: &str,
        resource: &str,
        context: BTreeMap<String, Vec<String>>,
        at_seconds: u64,
    ) -> Verdict {
        evaluate::verdict(&self.document, (action, resource), context, at_seconds)
    }
}

pub(super) fn render(
    template: &Template,
    call: &Call<'_>,
    clock: &dyn Clock,
) -> Result<RenderedSession, Refused> {
    let file = &template.file;
    matches(&file.matching, call)?;
    check_residency(template, call)?;
    let values = values(template, call)?;
    let window_seconds = file.aws.window_seconds.unwrap_or(MAX_WINDOW_SECONDS);
    let window_end_seconds = clock.now_ms() / 1000 + u64::from(window_seconds);
    let escaped = values.iter().map(|(name, value)| (name.clone(), escape(value))).collect();
    let document = policy::document(file, &escaped, window_end_seconds);
    let policy = serde_json::to_string(&document).map_err(|_| Refused::TooLong(usize::MAX))?;
    let characters = policy.chars().count();
    if characters > MAX_POLICY_CHARACTERS {
        return Err(Refused::TooLong(characters));
    }
    let session_name = call.decision.hyphenated().to_string();
    check_name(&session_name).map_err(Refused::SessionName)?;
    Ok(RenderedSession {
        template: file.name.clone(),
        template_hash: template.hash,
        role_arn: file.aws.role_arn.clone(),
        region: file.aws.region.clone(),
        policy,
        duration_seconds: file.aws.duration_seconds,
        window_end_seconds,
        tags: tags(template, &values, call)?,
        source_identity: source_identity(&file.source_identity, call.person)?,
        session_name,
        approval: file.approval,
        document,
    })
}

/// Whether a template is for this call.
pub(super) fn matches(matching: &Match, call: &Call<'_>) -> Result<(), Refused> {
    let person = call.person;
    let any_of = |wanted: &[String], held: &[String]| {
        wanted.is_empty() || wanted.iter().any(|wanted| held.contains(wanted))
    };
    let claims_hold = matching.claims.iter().all(|(name, values)| {
        person.claims.get(name).and_then(single).is_some_and(|value| values.contains(&value))
    });
    let depth = matching.chain_depth;
    let depths = usize::from(depth.minimum)..=usize::from(depth.maximum);
    for (holds, reason) in [
        (matching.server == call.server, "another server"),
        (matching.tool == call.tool, "another tool"),
        (matching.tenant == person.tenant, "another tenant"),
        (any_of(&matching.groups, &person.groups), "the person is in none of its groups"),
        (any_of(&matching.roles, &person.roles), "the person has none of its roles"),
        (claims_hold, "a claim of the person has another value, several, or none"),
        (depths.contains(&call.chain_depth), "the chain of agents has another length"),
    ] {
        if !holds {
            return Err(Refused::NotForThisCall(reason));
        }
    }
    Ok(())
}

/// Role, server and person must be of one place, so that data stays where it may be. Where a template says nothing of residency, a server whose
/// record names a region must be in the role's.
fn check_residency(template: &Template, call: &Call<'_>) -> Result<(), Refused> {
    let file = &template.file;
    let Some(residency) = &file.residency else {
        return match call.server_region {
            Some(region) if region != file.aws.region => Err(Refused::Residency(
                "the server is in another region than the role, and no `residency` allows it",
            )),
            _ => Ok(()),
        };
    };
    let is_there = |place: &str| {
        residency.area.as_deref() == Some(place) || residency.regions.iter().any(|region| region == place)
    };
    if !call.server_region.is_some_and(is_there) {
        return Err(Refused::Residency("the server's record names no region that the template allows"));
    }
    let Some(claim) = &residency.claim else { return Ok(()) };
    let allows = match call.person.claims.get(claim) {
        Some(ClaimValue::Text(place)) => is_there(place),
        Some(ClaimValue::Texts(places)) => !places.is_empty() && places.iter().all(|place| is_there(place)),
        _ => false,
    };
    if allows { Ok(()) } else { Err(Refused::Residency("the person's data may not be where the role is")) }
}

/// The values of all parameters, as they are.
fn values(template: &Template, call: &Call<'_>) -> Result<BTreeMap<String, String>, Refused> {
    let arguments = Value::Object(call.arguments.clone());
    let mut values = BTreeMap::new();
    for (name, param) in &template.params {
        let refused = |reason| Refused::Parameter { name: name.clone(), reason };
        let value = match &param.source {
            Source::Argument(pointer) => arguments.pointer(pointer).cloned(),
            Source::Claim(claim) => call.person.claims.get(claim).and_then(claim_value),
        };
        let value = value.ok_or_else(|| refused("the call does not have it"))?;
        values.insert(name.clone(), param.admit(&value, &template.file.aws).map_err(refused)?);
    }
    Ok(values)
}

fn tags(
    template: &Template,
    values: &BTreeMap<String, String>,
    call: &Call<'_>,
) -> Result<BTreeMap<String, String>, Refused> {
    let tag = |(key, parts): (&String, &Vec<TagPart>)| {
        let refused = |reason| Refused::Tag { key: key.clone(), reason };
        let text = parts.iter().map(|part| tag_part(part, values, call)).collect::<Option<String>>();
        let text = text.ok_or_else(|| refused("the call does not have its value"))?;
        check_tag_value(&text).map_err(refused)?;
        Ok((key.clone(), text))
    };
    template.file.tags.iter().map(tag).collect()
}

fn tag_part(part: &TagPart, values: &BTreeMap<String, String>, call: &Call<'_>) -> Option<String> {
    match part {
        TagPart::Literal(text) => Some(text.clone()),
        TagPart::Param(name) => values.get(name).cloned(),
        TagPart::Claim(claim) => call.person.claims.get(claim).and_then(single),
        TagPart::Fact(fact) => match fact {
            Fact::User => call.person.stable(),
            Fact::Tenant => Some(call.person.tenant.clone()),
            Fact::Client => Some(call.client.to_owned()),
            Fact::Server => Some(call.server.to_owned()),
            Fact::Tool => Some(call.tool.to_owned()),
            Fact::Transaction => Some(call.transaction.to_owned()),
            Fact::Decision => Some(call.decision.hyphenated().to_string()),
        },
    }
}

fn source_identity(from: &SourceIdentity, person: &Person) -> Result<String, Refused> {
    let identity = match from {
        SourceIdentity::User => person.stable(),
        SourceIdentity::Claim(claim) => person.claims.get(claim).and_then(single),
    };
    let identity = identity.ok_or(Refused::SourceIdentity("the person has no such claim"))?;
    check_name(&identity).map_err(Refused::SourceIdentity)?;
    Ok(identity)
}

/// The text of a claim with one value.
fn single(claim: &ClaimValue) -> Option<String> {
    match claim {
        ClaimValue::Flag(flag) => Some(flag.to_string()),
        ClaimValue::Number(number) => Some(number.to_string()),
        ClaimValue::Text(text) => Some(text.clone()),
        ClaimValue::Texts(_) => None,
    }
}

fn claim_value(claim: &ClaimValue) -> Option<Value> {
    match claim {
        ClaimValue::Number(number) => Some(Value::from(*number)),
        ClaimValue::Text(text) => Some(Value::from(text.clone())),
        ClaimValue::Flag(_) | ClaimValue::Texts(_) => None,
    }
}
