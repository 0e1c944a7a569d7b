//! `deputize doctor --role`: whether a role's trust policy lets its templates in, and nobody else. AWS is not asked.

use deputize_issuer::templates::{TRUST_ACTIONS, Template, TrustedIssuer};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, path::Path};

use super::Check;
use crate::commands::exit::CommandError;

/// What is examined.
pub(super) struct Examined<'a> {
    pub(super) role_arn: &'a str,
    /// The templates of this role.
    pub(super) templates: Vec<&'a Template>,
    pub(super) issuer: TrustedIssuer<'a>,
}

/// The file's trust policy: the policy itself, or what `aws iam get-role` prints.
pub(super) struct Trust {
    policy: Map<String, Value>,
    /// What `get-role` says of the role.
    role: Option<Map<String, Value>>,
}

impl Trust {
    /// Reads a file.
    ///
    /// # Errors
    /// If it holds neither.
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let unreadable = |error: &dyn std::fmt::Display| {
            CommandError::usage(
                format!("--trust-policy: {error}"),
                "give a trust policy, or what `aws iam get-role --role-name NAME` prints",
            )
        };
        let document: Value = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        let Value::Object(mut document) = document else { return Err(unreadable(&"no JSON object")) };
        let Some(role) = document.remove("Role") else { return Ok(Self { policy: document, role: None }) };
        let Value::Object(mut role) = role else { return Err(unreadable(&"`Role` is no object")) };
        let policy = match role.remove("AssumeRolePolicyDocument") {
            Some(Value::Object(policy)) => policy,
            // The API itself gives it percent-encoded (RFC 3986).
            Some(Value::String(text)) => {
                decoded(&text).ok_or_else(|| unreadable(&"the policy is no JSON object"))?
            }
            _ => return Err(unreadable(&"`Role` has no AssumeRolePolicyDocument")),
        };
        Ok(Self { policy, role: Some(role) })
    }

    fn statements(&self) -> Vec<&Map<String, Value>> {
        match self.policy.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().filter_map(Value::as_object).collect(),
            Some(Value::Object(statement)) => vec![statement],
            _ => Vec::new(),
        }
    }
}

fn decoded(text: &str) -> Option<Map<String, Value>> {
    // A form with one member without a name is a text with percents undone.
    let plus = text.replace('+', "%2B");
    let text: String = url::form_urlencoded::parse(format!("={plus}").as_bytes()).next()?.1.into_owned();
    serde_json::from_str(&text).ok()
}

