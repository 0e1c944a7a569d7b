//! What the log says of SVIDs: those that are about to be minted, and those that were refused.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::digest::sha256;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Entry, Kind, Recorded, entry::bounded};
use crate::{
    authority::hex,
    decide::{JwtSvidTerms, Leaf, NodeSvidTerms, X509SvidTerms},
    desk::Desk,
    entry::Entry as RegistrationEntry,
    error::IssueError,
    log::Class,
    workload::{Selector, Workload},
};

/// An SVID, as its intent says it, or as it was asked for when it was refused; and an attested process that asked for
/// something else, which is no SVID then.
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
    /// The node that its process runs on; of a node's own SVID, it.
    pub node: String,
    /// Of a node's own SVID: how the node proved what it is (`join_token`, `x509pop`, `kubernetes`), or `renewal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<String>,
    /// The process that asked: its user, its group, and what else tells it from others; all that was true of it, as
    /// far as there is room, where it was refused. An X.509-SVID then goes to all who are entitled to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked_by: Vec<String>,
    /// Whether `asked_by` is what the agent of that node said: else the broker looked at the process itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reported_by_node: bool,
    /// Serial number of an X.509-SVID, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Of an X.509-SVID: SHA-256 of the subject public key of the authority that signs it, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Whom a JWT-SVID is for; long ones, and those after the first few, as `sha256:` and the base64url of their digest.
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

impl SvidEntry {
    /// A process that asks for a token, by this entry.
    pub(crate) fn of_caller(workload: &Workload, entry: &RegistrationEntry) -> Self {
        Self {
            svid: None,
            entry: Some(entry.id.to_string()),
            spiffe_id: Some(entry.spiffe_id.to_string()),
            node: workload.node().to_string(),
            attested: None,
            asked_by: asked_by(workload),
            reported_by_node: workload.witness().is_some(),
            serial: None,
            authority: None,
            audiences: Vec::new(),
            dns_names: Vec::new(),
            not_after: None,
        }
    }
}

impl Recorded for X509SvidTerms {
    fn decision_id(&self) -> Uuid {
        self.decision_id
    }

    fn intent(&self, desk: &Desk) -> Entry {
        let svid = SvidEntry {
            entry: Some(self.entry.id.to_string()),
            node: self.node.to_string(),
            asked_by: self.asked_by.clone(),
            reported_by_node: self.seen_by.is_some(),
            ..of_leaf(&self.leaf)
        };
        Entry {
            decision: Some(self.decision_id),
            spiffe: Some(svid),
            ..Entry::new(Kind::Intent, desk.clock.now_ms())
        }
    }
}

/// What a certificate will say.
fn of_leaf(leaf: &Leaf) -> SvidEntry {
    let id = leaf.spiffe_id.to_string();
    SvidEntry {
        svid: Some(SvidKind::X509),
        entry: None,
        spiffe_id: Some(id.clone()),
        node: id,
        attested: None,
        asked_by: Vec::new(),
        reported_by_node: false,
        serial: Some(hex(&leaf.serial)),
        authority: Some(leaf.authority.certificate().id()),
        audiences: Vec::new(),
        dns_names: leaf.dns_names.clone(),
        not_after: Some(leaf.not_after_seconds),
    }
}

impl Recorded for NodeSvidTerms {
    fn decision_id(&self) -> Uuid {
        self.decision_id
    }

