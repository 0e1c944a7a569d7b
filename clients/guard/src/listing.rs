//! What a caller sees of the server's tools, and what is said when they are no longer what was approved.

use crate::{guard::Guard, refusal::Reason, snapshot::PinnedTool};
use deputize_call::{claims::ToolCallClaims, digest::tool_digest, json::Object};
use serde_json::Value;
use std::{collections::BTreeMap, sync::PoisonError};

/// A `tools/list` answer as a caller may see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VisibleTools {
    /// The definitions, as they were approved.
    pub tools: Vec<Value>,
    /// Whether the answer held an approved tool with another definition than the approved one.
    pub drifted: bool,
}

impl Guard {
    /// Reduces the `tools` of a `tools/list` answer to those that are approved, that stand in this very answer as they
    /// were approved, and that this caller may see. What is shown are the approved definitions: members that the
    /// digest does not cover are not the server's to choose.
    pub fn visible_tools(
        &self,
        claims: &ToolCallClaims,
        answered: &[Value],
        now_seconds: u64,
    ) -> Result<VisibleTools, Reason> {
        let snapshot = self.current_snapshot(now_seconds)?;
        let name_of = |definition: &&Object| -> String {
            definition.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for definition in answered.iter().filter_map(Value::as_object) {
            *times.entry(name_of(&definition)).or_default() += 1;
        }
        let mut visible = VisibleTools::default();
        for definition in answered.iter().filter_map(Value::as_object) {
            let name = name_of(&definition);
            let Some(tool) = snapshot.tool(&name) else { continue };
            // A name that stands twice is no definition of anything.
            let is_single = times.get(&name) == Some(&1);
            if !is_single || tool_digest(definition).ok() != Some(tool.tool_digest) {
                visible.drifted = true;
            } else if self.visible_to(claims, &name, tool) {
                visible.tools.push(Value::Object(tool.definition.clone()));
            }
        }
        Ok(visible)
    }

    /// Whether this caller may see a tool at all: not one that is switched off. Tokens that look (L0) name no tools,
    /// so they show every approved one; rights of each caller, once tokens carry them, are asked here.
    fn visible_to(&self, _claims: &ToolCallClaims, name: &str, _tool: &PinnedTool) -> bool {
        !self.revocations.read().unwrap_or_else(PoisonError::into_inner).has_tool(name)
    }
}
