//! What must hold of a template before any call sees it. Every problem is reported, not only the first.

mod bounds;
mod conditions;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    TemplateError,
    actions::{known, why_forbidden},
    arn::{check_place, problems_of},
    characters::CharSet,
    error,
    file::{Part, Resource, Source, Statement, TagPart, TemplateFile},
    parameter::Parameter,
    policy,
    session::{MAX_TAGS, check_tag_key, check_tag_value},
};

/// Its parameters, and the length of the longest policy that it can render.
pub(super) fn check(file: &TemplateFile) -> Result<(BTreeMap<String, Parameter>, usize), Vec<TemplateError>> {
    let mut check = Check { file, params: BTreeMap::new(), used: BTreeSet::new(), errors: Vec::new() };
    check.header();
    check.params();
    check.statements();
    check.unknown_actions();
    check.tags();
    check.unused();
    check.ceiling();
    let size = check.size();
    if check.errors.is_empty() { Ok((check.params, size)) } else { Err(check.errors) }
}

struct Check<'a> {
    file: &'a TemplateFile,
    params: BTreeMap<String, Parameter>,
    used: BTreeSet<&'a str>,
    errors: Vec<TemplateError>,
}

impl<'a> Check<'a> {
    fn refuse(&mut self, place: &str, problem: impl Into<String>) {
        self.errors.push(error(&self.file.name, place, problem));
    }

    fn header(&mut self) {
        let file = self.file;
        if !is_name(&file.name, "abcdefghijklmnopqrstuvwxyz0123456789-") {
            self.refuse("name", "1 to 64 lower-case letters, digits and `-`");
        }
        let matching = &file.matching;
        for (place, text) in [
            ("match.server", &matching.server),
            ("match.tool", &matching.tool),
            ("match.tenant", &matching.tenant),
        ] {
            if text.is_empty() || text.contains('*') {
                self.refuse(place, "names exactly one; there are no wildcards");
            }
        }
        if matching.chain_depth.minimum > matching.chain_depth.maximum {
            self.refuse("match.chain_depth", "minimum is above maximum: no call would match");
        }
        for (claim, values) in &matching.claims {
            if values.is_empty() {
                self.refuse(&format!("match.claims.{claim}"), "name at least one value");
            }
        }
        for (place, problem) in problems_of(&file.aws) {
            self.refuse(place, problem);
        }
        if let Some(residency) = &file.residency
            && !residency.regions.contains(&file.aws.region)
        {
            self.refuse("residency.regions", format!("aws.region, {:?}, is not among them", file.aws.region));
        }
    }

    fn params(&mut self) {
        for (name, param) in &self.file.params {
            let place = format!("params.{name}");
            if !is_name(name, "abcdefghijklmnopqrstuvwxyz0123456789_") {
                self.refuse(&place, "a name is 1 to 64 lower-case letters, digits and `_`");
            }
            match Parameter::check(param) {
                Ok(param) => drop(self.params.insert(name.clone(), param)),
                Err(problem) => self.refuse(&place, problem),
            }
        }
        if self.file.params.len() > MAX_PARAMS {
            self.refuse("params", format!("at most {MAX_PARAMS}"));
        }
    }

    fn statements(&mut self) {
        let mut actions = BTreeSet::new();
        if !(1..=MAX_STATEMENTS).contains(&self.file.statements.len()) {
            self.refuse("statements", format!("1 to {MAX_STATEMENTS}"));
        }
        for (index, statement) in self.file.statements.iter().enumerate() {
            let place = format!("statements[{index}]");
            self.actions(&place, statement, &mut actions);
            for (index, resource) in statement.resources.iter().enumerate() {
                self.resource(&format!("{place}.resources[{index}]"), resource);
            }
            let mut keys = BTreeSet::new();
            for (index, condition) in statement.conditions.iter().enumerate() {
                let place = format!("{place}.conditions[{index}]");
                if !keys.insert(condition.key.to_ascii_lowercase()) {
                    self.refuse(&place, "one condition for each key");
                }
                self.condition(&place, condition);
            }
        }
    }

