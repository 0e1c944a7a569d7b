//! The index of policies by scope: of thousands, the few whose scope covers a request.
//!
//! A policy's scope is decided by the principal, action and resource alone and cannot fail. So the policies whose
//! scope does not cover a request say nothing about it, and leaving them out changes no answer.

use super::{Refusal, entities::Place, load::Loaded, reads::Reads};
use cedar_policy::{
    ActionConstraint, Effect, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint,
    ResourceConstraint,
};
use moka::sync::Cache;
use std::{collections::HashMap, sync::Arc};

/// All policies, in buckets by the entities that their scopes name.
pub(super) struct Index {
    entries: Vec<Entry>,
    /// By resource, then by principal; `None` where the scope names no entity. Every policy is in one bucket, and
    /// every request looks into every bucket that could hold a policy for it.
    buckets: HashMap<Option<EntityUid>, HashMap<Option<EntityUid>, Vec<u32>>>,
    slices: Cache<Box<[u32]>, Arc<Slice>>,
}

/// The policies whose scope covers a request.
pub(super) struct Slice {
    pub(super) policies: PolicySet,
    /// What of the context they may read.
    pub(super) reads: Reads,
    /// Those of them that can be asked before it is known what is called: they answer, or fail for want of an answer.
    pub(super) closed: PolicySet,
    /// Whether one of the others permits.
    pub(super) has_open_permit: bool,
}

struct Entry {
    policy: Policy,
    reads: Reads,
    principal: Constraint,
    action: ActionConstraint,
    resource: Constraint,
}

/// A constraint on the principal or the resource.
struct Constraint {
    kind: Option<EntityTypeName>,
    entity: Option<(Relation, EntityUid)>,
}

#[derive(Clone, Copy)]
enum Relation {
    Is,
    In,
}

impl Index {
    pub(super) fn new<'a>(policies: impl Iterator<Item = &'a Loaded>) -> Self {
        let mut index = Self { entries: Vec::new(), buckets: HashMap::new(), slices: Cache::new(MAX_SLICES) };
        for (number, loaded) in (0_u32..).zip(policies) {
            let entry = Entry::new(loaded);
            let by_principal = index.buckets.entry(entry.resource.entity_uid().cloned()).or_default();
            by_principal.entry(entry.principal.entity_uid().cloned()).or_default().push(number);
            index.entries.push(entry);
        }
        index
    }

    /// The policies whose scope covers this principal, action and resource.
    pub(super) fn slice(
        &self,
        principal: &Place,
        action: &EntityUid,
        resource: &Place,
    ) -> Result<Arc<Slice>, Refusal> {
        let mut numbers: Vec<u32> = Vec::new();
        let principals: Vec<_> = principal.keys().collect();
        for by_principal in resource.keys().filter_map(|key| self.buckets.get(&key)) {
            for bucket in principals.iter().filter_map(|key| by_principal.get(key)) {
                numbers.extend(bucket.iter().copied().filter(|number| {
                    self.entry(*number).is_some_and(|entry| entry.covers(principal, action, resource))
                }));
            }
        }
        numbers.sort_unstable();
        let numbers = numbers.into_boxed_slice();
        if let Some(slice) = self.slices.get(&numbers) {
            return Ok(slice);
        }
        let slice = Arc::new(Slice::of(numbers.iter().filter_map(|number| self.entry(*number)))?);
        self.slices.insert(numbers, Arc::clone(&slice));
        Ok(slice)
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(number).ok()?)
    }
}

impl Slice {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<Self, Refusal> {
        let mut slice = Self {
            policies: PolicySet::new(),
            reads: Reads::default(),
            closed: PolicySet::new(),
            has_open_permit: false,
        };
        for entry in entries {
            slice.policies.add(entry.policy.clone()).map_err(Refusal::internal)?;
            slice.reads = slice.reads.and(entry.reads);
            if entry.reads.are_answered_or_fail() {
                slice.closed.add(entry.policy.clone()).map_err(Refusal::internal)?;
            } else {
                slice.has_open_permit |= entry.policy.effect() == Effect::Permit;
            }
        }
        Ok(slice)
    }
}

impl Entry {
    fn new(loaded: &Loaded) -> Self {
        let policy = &loaded.policy;
        Self {
            reads: loaded.reads,
            principal: match policy.principal_constraint() {
                PrincipalConstraint::Any => Constraint::new(None, None),
                PrincipalConstraint::In(uid) => Constraint::new(None, Some((Relation::In, uid))),
                PrincipalConstraint::Eq(uid) => Constraint::new(None, Some((Relation::Is, uid))),
                PrincipalConstraint::Is(kind) => Constraint::new(Some(kind), None),
                PrincipalConstraint::IsIn(kind, uid) => {
                    Constraint::new(Some(kind), Some((Relation::In, uid)))
                }
            },
            action: policy.action_constraint(),
            resource: match policy.resource_constraint() {
                ResourceConstraint::Any => Constraint::new(None, None),
                ResourceConstraint::In(uid) => Constraint::new(None, Some((Relation::In, uid))),
                ResourceConstraint::Eq(uid) => Constraint::new(None, Some((Relation::Is, uid))),
                ResourceConstraint::Is(kind) => Constraint::new(Some(kind), None),
                ResourceConstraint::IsIn(kind, uid) => Constraint::new(Some(kind), Some((Relation::In, uid))),
            },
            policy: policy.clone(),
        }
    }

    fn covers(&self, principal: &Place, action: &EntityUid, resource: &Place) -> bool {
        let action_covered = match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid == action,
            // The schema has no groups of actions, so an action is in nothing but itself.
            ActionConstraint::In(uids) => uids.contains(action),
        };
        action_covered && self.principal.covers(principal) && self.resource.covers(resource)
    }
}

impl Constraint {
    fn new(kind: Option<EntityTypeName>, entity: Option<(Relation, EntityUid)>) -> Self {
        Self { kind, entity }
    }

    fn entity_uid(&self) -> Option<&EntityUid> {
        self.entity.as_ref().map(|(_, uid)| uid)
    }

    fn covers(&self, place: &Place) -> bool {
        self.kind.as_ref().is_none_or(|kind| place.uid.type_name() == kind)
            && match &self.entity {
                None => true,
                Some((Relation::Is, uid)) => place.uid == *uid,
                Some((Relation::In, uid)) => place.is_in(uid),
            }
    }
}

impl Place {
    /// The buckets that could hold a policy for this place.
    fn keys(&self) -> impl Iterator<Item = Option<EntityUid>> {
        [None, Some(self.uid.clone())].into_iter().chain(self.ancestors.iter().cloned().map(Some))
    }
}

/// Distinct slices held; there are about as many as there are combinations of roles.
const MAX_SLICES: u64 = 4_096;
