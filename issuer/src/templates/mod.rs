//! Role templates: which call may have an AWS session, and for what exactly.
//!
//! A cloud team writes a template; a call fills it. What comes out is a [`RenderedSession`]: a role, a session policy
//! that names the one resource and ends after minutes, tags, names. Nothing here asks AWS or knows a secret.
//!
//! A template is checked whole when it is loaded: every action, every ARN, the size of the largest policy that it can
//! render, and that nothing it can render is beyond its ceiling, whatever a call's arguments are.

mod accounts;
mod actions;
mod arn;
mod ceiling;
mod characters;
mod check;
mod evaluate;
mod file;
mod fit;
mod keys;
mod lint;
mod overlap;
mod parameter;
mod plan;
mod policy;
mod render;
mod role;
mod session;

pub use accounts::{AwsAccounts, NoAccount};
pub use arn::Partition;
pub use evaluate::{Probe, Verdict};
pub use file::{
    Approval, Aws, Ceiling, ChainDepth, Condition, Fact, Match, Operator, Param, ParamType, Part, Residency,
    Resource, SessionName, Source, SourceIdentity, Statement, TagPart, TemplateFile,
};
pub use plan::{Change, Direction, plan};
pub use render::{Call, Refused, RenderedSession};
pub use role::{TRUST_ACTIONS, TrustedIssuer, role_policy, trust_policy};

use deputize_call::{
    digest::{Digest, sha256},
    json::canonicalize,
};
use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Clock;
use parameter::Parameter;

/// Templates of which no two match one call. Immutable: a reload makes new ones.
#[derive(Debug, Default)]
pub struct Templates {
    by_name: BTreeMap<String, Template>,
    /// Which tools of which servers have any.
    tools: BTreeMap<String, BTreeSet<String>>,
}

/// A template that was checked.
#[derive(Debug, Clone)]
pub struct Template {
    file: TemplateFile,
    hash: Digest,
    params: BTreeMap<String, Parameter>,
    worst_case_characters: usize,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template {template:?}, {place}: {problem}")]
pub struct TemplateError {
    /// Its name.
    pub template: String,
    /// The member concerned.
    pub place: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl Templates {
    /// Checks all templates and that no two overlap.
    ///
    /// # Errors
    /// Every problem, not only the first.
    pub fn build(files: Vec<TemplateFile>) -> Result<Self, Vec<TemplateError>> {
        let mut errors = Vec::new();
        let mut templates = BTreeMap::new();
        let mut names = BTreeSet::new();
        if files.len() > MAX_TEMPLATES {
            let problem = format!("more than {MAX_TEMPLATES} templates");
            return Err(vec![TemplateError { template: String::new(), place: "folder".into(), problem }]);
        }
        for (index, file) in files.iter().enumerate() {
            if !names.insert(&file.name) {
                errors.push(error(&file.name, "name", "taken: each template needs its own"));
            }
            for other in files
                .iter()
                .take(index)
                .filter(|other| overlap::can_both_match(&file.matching, &other.matching))
            {
                let problem = format!(
                    "one call could match this template and {:?}: keep them apart by server, tool, tenant, \
                     chain_depth, or a claim with other values (a person can have two groups or roles)",
                    other.name
                );
                errors.push(error(&file.name, "match", problem));
            }
        }
        for file in &files {
            match Template::check(file.clone()) {
                Ok(template) => drop(templates.insert(file.name.clone(), template)),
                Err(problems) => errors.extend(problems),
            }
        }
        if errors.is_empty() { Ok(Self::of(templates)) } else { Err(errors) }
    }

    fn of(by_name: BTreeMap<String, Template>) -> Self {
        let mut tools = BTreeMap::<String, BTreeSet<String>>::new();
        for matching in by_name.values().map(|template| &template.file.matching) {
            tools.entry(matching.server.clone()).or_default().insert(matching.tool.clone());
        }
        Self { by_name, tools }
    }

    /// Whether any call of this tool could have a template.
    pub fn any_for(&self, server: &str, tool: &str) -> bool {
        self.tools.get(server).is_some_and(|tools| tools.contains(tool))
    }

    /// The one template for this call, if there is one.
    pub fn for_call(&self, call: &Call<'_>) -> Option<&Template> {
        self.iter().find(|template| template.matches(call).is_ok())
    }

    /// The template of this name.
    pub fn get(&self, name: &str) -> Option<&Template> {
        self.by_name.get(name)
    }

    /// Digest over the names and versions of all: recorded with every change.
    pub fn digest(&self) -> Digest {
        let lines = self.iter().map(|template| format!("{} {}\n", template.file.name, template.hash));
        Digest::from_bytes(sha256(lines.collect::<String>().as_bytes()))
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.by_name.values()
    }
}

impl Template {
    /// Checks one template by itself.
    ///
    /// # Errors
    /// Every problem, not only the first.
    pub fn check(file: TemplateFile) -> Result<Self, Vec<TemplateError>> {
        let (params, worst_case_characters) = check::check(&file)?;
        let canonical = serde_json::to_value(&file).ok().and_then(|value| canonicalize(&value).ok());
        let canonical = canonical.ok_or_else(|| {
            vec![error(&file.name, "params", "a number in it is beyond what every language reads alike")]
        })?;
        Ok(Self { hash: Digest::from_bytes(sha256(&canonical)), file, params, worst_case_characters })
    }

    /// What its file says.
    pub fn file(&self) -> &TemplateFile {
        &self.file
    }

    /// Its version: SHA-256 over the canonical form (RFC 8785) of what its file says.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The length of the longest session policy that it can render, in characters.
    pub fn worst_case_characters(&self) -> usize {
        self.worst_case_characters
    }

    /// What a cloud team should look at, though nothing forbids it.
    pub fn warnings(&self) -> Vec<TemplateError> {
        lint::warnings(&self.file)
    }

    /// Whether it is for this call.
    ///
    /// # Errors
    /// What does not match.
    pub fn matches(&self, call: &Call<'_>) -> Result<(), Refused> {
        render::matches(&self.file.matching, call)
    }

    /// The session for this call: nothing but what the call needs, for as long as the window.
    ///
    /// # Errors
    /// [`Refused`]: nothing is ever left out or changed to make a call fit.
    pub fn render(&self, call: &Call<'_>, clock: &dyn Clock) -> Result<RenderedSession, Refused> {
        render::render(self, call, clock)
    }
}

fn error(template: &str, place: &str, problem: impl Into<String>) -> TemplateError {
    TemplateError { template: template.to_owned(), place: place.to_owned(), problem: problem.into() }
}

/// The longest session policy that STS takes, in characters (`AssumeRoleWithWebIdentity`, `Policy`).
pub const MAX_POLICY_CHARACTERS: usize = 2048;
/// The longest window, and the usual one.
pub const MAX_WINDOW_SECONDS: u32 = 300;
/// More templates than anybody reviews.
const MAX_TEMPLATES: usize = 1000;
