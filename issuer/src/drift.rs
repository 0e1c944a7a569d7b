//! Tools and prompts whose server shows another definition than the approved one: nothing is issued for them until a
//! person has looked (S-18).

use async_trait::async_trait;
use deputize_call::{action::Action, digest::Digest};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{PoisonError, RwLock},
};

use crate::{
    desk::Desk,
    error::IssueError,
    record::record_drift,
    registry::{Server, Tool},
};

/// A tool or prompt that drifted, and from which definition: once another one is approved, it has not drifted from that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drifted {
    /// The server's resource URI.
    pub server: String,
    /// What is done with it: a tool and a prompt of one name are two things. A tool needs no word where it is written.
    #[serde(default = "tools_call", skip_serializing_if = "is_tools_call")]
    pub action: Action,
    /// Its name.
    pub tool: String,
    /// Digest of the definition that was approved.
    pub approved: Digest,
}

/// Asked at each decision about a tool. Answers come from memory; changes are durable before they are answered.
#[async_trait]
pub trait Drifts: Send + Sync {
    /// Whether this tool, as it is approved now, has drifted.
    fn has_drifted(&self, server: &Server, tool: &Tool) -> bool;
    /// All of them.
    fn all(&self) -> Vec<Drifted>;
    /// Stops issuing for a tool, in memory at once. True if it was not stopped before.
    fn hold(&self, drifted: &Drifted) -> bool;
    /// Takes back what was held and could not be stored: whoever asked comes again.
    fn release(&self, drifted: &Drifted);
    /// Makes durable that a tool is stopped.
    async fn store(&self, drifted: Drifted) -> Result<(), DriftNotStored>;
    /// Issues for a tool again, durably. True if it was stopped.
    async fn lift(&self, drifted: Drifted) -> Result<bool, DriftNotStored>;
}

/// The change is not durable: whoever asked must be told to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the drift could not be stored")]
pub struct DriftNotStored;

/// Drifted tools in memory: the view that every store keeps, and the fake for tests.
#[derive(Debug, Default)]
pub struct DriftedSet {
    // A guard names approved tools of its own server alone, so this is as bounded as the registry.
    drifted: RwLock<BTreeSet<Drifted>>,
}

impl Drifted {
    /// This tool, as it is approved now.
    pub fn from_approved(server: &Server, tool: &Tool) -> Self {
        Self {
            server: server.record.resource.clone(),
            action: tool.action,
            tool: tool.name.clone(),
            approved: tool.tool_digest,
        }
    }

    /// Whether it is what this server has under this name for this action, from whichever definition it drifted.
    pub fn is_of(&self, server: &str, action: Action, name: &str) -> bool {
        self.server == server && self.action == action && self.tool == name
    }
}

/// Issues for a tool again, by order of somebody who looked: for the one that this action acts on, and nothing else of
/// its name. False if it was not stopped.
///
/// # Errors
/// [`IssueError::RecordUnavailable`]: try again.
pub async fn lift(
    desk: &Desk,
    by: &str,
    (server, action, name): (&str, Action, &str),
) -> Result<bool, IssueError> {
    let approved = {
        let rules = desk.rules.load();
        let offer = rules.registry.server(server).and_then(|server| server.offer(action, name));
        offer.map(|offer| offer.tool_digest)
    };
    let is_meant = |drifted: &Drifted| {
        drifted.is_of(server, action, name)
            || (drifted.is_of(server, Action::CallTool, name) && Some(drifted.approved) == approved)
    };
    let concerned = desk.drifts.all().into_iter().filter(is_meant);
    let mut lifted = false;
    for drifted in concerned {
        // On record first: nothing is issued again that nobody answers for.
        record_drift(desk, &drifted, ("lifted", by), None).await?;
        let stored = desk.drifts.lift(drifted).await;
        lifted |= stored.map_err(|_| IssueError::RecordUnavailable("drift_not_stored"))?;
    }
    Ok(lifted)
}

fn tools_call() -> Action {
    Action::CallTool
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_tools_call(action: &Action) -> bool {
    *action == Action::CallTool
}

impl DriftedSet {
    /// Takes a tool out. True if it was there.
    pub fn remove(&self, drifted: &Drifted) -> bool {
        self.drifted.write().unwrap_or_else(PoisonError::into_inner).remove(drifted)
    }
}

#[async_trait]
impl Drifts for DriftedSet {
    fn has_drifted(&self, server: &Server, tool: &Tool) -> bool {
        let drifted = self.drifted.read().unwrap_or_else(PoisonError::into_inner);
        let this = Drifted::from_approved(server, tool);
        // What was stored before there were prompts among them says nothing of the action. Digests of tools and of
        // prompts have prefixes of their own, so that a tool that drifted is never taken for a prompt.
        !drifted.is_empty()
            && (drifted.contains(&this) || drifted.contains(&Drifted { action: Action::CallTool, ..this }))
    }
    fn all(&self) -> Vec<Drifted> {
        self.drifted.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
    fn hold(&self, drifted: &Drifted) -> bool {
        self.drifted.write().unwrap_or_else(PoisonError::into_inner).insert(drifted.clone())
    }
    fn release(&self, drifted: &Drifted) {
        self.remove(drifted);
    }
    async fn store(&self, drifted: Drifted) -> Result<(), DriftNotStored> {
        self.hold(&drifted);
        Ok(())
    }
    async fn lift(&self, drifted: Drifted) -> Result<bool, DriftNotStored> {
        Ok(self.remove(&drifted))
    }
}