impl Examined<'_> {
    /// All checks.
    pub(super) fn examine(&self, trust: &Trust) -> Vec<Check> {
        let mut checks = self.role(trust);
        let Some(first) = self.templates.first() else {
            checks.push(Check::bad(
                "templates",
                format!("none is for {}", self.role_arn),
                "give the folder of its templates with --templates, or correct `role_arn`",
            ));
            return checks;
        };
        let provider = self.issuer.provider_arn(first);
        let (ours, others): (Vec<_>, Vec<_>) = trust
            .statements()
            .into_iter()
            .filter(|statement| text(statement, "Effect") != Some("Deny"))
            .partition(|statement| is_principal(statement, &provider));
        checks.push(self.provider(&provider, &ours));
        if !ours.is_empty() {
            checks.extend([
                self.actions(&ours),
                self.audience(&ours),
                self.subjects(&ours),
                self.further(&ours),
            ]);
        }
        checks.push(nobody_else(&others));
        checks.extend(denies(trust));
        checks
    }

    fn role(&self, trust: &Trust) -> Vec<Check> {
        let Some(role) = &trust.role else { return Vec::new() };
        let mut checks = Vec::new();
        checks.push(match text(role, "Arn") {
            Some(arn) if arn == self.role_arn => Check::good("role", arn),
            other => Check::bad(
                "role",
                format!("the file is of {:?}", other.unwrap_or_default()),
                format!("give what get-role prints of {}", self.role_arn),
            ),
        });
        let longest = self.templates.iter().map(|template| template.file().aws.duration_seconds).max();
        let most = role.get("MaxSessionDuration").and_then(Value::as_u64);
        if let (Some(longest), Some(most)) = (longest, most) {
            let found = format!("{longest} s wanted, the role gives {most} s");
            checks.push(if u64::from(longest) <= most {
                Check::good("session duration", found)
            } else {
                Check::bad("session duration", found, "raise MaxSessionDuration, or lower `duration_seconds`")
            });
        }
        checks
    }

    fn provider(&self, provider: &str, ours: &[&Map<String, Value>]) -> Check {
        if ours.is_empty() {
            return Check::bad(
                "provider",
                format!("nothing trusts {provider}"),
                "make the OIDC provider and name it as Principal.Federated: `deputize templates export` writes both",
            );
        }
        Check::good("provider", provider)
    }

    /// All three for each template, and no more: without the tags and the person's name STS refuses the session.
    fn actions(&self, ours: &[&Map<String, Value>]) -> Check {
        let has_not = ours.iter().any(|statement| statement.contains_key("NotAction"));
        let named: BTreeSet<&str> =
            ours.iter().flat_map(|statement| texts(statement.get("Action"))).collect();
        let missing: Vec<String> =
            self.wanted().iter().flat_map(|subject| self.lacking(subject, ours)).collect();
        let more: Vec<&str> = named.into_iter().filter(|action| !TRUST_ACTIONS.contains(action)).collect();
        match (missing.is_empty(), more.is_empty() && !has_not) {
            (true, true) => Check::good("actions", TRUST_ACTIONS.join(", ")),
            (false, _) => Check::bad(
                "actions",
                format!("missing: {}", missing.join(", ")),
                "allow all three for the provider, by their whole names",
            ),
            (true, false) => Check::bad(
                "actions",
                if has_not {
                    "NotAction allows others".to_owned()
                } else {
                    format!("also {}", more.join(", "))
                },
                "allow the three that are needed, and no others",
            ),
        }
    }

    /// Subjects that are to be let in.
    fn wanted(&self) -> BTreeSet<String> {
        self.templates.iter().map(|template| template.web_identity_subject()).collect()
    }

    /// The actions that no statement allows this subject.
    fn lacking(&self, subject: &str, ours: &[&Map<String, Value>]) -> Vec<String> {
        let key = format!("{}:sub", self.issuer.host_and_path());
        let lets_in = |statement: &&&Map<String, Value>| {
            equal(statement, &key).is_none_or(|subjects| subjects.contains(subject))
        };
        let allowed: BTreeSet<&str> =
            ours.iter().filter(lets_in).flat_map(|statement| texts(statement.get("Action"))).collect();
        let missing = TRUST_ACTIONS.into_iter().filter(|action| !allowed.contains(action));
        missing.map(|action| format!("{action} for {subject}")).collect()
    }

    fn audience(&self, ours: &[&Map<String, Value>]) -> Check {
        let key = format!("{}:aud", self.issuer.host_and_path());
        let all_equal = ours.iter().all(|statement| {
            let values = equal(statement, &key);
            values.as_ref().is_some_and(|values| values.len() == 1 && values.contains(self.issuer.audience))
        });
        if all_equal {
            return Check::good("audience", self.issuer.audience);
        }
        Check::bad(
            "audience",
            format!("{key} is not held to {:?}", self.issuer.audience),
            format!("add StringEquals {key} = {:?} to each statement of the provider", self.issuer.audience),
        )
    }

    fn subjects(&self, ours: &[&Map<String, Value>]) -> Check {
        let key = format!("{}:sub", self.issuer.host_and_path());
        let wanted = self.wanted();
        let next = |what: &str| format!("{what}: StringEquals {key} = {}", list(&wanted));
        let mut named: BTreeSet<String> = BTreeSet::new();
        for statement in ours {
            match equal(statement, &key) {
                Some(values) => named.extend(values.into_iter().map(str::to_owned)),
                None if is_compared(statement, &key) => {
                    return Check::bad(
                        "subject",
                        format!("{key} is not held to whole texts"),
                        next("make it"),
                    );
                }
                None => {
                    return Check::bad(
                        "subject",
                        format!("{key} may be anything: every template may use the role"),
                        next("add"),
                    );
                }
            }
        }
        let missing: BTreeSet<String> = wanted.difference(&named).cloned().collect();
        let more: BTreeSet<String> = named.difference(&wanted).cloned().collect();
        match (missing.is_empty(), more.is_empty()) {
            (true, true) => Check::good("subject", list(&wanted)),
            (false, _) => Check::bad("subject", format!("not let in: {}", list(&missing)), next("make it")),
            (true, false) => Check::bad(
                "subject",
                format!("let in, but no template of this role: {}", list(&more)),
                next("make it"),
            ),
        }
    }

    /// What else has to hold is what our requests have, compared in a way that is understood here: any other operator
    /// can turn the meaning round, also on a key of ours.
    fn further(&self, ours: &[&Map<String, Value>]) -> Check {
        let host = self.issuer.host_and_path();
        let own = [format!("{host}:aud"), format!("{host}:sub")];
        let (mut unknown, mut further) = (BTreeSet::new(), BTreeSet::new());
        for (operator, key, values) in ours.iter().flat_map(|statement| conditions(statement)) {
            if own.iter().any(|own| own == key) && operator == "StringEquals" {
                continue;
            }
            if self.is_known(operator, key, values) {
                further.insert(key);
            } else {
                unknown.insert(format!("{key} ({operator})"));
            }
        }
        if !unknown.is_empty() {
            return Check::bad(
                "conditions",
                format!("{}: nothing that sessions of these templates are known to fulfil", list(&unknown)),
                "take the condition out, let a template set that tag, or write it as `deputize templates export` does",
            );
        }
        let further: Vec<&str> = further.into_iter().collect();
        let found = if further.is_empty() { "no others".to_owned() } else { further.join(", ") };
        Check::good("conditions", found)
    }

    /// Whether sessions of these templates can fulfil it: operator and key together.
    fn is_known(&self, operator: &str, key: &str, values: &Value) -> bool {
        let mut tags = self.templates.iter().map(|template| &template.file().tags);
        match (operator, key) {
            ("ForAllValues:StringEquals", "aws:TagKeys")
            | ("StringEquals" | "StringLike", "sts:SourceIdentity")
            | ("StringLike", "sts:RoleSessionName") => true,
            // Of a template without tags.
            ("Null", "aws:TagKeys") => texts(Some(values)) == ["true"] && tags.any(|tags| tags.is_empty()),
            ("StringEquals" | "StringLike", key) => key
                .strip_prefix("aws:RequestTag/")
                .is_some_and(|tag| tags.any(|tags| tags.keys().any(|own| own == tag))),
            _ => false,
        }
    }
}

