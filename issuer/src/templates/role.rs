//! What a role has to be for its templates: the trust policy that lets them in and nobody else, and the rights that
//! their calls need. For the cloud team to put in place; nothing here asks AWS.
//!
//! A session can do what its role may and its session policy allows. So the role's policy is wider than a session's:
//! parameters become the session tags that carry them, or `*` where none does. It never is wider than the ceiling: that
//! stands in it as Denies.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use super::{
    Template,
    arn::{account_of, prefix_of},
    file::{Condition, Fact, Operator, Part, Statement, TagPart, TemplateFile},
    parameter::escape,
};

/// Who asks STS, and for whom, as the trust policy of a role has to name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedIssuer<'a> {
    /// The issuer of web identities: https, no slash at the end.
    pub issuer: &'a str,
    /// Their audience.
    pub audience: &'a str,
}

impl TrustedIssuer<'_> {
    /// Host and path of the issuer: what AWS calls it in ARNs and condition keys.
    pub fn host_and_path(&self) -> &str {
        self.issuer.strip_prefix("https://").unwrap_or(self.issuer)
    }

    /// ARN of the OIDC provider in the account of a template.
    pub fn provider_arn(&self, template: &Template) -> String {
        let aws = &template.file.aws;
        format!("arn:{}:iam::{}:oidc-provider/{}", aws.partition.as_str(), aws.account, self.host_and_path())
    }
}

impl Template {
    /// `sub` of the web identities of its sessions.
    pub fn web_identity_subject(&self) -> String {
        format!("template:{}:{}", self.file.matching.tenant, self.file.name)
    }
}

/// The trust policy of a role for its templates, which are of one account: only this issuer's tokens, for exactly these
/// templates, with a source identity and with the tags that they set.
pub fn trust_policy(templates: &[&Template], issuer: TrustedIssuer<'_>) -> Value {
    document(templates.iter().flat_map(|template| trust_statements(template, issuer)).collect())
}

/// Two statements: what is asked of the source identity is a key of the one, what is asked of tags one of the other (AWS
/// Service Authorization Reference, "AWS Security Token Service").
fn trust_statements(template: &Template, issuer: TrustedIssuer<'_>) -> [Value; 2] {
    let host = issuer.host_and_path();
    let theirs = BTreeMap::from([
        (format!("{host}:aud"), escape(issuer.audience)),
        (format!("{host}:sub"), escape(&template.web_identity_subject())),
    ]);
    let tags = &template.file.tags;
    let mut equals = theirs.clone();
    for (key, parts) in tags {
        if let Some(value) = constant(parts, &template.file) {
            equals.insert(format!("aws:RequestTag/{key}"), escape(&value));
        }
    }
    let (operator, keys) = if tags.is_empty() {
        ("Null", json!("true"))
    } else {
        ("ForAllValues:StringEquals", json!(tags.keys().collect::<Vec<_>>()))
    };
    let [assume, tag, identify] = TRUST_ACTIONS;
    let principal = json!({"Federated": issuer.provider_arn(template)});
    let allow = |action: Value, condition: Value| json!({"Effect": "Allow", "Principal": principal, "Action": action, "Condition": condition});
    [
        // Every session says who stands behind it.
        allow(
            json!([assume, identify]),
            json!({"StringEquals": theirs, "StringLike": {"sts:SourceIdentity": "?*"}}),
        ),
        allow(json!(tag), json!({"StringEquals": equals, operator: {"aws:TagKeys": keys}})),
    ]
}

/// A tag's value where every call has the same.
fn constant(parts: &[TagPart], file: &TemplateFile) -> Option<String> {
    let part = |part: &TagPart| match part {
        TagPart::Literal(text) => Some(text.clone()),
        TagPart::Fact(Fact::Tool) => Some(file.matching.tool.clone()),
        TagPart::Fact(Fact::Server) => Some(file.matching.server.clone()),
        TagPart::Fact(Fact::Tenant) => Some(file.matching.tenant.clone()),
        TagPart::Param(_) | TagPart::Claim(_) | TagPart::Fact(_) => None,
    };
    parts.iter().map(part).collect()
}

/// The rights of a role for its templates: what any of their calls can need, within their ceilings.
pub fn role_policy(templates: &[&Template]) -> Value {
    let allows = templates.iter().flat_map(|template| {
        template.file.statements.iter().map(|statement| allow(statement, &template.file))
    });
    document(allows.chain(beyond_the_ceiling(templates)).collect())
}

