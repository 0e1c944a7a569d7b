//! IAM policies, as far as the session policies of templates and the roles of `dev` need them. A policy with anything
//! else in it is no policy here.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

use super::pattern::Pattern;

/// A policy document.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Policy {
    version: Version,
    statement: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Version {
    #[serde(rename = "2012-10-17")]
    Current,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Rule {
    effect: Effect,
    #[serde(default)]
    action: Option<Texts>,
    #[serde(default)]
    not_action: Option<Texts>,
    #[serde(default)]
    resource: Option<Texts>,
    #[serde(default)]
    not_resource: Option<Texts>,
    #[serde(default)]
    condition: BTreeMap<Operator, BTreeMap<String, Texts>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// The comparisons that templates render.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Operator {
    StringEquals,
    StringNotEquals,
    StringLike,
    StringNotLike,
    #[serde(rename = "ForAllValues:StringEquals")]
    ForAllValuesStringEquals,
    #[serde(rename = "ForAnyValue:StringNotEquals")]
    ForAnyValueStringNotEquals,
    DateLessThan,
    DateGreaterThanEquals,
    NumericLessThanEquals,
    NumericGreaterThan,
    Null,
}

/// One text or several, each with its wildcards.
#[derive(Debug, Clone)]
struct Texts(Vec<Pattern>);

/// What somebody wants to do.
#[derive(Debug, Clone)]
pub(super) struct Request<'r> {
    /// `service:Action`.
    pub(super) action: &'r str,
    /// ARN of what it is done to; `*` where the action knows no resources.
    pub(super) resource: &'r str,
    /// The values of the condition keys.
    pub(super) context: BTreeMap<&'static str, Vec<String>>,
}

impl Policy {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it, or not known here.
    pub(super) fn read(json: &str) -> Result<Self, String> {
        let policy: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let Version::Current = policy.version;
        let is_whole = |rule: &Rule| {
            rule.action.is_some() != rule.not_action.is_some()
                && rule.resource.is_some() != rule.not_resource.is_some()
        };
        match policy.statement.iter().position(|rule| !is_whole(rule)) {
            Some(index) => Err(format!("statement {index} must name actions once, and resources once")),
            None => Ok(policy),
        }
    }

    /// Whether it allows this and denies it nowhere.
    pub(super) fn allows(&self, request: &Request<'_>) -> bool {
        let says = |effect| self.statement.iter().any(|rule| rule.effect == effect && rule.is_about(request));
        says(Effect::Allow) && !says(Effect::Deny)
    }
}

impl Rule {
    fn is_about(&self, request: &Request<'_>) -> bool {
        let names_action = |texts: &Texts| texts.0.iter().any(|text| text.admits_any_case(request.action));
        let names_resource = |texts: &Texts| texts.0.iter().any(|text| text.admits(request.resource));
        let action = self.action.as_ref().is_some_and(names_action)
            || self.not_action.as_ref().is_some_and(|texts| !names_action(texts));
        let resource = self.resource.as_ref().is_some_and(names_resource)
            || self.not_resource.as_ref().is_some_and(|texts| !names_resource(texts));
        let mut conditions = self
            .condition
            .iter()
            .flat_map(|(operator, keys)| keys.iter().map(move |(key, wanted)| (*operator, key, wanted)));
        action
            && resource
            && conditions.all(|(operator, key, wanted)| {
                let had = request.context.get(key.as_str()).map_or(&[][..], Vec::as_slice);
                operator.holds(had, &wanted.0)
            })
    }
}

impl Operator {
    fn holds(self, had: &[String], wanted: &[Pattern]) -> bool {
        let equals = |had: &String| wanted.iter().any(|wanted| wanted.literal() == had.as_str());
        let like = |had: &String| wanted.iter().any(|wanted| wanted.admits(had));
        let first = had.first();
        let compared = |test: fn(&str, &str) -> bool| {
            first.is_some_and(|had| wanted.iter().any(|wanted| test(had, wanted.literal())))
        };
        match self {
            Self::StringEquals => first.is_some_and(equals),
            // IAM User Guide, "Condition operators": a negated comparison holds where the key is missing.
            Self::StringNotEquals => !first.is_some_and(equals),
            Self::StringLike => first.is_some_and(like),
            Self::StringNotLike => !first.is_some_and(like),
            Self::ForAllValuesStringEquals => had.iter().all(equals),
            Self::ForAnyValueStringNotEquals => had.iter().any(|had| !equals(had)),
            // Times of one form are in the order of their texts.
            Self::DateLessThan => compared(|had, wanted| had < wanted),
            Self::DateGreaterThanEquals => compared(|had, wanted| had >= wanted),
            Self::NumericLessThanEquals => {
                compared(|had, wanted| numbers(had, wanted, |had, most| had <= most))
            }
            Self::NumericGreaterThan => compared(|had, wanted| numbers(had, wanted, |had, most| had > most)),
            Self::Null => wanted.iter().any(|wanted| (wanted.literal() == "true") == had.is_empty()),
        }
    }
}