    fn actions(&mut self, place: &str, statement: &Statement, seen: &mut BTreeSet<String>) {
        let place = format!("{place}.actions");
        if !(1..=20).contains(&statement.actions.len()) {
            self.refuse(&place, "1 to 20 actions");
        }
        for action in &statement.actions {
            if action.contains(['*', '?']) {
                self.refuse(&place, format!("{action:?}: no wildcards; name each action"));
                continue;
            }
            if !is_action(action) {
                self.refuse(&place, format!("{action:?} is no action: service:Name"));
                continue;
            }
            if let Some(reason) = why_forbidden(action) {
                self.refuse(&place, format!("{action} is forbidden: {reason}"));
            }
            // A Deny outside one statement's resources would deny the other's.
            if !seen.insert(action.to_ascii_lowercase()) {
                self.refuse(&place, format!("{action} stands twice: name each action in one statement"));
            }
            match (known(action).map(|known| known.has_resources()), statement.resources.is_empty()) {
                (Some(false), false) => self.refuse(
                    &place,
                    format!(
                        "{action} knows no resources: give it a statement of its own, without `resources`"
                    ),
                ),
                (Some(true), true) => self.refuse(&place, format!("{action} acts on resources: name them")),
                (None, true) => {
                    self.refuse(&place, format!("{action} is not known here, so it needs `resources`"));
                }
                (None, false) if !self.is_stated(action) => self.refuse(
                    &place,
                    format!(
                        "{action} is not known here: check its spelling, what it does and on what, and then state \
                         it under `unknown_actions`"
                    ),
                ),
                (Some(true), false) | (Some(false), true) | (None, false) => {}
            }
        }
    }

    /// An action of which nothing is known here is stated a second time, so that nobody names it without a look.
    fn unknown_actions(&mut self) {
        let file = self.file;
        let named = |action: &str| {
            let mut actions = file.statements.iter().flat_map(|statement| &statement.actions);
            actions.any(|named| named.eq_ignore_ascii_case(action))
        };
        for action in &file.unknown_actions {
            if known(action).is_some() {
                self.refuse("unknown_actions", format!("{action} is known: leave it out"));
            } else if !named(action) {
                self.refuse("unknown_actions", format!("{action} stands in no statement: leave it out"));
            }
        }
    }

    fn is_stated(&self, action: &str) -> bool {
        self.file.unknown_actions.iter().any(|stated| stated.eq_ignore_ascii_case(action))
    }

    fn resource(&mut self, place: &str, resource: &'a Resource) {
        if let Err(problem) = check_place(resource, &self.file.aws) {
            self.refuse(place, problem);
        }
        self.parts(&format!("{place}.parts"), &resource.parts, true);
        if !resource.parts.iter().any(|part| !matches!(part, Part::Wildcard)) {
            self.refuse(place, "a wildcard alone is everything: name something");
        }
    }

    fn parts(&mut self, place: &str, parts: &'a [Part], wildcards: bool) {
        if !(1..=16).contains(&parts.len()) {
            self.refuse(place, "1 to 16 parts");
        }
        let mut before: Option<&Part> = None;
        for (index, part) in parts.iter().enumerate() {
            match part {
                Part::Literal(text) => {
                    if text.is_empty() || literal_alphabet().misses(text).is_some() {
                        self.refuse(
                            place,
                            format!("literal {text:?}: 1 or more printable characters, not * ? $ {{ }} \" or \\; `- wildcard` is anything below"),
                        );
                    }
                }
                Part::Param(name) => {
                    self.uses(place, name);
                    if matches!(before, Some(Part::Param(_))) {
                        self.refuse(place, "two parameters with nothing between them: put a literal there");
                    }
                }
                Part::Wildcard => {
                    let ends_a_segment = match before {
                        Some(Part::Literal(text)) => text.ends_with(['/', ':']),
                        Some(Part::Param(name)) => {
                            self.params.get(name).is_none_or(Parameter::ends_a_segment)
                        }
                        Some(Part::Wildcard) | None => false,
                    };
                    if !wildcards || index + 1 != parts.len() || !ends_a_segment {
                        self.refuse(
                            place,
                            "a wildcard stands at the end of a resource or StringLike value, after `/`, `:` or an s3_prefix",
                        );
                    }
                }
            }
            before = Some(part);
        }
    }

