//! What could be allowed at all, before it is known what is asked: for lists that show each caller its own.
//!
//! A policy that needs what only a call shows (arguments, the level, a claim, an approval) is neither here nor there:
//! such a `permit` counts as one that could hold, such a `forbid` as one that could stand aside. All else is evaluated
//! as for a call. So nothing that would be allowed is missing, and nothing is there that never would be, whatever were
//! asked.

use super::{PolicyEngine, Refusal, context, entities::Place, facts::Facts, index::Slice};
use crate::registry::Tool;
use cedar_policy::{AuthorizationError, Context, Decision, Effect, Entities, EvaluationError, Request};
use deputize_call::level::Level;
use std::sync::Arc;

/// What all questions of a survey have in common.
struct Ground {
    principal: Place,
    entities: Entities,
    /// Where the level is known, for only one is possible.
    at_exact_calls: Context,
    /// Where it is not.
    at_any_level: Context,
}

impl PolicyEngine {
    /// For each of these tools, prompts and resources of the server in `facts`, whether policy could allow it to the
    /// person and agent there. What `facts` says of one call counts for nothing.
    pub fn survey(&self, facts: &Facts<'_>, tools: &[&Arc<Tool>]) -> Vec<bool> {
        let mut places = Vec::with_capacity(tools.len());
        let ground = self.ground(facts, tools, &mut places);
        let Ok(ground) = ground else { return vec![false; tools.len()] };
        let asked = tools.iter().zip(&places);
        asked.map(|(tool, place)| self.could(&ground, tool, place).unwrap_or_default()).collect()
    }

    fn ground(
        &self,
        facts: &Facts<'_>,
        tools: &[&Arc<Tool>],
        places: &mut Vec<Place>,
    ) -> Result<Ground, Refusal> {
        Self::check_tenants(facts)?;
        let person = facts.person.ok_or_else(|| Refusal::new("nobody asks"))?;
        let (principal, mut entities) = self.vocabulary.person(person)?;
        let (server_place, server) = self.vocabulary.server(facts.server)?;
        entities.push(server);
        for tool in tools {
            let (place, entity) = self.vocabulary.tool(facts.server, tool, server_place.clone())?;
            places.push(place);
            entities.push(entity);
        }
        Ok(Ground {
            principal,
            entities: Entities::from_entities(entities, None).map_err(Refusal::internal)?,
            at_exact_calls: context::known(facts, Some(Level::L3))?,
            at_any_level: context::known(facts, None)?,
        })
    }

    fn could(&self, ground: &Ground, tool: &Tool, place: &Place) -> Result<bool, Refusal> {
        let action = self.vocabulary.action(tool.action.as_str(), &ground.principal, place)?;
        let slice = self.index.slice(&ground.principal, action, place)?;
        if slice.policies.is_empty() {
            return Ok(false);
        }
        let context =
            if tool.least_level == Level::L3 { &ground.at_exact_calls } else { &ground.at_any_level };
        let (principal, action) = (ground.principal.uid.clone(), action.clone());
        let request = Request::new(principal, action, place.uid.clone(), context.clone(), None);
        let request = request.map_err(Refusal::internal)?;
        Ok(self.could_hold(&slice, &request, &ground.entities))
    }

    fn could_hold(&self, slice: &Slice, request: &Request, entities: &Entities) -> bool {
        let response = self.authorizer.is_authorized(request, &slice.closed, entities);
        let mut open_permit = slice.has_open_permit;
        for AuthorizationError::PolicyEvaluationError(error) in response.diagnostics().errors() {
            match error.inner() {
                // It looked at what only a call shows.
                EvaluationError::RecordAttrDoesNotExist(_) => {
                    let policy = self.policies.get(&error.policy_id().to_string());
                    open_permit |= policy.is_some_and(|loaded| loaded.policy.effect() == Effect::Permit);
                }
                // It fails whatever is asked, and every failure denies.
                _ => return false,
            }
        }
        let is_forbidden =
            response.decision() == Decision::Deny && response.diagnostics().reason().next().is_some();
        !is_forbidden && (response.decision() == Decision::Allow || open_permit)
    }
}
