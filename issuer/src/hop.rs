//! Next hops: what a token of ours may become. Rights only shrink.

use deputize_call::{action::Action, claims::GrantedDetail, level::Level};

use crate::{
    client::Known,
    decide::{Application, Pinned, Wanted},
    desk::{Desk, Rules},
    error::IssueError,
    verify_subject::{Bearer, Parent, Subject},
};

/// Whether the target is within what the token that was brought allows: `downstream` of its tool for its audience,
/// the same call or narrower for its holder.
pub(crate) fn check_ceiling(
    desk: &Desk,
    rules: &Rules,
    application: &Application<'_>,
    wanted: &Wanted,
) -> Result<(), IssueError> {
    let Some(parent) = application.subject.and_then(Subject::parent) else { return Ok(()) };
    match parent.bearer {
        Bearer::Audience => {
            downstream(rules, parent, wanted)?;
            within_the_clients_reach(&desk.known(rules), parent, wanted)
        }
        Bearer::Holder => narrower(granted(parent), wanted),
    }
}

/// The client that got the token must reach the target too: one that presented an actor's token is not in the chain.
fn within_the_clients_reach(known: &Known<'_>, parent: &Parent, wanted: &Wanted) -> Result<(), IssueError> {
    match known.enabled(&parent.claims.client_id) {
        Some(client) if client.may_reach(&wanted.server.record.resource, wanted.reach()) => Ok(()),
        Some(_) | None => Err(IssueError::Target("beyond_a_predecessors_reach")),
    }
}

/// What the registry record of the calling tool lists, at its level at most.
fn downstream(rules: &Rules, parent: &Parent, wanted: &Wanted) -> Result<(), IssueError> {
    let beyond = IssueError::Target("not_downstream");
    let from = granted(parent);
    let calling = rules
        .registry
        .server(&parent.claims.aud)
        .filter(|server| server.record.enabled)
        .filter(|_| from.actions == [Action::CallTool.as_str()])
        .zip(from.identifier.as_deref())
        .and_then(|(server, tool)| server.tool(tool))
        .filter(|tool| tool.record.enabled)
        .ok_or(beyond.clone())?;
    if Some(calling.tool_digest) != from.tool_digest {
        return Err(IssueError::Target("calling_tool_changed"));
    }
    // Records list tools as next hops: nothing else is one.
    let tool = wanted.tool.as_ref().filter(|tool| tool.action == Action::CallTool);
    let asked = (wanted.server.record.resource.as_str(), tool.map(|tool| tool.name.as_str()));
    let listed = calling
        .record
        .downstream
        .iter()
        .find(|next| asked == (next.server.as_str(), Some(next.tool.as_str())));
    match listed {
        Some(next) if wanted.level <= next.level => Ok(()),
        Some(_) => Err(IssueError::Target("above_the_downstream_level")),
        None => Err(beyond),
    }
}

/// A holder may only narrow, and only a token whose uses are not counted: a counted one would be multiplied.
fn narrower(from: &GrantedDetail, wanted: &Wanted) -> Result<(), IssueError> {
    let same_target = from.locations.first().map(String::as_str)
        == Some(wanted.server.record.resource.as_str())
        && from.identifier.as_deref() == wanted.tool.as_ref().map(|tool| tool.name.as_str())
        && wanted.tool.as_ref().is_none_or(|tool| from.actions == [tool.action.as_str()]);
    if !same_target {
        return Err(IssueError::Target("holder_asks_for_another_target"));
    }
    if from.max_uses.is_some() {
        return Err(IssueError::AuthorizationDetails {
            reason: "holder_multiplies_uses",
            detail: "a token whose uses are counted cannot be exchanged by its holder".to_owned(),
        });
    }
    if wanted.level < from.level() || from.level() > Level::L1 {
        return Err(IssueError::AuthorizationDetails {
            reason: "wider_than_granted",
            detail: "a next hop can only narrow".to_owned(),
        });
    }
    let pinned = wanted.tool.as_ref().map_or(Pinned::default(), |tool| Pinned::of(tool));
    if (from.tool_digest, from.prompt_digest) != (pinned.tool, pinned.prompt) {
        return Err(IssueError::Target("tool_changed"));
    }
    Ok(())
}

/// Each agent in the chain must be able to reach the target by itself.
pub(crate) fn check_predecessor(
    known: &Known<'_>,
    predecessor: &str,
    application: &Application<'_>,
    wanted: &Wanted,
) -> Result<(), IssueError> {
    match known.acting_as(predecessor) {
        Some(client) if !client.enabled => Err(IssueError::Target("predecessor_disabled")),
        Some(client) if client.tenant != application.caller.client().tenant => {
            Err(IssueError::Target("predecessor_of_another_tenant"))
        }
        Some(client) if !client.may_reach(&wanted.server.record.resource, wanted.reach()) => {
            Err(IssueError::Target("beyond_a_predecessors_reach"))
        }
        // An actor that an identity provider named is no client of ours: policy alone speaks about it.
        Some(_) | None => Ok(()),
    }
}

fn granted(parent: &Parent) -> &GrantedDetail {
    let [detail] = &parent.claims.authorization_details;
    detail
}
