//! An entry as somebody wrote it, and what must hold before it counts.

use serde::{Deserialize, Serialize};
use spiffe::{SpiffeId, TrustDomain};
use std::{collections::BTreeSet, str::FromStr as _, sync::Arc};

use super::{
    Entry, Exchange, NodePattern, Origin, Registered,
    template::{CONTAINED, IdTemplate},
};
use crate::workload::{NotASelector, Selector};

/// An entry before it is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draft {
    /// Its name.
    pub id: String,
    /// SPIFFE ID, or a template of one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spiffe_id: String,
    /// `KIND:VALUE`, all of which must be true.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<String>,
    /// Nodes, or patterns of them; empty for the broker's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Life of its X.509-SVIDs, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x509_svid_ttl_seconds: Option<u64>,
    /// Life of its JWT-SVIDs, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_svid_ttl_seconds: Option<u64>,
    /// What tells it apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// DNS names in its X.509-SVIDs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Foreign trust domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// What its processes may exchange users' tokens for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
    /// When it ends, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_seconds: Option<u64>,
}

/// What entries are measured by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Ours: no entry entitles to an ID of another.
    pub trust_domain: TrustDomain,
    /// The node of entries that name none.
    pub own_node: SpiffeId,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEntry {
    /// Its name.
    #[error("id: 1 to 128 letters, digits, `.`, `-` and `_`, and first a letter or digit")]
    Id,
    /// Its SPIFFE ID.
    #[error("spiffe_id: {0}")]
    SpiffeId(&'static str),
    /// Its SPIFFE ID is of another trust domain.
    #[error("spiffe_id: it is not in our trust domain, {0}")]
    Foreign(TrustDomain),
    /// One of its selectors.
    #[error("selectors: {0:?}: {1}")]
    Selector(String, NotASelector),
    /// How many selectors it has.
    #[error("selectors: 1 to {MAX_SELECTORS}; an entry without any would entitle every process")]
    Selectors,
    /// It takes what only the machine's own users have for a process in a container.
    #[error(
        "spiffe_id: no template where selectors are of containers or Kubernetes: what a user is called there, the image chose"
    )]
    TemplateInContainer,
    /// One of its nodes.
    #[error(
        "nodes: {0:?} is not the SPIFFE ID of a node of {1}: spiffe://{1}/deputize/node/NAME; of many, \
         …/node/kubernetes/CLUSTER/* and …/node/x509pop/* alone"
    )]
    Node(String, TrustDomain),
    /// How many nodes it has.
    #[error("nodes: {MAX_NODES} at most")]
    Nodes,
    /// A lifetime.
    #[error("{0}: {1} to {2} seconds")]
    Lifetime(&'static str, u64, u64),
    /// Its hint.
    #[error("hint: at most 256 bytes, without control characters")]
    Hint,
    /// One of its DNS names.
    #[error("dns_names: {0:?} is no DNS name in lower case")]
    DnsName(String),
    /// How many DNS names it has.
    #[error("dns_names: {MAX_DNS_NAMES} at most")]
    DnsNames,
    /// One of its foreign trust domains.
    #[error("federates_with: {0:?} is no foreign trust domain")]
    Federation(String),
    /// How many foreign trust domains it has.
    #[error("federates_with: {MAX_FEDERATED} at most")]
    Federations,
    /// What its processes may exchange.
    #[error("exchange: {0}")]
    Exchange(&'static str),
}

impl Draft {
    /// Checks it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, bounds: &Bounds, origin: Origin) -> Result<Registered, NotAnEntry> {
        check_name(&self.id)?;
        let selectors = self.checked_selectors()?;
        let (spiffe_id, template) = self.identity(bounds)?;
        if template.is_some() && selectors.iter().any(|one| CONTAINED.contains(&one.kind())) {
            return Err(NotAnEntry::TemplateInContainer);
        }
        if self.hint.len() > MAX_HINT_BYTES || self.hint.chars().any(char::is_control) {
            return Err(NotAnEntry::Hint);
        }
        if let Some(exchange) = &self.exchange {
            exchange.check()?;
            // A token that comes back later names its agent by the SPIFFE ID alone, and that must lead to one entry.
            if template.is_some() {
                return Err(NotAnEntry::Exchange("not with a template: give each agent an entry of its own"));
            }
        }
        let (x509, jwt) = ("x509_svid_ttl_seconds", "jwt_svid_ttl_seconds");
        let entry = Entry {
            id: self.id.as_str().into(),
            spiffe_id,
            nodes: self.checked_nodes(bounds)?,
            selectors,
            x509_svid_ttl_seconds: lifetime(x509, self.x509_svid_ttl_seconds, X509_SVID_TTL_SECONDS)?,
            jwt_svid_ttl_seconds: lifetime(jwt, self.jwt_svid_ttl_seconds, JWT_SVID_TTL_SECONDS)?,
            hint: self.hint.clone(),
            dns_names: self.checked_dns_names()?,
            federates_with: self.foreign_domains(bounds)?,
            exchange: self.exchange.clone(),
            expires_at_seconds: self.expires_at_seconds,
        };
        Ok(Registered { entry: Arc::new(entry), template, origin })
    }

    /// As somebody would have written this entry.
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            spiffe_id: entry.spiffe_id.to_string(),
            selectors: entry.selectors.iter().map(ToString::to_string).collect(),
            nodes: entry.nodes.iter().map(ToString::to_string).collect(),
            x509_svid_ttl_seconds: entry.x509_svid_ttl_seconds,
            jwt_svid_ttl_seconds: entry.jwt_svid_ttl_seconds,
            hint: entry.hint.clone(),
            dns_names: entry.dns_names.clone(),
            federates_with: entry.federates_with.iter().map(ToString::to_string).collect(),
            exchange: entry.exchange.clone(),
            expires_at_seconds: entry.expires_at_seconds,
        }
    }

    fn identity(&self, bounds: &Bounds) -> Result<(SpiffeId, Option<IdTemplate>), NotAnEntry> {
        let ours = &bounds.trust_domain;
        if self.spiffe_id.len() > MAX_ID_BYTES {
            return Err(NotAnEntry::SpiffeId("2048 bytes at most"));
        }
        if let Some(template) = IdTemplate::parse(&self.spiffe_id)? {
            if template.trust_domain() != ours {
                return Err(NotAnEntry::Foreign(ours.clone()));
            }
            let nobodys = SpiffeId::from_segments(ours.clone(), &[]).ok();
            let nobodys = nobodys.ok_or(NotAnEntry::SpiffeId("it cannot be made"))?;
            return Ok((nobodys, Some(template)));
        }
        let id = parse_spiffe_id(&self.spiffe_id).map_err(NotAnEntry::SpiffeId)?;
        if !id.is_member_of(ours) {
            return Err(NotAnEntry::Foreign(ours.clone()));
        }
        if is_reserved(&id) {
            return Err(NotAnEntry::SpiffeId(IS_RESERVED));
        }
        Ok((id, None))
    }

    fn checked_selectors(&self) -> Result<BTreeSet<Selector>, NotAnEntry> {
        if self.selectors.is_empty() || self.selectors.len() > MAX_SELECTORS {
            return Err(NotAnEntry::Selectors);
        }
        let read = |text: &String| {
            Selector::from_str(text).map_err(|error| NotAnEntry::Selector(text.clone(), error))
        };
        self.selectors.iter().map(read).collect()
    }

    fn checked_nodes(&self, bounds: &Bounds) -> Result<BTreeSet<NodePattern>, NotAnEntry> {
        if self.nodes.len() > MAX_NODES {
            return Err(NotAnEntry::Nodes);
        }
        if self.nodes.is_empty() {
            return Ok(BTreeSet::from([NodePattern::One(bounds.own_node.clone())]));
        }
        let ours = &bounds.trust_domain;
        let read = |text: &String| {
            NodePattern::parse(text, ours).ok_or_else(|| NotAnEntry::Node(text.clone(), ours.clone()))
        };
        self.nodes.iter().map(read).collect()
    }

    fn checked_dns_names(&self) -> Result<Vec<String>, NotAnEntry> {
        if self.dns_names.len() > MAX_DNS_NAMES {
            return Err(NotAnEntry::DnsNames);
        }
        match self.dns_names.iter().find(|name| !is_dns_name(name)) {
            Some(name) => Err(NotAnEntry::DnsName(name.clone())),
            None => Ok(self.dns_names.clone()),
        }
    }

    fn foreign_domains(&self, bounds: &Bounds) -> Result<Vec<TrustDomain>, NotAnEntry> {
        if self.federates_with.len() > MAX_FEDERATED {
            return Err(NotAnEntry::Federations);
        }
        let read = |text: &String| {
            // The library would take an ID for its domain, and capitals for small letters.
            let domain = TrustDomain::new(text).ok().filter(|domain| domain.as_str() == text);
            let foreign = domain.filter(|domain| *domain != bounds.trust_domain);
            foreign.ok_or_else(|| NotAnEntry::Federation(text.clone()))
        };
        self.federates_with.iter().map(read).collect()
    }
}