fn numbers(one: &str, other: &str, test: fn(i64, i64) -> bool) -> bool {
    one.parse().ok().zip(other.parse().ok()).is_some_and(|(one, other)| test(one, other))
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        let texts = match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        let patterns = texts.iter().map(|text| Pattern::read(text));
        patterns.collect::<Result<_, _>>().map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_TIME: &str = "2026-11-22T00:59:59Z";
    const ONE: &str = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0";
    const OTHER: &str = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0fedcba9876543210";

    fn session() -> Policy {
        let rules = serde_json::json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": "ec2:RebootInstances", "Resource": ONE,
              "Condition": { "DateLessThan": { "aws:CurrentTime": "2026-11-22T01:00:00Z" } } },
            { "Effect": "Deny", "Action": "*", "Resource": "*",
              "Condition": { "DateGreaterThanEquals": { "aws:CurrentTime": "2026-11-22T01:00:00Z" } } },
            { "Effect": "Deny", "NotAction": "ec2:RebootInstances", "Resource": "*" },
            { "Effect": "Deny", "Action": "ec2:RebootInstances", "NotResource": ONE }
        ] });
        Policy::read(&rules.to_string()).unwrap()
    }

    fn request<'r>(action: &'r str, resource: &'r str, time: &str) -> Request<'r> {
        Request { action, resource, context: [("aws:CurrentTime", vec![time.to_owned()])].into() }
    }

    #[test]
    fn a_session_may_do_the_one_thing_until_its_window_ends() {
        assert!(session().allows(&request("ec2:RebootInstances", ONE, IN_TIME)));
        assert!(session().allows(&request("ec2:rebootinstances", ONE, IN_TIME)), "IAM ignores the case");
        for (action, resource, time) in [
            ("ec2:RebootInstances", OTHER, IN_TIME),
            ("ec2:RebootInstances", "*", IN_TIME),
            ("ec2:TerminateInstances", ONE, IN_TIME),
            ("ec2:DescribeInstances", "*", IN_TIME),
            ("ec2:RebootInstances", ONE, "2026-11-22T01:00:00Z"),
        ] {
            assert!(!session().allows(&request(action, resource, time)), "{action} {resource} {time}");
        }
        let nothing_known = Request { context: BTreeMap::new(), ..request("ec2:RebootInstances", ONE, "") };
        assert!(!session().allows(&nothing_known), "without the time nothing is in time");
    }

    #[test]
    fn each_comparison_holds_when_it_should() {
        let text = |text: &str| text.to_owned();
        for (operator, had, wanted, holds) in [
            ("StringEquals", vec!["a"], "a", true),
            ("StringEquals", vec!["b"], "a", false),
            ("StringEquals", vec!["ab"], "a*", false),
            ("StringEquals", vec![], "a", false),
            ("StringNotEquals", vec!["a"], "a", false),
            ("StringNotEquals", vec![], "a", true),
            ("StringLike", vec!["ab"], "a*", true),
            ("StringNotLike", vec!["ab"], "a*", false),
            ("ForAllValues:StringEquals", vec!["a", "b"], "a", false),
            ("ForAllValues:StringEquals", vec![], "a", true),
            ("ForAnyValue:StringNotEquals", vec!["a", "b"], "a", true),
            ("ForAnyValue:StringNotEquals", vec![], "a", false),
            ("NumericLessThanEquals", vec!["9"], "10", true),
            ("NumericLessThanEquals", vec!["nine"], "10", false),
            ("NumericGreaterThan", vec!["11"], "10", true),
            ("Null", vec![], "true", true),
            ("Null", vec!["a"], "true", false),
            ("Null", vec!["a"], "false", true),
        ] {
            let rules = serde_json::json!({ "Version": "2012-10-17", "Statement": [
                { "Effect": "Allow", "Action": "a:B", "Resource": "*", "Condition": { operator: { "key": wanted } } }
            ] });
            let context = [("key", had.iter().copied().map(text).collect())].into();
            let request = Request { action: "a:B", resource: "x", context };
            let policy = Policy::read(&rules.to_string()).unwrap();
            assert_eq!(policy.allows(&request), holds, "{operator} {had:?} {wanted}");
        }
    }

    #[test]
    fn what_is_not_known_here_is_no_policy() {
        for rule in [
            r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"::1"}}}"#,
            r#"{"Effect":"Allow","Action":"*"}"#,
            r#"{"Effect":"Allow","Action":"*","NotAction":"a:B","Resource":"*"}"#,
            r#"{"Effect":"Perhaps","Action":"*","Resource":"*"}"#,
            r#"{"Effect":"Allow","Action":"*","Resource":"${aws:username}"}"#,
            r#"{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}"#,
        ] {
            let policy = |version: &str| format!(r#"{{"Version":"{version}","Statement":[{rule}]}}"#);
            assert!(Policy::read(&policy("2012-10-17")).is_err(), "{rule}");
        }
        let rule = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;
        assert!(Policy::read(&format!(r#"{{"Version":"2012-10-17","Statement":[{rule}]}}"#)).is_ok());
        assert!(Policy::read(&format!(r#"{{"Version":"2008-10-17","Statement":[{rule}]}}"#)).is_err());
    }
}
