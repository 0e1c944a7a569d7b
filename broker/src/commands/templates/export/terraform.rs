//! Terraform's JSON syntax. JSON escapes what ends a text; what Terraform itself would read as more than text is escaped
//! here: in its JSON every text is a template.

use serde_json::{Map, Value, json};

use super::{Needed, POLICY_NAME};

/// A `*.tf.json` of all that is needed.
pub(super) fn document(needed: &Needed) -> Value {
    let (mut roles, mut policies) = (Map::new(), Map::new());
    for role in &needed.roles {
        let label = label(&role.called);
        let mut of_role = Map::from_iter([
            ("name".to_owned(), text(&role.name)),
            ("path".to_owned(), text(&role.path)),
            ("max_session_duration".to_owned(), json!(3600)),
            ("assume_role_policy".to_owned(), text(&role.trust.to_string())),
        ]);
        if needed.provider.is_some() {
            // The trust policy names it by its ARN, in which no reference stands.
            of_role.insert(
                "depends_on".to_owned(),
                json!([format!("aws_iam_openid_connect_provider.{PROVIDER}")]),
            );
        }
        policies.insert(
            label.clone(),
            json!({
                "name": POLICY_NAME,
                "role": format!("${{aws_iam_role.{label}.name}}"),
                "policy": text(&role.policy.to_string()),
            }),
        );
        roles.insert(label, of_role.into());
    }
    let mut resources = Map::new();
    if let Some(provider) = &needed.provider {
        let provider = json!({"url": text(&provider.url), "client_id_list": [text(&provider.audience)]});
        resources.insert("aws_iam_openid_connect_provider".to_owned(), json!({PROVIDER: provider}));
    }
    resources.insert("aws_iam_role".to_owned(), roles.into());
    resources.insert("aws_iam_role_policy".to_owned(), policies.into());
    json!({
        // From 5.81 on a provider needs no thumbprints: AWS looks at the certificate itself.
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws", "version": ">= 5.81"}}},
        "resource": resources,
    })
}

/// Text and nothing more: `${` and `%{` begin expressions.
fn text(text: &str) -> Value {
    text.replace("${", "$${").replace("%{", "%%{").into()
}

/// A name of a template begins a label also where it begins with a digit. Both have letters, digits and `-`.
fn label(name: &str) -> String {
    format!("deputize-{name}")
}

const PROVIDER: &str = "deputize";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        for (given, written) in [
            ("${aws:PrincipalTag/a}", "$${aws:PrincipalTag/a}"),
            ("%{ if true }x%{ endif }", "%%{ if true }x%%{ endif }"),
            ("100 $ {}", "100 $ {}"),
            ("\"\n${file(\"x\")}", "\"\n$${file(\"x\")}"),
        ] {
            assert_eq!(text(given), written);
        }
    }
}