/// Whoever else may have the role can do what its calls can, with no call.
fn nobody_else(others: &[&Map<String, Value>]) -> Check {
    if others.is_empty() {
        return Check::good("others", "nobody else is let in");
    }
    let named: BTreeSet<String> = others
        .iter()
        .map(|statement| match statement.get("Principal") {
            Some(principal) => principal.to_string(),
            None => "everybody but some (NotPrincipal)".to_owned(),
        })
        .collect();
    Check::bad(
        "others",
        format!("also lets in {}", list(&named)),
        "take their statements out: who else needs these rights gets a role of their own",
    )
}

/// What they deny is not weighed here.
fn denies(trust: &Trust) -> Option<Check> {
    let count =
        trust.statements().iter().filter(|statement| text(statement, "Effect") == Some("Deny")).count();
    let found = format!("{count} Deny statements, which are not examined");
    (count > 0).then(|| Check::good("denies", found))
}

/// Whether this provider alone is let in.
fn is_principal(statement: &Map<String, Value>, provider: &str) -> bool {
    let Some(Value::Object(principal)) = statement.get("Principal") else { return false };
    principal.len() == 1 && texts(principal.get("Federated")) == [provider]
}

/// The values with which a key is compared for equality, and not otherwise.
fn equal<'s>(statement: &'s Map<String, Value>, key: &str) -> Option<BTreeSet<&'s str>> {
    let condition = statement.get("Condition")?.as_object()?;
    let values = condition.get("StringEquals")?.as_object()?;
    let named = values.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    named.map(|(_, values)| texts(Some(values)).into_iter().collect())
}

fn is_compared(statement: &Map<String, Value>, key: &str) -> bool {
    conditions(statement).iter().any(|(_, name, _)| name.eq_ignore_ascii_case(key))
}

/// Operator, key and values of each condition.
fn conditions(statement: &Map<String, Value>) -> Vec<(&str, &str, &Value)> {
    let operators = statement.get("Condition").and_then(Value::as_object).into_iter().flatten();
    let mut all = Vec::new();
    for (operator, keys) in operators {
        match keys.as_object() {
            Some(keys) => {
                all.extend(keys.iter().map(|(key, values)| (operator.as_str(), key.as_str(), values)));
            }
            // No condition that AWS takes.
            None => all.push((operator.as_str(), "", keys)),
        }
    }
    all
}

fn text<'o>(object: &'o Map<String, Value>, name: &str) -> Option<&'o str> {
    object.get(name).and_then(Value::as_str)
}

/// One text or several.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn list(values: &BTreeSet<String>) -> String {
    values.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Reads the file, within 64 KiB.
///
/// # Errors
/// If it cannot be read or is larger.
pub(super) fn read(file: &Path) -> Result<Trust, CommandError> {
    let cannot = |error: &dyn std::fmt::Display| {
        CommandError::usage(format!("{}: {error}", file.display()), "give the file of a trust policy")
    };
    let size = std::fs::metadata(file).map_err(|error| cannot(&error))?.len();
    if size > 64 * 1024 {
        return Err(cannot(&"larger than 64 KiB"));
    }
    Trust::parse(&std::fs::read_to_string(file).map_err(|error| cannot(&error))?)
}
