//! What a change of templates grants and takes, right by right.
//!
//! Signs are those of rights, not of text: a condition that is gone grants, a group that is added grants, a shorter window
//! takes. What is neither, or could be either, is a change for a person to look at.

use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use super::{
    arn::prefix_of,
    file::{Approval, Condition, Match, Part, TemplateFile},
};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The template.
    pub template: String,
    /// What it does to what calls can get.
    pub direction: Direction,
    /// What is concerned: `action`, `resource`, `condition`, `window`, `match`, `ceiling` and so on.
    pub what: &'static str,
    /// The right, or the old and the new state.
    pub detail: String,
}

/// What a difference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Somebody can get more.
    Granted,
    /// Somebody can get less.
    Taken,
    /// Neither, or both.
    Changed,
}

/// What differs between two sets of templates, template by template in the order of their names.
pub fn plan(old: &[TemplateFile], new: &[TemplateFile]) -> Vec<Change> {
    let by_name = |files: &[TemplateFile]| -> BTreeMap<String, TemplateFile> {
        files.iter().map(|file| (file.name.clone(), file.clone())).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let mut differences = Differences { template: name, changes: &mut changes };
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => differences.between(old, new),
            (None, Some(new)) => differences.whole(new, Direction::Granted),
            (Some(old), None) => differences.whole(old, Direction::Taken),
            (None, None) => {}
        }
    }
    changes
}

struct Differences<'a> {
    template: &'a str,
    changes: &'a mut Vec<Change>,
}