/// A SPIFFE ID of a process or node: with a path, at most 2048 bytes, and written in the one way that compares equal.
///
/// # Errors
/// What is wrong.
pub fn parse_spiffe_id(text: &str) -> Result<SpiffeId, &'static str> {
    // SPIFFE-ID §2.3.
    if text.len() > MAX_ID_BYTES {
        return Err("2048 bytes at most");
    }
    let id = SpiffeId::new(text).map_err(|_| {
        "a SPIFFE ID is spiffe://TRUST-DOMAIN/PATH; its path is letters, digits, `.`, `-` and `_` between slashes"
    })?;
    // The library takes capitals in scheme and trust domain for small letters.
    if id.to_string() != text {
        return Err("scheme and trust domain are written in lower case");
    }
    if id.path().is_empty() {
        return Err("it has a path: without one it is the trust domain's own");
    }
    Ok(id)
}

/// Whether an ID is the broker's own, or a node's.
pub fn is_reserved(id: &SpiffeId) -> bool {
    id.path().split('/').nth(1) == Some(RESERVED)
}

fn check_name(id: &str) -> Result<(), NotAnEntry> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && id.len() <= MAX_NAME_BYTES && id.bytes().all(is_plain) {
        return Ok(());
    }
    Err(NotAnEntry::Id)
}

