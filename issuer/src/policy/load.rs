//! Reading policy files: parsed and strictly checked as a whole, with every problem shown where it stands.

use super::{facts::Requirement, reads::Reads};
use cedar_policy::{Effect, ParseErrors, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use deputize_call::digest::{Digest, sha256};
use miette::Diagnostic;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    str::FromStr,
};

/// The schema in Cedar's own notation.
pub(super) const SCHEMA: &str = include_str!("deputize.cedarschema");

/// One `.cedar` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name, as shown in messages; policies without `@id` are called `{name}#{n}`, counted from 1.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is wrong with a policy file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file's name.
    pub file: String,
    /// Line, from 1; 0 where the file as a whole is concerned.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line with the place marked below it.
    pub snippet: String,
    /// What is wrong.
    pub problem: String,
    /// What to do; may be empty.
    pub help: String,
}

/// A policy as loaded.
pub(super) struct Loaded {
    pub(super) id: String,
    pub(super) policy: Policy,
    pub(super) requires: Vec<Requirement>,
    pub(super) reads: Reads,
    pub(super) file: usize,
    pub(super) offset: usize,
}

/// Reads and checks all files.
pub(super) fn policies(files: &[PolicyFile], schema: &Schema) -> Result<Vec<Loaded>, Vec<PolicyError>> {
    let mut loaded = Vec::new();
    let mut errors = Vec::new();
    for (number, file) in files.iter().enumerate() {
        match file.policies(number) {
            Ok(policies) => loaded.extend(policies),
            Err(problems) => errors.extend(problems),
        }
    }
    if loaded.len() > MAX_POLICIES {
        errors.push(PolicyError::whole("", format!("{} policies; at most {MAX_POLICIES}", loaded.len())));
        return Err(errors);
    }
    let (set, duplicates) = gather(files, &loaded);
    errors.extend(duplicates);
    errors.extend(validate(files, &loaded, &set, schema));
    if errors.is_empty() { Ok(loaded) } else { Err(errors) }
}

/// The schema, parsed.
pub(super) fn schema() -> Result<Schema, PolicyError> {
    Schema::from_str(SCHEMA).map_err(|error| PolicyError::internal(error.to_string()))
}