impl Differences<'_> {
    fn add(&mut self, direction: Direction, what: &'static str, detail: impl Into<String>) {
        let template = self.template.to_owned();
        self.changes.push(Change { template, direction, what, detail: detail.into() });
    }

    /// A template that is there on one side alone.
    fn whole(&mut self, file: &TemplateFile, direction: Direction) {
        let called = format!("{} of {}, for {}", file.matching.tool, file.matching.server, file.aws.role_arn);
        self.add(direction, "template", called);
        for (action, rights) in rights(file) {
            for resource in &rights.resources {
                self.add(direction, "action", format!("{action} on {resource}"));
            }
            for (key, values) in &rights.conditions {
                let limit =
                    if direction == Direction::Granted { Direction::Taken } else { Direction::Granted };
                self.add(limit, "condition", format!("{action} when {key} {}", list(values)));
            }
        }
        self.add(direction, "window", format!("{} s", window(file)));
    }

    fn between(&mut self, old: &TemplateFile, new: &TemplateFile) {
        self.matching(&old.matching, &new.matching);
        self.rights(old, new);
        self.window(old, new);
        self.set("ceiling", &of(&old.ceiling.actions), &of(&new.ceiling.actions));
        self.set("ceiling", &of(&old.ceiling.resources), &of(&new.ceiling.resources));
        self.set("unknown_actions", &of(&old.unknown_actions), &of(&new.unknown_actions));
        self.approval(old.approval, new.approval);
        match (&old.residency, &new.residency) {
            (None, Some(limit)) => self.add(Direction::Taken, "residency", text(limit)),
            (Some(limit), None) => {
                self.add(Direction::Granted, "residency", format!("no longer {}", text(limit)))
            }
            (old, new) => self.text("residency", &text(old), &text(new)),
        }
        self.text("role", &old.aws.role_arn, &new.aws.role_arn);
        let place = |file: &TemplateFile| {
            format!("{} {} {}", file.aws.partition.as_str(), file.aws.account, file.aws.region)
        };
        self.text("place", &place(old), &place(new));
        self.text(
            "credentials",
            &format!("live {} s", old.aws.duration_seconds),
            &format!("live {} s", new.aws.duration_seconds),
        );
        self.members("parameter", &texts(&old.params), &texts(&new.params));
        self.members("tag", &texts(&old.tags), &texts(&new.tags));
        self.text("source identity", &text(&old.source_identity), &text(&new.source_identity));
        self.text("description", &old.description, &new.description);
    }

    fn matching(&mut self, old: &Match, new: &Match) {
        self.text("match server", &old.server, &new.server);
        self.text("match tool", &old.tool, &new.tool);
        self.text("match tenant", &old.tenant, &new.tenant);
        self.one_of("match groups", &old.groups, &new.groups);
        self.one_of("match roles", &old.roles, &new.roles);
        let none = Vec::new();
        let claims: BTreeSet<&String> = old.claims.keys().chain(new.claims.keys()).collect();
        for claim in claims {
            match (old.claims.get(claim), new.claims.get(claim)) {
                // A claim that must have no value never does: the same as a claim that is not named is none.
                (Some(old), None) => {
                    self.add(
                        Direction::Granted,
                        "match claims",
                        format!("{claim}: any, was {}", list(&of(old))),
                    );
                }
                (None, Some(new)) => {
                    self.add(Direction::Taken, "match claims", format!("{claim}: only {}", list(&of(new))));
                }
                (old, new) => {
                    let named = |values: &Vec<String>| {
                        values.iter().map(|value| format!("{claim}: {value}")).collect()
                    };
                    self.set("match claims", &named(old.unwrap_or(&none)), &named(new.unwrap_or(&none)));
                }
            }
        }
        let (was, is) = (old.chain_depth, new.chain_depth);
        let detail = format!("{} to {}, was {} to {}", is.minimum, is.maximum, was.minimum, was.maximum);
        let more = is.minimum < was.minimum || is.maximum > was.maximum;
        let less = is.minimum > was.minimum || is.maximum < was.maximum;
        match (more, less) {
            (true, false) => self.add(Direction::Granted, "match chain_depth", detail),
            (false, true) => self.add(Direction::Taken, "match chain_depth", detail),
            (true, true) => self.add(Direction::Changed, "match chain_depth", detail),
            (false, false) => {}
        }
    }

    fn rights(&mut self, old: &TemplateFile, new: &TemplateFile) {
        let (old, new) = (rights(old), rights(new));
        let none = Rights::default();
        let actions: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for action in actions {
            let named = |rights: &Rights| {
                rights.resources.iter().map(|resource| format!("{action} on {resource}")).collect()
            };
            let (was, is) = (old.get(action).unwrap_or(&none), new.get(action).unwrap_or(&none));
            self.set("action", &named(was), &named(is));
            if old.contains_key(action) && new.contains_key(action) {
                self.conditions(action, was, is);
            }
        }
    }

    fn conditions(&mut self, action: &str, old: &Rights, new: &Rights) {
        let keys: BTreeSet<&String> = old.conditions.keys().chain(new.conditions.keys()).collect();
        for key in keys {
            match (old.conditions.get(key), new.conditions.get(key)) {
                (Some(old), None) => {
                    let detail = format!("{action} whatever {key}, was {}", list(old));
                    self.add(Direction::Granted, "condition", detail);
                }
                (None, Some(new)) => {
                    let detail = format!("{action} only when {key} {}", list(new));
                    self.add(Direction::Taken, "condition", detail);
                }
                (Some(old), Some(new)) => {
                    let named = |values: &BTreeSet<String>| {
                        values.iter().map(|value| format!("{action} when {key} {value}")).collect()
                    };
                    self.set("condition", &named(old), &named(new));
                }
                (None, None) => {}
            }
        }
    }

    fn window(&mut self, old: &TemplateFile, new: &TemplateFile) {
        let (was, is) = (window(old), window(new));
        let direction = if is > was { Direction::Granted } else { Direction::Taken };
        if is != was {
            self.add(direction, "window", format!("{is} s, was {was} s"));
        }
    }

    fn approval(&mut self, old: Approval, new: Approval) {
        let rank = |approval| match approval {
            Approval::None => 0,
            Approval::Confirm => 1,
            Approval::Approve => 2,
        };
        let direction = match (rank(old), rank(new)) {
            (0, _) => Direction::Taken,
            (_, 0) => Direction::Granted,
            _ => Direction::Changed,
        };
        if old != new {
            self.add(direction, "approval", format!("{}, was {}", text(&new), text(&old)));
        }
    }

    /// Lists of which one must fit; an empty one admits anybody.
    fn one_of(&mut self, what: &'static str, old: &[String], new: &[String]) {
        match (old.is_empty(), new.is_empty()) {
            (false, true) => self.add(Direction::Granted, what, format!("any, was {}", list(&of(old)))),
            (true, false) => self.add(Direction::Taken, what, format!("only {}, was any", list(&of(new)))),
            _ => self.set(what, &of(old), &of(new)),
        }
    }

    /// Sets in which each member grants something.
    fn set(&mut self, what: &'static str, old: &BTreeSet<String>, new: &BTreeSet<String>) {
        for granted in new.difference(old) {
            self.add(Direction::Granted, what, granted);
        }
        for taken in old.difference(new) {
            self.add(Direction::Taken, what, taken);
        }
    }

    /// Named things of which it does not show which way they change what is granted.
    fn members(&mut self, what: &'static str, old: &BTreeMap<&str, String>, new: &BTreeMap<&str, String>) {
        let names: BTreeSet<&&str> = old.keys().chain(new.keys()).collect();
        for name in names {
            let nothing = || "none".to_owned();
            let (was, is) = (old.get(*name).cloned(), new.get(*name).cloned());
            if was != is {
                let detail =
                    format!("{name}: {}, was {}", is.unwrap_or_else(nothing), was.unwrap_or_else(nothing));
                self.add(Direction::Changed, what, detail);
            }
        }
    }

    fn text(&mut self, what: &'static str, old: &str, new: &str) {
        if old != new {
            self.add(Direction::Changed, what, format!("{new}, was {old}"));
        }
    }
}