fn lifetime(
    member: &'static str,
    seconds: Option<u64>,
    (least, most): (u64, u64),
) -> Result<Option<u64>, NotAnEntry> {
    match seconds {
        Some(seconds) if !(least..=most).contains(&seconds) => Err(NotAnEntry::Lifetime(member, least, most)),
        seconds => Ok(seconds),
    }
}

/// A host name of labels (RFC 1123 §2.1), the first of which may be `*` (RFC 9525 §6.3).
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = name.strip_prefix("*.").unwrap_or(name);
    let wildcard_is_narrow = host.len() == name.len() || host.contains('.');
    name.len() <= 253 && wildcard_is_narrow && host.split('.').all(is_label)
}

/// First segment of the IDs that no entry entitles to.
pub(super) const RESERVED: &str = "deputize";
pub(super) const IS_RESERVED: &str = "IDs below /deputize are those of the broker and its nodes";
/// Least and greatest life of an X.509-SVID, in seconds.
pub const X509_SVID_TTL_SECONDS: (u64, u64) = (30, 7 * 86_400);
/// Least and greatest life of a JWT-SVID, in seconds.
pub const JWT_SVID_TTL_SECONDS: (u64, u64) = (10, 3600);
const MAX_ID_BYTES: usize = 2048;
const MAX_NAME_BYTES: usize = 128;
const MAX_SELECTORS: usize = 64;
const MAX_NODES: usize = 1000;
const MAX_HINT_BYTES: usize = 256;
const MAX_DNS_NAMES: usize = 32;
const MAX_FEDERATED: usize = 32;