/// Digest over names, texts and schema, independent of the files' order.
pub(super) fn digest(files: &[PolicyFile]) -> String {
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by(|a, b| (&a.name, &a.text).cmp(&(&b.name, &b.text)));
    let mut bytes = b"policy-set/1\0".to_vec();
    for part in [SCHEMA].into_iter().chain(sorted.iter().flat_map(|file| [file.name.as_str(), &file.text])) {
        // Lengths first, so that no two sets have the same bytes.
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Digest::from_bytes(sha256(&bytes)).to_string()
}

impl PolicyFile {
    fn policies(&self, number: usize) -> Result<Vec<Loaded>, Vec<PolicyError>> {
        if self.text.len() > MAX_FILE_BYTES {
            return Err(vec![PolicyError::whole(&self.name, format!("larger than {MAX_FILE_BYTES} bytes"))]);
        }
        if let Some(offset) = too_deep(&self.text) {
            let problem =
                format!("nested deeper than {MAX_DEPTH}, or more than {MAX_TOKENS} words in one policy");
            return Err(vec![self.error_at(offset, 1, &problem).help("split the policy")]);
        }
        let set = PolicySet::from_str(&self.text).map_err(|errors| self.parse_errors(&errors))?;
        if let Some(template) = set.templates().next() {
            let offset = self.text.find(&template.to_string()).unwrap_or(0);
            let problem = "a template (`?principal`, `?resource`) stands for no policy by itself";
            return Err(vec![self.error_at(offset, 1, problem).help("name the entity in place of the slot")]);
        }
        let (mut loaded, mut errors) = (Vec::new(), Vec::new());
        let mut end = 0;
        for (n, policy) in (1..).zip(in_order(&set)) {
            let text = policy.to_string();
            let offset =
                self.text.get(end..).and_then(|rest| rest.find(&text)).map_or(end, |found| end + found);
            end = offset + text.len();
            let id = policy.annotation("id").map_or_else(|| format!("{}#{n}", self.name), str::to_owned);
            let (requires, problems) = self.annotations(policy, offset);
            errors.extend(problems);
            loaded.push(Loaded {
                policy: policy.new_id(PolicyId::new(&id)),
                reads: Reads::of_policy(&text),
                id,
                requires,
                file: number,
                offset,
            });
        }
        if errors.is_empty() { Ok(loaded) } else { Err(errors) }
    }

    /// A policy's annotations: only known ones, so that a misspelt requirement is not taken for none.
    fn annotations(&self, policy: &Policy, offset: usize) -> (Vec<Requirement>, Vec<PolicyError>) {
        let (mut requires, mut errors) = (Vec::new(), Vec::new());
        let mut wrong = |problem: String, help: &str| {
            errors.push(self.error_at(offset, 1, &problem).help(help));
        };
        for (name, value) in policy.annotations() {
            match name {
                "id" if value.is_empty() || value.len() > MAX_ID_BYTES => {
                    wrong(format!("`@id` of {} bytes", value.len()), "give it 1 to 128 bytes");
                }
                "id" | "description" => {}
                "require_approval" => match Requirement::from_name(value) {
                    Some(_) if policy.effect() == Effect::Forbid => wrong(
                        "`@require_approval` on a `forbid`, which no approval lifts".to_owned(),
                        "put it on the `permit`, or except approved calls: unless { context has approval }",
                    ),
                    Some(requirement) => requires.push(requirement),
                    None => wrong(
                        format!("`@require_approval({value:?})` is not known"),
                        "write \"confirm\" (the user confirms) or \"approve\" (others approve)",
                    ),
                },
                unknown => wrong(
                    format!("annotation `@{unknown}` is not known"),
                    "known are @id, @description and @require_approval",
                ),
            }
        }
        (requires, errors)
    }

    fn parse_errors(&self, errors: &ParseErrors) -> Vec<PolicyError> {
        errors.iter().map(|error| self.diagnostic(error, 0)).collect()
    }

    /// A diagnostic of Cedar's, at its first label.
    fn diagnostic(&self, diagnostic: &dyn Diagnostic, offset: usize) -> PolicyError {
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        let (offset, length) = label.as_ref().map_or((offset, 1), |label| (label.offset(), label.len()));
        let mut problem = diagnostic.to_string();
        if let Some(text) = label.as_ref().and_then(|label| label.label()) {
            problem = format!("{problem}: {text}");
        }
        let error = self.error_at(offset, length, &problem);
        match diagnostic.help() {
            Some(help) => error.help(&help.to_string()),
            None => error,
        }
    }

    pub(super) fn error_at(&self, offset: usize, length: usize, problem: &str) -> PolicyError {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let text = self.text.lines().nth(line - 1).unwrap_or_default();
        let length = length.clamp(1, (text.chars().count() + 1).saturating_sub(column).max(1));
        let snippet = format!("{line:>5} | {text}\n      | {}{}", " ".repeat(column - 1), "^".repeat(length));
        PolicyError {
            file: self.name.clone(),
            line,
            column,
            snippet,
            problem: problem.to_owned(),
            help: String::new(),
        }
    }
}

/// Where a text goes deeper than Cedar's parser, which recurses without a bound, can be trusted with. Brackets nest;
/// so do operators, each under the one before it, until the policy ends. Brackets and semicolons inside strings and
/// comments count like any other: the limits are far from what a policy needs.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut tokens) = (0_usize, 0_usize);
    let mut in_word = false;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' => tokens = 0,
            _ => {}
        }
        let word = byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
        if !(byte.is_ascii_whitespace() || word && in_word) {
            tokens += 1;
        }
        in_word = word;
        if depth > MAX_DEPTH || tokens > MAX_TOKENS {
            return Some(offset);
        }
    }
    None
}

