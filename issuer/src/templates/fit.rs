//! Whether templates go with the registry. A template for a tool that is not there, or for an argument that no call can
//! have, gives nobody anything, and whoever wrote it should hear of it before a call does.

use serde_json::Value;

use super::{
    Template, TemplateError, Templates, error,
    file::{Approval, ParamType, Source},
};
use crate::registry::{Registry, Server, Tool};

impl Templates {
    /// Templates that no call of a registered server can ever have, with what is wrong with each. A server that is not
    /// registered (yet) can have anything: a template must not keep one from being removed.
    pub fn misfits(&self, registry: &Registry) -> Vec<TemplateError> {
        let mut errors = Vec::new();
        for template in self.iter() {
            let matching = &template.file().matching;
            let Some(server) = registry.server(&matching.server) else { continue };
            let mut refuse = |place: &str, problem: String| {
                errors.push(error(&template.file().name, place, problem));
            };
            if server.record.tenant != matching.tenant {
                refuse("match.tenant", format!("its server is of tenant {:?}", server.record.tenant));
            }
            if let Some(problem) = never_there(template, server) {
                refuse("residency", problem);
            }
            match server.tool(&matching.tool) {
                None => refuse("match.tool", no_such_tool(&matching.tool, server)),
                Some(tool) => {
                    for (name, pointer, problem) in never_given(template, tool) {
                        refuse(&format!("params.{name}"), format!("{pointer}: {problem}"));
                    }
                }
            }
        }
        errors
    }

    /// What is probably a mistake, though a call may come that proves it none.
    pub fn doubts(&self, registry: &Registry) -> Vec<TemplateError> {
        let mut doubts = Vec::new();
        for template in self.iter() {
            let file = template.file();
            let mut doubt = |place: &str, problem: String| doubts.push(error(&file.name, place, problem));
            if file.approval != Approval::None {
                let problem =
                    "a person would have to agree, and approvals are not there yet: it gives no sessions";
                doubt("approval", problem.to_owned());
            }
            let Some(server) = registry.server(&file.matching.server) else {
                doubt("match.server", format!("{:?} is not in the registry", file.matching.server));
                continue;
            };
            let Some(schema) = server.tool(&file.matching.tool).and_then(|tool| tool.input_schema()) else {
                continue;
            };
            for (name, pointer) in arguments(template) {
                if matches!(look(&schema, tokens(pointer)), Look::Perhaps) {
                    doubt(
                        &format!("params.{name}"),
                        format!("{pointer}: the tool's schema does not name it"),
                    );
                }
            }
        }
        doubts
    }
}

/// Arguments that no valid call has, or not of a kind that the parameter takes.
fn never_given<'t>(template: &'t Template, tool: &Tool) -> Vec<(&'t str, &'t str, &'static str)> {
    let Some(schema) = tool.input_schema() else { return Vec::new() };
    let problem = |(name, pointer): (&'t str, &'t str)| {
        let kind = template.file().params.get(name).map(|param| param.kind)?;
        let wanted: &[&str] = if kind == ParamType::Integer { &["integer", "number"] } else { &["string"] };
        match look(&schema, tokens(pointer)) {
            Look::Never => Some((name, pointer, "the tool's schema has no such argument")),
            Look::Here(found) if !may_be(found, wanted) => {
                Some((name, pointer, "in the tool's schema it is of another type"))
            }
            Look::Here(_) | Look::Perhaps => None,
        }
    };
    arguments(template).filter_map(problem).collect()
}

fn arguments(template: &Template) -> impl Iterator<Item = (&str, &str)> {
    template.file().params.iter().filter_map(|(name, param)| match &param.from {
        Source::Argument(pointer) => Some((name.as_str(), pointer.as_str())),
        Source::Claim(_) => None,
    })
}

enum Look<'s> {
    /// The schema says what it is.
    Here(&'s Value),
    /// The schema says nothing of it, or not in a way that is followed here.
    Perhaps,
    /// No valid value has it.
    Never,
}