fn allow(statement: &Statement, file: &TemplateFile) -> Value {
    let resources: BTreeSet<String> = statement
        .resources
        .iter()
        .map(|resource| prefix_of(resource, &file.aws) + &pattern(&resource.parts, file))
        .collect();
    let mut conditions: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
    let mut add = |operator, key: &str, values: Vec<String>| {
        let values = if let [one] = values.as_slice() { json!(one) } else { json!(values) };
        conditions.entry(operator).or_default().insert(key.to_owned(), values);
    };
    // An ARN without an account is whoever's took the name first.
    if statement.resources.iter().any(|resource| account_of(resource, &file.aws).is_empty()) {
        add("StringEquals", "aws:ResourceAccount", vec![file.aws.account.clone()]);
    }
    for condition in &statement.conditions {
        if let Some((operator, values)) = generalized(condition, file) {
            add(operator, &condition.key, values);
            if matches!(condition.operator, Operator::ForAllValuesStringEquals) {
                // Without the key it would hold of any request.
                add("Null", &condition.key, vec!["false".to_owned()]);
            }
        }
    }
    let mut rule = Map::new();
    rule.insert("Effect".to_owned(), "Allow".into());
    rule.insert("Action".to_owned(), json!(statement.actions));
    let resource = if resources.is_empty() { json!("*") } else { json!(resources) };
    rule.insert("Resource".to_owned(), resource);
    if !conditions.is_empty() {
        rule.insert("Condition".to_owned(), json!(conditions));
    }
    rule.into()
}

/// A condition that holds of every call's own: with its parameters as tags, or as anything. `None` where nothing is left
/// to say.
fn generalized(condition: &Condition, file: &TemplateFile) -> Option<(&'static str, Vec<String>)> {
    let values = || condition.values.iter().map(|parts| pattern(parts, file)).collect();
    let is_open = condition
        .values
        .iter()
        .flatten()
        .any(|part| matches!(part, Part::Param(name) if tag_of(name, file).is_none()));
    match (condition.operator, is_open) {
        (Operator::StringEquals, false) => Some(("StringEquals", values())),
        (Operator::StringEquals | Operator::StringLike, _) => Some(("StringLike", values())),
        (Operator::NumericLessThanEquals, false) => Some(("NumericLessThanEquals", values())),
        (Operator::ForAllValuesStringEquals, false) => Some(("ForAllValues:StringEquals", values())),
        (Operator::ForAllValuesStringEquals, true) => Some(("ForAllValues:StringLike", values())),
        (Operator::NumericLessThanEquals, true) => None,
    }
}

/// Literals as they are, parameters as the session tag that carries them, or as anything.
fn pattern(parts: &[Part], file: &TemplateFile) -> String {
    let part = |part: &Part| match part {
        Part::Literal(text) => escape(text),
        Part::Wildcard => "*".to_owned(),
        Part::Param(name) => {
            tag_of(name, file).map_or_else(|| "*".to_owned(), |key| format!("${{aws:PrincipalTag/{key}}}"))
        }
    };
    let mut pattern: String = parts.iter().map(part).collect();
    // A parameter before the wildcard: one `*` says it.
    if pattern.ends_with("**") {
        pattern.pop();
    }
    pattern
}

/// The tag whose value is this parameter's and nothing else. A key that would end the variable is none.
fn tag_of<'f>(param: &str, file: &'f TemplateFile) -> Option<&'f str> {
    let carries = |parts: &Vec<TagPart>| matches!(parts.as_slice(), [TagPart::Param(name)] if name == param);
    let is_plain = |key: &&String| !key.contains(['$', '{', '}', '*', '?', ' ', ',', '\'']);
    file.tags.iter().find(|(key, parts)| carries(parts) && is_plain(key)).map(|(key, _)| key.as_str())
}

/// INVARIANT: whatever the Allows say, nothing beyond the ceilings is granted, and resource policies that name the role
/// do not count there either.
fn beyond_the_ceiling(templates: &[&Template]) -> Vec<Value> {
    let ceilings = || templates.iter().map(|template| &template.file.ceiling);
    let actions: BTreeSet<&String> = ceilings().flat_map(|ceiling| &ceiling.actions).collect();
    let mut denies = vec![json!({"Effect": "Deny", "NotAction": actions, "Resource": "*"})];
    let statements = || templates.iter().flat_map(|template| &template.file.statements);
    let has_resources = |statement: &&Statement| !statement.resources.is_empty();
    let mut bounded: BTreeSet<&String> =
        statements().filter(has_resources).flat_map(|statement| &statement.actions).collect();
    for action in statements().filter(|statement| !has_resources(statement)).flat_map(|of| &of.actions) {
        bounded.remove(action);
    }
    // `*` admits actions that know no resources, and only those.
    let resources: BTreeSet<&String> =
        ceilings().flat_map(|ceiling| &ceiling.resources).filter(|resource| *resource != "*").collect();
    if !bounded.is_empty() {
        denies.push(json!({"Effect": "Deny", "Action": bounded, "NotResource": resources}));
    }
    denies
}

fn document(statements: Vec<Value>) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// What a trust policy has to allow: the session, its tags, and the name of the person behind it.
pub const TRUST_ACTIONS: [&str; 3] =
    ["sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"];

#[cfg(test)]
mod tests;
