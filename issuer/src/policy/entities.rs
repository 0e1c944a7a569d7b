//! Persons, clients, servers and tools as Cedar entities.

use super::Refusal;
use crate::{
    person::{ClaimValue, Person},
    registry::{Server, Tool, Verifier},
};
use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Expression, Schema};
use deputize_call::action::Action;
use std::collections::HashMap;

/// The schema's names, parsed once.
pub(super) struct Vocabulary {
    user: EntityTypeName,
    client: EntityTypeName,
    group: EntityTypeName,
    role: EntityTypeName,
    tenant: EntityTypeName,
    server: EntityTypeName,
    tool: EntityTypeName,
    prompt: EntityTypeName,
    resource: EntityTypeName,
    actions: HashMap<String, Applies>,
    pub(super) tables: Tables,
}

/// The ids of tables; the same in every request, for no two requests share their entities.
pub(super) struct Tables {
    pub(super) text: EntityUid,
    pub(super) number: EntityUid,
    pub(super) decimal: EntityUid,
    pub(super) flag: EntityUid,
    pub(super) texts: EntityUid,
    pub(super) numbers: EntityUid,
    pub(super) minimum: EntityUid,
    pub(super) maximum: EntityUid,
    pub(super) one_of: EntityUid,
    pub(super) prefixes: EntityUid,
    claim_text: EntityUid,
    claim_number: EntityUid,
    claim_flag: EntityUid,
    claim_texts: EntityUid,
}

/// An action of the schema, and what it applies to.
struct Applies {
    uid: EntityUid,
    principals: Vec<EntityTypeName>,
    resources: Vec<EntityTypeName>,
}

/// A principal or resource, and everything that it is in.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) uid: EntityUid,
    pub(super) ancestors: Vec<EntityUid>,
}

impl Vocabulary {
    pub(super) fn new(schema: &Schema) -> Result<Self, String> {
        let name = |text: &str| {
            let found = schema.entity_types().find(|name| name.to_string() == text).cloned();
            found.ok_or_else(|| format!("the schema has no entity type {text}"))
        };
        let table = |kind: &str, id: &str| {
            Ok::<_, String>(EntityUid::from_type_name_and_id(name(kind)?, EntityId::new(id)))
        };
        let tables = Tables {
            text: table("TextTable", "arguments")?,
            number: table("NumberTable", "arguments")?,
            decimal: table("DecimalTable", "arguments")?,
            flag: table("FlagTable", "arguments")?,
            texts: table("TextSetTable", "arguments")?,
            numbers: table("NumberSetTable", "arguments")?,
            minimum: table("NumberTable", "minimum")?,
            maximum: table("NumberTable", "maximum")?,
            one_of: table("TextSetTable", "one_of")?,
            prefixes: table("TextSetTable", "prefixes")?,
            claim_text: table("TextTable", "claims")?,
            claim_number: table("NumberTable", "claims")?,
            claim_flag: table("FlagTable", "claims")?,
            claim_texts: table("TextSetTable", "claims")?,
        };
        let actions = schema.actions().map(|uid| {
            let principals = schema.principals_for_action(uid).into_iter().flatten().cloned().collect();
            let resources = schema.resources_for_action(uid).into_iter().flatten().cloned().collect();
            (uid.id().unescaped().to_owned(), Applies { uid: uid.clone(), principals, resources })
        });
        Ok(Self {
            user: name("User")?,
            client: name("Client")?,
            group: name("Group")?,
            role: name("Role")?,
            tenant: name("Tenant")?,
            server: name("Server")?,
            tool: name("Tool")?,
            prompt: name("Prompt")?,
            resource: name("Resource")?,
            actions: actions.collect(),
            tables,
        })
    }

    /// The action of this name, if it applies to such a principal and resource: policies were checked for no others.
    pub(super) fn action(
        &self,
        name: &str,
        principal: &Place,
        resource: &Place,
    ) -> Result<&EntityUid, Refusal> {
        let action = self.actions.get(name).ok_or_else(|| Refusal::new("policy knows no such action"))?;
        let applies = action.principals.contains(principal.uid.type_name())
            && action.resources.contains(resource.uid.type_name());
        if applies {
            Ok(&action.uid)
        } else {
            Err(Refusal::new(format!(
                "{name} does not apply to {} and {}",
                principal.uid.type_name(),
                resource.uid.type_name()
            )))
        }
    }

    pub(super) fn person(&self, person: &Person) -> Result<(Place, Vec<Entity>), Refusal> {
        let groups = person.groups.iter().map(|group| uid(&self.group, group));
        let roles = person.roles.iter().map(|role| uid(&self.role, role));
        let mut ancestors: Vec<_> = groups.chain(roles).chain([uid(&self.tenant, &person.tenant)]).collect();
        ancestors.sort_unstable();
        ancestors.dedup();
        let place = Place { uid: uid(&self.user, &person.sub), ancestors };
        let mut attributes = vec![
            pair("tenant", text(&person.tenant)),
            pair("issuer", text(&person.issuer)),
            pair("amr", texts(&person.amr)),
            pair("text", Expression::new_entity_uid(self.tables.claim_text.clone())),
            pair("number", Expression::new_entity_uid(self.tables.claim_number.clone())),
            pair("flag", Expression::new_entity_uid(self.tables.claim_flag.clone())),
            pair("texts", Expression::new_entity_uid(self.tables.claim_texts.clone())),
        ];
        if let Some(acr) = &person.acr {
            attributes.push(pair("acr", text(acr)));
        }
        if let Some(auth_time) = person.auth_time {
            let auth_time = i64::try_from(auth_time).map_err(Refusal::internal)?;
            attributes.push(pair("auth_time", Expression::new_long(auth_time)));
        }
        let mut entities = self.claims(person)?;
        entities.push(entity(&place, attributes)?);
        Ok((place, entities))
    }