/// Follows a pointer through a schema, as far as `properties`, `items` and `additionalProperties` lead. What other
/// keywords add is not proved: where one could, the answer is that it may be there.
fn look<'s>(schema: &'s Value, mut tokens: impl Iterator<Item = String>) -> Look<'s> {
    let Some(token) = tokens.next() else { return Look::Here(schema) };
    if *schema == Value::Bool(false) {
        return Look::Never;
    }
    let property = schema.get("properties").and_then(|properties| properties.get(&token));
    if let Some(property) = property {
        return look(property, tokens);
    }
    if !may_be(schema, &["object", "array"]) {
        return Look::Never;
    }
    if may_be(schema, &["array"]) {
        // An index: what stands there, of all that may.
        return match schema.get("items").filter(|_| schema.get("prefixItems").is_none()) {
            Some(items) if is_index(&token) && !may_be(schema, &["object"]) => look(items, tokens),
            _ => Look::Perhaps,
        };
    }
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    if is_closed && schema.get("patternProperties").is_none() { Look::Never } else { Look::Perhaps }
}

/// Whether a schema's own `type` admits one of these.
fn may_be(schema: &Value, types: &[&str]) -> bool {
    match schema.get("type") {
        None => *schema != Value::Bool(false),
        Some(Value::String(one)) => types.contains(&one.as_str()),
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).any(|one| types.contains(&one))
        }
        Some(_) => true,
    }
}

/// The reference tokens of a pointer (RFC 6901 §4).
fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

fn is_index(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_digit())
}

/// Where the server is and where the role is can never be one place: every call would be refused.
fn never_there(template: &Template, server: &Server) -> Option<String> {
    let file = template.file();
    let region = server.record.region.as_deref();
    match (&file.residency, region) {
        (None, Some(region)) if region != file.aws.region => Some(format!(
            "the server is in {region:?}, the role in {:?}: say under `residency` which regions count as one place",
            file.aws.region
        )),
        (Some(_), None) => Some("the server's record names no region".to_owned()),
        (Some(residency), Some(region))
            if residency.area.as_deref() != Some(region)
                && !residency.regions.iter().any(|allowed| allowed == region) =>
        {
            Some(format!("the server is in {region:?}, which is not among its regions"))
        }
        _ => None,
    }
}

fn no_such_tool(tool: &str, server: &Server) -> String {
    let nearest = server
        .tools()
        .map(|known| (strsim::damerau_levenshtein(tool, &known.name), known.name.as_str()))
        .filter(|(distance, _)| *distance <= 3)
        .min_by_key(|(distance, _)| *distance);
    let meant = nearest.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default();
    format!("server {:?} has no tool {tool:?}{meant}", server.record.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn word(schema: &Value, pointer: &str) -> &'static str {
        match look(schema, tokens(pointer)) {
            Look::Here(_) => "here",
            Look::Perhaps => "perhaps",
            Look::Never => "never",
        }
    }

    #[test]
    fn a_pointer_is_followed_as_far_as_a_schema_says() {
        let closed = json!({
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "a/b~c": {"type": "string"},
                "where": {"type": "object", "properties": {"bucket": {"type": "string"}}},
                "ids": {"type": "array", "items": {"type": "string"}},
                "any": {},
                "ref": {"$ref": "#/$defs/x"},
                "none": false,
            },
            "additionalProperties": false,
        });
        for (pointer, expected) in [
            ("/id", "here"),
            ("/a~1b~0c", "here"),
            ("/where/bucket", "here"),
            ("/where/other", "perhaps"),
            ("/ids/0", "here"),
            ("/ids/0/x", "never"),
            ("/ids/x", "perhaps"),
            ("/id/x", "never"),
            ("/any/x", "perhaps"),
            ("/ref/x", "perhaps"),
            ("/none/x", "never"),
            ("/other", "never"),
        ] {
            assert_eq!(word(&closed, pointer), expected, "{pointer}");
        }
        let open = json!({"type": "object", "properties": {"id": {}}});
        assert_eq!((word(&open, "/id"), word(&open, "/other")), ("here", "perhaps"));
        let patterned =
            json!({"type": "object", "additionalProperties": false, "patternProperties": {"^x": {}}});
        assert_eq!(word(&patterned, "/x1"), "perhaps");
    }

    #[test]
    fn a_type_admits_what_it_names() {
        for (schema, expected) in [
            (json!({"type": "string"}), true),
            (json!({"type": ["null", "string"]}), true),
            (json!({"type": "integer"}), false),
            (json!({"type": ["object", "array"]}), false),
            (json!({}), true),
            (json!(true), true),
            (json!(false), false),
        ] {
            assert_eq!(may_be(&schema, &["string"]), expected, "{schema}");
        }
    }
}
