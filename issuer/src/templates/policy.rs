//! The session policy: an Allow for each statement, and Denies for everything else.
//!
//! A session policy limits what the role's own policies allow. It does not limit a resource policy that names the
//! session's ARN: that Allow counts by itself (IAM User Guide, "Session policies"). A Deny counts always. So
//! whatever is allowed here stands beside Denies of the rest: other times, other actions, other resources, other values of each
//! condition, other accounts.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

use super::{
    arn::{account_of, prefix_of},
    file::{Operator, Part, Statement, TemplateFile},
    parameter::escape,
};
use crate::policy::civil;

/// A policy document.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Document {
    version: &'static str,
    pub(super) statement: Vec<Rule>,
}

/// A statement of a policy document.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Rule {
    pub(super) effect: Effect,
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub(super) action: Texts,
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub(super) not_action: Texts,
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub(super) resource: Texts,
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub(super) not_resource: Texts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) condition: BTreeMap<&'static str, BTreeMap<String, Texts>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// One text stands alone, several in an array.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Texts(pub(super) Vec<String>);

/// The policy of a template with these values, which end the window at this second.
pub(super) fn document(file: &TemplateFile, values: &BTreeMap<String, String>, window_end: u64) -> Document {
    let end = utc(window_end);
    let mut allows = Vec::new();
    let mut denies = vec![
        Rule::deny().of("*").on("*").when("DateGreaterThanEquals", CURRENT_TIME, Texts::one(&end)),
        Rule {
            not_action: Texts(
                file.statements.iter().flat_map(|statement| statement.actions.clone()).collect(),
            ),
            ..Rule::deny().on("*")
        },
    ];
    denies.extend(other_accounts(file));
    for statement in &file.statements {
        let action = Texts(statement.actions.clone());
        let resources: Vec<String> = statement
            .resources
            .iter()
            .map(|resource| prefix_of(resource, &file.aws) + &text(&resource.parts, values))
            .collect();
        let mut allow = Rule { action: action.clone(), ..Rule::new(Effect::Allow) };
        allow.resource = if resources.is_empty() { Texts::one("*") } else { Texts(resources.clone()) };
        allow = allow.when("DateLessThan", CURRENT_TIME, Texts::one(&end));
        if names_no_account(statement, file) {
            allow = allow.when("StringEquals", RESOURCE_ACCOUNT, Texts::one(&file.aws.account));
        }
        // Where resources are named every action acts on resources, or its Allow would grant nothing either.
        if !resources.is_empty() {
            denies.push(Rule { action: action.clone(), not_resource: Texts(resources), ..Rule::deny() });
        }
        for condition in &statement.conditions {
            let wanted = Texts(condition.values.iter().map(|parts| text(parts, values)).collect());
            let (operator, opposite, must_exist) = names(condition.operator);
            allow = allow.when(operator, &condition.key, wanted.clone());
            let deny = || Rule { action: action.clone(), ..Rule::deny() }.on("*");
            denies.push(deny().when(opposite, &condition.key, wanted));
            if must_exist {
                // INVARIANT: without the key neither comparison says no.
                allow = allow.when("Null", &condition.key, Texts::one("false"));
                denies.push(deny().when("Null", &condition.key, Texts::one("true")));
            }
        }
        allows.push(allow);
    }
    allows.extend(denies);
    Document { version: "2012-10-17", statement: allows }
}

/// INVARIANT: nothing of another account is within reach. An ARN without an account (a bucket's) is whoever's took the
/// name first. A missing key is denied too: a negated comparison holds of it.
fn other_accounts(file: &TemplateFile) -> Option<Rule> {
    let open = file.statements.iter().filter(|statement| names_no_account(statement, file));
    let action = Texts(open.flat_map(|statement| statement.actions.clone()).collect());
    let deny = Rule { action, ..Rule::deny() }.on("*");
    let account = Texts::one(&file.aws.account);
    (!deny.action.is_empty()).then(|| deny.when("StringNotEquals", RESOURCE_ACCOUNT, account))
}

/// Whether some ARN of it leaves the account open.
fn names_no_account(statement: &Statement, file: &TemplateFile) -> bool {
    statement.resources.iter().any(|resource| account_of(resource, &file.aws).is_empty())
}

/// `2026-11-21T09:30:00Z` of seconds since the Unix epoch.
pub(super) fn utc(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

impl Rule {
    fn new(effect: Effect) -> Self {
        Self {
            effect,
            action: Texts::default(),
            not_action: Texts::default(),
            resource: Texts::default(),
            not_resource: Texts::default(),
            condition: BTreeMap::new(),
        }
    }

    fn deny() -> Self {
        Self::new(Effect::Deny)
    }

    fn of(mut self, action: &str) -> Self {
        self.action = Texts::one(action);
        self
    }

    fn on(mut self, resource: &str) -> Self {
        self.resource = Texts::one(resource);
        self
    }

    fn when(mut self, operator: &'static str, key: &str, values: Texts) -> Self {
        self.condition.entry(operator).or_default().insert(key.to_owned(), values);
        self
    }
}

impl Texts {
    fn one(text: &str) -> Self {
        Self(vec![text.to_owned()])
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [text] => text.serialize(serializer),
            texts => texts.serialize(serializer),
        }
    }
}

/// Values are rendered already; literals hold nothing that IAM reads as more than itself.
fn text(parts: &[Part], values: &BTreeMap<String, String>) -> String {
    parts
        .iter()
        .map(|part| match part {
            Part::Literal(text) => escape(text),
            Part::Param(name) => values.get(name).cloned().unwrap_or_default(),
            Part::Wildcard => "*".to_owned(),
        })
        .collect()
}

/// The operator, its opposite, and whether the key must be there for either to say anything.
fn names(operator: Operator) -> (&'static str, &'static str, bool) {
    match operator {
        Operator::StringEquals => ("StringEquals", "StringNotEquals", false),
        Operator::StringLike => ("StringLike", "StringNotLike", false),
        Operator::NumericLessThanEquals => ("NumericLessThanEquals", "NumericGreaterThan", true),
        // ForAllValues is true where the key is missing, ForAnyValue is false.
        Operator::ForAllValuesStringEquals => {
            ("ForAllValues:StringEquals", "ForAnyValue:StringNotEquals", true)
        }
    }
}

const CURRENT_TIME: &str = "aws:CurrentTime";
/// The account that owns the resource of a request (IAM User Guide, "AWS global condition context keys").
pub(super) const RESOURCE_ACCOUNT: &str = "aws:ResourceAccount";
