//! Parameters: values of the call that enter a policy, each of a type whose worst value is known.

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;
use std::fmt::Write as _;

use super::{
    arn::resource_in,
    characters::CharSet,
    file::{Aws, Param, ParamType, Source},
};

/// A checked parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) source: Source,
    kind: Kind,
    alphabet: CharSet,
    max_length: usize,
    from_arn: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Ec2InstanceId,
    S3Key,
    S3Prefix,
    Uuid,
    Enum(Vec<String>),
    Free,
    LogGroup,
    StateMachineName,
    Integer(i64, i64),
    Pattern(Regex),
}

/// What a value can look like, for proofs about every value at once: one of these sequences.
pub(super) type Language = Vec<Vec<Atom>>;

/// One step of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Atom {
    /// One character of the set.
    One(CharSet),
    /// One or more characters of the set.
    Many(CharSet),
}

impl Parameter {
    /// Checks what the file says of it.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(param: &Param) -> Result<Self, String> {
        check_source(&param.from)?;
        check_members(param)?;
        let allow = CharSet::of(&param.allow);
        if let Some(c) = CharSet::of(ALLOWABLE).misses(&param.allow) {
            return Err(format!(
                "allow: {c:?} can never be admitted; of these, those that are needed: {ALLOWABLE}"
            ));
        }
        let alphabet = own_alphabet(param.kind).union(allow);
        let kind = kind_of(param, alphabet)?;
        let max_length = max_length(param, &kind)?;
        Ok(Self { source: param.from.clone(), kind, alphabet, max_length, from_arn: param.from_arn })
    }

    /// The text of a value, if it is within the type. It is not rendered yet: see [`escape`].
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub(super) fn admit(&self, value: &Value, aws: &Aws) -> Result<String, &'static str> {
        let text = match (&self.kind, value) {
            (Kind::Integer(minimum, maximum), Value::Number(number)) => {
                let number = number.as_i64().ok_or("not a whole number")?;
                let is_within = (*minimum..=*maximum).contains(&number);
                return if is_within { Ok(number.to_string()) } else { Err("outside its bounds") };
            }
            (Kind::Integer(..), _) => return Err("not a number"),
            (_, Value::String(text)) => text.as_str(),
            _ => return Err("not a text"),
        };
        let text = if self.from_arn { self.name_in(text, aws)? } else { text };
        if text.is_empty() {
            return Err("empty");
        }
        // What is longer is refused before anything looks at it closely.
        if text.len() > self.max_length {
            return Err("longer than its type");
        }
        if self.alphabet.misses(text).is_some() {
            return Err("a character outside its type's alphabet");
        }
        if self.has_shape(text) { Ok(text.to_owned()) } else { Err("not of the shape of its type") }
    }

    /// What stands for every value, with the most characters that one can be rendered to.
    pub(super) fn worst(&self) -> String {
        let one = if WILD.chars().any(|c| self.alphabet.has(c)) { "${*}" } else { "x" };
        match &self.kind {
            Kind::Enum(values) => {
                values.iter().map(|value| escape(value)).max_by_key(String::len).unwrap_or_default()
            }
            Kind::Integer(minimum, maximum) => {
                "0".repeat(minimum.to_string().len().max(maximum.to_string().len()))
            }
            _ => one.repeat(self.max_length),
        }
    }

    /// Every value is in it; beyond shapes that are exact it holds more.
    pub(super) fn language(&self) -> Language {
        let text =
            |text: &str| text.chars().map(|c| Atom::One(CharSet::of(c.encode_utf8(&mut [0; 4])))).collect();
        let hex = Atom::One(CharSet::of(HEX));
        match &self.kind {
            Kind::Ec2InstanceId => [8, 17].map(|digits| [text("i-"), vec![hex; digits]].concat()).into(),
            Kind::Uuid => {
                let groups = [8, 4, 4, 4, 12].map(|digits| vec![hex; digits]);
                vec![groups.join(&Atom::One(CharSet::of("-")))]
            }
            Kind::Enum(values) => values.iter().map(|value| text(value)).collect(),
            Kind::Integer(minimum, _) => {
                let digits = Atom::Many(CharSet::of("0123456789"));
                let negative = (*minimum < 0).then(|| vec![Atom::One(CharSet::of("-")), digits]);
                negative.into_iter().chain([vec![digits]]).collect()
            }
            Kind::S3Prefix => vec![vec![Atom::Many(self.alphabet), Atom::One(CharSet::of("/"))]],
            Kind::S3Key | Kind::Free | Kind::LogGroup | Kind::StateMachineName | Kind::Pattern(_) => {
                vec![vec![Atom::Many(self.alphabet)]]
            }
        }
    }

    /// Whether everything below a value is separated from its neighbours.
    pub(super) fn ends_a_segment(&self) -> bool {
        matches!(self.kind, Kind::S3Prefix)
    }

    fn has_shape(&self, text: &str) -> bool {
        let hex = |text: &str| text.chars().all(|c| CharSet::of(HEX).has(c));
        match &self.kind {
            Kind::Ec2InstanceId => {
                text.strip_prefix("i-").is_some_and(|id| matches!(id.len(), 8 | 17) && hex(id))
            }
            Kind::Uuid => {
                let lengths: Vec<usize> = text.split('-').map(str::len).collect();
                lengths == [8, 4, 4, 4, 12] && text.split('-').all(hex)
            }
            // Clients normalize such segments away and mean another key than the policy does.
            Kind::S3Key => text.split('/').all(is_plain_segment),
            Kind::S3Prefix => {
                text.strip_suffix('/').is_some_and(|text| text.split('/').all(is_plain_segment))
            }
            Kind::Enum(values) => values.iter().any(|value| value == text),
            Kind::Pattern(pattern) => pattern.is_match(text.as_bytes()),
            Kind::Free | Kind::LogGroup | Kind::StateMachineName => true,
            Kind::Integer(..) => false,
        }
    }

    /// The name in an ARN whose every other field is the template's own.
    fn name_in<'a>(&self, arn: &'a str, aws: &Aws) -> Result<&'a str, &'static str> {
        let Some((service, before)) = arn_of(&self.kind) else { return Err("no ARN can name it") };
        let name = resource_in(arn, service, aws)?.strip_prefix(before).ok_or("an ARN of something else")?;
        // CloudWatch Logs writes the ARN of a log group with a wildcard for its streams.
        Ok(if service == "logs" { name.strip_suffix(":*").unwrap_or(name) } else { name })
    }
}

