//! CloudFormation, as JSON. Its functions are members, never texts; one thing it reads in texts, and that is refused.

use serde_json::{Map, Value, json};

use super::{CommandError, Needed, POLICY_NAME};

/// A template of all that is needed.
///
/// # Errors
/// If a text would be read as more than itself, or two names are one here.
pub(super) fn document(needed: &Needed) -> Result<Value, CommandError> {
    let mut resources = Map::new();
    if let Some(provider) = &needed.provider {
        let properties = json!({"Url": provider.url, "ClientIdList": [provider.audience]});
        resources
            .insert(PROVIDER.to_owned(), json!({"Type": "AWS::IAM::OIDCProvider", "Properties": properties}));
    }
    for role in &needed.roles {
        let mut resource = Map::from_iter([("Type".to_owned(), json!("AWS::IAM::Role"))]);
        if needed.provider.is_some() {
            // The trust policy names it by its ARN, in which no reference stands.
            resource.insert("DependsOn".to_owned(), json!(PROVIDER));
        }
        let properties = json!({
            "RoleName": role.name,
            "Path": role.path,
            "MaxSessionDuration": 3600,
            "AssumeRolePolicyDocument": role.trust,
            "Policies": [{"PolicyName": POLICY_NAME, "PolicyDocument": role.policy}],
        });
        resource.insert("Properties".to_owned(), properties);
        if resources.insert(logical_id(&role.called), resource.into()).is_some() {
            return Err(CommandError::failure(
                format!("the name {:?} is another's too, without its hyphens", role.called),
                "rename one of the templates, or export them one by one",
            ));
        }
    }
    let document = json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Roles that sessions of Deputize's role templates have",
        "Resources": resources,
    });
    if has_reference(&document) {
        return Err(CommandError::failure(
            "a template has `{{resolve:` in a name: CloudFormation would put a secret in its place",
            "rename what is called so",
        ));
    }
    Ok(document)
}

/// Logical ids have letters and digits alone: `restart-instance` is `RoleRestartInstance`.
fn logical_id(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    format!("Role{}", name.split('-').map(capital).collect::<String>())
}

/// Whether CloudFormation would read a text as a dynamic reference: in texts there is no escape for it.
fn has_reference(value: &Value) -> bool {
    let is_one = |text: &str| text.contains("{{resolve:");
    match value {
        Value::String(text) => is_one(text),
        Value::Array(items) => items.iter().any(has_reference),
        Value::Object(members) => members.iter().any(|(name, value)| is_one(name) || has_reference(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

const PROVIDER: &str = "Provider";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_an_id() {
        assert_eq!(logical_id("restart-instance"), "RoleRestartInstance");
        assert_eq!(logical_id("2-a"), "Role2A");
    }

    #[test]
    fn a_reference_to_a_secret_is_seen_wherever_it_stands() {
        for hostile in [
            json!({"a": ["x{{resolve:ssm:/prod/key}}"]}),
            json!({"{{resolve:secretsmanager:a}}": 1}),
            json!("{{resolve:"),
        ] {
            assert!(has_reference(&hostile), "{hostile}");
        }
        assert!(!has_reference(&json!({"a": ["{{ resolve", "${aws:userid}"]})));
    }
}
