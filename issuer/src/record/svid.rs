//! What the log says of SVIDs: those that are about to be minted, and those that were refused.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Entry, Kind, Recorded, entry::bounded};
use crate::{
    authority::hex,
    decide::{JwtSvidTerms, X509SvidTerms},
    desk::Desk,
    error::IssueError,
    log::Class,
    workload::Workload,
};

/// An SVID, as its intent says it, or as it was asked for when it was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvidEntry {
    /// What it is, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid: Option<SvidKind>,
    /// Name of the registration entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// The node that its process runs on.
    pub node: String,
    /// Serial number of an X.509-SVID, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Of an X.509-SVID: SHA-256 of the subject public key of the authority that signs it, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Whom a JWT-SVID is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// DNS names in an X.509-SVID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// When it ends, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
}

/// What kind of SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SvidKind {
    /// X.509-SVID.
    X509,
    /// JWT-SVID.
    Jwt,
}

/// What a process asked for when it was refused.
#[derive(Debug, Clone, Copy)]
pub struct RefusedSvid<'a> {
    /// An SVID of this kind; none where it was told before it said.
    pub kind: Option<SvidKind>,
    /// Who asked.
    pub workload: &'a Workload,
    /// For which entry; none where no entry entitles it to anything.
    pub entry: Option<&'a str>,
    /// For whom.
    pub audiences: &'a [String],
}

impl Recorded for X509SvidTerms {
    fn decision_id(&self) -> Uuid {
        self.decision_id
    }

    fn intent(&self, desk: &Desk) -> Entry {
        let svid = SvidEntry {
            svid: Some(SvidKind::X509),
            entry: Some(self.entry.id.to_string()),
            spiffe_id: Some(self.entry.spiffe_id.to_string()),
            node: self.node.to_string(),
            serial: Some(hex(&self.serial)),
            authority: Some(self.authority.certificate().id()),
            audiences: Vec::new(),
            dns_names: self.entry.dns_names.clone(),
            not_after: Some(self.not_after_seconds),
        };
        Entry {
            decision: Some(self.decision_id),
            spiffe: Some(svid),
            ..Entry::new(Kind::Intent, desk.clock.now_ms())
        }
    }
}

impl Recorded for JwtSvidTerms {
    fn decision_id(&self) -> Uuid {
        self.decision_id
    }

    fn intent(&self, desk: &Desk) -> Entry {
        let svid = SvidEntry {
            svid: Some(SvidKind::Jwt),
            entry: Some(self.entry.id.to_string()),
            spiffe_id: Some(self.claims.sub.clone()),
            node: self.node.to_string(),
            serial: None,
            authority: None,
            audiences: self.claims.aud.clone(),
            dns_names: Vec::new(),
            not_after: Some(self.claims.exp),
        };
        Entry {
            decision: Some(self.decision_id),
            jti: Some(self.claims.jti.clone()),
            key: Some(self.key.kid().to_owned()),
            spiffe: Some(svid),
            ..Entry::new(Kind::Intent, desk.clock.now_ms())
        }
    }
}

/// Records that a process was refused an SVID: on its own within the quota of its node, else counted. What went wrong on
/// our side is in the outcome of its intent, or could not be recorded at all, and is counted alone.
pub fn record_svid_denial(desk: &Desk, decision_id: Uuid, refused: &RefusedSvid<'_>, error: &IssueError) {
    let node = refused.workload.node().to_string();
    let is_a_refusal = !matches!(
        error,
        IssueError::Internal(_) | IssueError::RecordUnavailable(_) | IssueError::UpstreamUnavailable(_)
    );
    if !is_a_refusal {
        desk.refusals.count(error.reason());
        return;
    }
    let recorded = desk.limits.record_denial(&format!("spiffe {node}"), desk.clock.uptime())
        && denial(desk, decision_id, refused, error)
            .to_bytes()
            .and_then(|entry| desk.audit.append_later(Class::Denial, entry))
            .is_ok();
    if !recorded {
        desk.refusals.aggregate_on_node(&node, error.reason());
    }
}

fn denial(desk: &Desk, decision_id: Uuid, refused: &RefusedSvid<'_>, error: &IssueError) -> Entry {
    let svid = SvidEntry {
        svid: refused.kind,
        entry: refused.entry.map(bounded),
        spiffe_id: None,
        node: refused.workload.node().to_string(),
        serial: None,
        authority: None,
        audiences: refused.audiences.iter().take(MAX_AUDIENCES).map(|audience| bounded(audience)).collect(),
        dns_names: Vec::new(),
        not_after: None,
    };
    Entry {
        decision: Some(decision_id),
        reason: Some(error.reason().to_owned()),
        // Who it was: what its user, its group and its program are.
        detail: Some(bounded(&selectors(refused.workload))),
        spiffe: Some(svid),
        ..Entry::new(Kind::Denial, desk.clock.now_ms())
    }
}

fn selectors(workload: &Workload) -> String {
    workload.selectors().iter().take(MAX_SELECTORS).map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// More are refused for that alone.
const MAX_AUDIENCES: usize = 16;
const MAX_SELECTORS: usize = 64;
