//! What lists show to whoever brings an L0 token: what could be asked for in a call's own exchange, and nothing else.

use deputize_call::{action::Action, offers::Shown};
use std::{collections::BTreeSet, sync::Arc};

use super::{Application, Wanted, facts, target::check_reach};
use crate::{
    desk::{Desk, Rules},
    error::IssueError,
    hop,
    registry::Tool,
    risk::Risk,
};

/// The part of an L0 token that says what lists show; nothing for other tokens. It is what the client may reach ∩ what
/// policy could allow to this person through each agent of the chain. Who asks for itself, without a person, sees what
/// it could reach with one: that it may list at all, policy has said.
pub(super) fn shown(
    desk: &Desk,
    rules: &Rules,
    application: &Application<'_>,
    wanted: &Wanted,
) -> Result<Option<Shown>, IssueError> {
    if wanted.tool.is_some() {
        return Ok(None);
    }
    let server = &wanted.server;
    let within_reach = |tool: &&Arc<Tool>| {
        tool.record.enabled
            && check_reach(application, &server.record, Some((tool.action, &tool.name))).is_ok()
            && !desk.drifts.has_drifted(server, tool)
    };
    let mut tools: Vec<&Arc<Tool>> = server.all().filter(within_reach).collect();
    if application.subject.is_some() {
        let none = Risk { score: 0, reasons: Vec::new() };
        let chain = super::chain(application);
        let Some((acting, predecessors)) = chain.split_first() else {
            return Err(IssueError::Internal("empty_actor_chain"));
        };
        for actor in std::iter::once(acting).chain(predecessors) {
            let facts = facts(desk, application, wanted, &none, (actor, predecessors));
            let could = rules.policies.survey(&facts, &tools);
            let mut answers = could.into_iter();
            tools.retain(|_| answers.next().unwrap_or_default());
        }
        let known = desk.known(rules);
        for predecessor in predecessors {
            tools.retain(|tool| {
                let wanted = Wanted {
                    server: Arc::clone(server),
                    tool: Some(Arc::clone(tool)),
                    level: tool.least_level,
                };
                hop::check_predecessor(&known, predecessor, application, &wanted).is_ok()
            });
        }
    }
    let visible: BTreeSet<(Action, &str)> =
        tools.iter().map(|tool| (tool.action, tool.name.as_str())).collect();
    Ok(Some(server.offers().show(|action, name| visible.contains(&(action, name)))))
}