/// What one action may touch, and when.
#[derive(Debug, Default)]
struct Rights {
    resources: BTreeSet<String>,
    /// By operator and key.
    conditions: BTreeMap<String, BTreeSet<String>>,
}

/// By action; each stands in one statement.
fn rights(file: &TemplateFile) -> BTreeMap<String, Rights> {
    let mut rights: BTreeMap<String, Rights> = BTreeMap::new();
    for statement in &file.statements {
        for action in &statement.actions {
            let of_action = rights.entry(action.clone()).or_default();
            if statement.resources.is_empty() {
                of_action.resources.insert("*".to_owned());
            }
            let named = statement.resources.iter().map(|of| prefix_of(of, &file.aws) + &pattern(&of.parts));
            of_action.resources.extend(named);
            for Condition { operator, key, values } in &statement.conditions {
                let values = values.iter().map(|parts| pattern(parts)).collect();
                of_action.conditions.insert(format!("{key} {}", text(operator)), values);
            }
        }
    }
    rights
}

/// As a person reads it: `instance/{instance}`.
fn pattern(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Literal(text) => text.clone(),
        Part::Param(name) => format!("{{{name}}}"),
        Part::Wildcard => "*".to_owned(),
    };
    parts.iter().map(part).collect()
}

fn window(file: &TemplateFile) -> u32 {
    file.aws.window_seconds.unwrap_or(super::MAX_WINDOW_SECONDS)
}

fn of(values: &[String]) -> BTreeSet<String> {
    values.iter().cloned().collect()
}

fn list(values: &BTreeSet<String>) -> String {
    values.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn texts<T: Serialize>(members: &BTreeMap<String, T>) -> BTreeMap<&str, String> {
    members.iter().map(|(name, value)| (name.as_str(), text(value))).collect()
}

/// JSON without what is not said; a text as it is.
fn text<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(mut members)) => {
            members.retain(|_, member| {
                !(member.is_null()
                    || member == ""
                    || member == false
                    || member.as_array().is_some_and(Vec::is_empty))
            });
            Value::Object(members).to_string()
        }
        Ok(Value::Null) => "none".to_owned(),
        Ok(value) => value.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;