/// The policies of a file in the order of their text; Cedar numbers them `policy0`, `policy1`, ….
fn in_order(set: &PolicySet) -> impl Iterator<Item = &Policy> {
    let number = |policy: &Policy| -> usize {
        let id = policy.id().to_string();
        id.strip_prefix("policy").and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX)
    };
    let by_number: BTreeMap<usize, &Policy> = set.policies().map(|policy| (number(policy), policy)).collect();
    by_number.into_values()
}

/// One set of all policies, and those whose id is taken.
fn gather(files: &[PolicyFile], loaded: &[Loaded]) -> (PolicySet, Vec<PolicyError>) {
    let mut set = PolicySet::new();
    let mut errors = Vec::new();
    let mut first: HashMap<&str, &Loaded> = HashMap::new();
    for policy in loaded {
        let Some(file) = files.get(policy.file) else { continue };
        if let Some(earlier) = first.insert(&policy.id, policy) {
            let place = files.get(earlier.file).map(|file| file.error_at(earlier.offset, 1, ""));
            let place = place.map(|error| format!("{}:{}", error.file, error.line)).unwrap_or_default();
            let problem = format!("the id {:?} is taken by the policy at {place}", policy.id);
            errors
                .push(file.error_at(policy.offset, 1, &problem).help("give every policy an @id of its own"));
        } else if let Err(error) = set.add(policy.policy.clone()) {
            errors.push(file.error_at(policy.offset, 1, &error.to_string()));
        }
    }
    (set, errors)
}

/// Strict validation. Warnings refuse too: a policy that can never apply is a mistake, and characters that look like
/// others or turn the direction of the text hide what a policy says.
fn validate(files: &[PolicyFile], loaded: &[Loaded], set: &PolicySet, schema: &Schema) -> Vec<PolicyError> {
    let by_id: HashMap<&str, &Loaded> = loaded.iter().map(|policy| (policy.id.as_str(), policy)).collect();
    let result = Validator::new(schema.clone()).validate(set, ValidationMode::Strict);
    let locate = |id: &PolicyId, diagnostic: &dyn Diagnostic| {
        let id = id.to_string();
        let found = by_id.get(id.as_str()).and_then(|policy| Some((files.get(policy.file)?, policy.offset)));
        match found {
            Some((file, offset)) => file.diagnostic(diagnostic, offset),
            None => PolicyError::whole("", diagnostic.to_string()),
        }
    };
    let errors = result.validation_errors().map(|error| locate(error.policy_id(), error));
    // A policy with an error is not also told that it can never apply: that follows.
    let faulty: HashSet<&PolicyId> = result.validation_errors().map(|error| error.policy_id()).collect();
    let warnings = result
        .validation_warnings()
        .filter(|warning| !faulty.contains(warning.policy_id()))
        .map(|warning| locate(warning.policy_id(), warning));
    let mut all: Vec<_> = errors.chain(warnings).collect();
    // One mistake is found again for every action and type that the policy applies to.
    let place = |error: &PolicyError| (error.file.clone(), error.line, error.column, error.help.clone());
    all.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.problem.cmp(&b.problem)));
    all.dedup_by(|a, b| place(a) == place(b));
    all
}

impl PolicyError {
    /// A problem that no file has caused.
    pub(super) fn internal(problem: String) -> Self {
        Self::whole("deputize.cedarschema", problem)
    }

    fn whole(file: &str, problem: String) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            snippet: String::new(),
            problem,
            help: String::new(),
        }
    }

    pub(super) fn help(mut self, help: &str) -> Self {
        help.clone_into(&mut self.help);
        self
    }
}

impl std::fmt::Display for PolicyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.snippet.is_empty() {
            write!(f, "\n{}", self.snippet)?;
        }
        if !self.help.is_empty() {
            write!(f, "\n      = {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// Larger files are refused.
const MAX_FILE_BYTES: usize = 8 << 20;
/// More policies are refused.
const MAX_POLICIES: usize = 50_000;
/// Deeper brackets are refused.
const MAX_DEPTH: usize = 32;
/// Words and signs in one policy; more are refused.
const MAX_TOKENS: usize = 2_000;
const MAX_ID_BYTES: usize = 128;
