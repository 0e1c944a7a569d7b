//! A prompt's arguments as a schema: prompts say what they take in a list of names (MCP, "Prompts"), and all of it is
//! text. So a prompt's arguments are held against what was approved as a tool's are.

use crate::json::Object;
use serde_json::{Map, Value, json};

/// The schema of the arguments that a prompt's definition lists.
///
/// # Errors
/// What is wrong with the list.
pub fn arguments_schema(definition: &Object) -> Result<Value, &'static str> {
    let listed = match definition.get("arguments") {
        None => &[][..],
        Some(Value::Array(listed)) if listed.len() <= MAX_ARGUMENTS => listed,
        Some(Value::Array(_)) => return Err("has more than 100 arguments"),
        Some(_) => return Err("has arguments that are no list"),
    };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for argument in listed {
        let name = argument.get("name").and_then(Value::as_str).ok_or("has an argument without a name")?;
        if properties.insert(name.to_owned(), json!({ "type": "string" })).is_some() {
            return Err("has two arguments of one name");
        }
        match argument.get("required") {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => required.push(name.to_owned()),
            Some(_) => return Err("has an argument whose `required` is neither true nor false"),
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if let Some(members) = schema.as_object_mut().filter(|_| !required.is_empty()) {
        members.insert("required".to_owned(), json!(required));
    }
    Ok(schema)
}

const MAX_ARGUMENTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::PinnedSchema;

    fn schema(arguments: Value) -> Result<Value, &'static str> {
        arguments_schema(json!({ "name": "p", "arguments": arguments }).as_object().unwrap())
    }

    #[test]
    fn what_is_listed_is_what_is_taken() {
        let listed =
            json!([{ "name": "city", "description": "Where", "required": true }, { "name": "mood" }]);
        let pinned = PinnedSchema::compile(&schema(listed).unwrap()).unwrap();
        let valid = |arguments: Value| pinned.validate(arguments.as_object().unwrap()).is_ok();
        assert!(valid(json!({ "city": "Bonn" })) && valid(json!({ "city": "Bonn", "mood": "" })));
        for wrong in
            [json!({}), json!({ "mood": "x" }), json!({ "city": 1 }), json!({ "city": "x", "more": "y" })]
        {
            assert!(!valid(wrong.clone()), "{wrong}");
        }
        let none = PinnedSchema::compile(&arguments_schema(&Object::new()).unwrap()).unwrap();
        assert!(none.validate(&Object::new()).is_ok());
        assert!(none.validate(json!({ "a": "x" }).as_object().unwrap()).is_err());
    }

    #[test]
    fn a_list_that_can_be_read_in_two_ways_is_refused() {
        for wrong in [
            json!({ "city": {} }),
            json!(["city"]),
            json!([{ "name": 1 }]),
            json!([{ "name": "a" }, { "name": "a" }]),
            json!([{ "name": "a", "required": "yes" }]),
            Value::Null,
        ] {
            assert!(schema(wrong.clone()).is_err(), "{wrong}");
        }
        let many: Vec<Value> = (0..101).map(|n| json!({ "name": n.to_string() })).collect();
        assert!(schema(json!(many)).is_err());
    }
}
