//! Policy: Cedar, strictly typed against our schema, indexed by scope.
//!
//! Default deny. A policy that fails to evaluate denies the request, whichever policy it is: Cedar itself would skip
//! it, and a skipped `forbid` permits. What Cedar's types cannot hold exactly is refused before anything is asked.

mod arguments;
mod context;
mod entities;
mod facts;
mod held;
mod index;
mod load;
mod named;
mod reads;
mod survey;

pub use facts::{ApprovalFacts, Binding, Claimed, Facts, Requirement, Verdict};
pub use load::{PolicyError, PolicyFile};

pub(crate) use context::civil;

use arguments::{Arguments, Bounds};
use cedar_policy::{AuthorizationError, Authorizer, Decision, EvaluationError, PolicySet, Request, Response};
use entities::Vocabulary;
use held::{Held, HeldCache};
use index::Index;
use load::Loaded;
use reads::Reads;
use std::{collections::BTreeMap, sync::Arc};

/// The policies in force. Immutable: a reload makes a new one.
pub struct PolicyEngine {
    vocabulary: Vocabulary,
    policies: BTreeMap<String, Loaded>,
    index: Index,
    held: HeldCache,
    authorizer: Authorizer,
    digest: String,
}

/// Why a request cannot be put to the policies at all.
#[derive(Debug)]
struct Refusal(String);

impl PolicyEngine {
    /// Parses and checks all files, strictly. Every problem is reported, not only the first; any of them refuses the
    /// whole set.
    pub fn load(files: &[PolicyFile]) -> Result<Self, Vec<PolicyError>> {
        let schema = load::schema().map_err(|error| vec![error])?;
        let policies = load::policies(files, &schema)?;
        let vocabulary = Vocabulary::new(&schema).map_err(|problem| vec![PolicyError::internal(problem)])?;
        Ok(Self {
            index: Index::new(policies.iter()),
            policies: policies.into_iter().map(|policy| (policy.id.clone(), policy)).collect(),
            vocabulary,
            held: HeldCache::new(),
            authorizer: Authorizer::new(),
            digest: load::digest(files),
        })
    }

    /// Digest over the whole set and its schema: base64url SHA-256, independent of the order of the files.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How many policies are in force.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is no policy at all: then everything is denied.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The text of one policy, as its file has it.
    pub fn policy_text(&self, id: &str) -> Option<String> {
        self.policies.get(id).map(|policy| policy.policy.to_string())
    }

    /// Decides. Fails closed: a request that cannot be evaluated is denied, with the reason in `errors`.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        self.prepare(facts)
            .and_then(|held| self.ask(facts, &held, &held.slice.policies, held.slice.reads))
            .unwrap_or_else(|Refusal(reason)| Verdict::refused(reason))
    }

    /// What can be held from one request to the next: entities, and the policies whose scope covers them.
    fn prepare(&self, facts: &Facts<'_>) -> Result<Arc<Held>, Refusal> {
        Self::check_tenants(facts)?;
        self.held.get_or_make(facts, &self.vocabulary, |principal, action, resource| {
            self.index.slice(principal, action, resource)
        })
    }

    fn check_tenants(facts: &Facts<'_>) -> Result<(), Refusal> {
        let same_tenant = facts.person.is_none_or(|person| person.tenant == facts.tenant)
            && facts.server.record.tenant == facts.tenant;
        if same_tenant {
            Ok(())
        } else {
            Err(Refusal::new("person, client and server are not of one tenant"))
        }
    }

    fn ask(
        &self,
        facts: &Facts<'_>,
        held: &Held,
        policies: &PolicySet,
        reads: Reads,
    ) -> Result<Verdict, Refusal> {
        // What cannot be expressed denies even where no policy of the slice looks at it: PolicyEngine's answer does
        // not depend on what happens to be indexed.
        let arguments = facts.arguments.map(Arguments::of).transpose()?;
        let bounds = facts.constraints.map(Bounds::of).transpose()?;
        let context = context::build(facts, arguments.as_ref(), &self.vocabulary, reads)?;
        let request = Request::new(
            held.principal.uid.clone(),
            held.action.clone(),
            held.resource.uid.clone(),
            context,
            None,
        )
        .map_err(Refusal::internal)?;
        let tables = context::tables(arguments, bounds, &self.vocabulary, reads)?;
        let response = if tables.is_empty() {
            self.authorizer.is_authorized(&request, policies, &held.entities)
        } else {
            let entities = held.entities.clone().add_entities(tables, None).map_err(Refusal::internal)?;
            self.authorizer.is_authorized(&request, policies, &entities)
        };
        Ok(self.verdict(&response))
    }

    fn verdict(&self, response: &Response) -> Verdict {
        let diagnostics = response.diagnostics();
        let mut errors: Vec<String> = diagnostics.errors().map(describe).collect();
        let mut policy_ids: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        let mut requires = Vec::new();
        let mut allowed = response.decision() == Decision::Allow;
        if !errors.is_empty() {
            // Permits that would have decided decide nothing.
            if allowed {
                policy_ids.clear();
            }
            allowed = false;
            policy_ids.extend(diagnostics.errors().map(|error| match error {
                AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
            }));
        }
        if allowed {
            let deciding = policy_ids.iter().filter_map(|id| self.policies.get(id));
            requires = deciding.flat_map(|policy| policy.requires.iter().copied()).collect();
        }
        policy_ids.sort_unstable();
        errors.sort_unstable();
        requires.sort_unstable();
        requires.dedup();
        Verdict { allowed, policy_ids, errors, requires }
    }
}

impl std::fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyEngine")
            .field("policies", &self.policies.len())
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Refusal {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// A failure that no input should be able to cause. Its words may hold values, and are not repeated.
    fn internal(error: impl std::error::Error) -> Self {
        drop(error);
        Self::new("the request could not be put into Cedar's terms")
    }
}

/// The schema that policies are checked against, for editors and documentation.
pub fn schema_text() -> &'static str {
    load::SCHEMA
}

/// Says what failed without repeating values, which may be arguments.
fn describe(error: &AuthorizationError) -> String {
    let AuthorizationError::PolicyEvaluationError(error) = error;
    let what = match error.inner() {
        // The only attributes of a record that can be missing after strict validation are those of the arguments.
        EvaluationError::RecordAttrDoesNotExist(_) => {
            "reads arguments, and the request shows none: ask with `arguments`"
        }
        EvaluationError::IntegerOverflow(_) => "overflows",
        EvaluationError::EntityDoesNotExist(_) | EvaluationError::EntityAttrDoesNotExist(_) => {
            "reads an attribute or a tag that is not there"
        }
        EvaluationError::RecursionLimit(_) => "is nested too deeply",
        _ => "cannot be evaluated",
    };
    format!("policy {:?} {what}", error.policy_id().to_string())
}

#[cfg(test)]
mod tests;
