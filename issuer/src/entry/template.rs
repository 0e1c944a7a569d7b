//! SPIFFE IDs with a place for what is true of the process: `spiffe://example.org/user/{unix:user}`.

use spiffe::{SpiffeId, TrustDomain};
use std::fmt;

use super::draft::{IS_RESERVED, NotAnEntry, RESERVED};
use crate::workload::{Selector, Workload};

/// A SPIFFE ID with placeholders.
///
/// INVARIANT: a placeholder is a whole path segment. Were it a part of one, two processes with other values could get
/// the same ID: `{a}-{b}` of `x-y` and `z` is that of `x` and `y-z`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdTemplate {
    trust_domain: TrustDomain,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// The value of the one selector of this kind that begins with this name.
    Value(Placeholder),
}

/// `{unix:user}`: kind and name.
pub type Placeholder = (&'static str, &'static str);

/// Why a process has no ID by a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFilled {
    /// It runs in a container: what its user is called, its image chose.
    InContainer,
    /// There is no such selector, or there are several.
    NoSingleValue(Placeholder),
    /// The value cannot be a path segment (SPIFFE-ID §2.2).
    Unusable(Placeholder),
    /// The ID would be longer than SPIFFE IDs are (SPIFFE-ID §2.3).
    TooLong,
}

impl IdTemplate {
    /// Reads a template. None if the text has no placeholder.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Self>, NotAnEntry> {
        if !text.contains(['{', '}']) {
            return Ok(None);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(NotAnEntry::SpiffeId(NOT_SPIFFE))?;
        let (domain, path) = rest.split_once('/').ok_or(NotAnEntry::SpiffeId(NO_PATH))?;
        let trust_domain = TrustDomain::new(domain).map_err(|_| NotAnEntry::SpiffeId(NOT_SPIFFE))?;
        if trust_domain.as_str() != domain {
            return Err(NotAnEntry::SpiffeId(NOT_SPIFFE));
        }
        let segments = path.split('/').map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        // What stands first says whose namespace it is, and must not be up to the process.
        match segments.first() {
            Some(Segment::Literal(first)) if &**first == RESERVED => Err(NotAnEntry::SpiffeId(IS_RESERVED)),
            Some(Segment::Literal(_)) => Ok(Some(Self { trust_domain, segments })),
            Some(Segment::Value(_)) | None => Err(NotAnEntry::SpiffeId(FIRST_IS_OPEN)),
        }
    }

    /// Whose IDs it makes.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The ID of this process.
    ///
    /// # Errors
    /// [`NotFilled`]: then the process is not entitled.
    pub fn fill(&self, workload: &Workload) -> Result<SpiffeId, NotFilled> {
        let is_of_container = |selector: &Selector| CONTAINED.contains(&selector.kind());
        if workload.is_contained() || workload.selectors().iter().any(is_of_container) {
            return Err(NotFilled::InContainer);
        }
        let values = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Ok(&**text),
            Segment::Value(placeholder) => self.value_of(workload, *placeholder),
        });
        let path = values.collect::<Result<Vec<&str>, _>>()?;
        SpiffeId::from_segments(self.trust_domain.clone(), &path).map_err(|_| NotFilled::TooLong)
    }

    fn value_of<'a>(&self, workload: &'a Workload, which: Placeholder) -> Result<&'a str, NotFilled> {
        let value = single_value(workload, which).ok_or(NotFilled::NoSingleValue(which))?;
        // Only characters that a segment may have, and neither `.` nor `..` (SPIFFE-ID §2.2).
        match SpiffeId::from_segments(self.trust_domain.clone(), &[value]) {
            Ok(_) => Ok(value),
            Err(_) => Err(NotFilled::Unusable(which)),
        }
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, NotAnEntry> {
        if !text.contains(['{', '}']) {
            // The library checks a segment as part of an ID alone.
            return match SpiffeId::new(format!("spiffe://a/{text}")) {
                Ok(_) => Ok(Self::Literal(text.into())),
                Err(_) => Err(NotAnEntry::SpiffeId(BAD_SEGMENT)),
            };
        }
        let name = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let name = name.filter(|name| !name.contains(['{', '}'])).ok_or(NotAnEntry::SpiffeId(NOT_WHOLE))?;
        let known = PLACEHOLDERS.iter().find(|(kind, value)| {
            name.split_once(':').is_some_and(|(this, that)| this == *kind && that == *value)
        });
        known.map(|known| Self::Value(*known)).ok_or(NotAnEntry::SpiffeId(UNKNOWN_PLACEHOLDER))
    }
}

fn single_value(workload: &Workload, (kind, name): Placeholder) -> Option<&str> {
    let of_name = |value: &'_ str| value.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
    let mut values = workload.selectors().iter().filter(|one| one.kind() == kind && of_name(one.value()));
    let (first, second) = (values.next()?, values.next());
    if second.is_some() { None } else { first.value().get(name.len() + 1..) }
}

impl fmt::Display for IdTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Value((kind, name)) => write!(f, "/{{{kind}:{name}}}")?,
            }
        }
        Ok(())
    }
}

/// Kinds whose processes did not choose their user on this machine.
pub const CONTAINED: [&str; 2] = ["container", "k8s"];

/// What the kernel or the init system says once of each process, and what can be a path segment.
const PLACEHOLDERS: [Placeholder; 7] = [
    ("unix", "user"),
    ("unix", "uid"),
    ("unix", "group"),
    ("unix", "gid"),
    ("unix", "sha256"),
    ("systemd", "id"),
    ("systemd", "slice"),
];

const NOT_SPIFFE: &str = "a SPIFFE ID is spiffe://TRUST-DOMAIN/PATH, its trust domain in lower case";
const NO_PATH: &str = "the SPIFFE ID of a process has a path: without one it is the trust domain's own";
const FIRST_IS_OPEN: &str =
    "a template's path begins with a fixed segment, as spiffe://example.org/user/{unix:user} does";
const BAD_SEGMENT: &str =
    "path segments are letters, digits, `.`, `-` and `_`, none of them empty, `.` or `..`";
const NOT_WHOLE: &str = "a placeholder is a whole path segment: /user/{unix:user}";
const UNKNOWN_PLACEHOLDER: &str = "placeholders are {unix:user}, {unix:uid}, {unix:group}, {unix:gid}, {unix:sha256}, \
     {systemd:id} and {systemd:slice}";
