//! Entities and slices, held from one request to the next.

use super::{
    Refusal,
    entities::{Place, Vocabulary},
    facts::Facts,
    index::Slice,
};
use crate::{
    person::{ClaimValue, Person},
    registry::{DataClass, Effect, Server, Tier, Tool, Verifier},
};
use cedar_policy::{Entities, EntityUid};
use deputize_call::level::Level;
use moka::sync::Cache;
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

/// What one person (or client), action and tool (or server) have in common from request to request.
pub(super) struct Held {
    made_of: MadeOf,
    pub(super) principal: Place,
    pub(super) action: EntityUid,
    pub(super) resource: Place,
    /// The principal with its claims, the tool and the server: every entity but this request's tables.
    pub(super) entities: Entities,
    pub(super) slice: Arc<Slice>,
}

/// Held entries, bounded by weight and idle time.
pub(super) struct HeldCache {
    entries: Cache<u64, Arc<Held>>,
    hasher: RandomState,
}

impl HeldCache {
    pub(super) fn new() -> Self {
        let entries = Cache::builder()
            .weigher(|_, held: &Arc<Held>| held.weight())
            .max_capacity(MAX_WEIGHT)
            .time_to_idle(MAX_IDLE)
            .build();
        Self { entries, hasher: RandomState::new() }
    }

    /// The entry for these facts; a new one where there is none, or where the person or the record has changed.
    pub(super) fn get_or_make(
        &self,
        facts: &Facts<'_>,
        vocabulary: &Vocabulary,
        slice: impl FnOnce(&Place, &EntityUid, &Place) -> Result<Arc<Slice>, Refusal>,
    ) -> Result<Arc<Held>, Refusal> {
        let key = self.hasher.hash_one((
            facts.person.map(|person| person.sub.as_str()),
            facts.client_id,
            &facts.server.record.id,
            facts.tool.map(|tool| tool.name.as_str()),
            facts.action,
        ));
        // INVARIANT: an entry is used only for what it was made of; the key alone, which may collide, proves nothing.
        if let Some(held) = self.entries.get(&key).filter(|held| held.made_of.is(facts)) {
            return Ok(held);
        }
        let held = Arc::new(Held::make(facts, vocabulary, slice)?);
        self.entries.insert(key, Arc::clone(&held));
        Ok(held)
    }
}

impl Held {
    fn make(
        facts: &Facts<'_>,
        vocabulary: &Vocabulary,
        slice: impl FnOnce(&Place, &EntityUid, &Place) -> Result<Arc<Slice>, Refusal>,
    ) -> Result<Self, Refusal> {
        let (principal, mut entities) = match facts.person {
            Some(person) => vocabulary.person(person)?,
            None => vocabulary.client(facts.tenant, facts.client_id)?,
        };
        let server = vocabulary.server(facts.server)?;
        let mut resource = server.0;
        entities.push(server.1);
        if let Some(tool) = facts.tool {
            let (place, entity) = vocabulary.tool(facts.server, tool, resource)?;
            resource = place;
            entities.push(entity);
        }
        let action = vocabulary.action(facts.action, &principal, &resource)?;
        Ok(Self {
            made_of: MadeOf::of(facts),
            entities: Entities::from_entities(entities, None).map_err(Refusal::internal)?,
            slice: slice(&principal, action, &resource)?,
            action: action.clone(),
            principal,
            resource,
        })
    }

    /// About how many bytes this entry takes.
    fn weight(&self) -> u32 {
        let person = self.made_of.person.as_ref().map_or(0, |person| {
            let claims = person.claims.values().map(|claim| match claim {
                ClaimValue::Texts(texts) => 64 + texts.iter().map(|text| 96 + 2 * text.len()).sum::<usize>(),
                ClaimValue::Text(text) => 96 + 2 * text.len(),
                ClaimValue::Flag(_) | ClaimValue::Number(_) => 96,
            });
            let memberships = person.groups.iter().chain(&person.roles).map(|name| 256 + 3 * name.len());
            claims.sum::<usize>() + memberships.sum::<usize>()
        });
        u32::try_from(HELD_WEIGHT + person).unwrap_or(u32::MAX)
    }
}

/// What an entry was made of, to tell whether it still holds.
struct MadeOf {
    person: Option<Person>,
    tenant: String,
    client_id: String,
    action: String,
    server: MadeOfServer,
    tool: Option<MadeOfTool>,
}

struct MadeOfServer {
    id: String,
    resource: String,
    owner: String,
    environment: String,
    data_class: DataClass,
    region: Option<String>,
    verifier: Verifier,
}

struct MadeOfTool {
    name: String,
    entry: String,
    within: Vec<String>,
    tier: Tier,
    effect: Effect,
    data_class: Option<DataClass>,
    least_level: Level,
}

impl MadeOf {
    fn of(facts: &Facts<'_>) -> Self {
        let record = &facts.server.record;
        Self {
            person: facts.person.cloned(),
            tenant: facts.tenant.to_owned(),
            client_id: facts.client_id.to_owned(),
            action: facts.action.to_owned(),
            server: MadeOfServer {
                id: record.id.clone(),
                resource: record.resource.clone(),
                owner: record.owner.clone(),
                environment: record.environment.clone(),
                data_class: record.data_class,
                region: record.region.clone(),
                verifier: record.verifier,
            },
            tool: facts.tool.map(|tool| MadeOfTool {
                name: tool.name.clone(),
                entry: tool.entry.clone(),
                within: tool.within.clone(),
                tier: tool.record.tier,
                effect: tool.record.effect,
                data_class: tool.record.data_class,
                least_level: tool.least_level,
            }),
        }
    }

    /// Whether the same entry would come of these facts. The server's tenant is the facts' own.
    fn is(&self, facts: &Facts<'_>) -> bool {
        self.tenant == facts.tenant
            && self.client_id == facts.client_id
            && self.action == facts.action
            && self.person.as_ref() == facts.person
            && self.server.is(facts.server)
            && match (&self.tool, facts.tool) {
                (None, None) => true,
                (Some(made_of), Some(tool)) => made_of.is(tool),
                (None, Some(_)) | (Some(_), None) => false,
            }
    }
}

impl MadeOfServer {
    fn is(&self, server: &Server) -> bool {
        let record = &server.record;
        self.id == record.id
            && self.resource == record.resource
            && self.owner == record.owner
            && self.environment == record.environment
            && self.data_class == record.data_class
            && self.region == record.region
            && self.verifier == record.verifier
    }
}

impl MadeOfTool {
    fn is(&self, tool: &Tool) -> bool {
        self.name == tool.name
            && self.entry == tool.entry
            && self.within == tool.within
            && self.tier == tool.record.tier
            && self.effect == tool.record.effect
            && self.data_class == tool.record.data_class
            && self.least_level == tool.least_level
    }
}

/// Bytes, about, that all entries may take together.
const MAX_WEIGHT: u64 = 32 << 20;
/// Bytes, about, of an entry for a person without groups and claims.
const HELD_WEIGHT: usize = 4 << 10;
const MAX_IDLE: Duration = Duration::from_mins(10);