    fn intent(&self, desk: &Desk) -> Entry {
        let svid = SvidEntry {
            attested: Some(self.attested.to_owned()),
            asked_by: self.evidence.iter().map(|one| shortened(one)).collect(),
            ..of_leaf(&self.leaf)
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
            attested: None,
            asked_by: self.asked_by.clone(),
            reported_by_node: self.seen_by.is_some(),
            serial: None,
            authority: None,
            audiences: recorded_audiences(&self.claims.aud),
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

/// Records that a process was refused an SVID: on its own within the quotas of its user and its node, else counted.
/// Whether it is on record on its own. What went wrong on our side is in the outcome of its intent, or could not be
/// recorded at all, and is counted alone.
pub fn record_svid_denial(
    desk: &Desk,
    decision_id: Uuid,
    refused: &RefusedSvid<'_>,
    error: &IssueError,
) -> bool {
    let node = refused.workload.node().to_string();
    let is_a_refusal = !matches!(
        error,
        IssueError::Internal(_) | IssueError::RecordUnavailable(_) | IssueError::UpstreamUnavailable(_)
    );
    if !is_a_refusal {
        desk.refusals.count(error.reason());
        return false;
    }
    let is_user = |one: &&Selector| one.kind() == "unix" && one.value().starts_with("uid:");
    let user = refused.workload.selectors().iter().find(is_user).map_or("", Selector::value);
    let recorded = desk.limits.record_svid_denial((&node, user), desk.clock.uptime())
        && denial(desk, decision_id, refused, error)
            .to_bytes()
            .and_then(|entry| desk.audit.append_later(Class::Denial, entry))
            .is_ok();
    if !recorded {
        desk.refusals.aggregate_on_node(&node, error.reason());
    }
    recorded
}

fn denial(desk: &Desk, decision_id: Uuid, refused: &RefusedSvid<'_>, error: &IssueError) -> Entry {
    let svid = SvidEntry {
        svid: refused.kind,
        entry: refused.entry.map(bounded),
        spiffe_id: None,
        node: refused.workload.node().to_string(),
        attested: None,
        asked_by: told(refused.workload, WHO.iter().chain(&WHAT_ELSE), MAX_SELECTORS),
        reported_by_node: refused.workload.witness().is_some(),
        serial: None,
        authority: None,
        audiences: recorded_audiences(refused.audiences),
        dns_names: Vec::new(),
        not_after: None,
    };
    Entry {
        decision: Some(decision_id),
        reason: Some(error.reason().to_owned()),
        spiffe: Some(svid),
        ..Entry::new(Kind::Denial, desk.clock.now_ms())
    }
}

/// The process that asks, as an intent says it: short, for there are many intents.
pub(crate) fn asked_by(workload: &Workload) -> Vec<String> {
    told(workload, &WHO, WHO.len())
}

/// What is true of a process, in the order of these beginnings: of each the first, then the rest where one of them is
/// empty. Each by itself, so that none is cut away by another, or looks like two.
fn told<'k>(workload: &Workload, kinds: impl IntoIterator<Item = &'k &'k str>, most: usize) -> Vec<String> {
    let all: Vec<String> = workload.selectors().iter().map(ToString::to_string).collect();
    let mut told: Vec<&String> = Vec::new();
    for kind in kinds {
        let of_kind = all.iter().filter(|selector| selector.starts_with(kind));
        for selector in of_kind.take(if kind.is_empty() { most } else { 1 }) {
            if told.len() < most && !told.contains(&selector) {
                told.push(selector);
            }
        }
    }
    told.into_iter().map(|selector| shortened(selector)).collect()
}

/// With a mark where it is not whole.
fn shortened(selector: &str) -> String {
    let mut short: String = selector.chars().take(MAX_SELECTOR_CHARACTERS).collect();
    if short.len() < selector.len() {
        short.push('…');
    }
    short
}

/// The first few as they are; of the others, and of long ones, the digest: who knows an audience finds it.
fn recorded_audiences(audiences: &[String]) -> Vec<String> {
    let recorded = |(at, audience): (usize, &String)| {
        let is_whole =
            at < WHOLE_AUDIENCES && audience.len() <= WHOLE_AUDIENCE_BYTES && !audience.starts_with(DIGEST);
        if is_whole {
            audience.clone()
        } else {
            format!("{DIGEST}{}", URL_SAFE_NO_PAD.encode(sha256(audience.as_bytes())))
        }
    };
    audiences.iter().take(MAX_AUDIENCES).enumerate().map(recorded).collect()
}

/// Who a process is. The user first: it is what no process can choose; of a pod's UID nobody knows later whose it was.
const WHO: [&str; 9] = [
    "unix:uid:",
    "unix:user:",
    "unix:gid:",
    "unix:path:",
    "systemd:id:",
    "container:id:",
    "k8s:pod_uid:",
    "k8s:ns:",
    "k8s:sa:",
];
/// What else is true of it; at last whatever there is.
const WHAT_ELSE: [&str; 3] = ["unix:group:", "unix:sha256:", ""];
const MAX_SELECTORS: usize = 16;
const MAX_SELECTOR_CHARACTERS: usize = 160;
/// More are refused for that alone.
const MAX_AUDIENCES: usize = 16;
const WHOLE_AUDIENCES: usize = 4;
const WHOLE_AUDIENCE_BYTES: usize = 128;
const DIGEST: &str = "sha256:";