/// A value as IAM takes it literally (IAM User Guide, "IAM policy elements: Variables", special characters).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if WILD.contains(c) {
            // Writing to a string does not fail.
            let _ = write!(escaped, "${{{c}}}");
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn check_source(source: &Source) -> Result<(), String> {
    match source {
        Source::Argument(pointer) if pointer.starts_with('/') && pointer.len() <= 256 => Ok(()),
        Source::Argument(_) => Err("from.argument is a JSON Pointer: /instance_id".to_owned()),
        Source::Claim(claim) if (1..=128).contains(&claim.len()) => Ok(()),
        Source::Claim(_) => Err("from.claim is the name of a claim".to_owned()),
    }
}

/// Members of one type are no members of another.
fn check_members(param: &Param) -> Result<(), String> {
    use ParamType as T;
    let kind = param.kind;
    let takes_more = matches!(kind, T::S3Key | T::S3Prefix | T::Enum | T::DynamodbPartition | T::Pattern);
    let has_bounds = param.minimum.is_some() || param.maximum.is_some();
    let may_be_arn = matches!(kind, T::Ec2InstanceId | T::LogGroup | T::StateMachineName);
    for (is_wrong, problem) in [
        (!takes_more && !param.allow.is_empty(), "allow: the alphabet of this type is fixed"),
        (kind != T::Enum && !param.values.is_empty(), "values belong to the type enum"),
        (kind != T::Pattern && param.pattern.is_some(), "pattern belongs to the type pattern"),
        (kind != T::Integer && has_bounds, "minimum and maximum belong to the type integer"),
        (!may_be_arn && param.from_arn, "from_arn: only of ec2_instance_id, log_group, state_machine_name"),
    ] {
        if is_wrong {
            return Err(problem.to_owned());
        }
    }
    Ok(())
}