    /// The claims of a person, every one in the table of its kind.
    fn claims(&self, person: &Person) -> Result<Vec<Entity>, Refusal> {
        let (mut text_rows, mut number_rows) = (Vec::new(), Vec::new());
        let (mut flag_rows, mut texts_rows) = (Vec::new(), Vec::new());
        for (name, claim) in &person.claims {
            match claim {
                ClaimValue::Text(value) => text_rows.push(pair(name, text(value))),
                ClaimValue::Number(value) => number_rows.push(pair(name, Expression::new_long(*value))),
                ClaimValue::Flag(value) => flag_rows.push(pair(name, Expression::new_bool(*value))),
                ClaimValue::Texts(values) => texts_rows.push(pair(name, texts(values))),
            }
        }
        let tables = [
            (&self.tables.claim_text, text_rows),
            (&self.tables.claim_number, number_rows),
            (&self.tables.claim_flag, flag_rows),
            (&self.tables.claim_texts, texts_rows),
        ];
        tables
            .into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(uid, rows)| Entity::new_with_tags(uid.clone(), [], [], rows).map_err(Refusal::internal))
            .collect()
    }

    pub(super) fn client(&self, tenant: &str, client_id: &str) -> Result<(Place, Vec<Entity>), Refusal> {
        let place = Place { uid: uid(&self.client, client_id), ancestors: vec![uid(&self.tenant, tenant)] };
        let entity = entity(&place, [pair("tenant", text(tenant))])?;
        Ok((place, vec![entity]))
    }

    pub(super) fn server(&self, server: &Server) -> Result<(Place, Entity), Refusal> {
        let record = &server.record;
        let place =
            Place { uid: uid(&self.server, &record.id), ancestors: vec![uid(&self.tenant, &record.tenant)] };
        let mut attributes = vec![
            pair("id", text(&record.id)),
            pair("resource", text(&record.resource)),
            pair("owner", text(&record.owner)),
            pair("environment", text(&record.environment)),
            pair("data_class", text(record.data_class.as_str())),
            pair("data_class_rank", Expression::new_long(record.data_class as i64)),
            pair("verifier", text(verifier_name(record.verifier))),
        ];
        if let Some(region) = &record.region {
            attributes.push(pair("region", text(region)));
        }
        let entity = entity(&place, attributes)?;
        Ok((place, entity))
    }

    pub(super) fn tool(
        &self,
        server: &Server,
        tool: &Tool,
        server_place: Place,
    ) -> Result<(Place, Entity), Refusal> {
        let kind = match tool.action {
            Action::CallTool => &self.tool,
            Action::GetPrompt => &self.prompt,
            Action::ReadResource => &self.resource,
        };
        // The server's id holds no '#', so that no two tools have one id.
        let id = |name: &str| uid(kind, &format!("{}#{name}", server.record.id));
        let data_class = tool.record.data_class.unwrap_or(server.record.data_class);
        let attributes = [
            pair("name", text(&tool.name)),
            pair("server", Expression::new_entity_uid(server_place.uid.clone())),
            pair("tier", text(tool.record.tier.as_str())),
            pair("tier_rank", Expression::new_long(tool.record.tier as i64)),
            pair("effect", text(tool.record.effect.as_str())),
            pair("data_class", text(data_class.as_str())),
            pair("data_class_rank", Expression::new_long(data_class as i64)),
            pair("level", Expression::new_long(tool.least_level as i64)),
            pair("environment", text(&server.record.environment)),
        ];
        let mut ancestors = server_place.ancestors;
        ancestors.push(server_place.uid);
        // INVARIANT: what a prefix names is in what stands for the prefix, and in every wider one, so that nothing said of
        // a folder misses what a narrower entry names in it.
        let own = (tool.entry != tool.name).then_some(&tool.entry);
        ancestors.extend(own.into_iter().chain(&tool.within).map(|entry| id(entry)));
        let place = Place { uid: id(&tool.name), ancestors };
        let entity = entity(&place, attributes)?;
        Ok((place, entity))
    }
}

impl Place {
    /// Whether this is the entity, or is in it.
    pub(super) fn is_in(&self, uid: &EntityUid) -> bool {
        self.uid == *uid || self.ancestors.contains(uid)
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn entity(
    place: &Place,
    attributes: impl IntoIterator<Item = (String, Expression)>,
) -> Result<Entity, Refusal> {
    // Every ancestor stands as a parent, so that ancestors need no entities of their own.
    Entity::new_with_tags(place.uid.clone(), attributes, place.ancestors.iter().cloned(), [])
        .map_err(Refusal::internal)
}

fn pair(name: &str, value: Expression) -> (String, Expression) {
    (name.to_owned(), value)
}

fn text(value: &str) -> Expression {
    Expression::new_string(value.to_owned())
}

fn texts(values: &[String]) -> Expression {
    Expression::new_set(values.iter().map(|value| text(value)))
}

fn verifier_name(verifier: Verifier) -> &'static str {
    match verifier {
        Verifier::Guard => "guard",
        Verifier::Rfc9068 => "rfc9068",
    }
}