    fn uses(&mut self, place: &str, name: &'a str) {
        self.used.insert(name);
        if !self.file.params.contains_key(name) {
            let nearest = self
                .file
                .params
                .keys()
                .map(|known| (strsim::damerau_levenshtein(name, known), known))
                .filter(|(distance, _)| *distance <= 3)
                .min_by_key(|(distance, _)| *distance);
            let suggestion =
                nearest.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default();
            self.refuse(place, format!("there is no parameter `{name}`{suggestion}"));
        }
    }

    fn tags(&mut self) {
        let mut keys = BTreeSet::new();
        if self.file.tags.len() > MAX_TAGS {
            self.refuse("tags", format!("STS takes at most {MAX_TAGS}"));
        }
        for (key, parts) in &self.file.tags {
            let place = format!("tags.{key}");
            if let Err(problem) = check_tag_key(key) {
                self.refuse(&place, problem);
            }
            // STS compares keys without regard to case, and takes each once.
            if !keys.insert(key.to_ascii_lowercase()) {
                self.refuse(&place, "another key differs from it by case alone");
            }
            // Else `ab` and `c` would read like `a` and `bc`.
            let is_value = |part: &TagPart| !matches!(part, TagPart::Literal(_));
            if parts.windows(2).any(|pair| pair.iter().all(is_value)) {
                self.refuse(&place, "two values with nothing between them: put a literal there");
            }
            for part in parts {
                match part {
                    TagPart::Literal(text) => {
                        if text.is_empty() {
                            self.refuse(&place, "an empty literal: leave it out");
                        }
                        if let Err(problem) = check_tag_value(text) {
                            self.refuse(&place, problem);
                        }
                    }
                    TagPart::Param(name) => self.uses(&place, name),
                    TagPart::Claim(_) | TagPart::Fact(_) => {}
                }
            }
        }
    }

    fn unused(&mut self) {
        for (name, param) in &self.file.params {
            if !self.used.contains(name.as_str()) {
                let (Source::Argument(from) | Source::Claim(from)) = &param.from;
                self.refuse(&format!("params.{name}"), format!("nothing uses it, so {from} limits nothing"));
            }
        }
    }

    /// The largest policy: every parameter at its longest, with the worst escapes. Rendering only ever replaces
    /// these values by shorter ones.
    fn size(&mut self) -> usize {
        let worst = self.params.iter().map(|(name, param)| (name.clone(), param.worst())).collect();
        let document = policy::document(self.file, &worst, 0);
        let size = serde_json::to_string(&document).map_or(usize::MAX, |text| text.chars().count());
        if size > super::MAX_POLICY_CHARACTERS {
            let problem = format!(
                "the session policy can grow to {size} characters; STS takes {}: shorten max_length, allow fewer \
                 characters that need escapes, or split the template",
                super::MAX_POLICY_CHARACTERS
            );
            self.refuse("statements", problem);
        }
        size
    }
}

fn is_action(action: &str) -> bool {
    action.split_once(':').is_some_and(|(service, name)| {
        is_name(service, "abcdefghijklmnopqrstuvwxyz0123456789-")
            && (1..=64).contains(&name.len())
            && CharSet::alphanumeric_and("").misses(name).is_none()
    })
}

fn is_name(text: &str, alphabet: &str) -> bool {
    (1..=64).contains(&text.len()) && CharSet::of(alphabet).misses(text).is_none()
}

fn literal_alphabet() -> CharSet {
    CharSet::alphanumeric_and("-_./=+,@()!'~:%&#;|^[] <>")
}

const MAX_PARAMS: usize = 16;
const MAX_STATEMENTS: usize = 8;