fn kind_of(param: &Param, alphabet: CharSet) -> Result<Kind, String> {
    Ok(match param.kind {
        ParamType::Ec2InstanceId => Kind::Ec2InstanceId,
        ParamType::S3Key => Kind::S3Key,
        ParamType::S3Prefix => Kind::S3Prefix,
        ParamType::Uuid => Kind::Uuid,
        ParamType::DynamodbPartition => Kind::Free,
        ParamType::LogGroup => Kind::LogGroup,
        ParamType::StateMachineName => Kind::StateMachineName,
        ParamType::Integer => match (param.minimum, param.maximum) {
            (Some(minimum), Some(maximum)) if minimum <= maximum => Kind::Integer(minimum, maximum),
            _ => return Err("an integer needs minimum and maximum".to_owned()),
        },
        ParamType::Enum => {
            if !(1..=64).contains(&param.values.len()) {
                return Err("values: an enum has 1 to 64 of them".to_owned());
            }
            if let Some(value) =
                param.values.iter().find(|value| value.is_empty() || alphabet.misses(value).is_some())
            {
                return Err(format!(
                    "values: {value:?} is empty or has a character that `allow` does not name"
                ));
            }
            Kind::Enum(param.values.clone())
        }
        ParamType::Pattern => Kind::Pattern(compile(param.pattern.as_deref())?),
    })
}

/// An expression that the whole value must match, on an engine whose time is linear in the value.
fn compile(pattern: Option<&str>) -> Result<Regex, String> {
    let pattern = pattern.ok_or("a pattern needs `pattern`")?;
    if !(pattern.starts_with('^') && pattern.ends_with('$')) {
        return Err(format!("pattern: {pattern:?} must begin with ^ and end with $"));
    }
    let build = |text: &str| {
        // Values are ASCII: classes need not know more.
        let built = RegexBuilder::new(text).unicode(false).size_limit(MAX_REGEX_BYTES).build();
        built.map_err(|error| format!("pattern: {error}"))
    };
    // By itself first: what does not stand alone could close the group around it.
    build(pattern)?;
    // `^a|b$` is anchored in halves only; in this group it is so as a whole.
    build(&format!(r"\A(?:{pattern})\z"))
}

fn max_length(param: &Param, kind: &Kind) -> Result<usize, String> {
    let most = match kind {
        Kind::Ec2InstanceId => 19,
        Kind::Uuid => 36,
        Kind::StateMachineName => 80,
        Kind::Integer(..) => 20,
        Kind::Enum(values) => values.iter().map(String::len).max().unwrap_or_default(),
        Kind::LogGroup => 512,
        Kind::S3Key | Kind::S3Prefix | Kind::Free | Kind::Pattern(_) => 1024,
    };
    let stated = param.max_length.map(usize::from);
    match stated {
        Some(stated) if stated == 0 || stated > most => Err(format!("max_length: 1 to {most}")),
        Some(stated) => Ok(stated),
        None if matches!(
            kind,
            Kind::S3Key | Kind::S3Prefix | Kind::Free | Kind::Pattern(_) | Kind::LogGroup
        ) =>
        {
            Err(format!(
                "max_length: say how long it can be, at most {most}; a session policy has 2048 characters in all"
            ))
        }
        None => Ok(most),
    }
}

fn own_alphabet(kind: ParamType) -> CharSet {
    match kind {
        ParamType::Ec2InstanceId | ParamType::Uuid => CharSet::of("i-").union(CharSet::of(HEX)),
        ParamType::Integer => CharSet::of("-0123456789"),
        ParamType::StateMachineName => CharSet::alphanumeric_and("-_"),
        ParamType::LogGroup => CharSet::alphanumeric_and("_-./#"),
        ParamType::DynamodbPartition => CharSet::alphanumeric_and("-_./=+,@()!'~#|"),
        ParamType::S3Key | ParamType::S3Prefix | ParamType::Enum | ParamType::Pattern => {
            CharSet::alphanumeric_and("-_./=+,@()!'~")
        }
    }
}

/// The service and the beginning of the resource in ARNs of this type.
fn arn_of(kind: &Kind) -> Option<(&'static str, &'static str)> {
    match kind {
        Kind::Ec2InstanceId => Some(("ec2", "instance/")),
        Kind::LogGroup => Some(("logs", "log-group:")),
        Kind::StateMachineName => Some(("states", "stateMachine:")),
        _ => None,
    }
}

fn is_plain_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
}

/// Characters that IAM reads as more than themselves.
const WILD: &str = "*?$";
const ALLOWABLE: &str = "*?${}:%&#;|^[] ";
const HEX: &str = "0123456789abcdef";
const MAX_REGEX_BYTES: usize = 256 * 1024;
