//! The operator's approval of a record (S-17, S-18): what was approved, by whom, when and why, signed with an approval
//! key. A record that differs from what was signed is refused, and so is an approval older than one seen before.

#[cfg(test)]
mod tests;

use deputize_call::{
    digest::{Digest, sha256},
    json::{self, canonicalize},
    jws::{self, EmbeddedKey, JwsError},
    keys::KeySet,
    sign::SigningKey,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use super::{RegistryError, ServerRecord};

/// `typ` of the signature over an approval.
pub const APPROVAL_TYP: &str = "deputize-approval+jwt";

/// What an approval says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Grows with each approval of a server: milliseconds since the epoch, or one more than the one before.
    pub serial: u64,
    /// Who approved.
    pub approved_by: String,
    /// Why.
    pub reason: String,
    /// Ids of findings of the scan that were looked at and accepted.
    #[serde(default)]
    pub accepted_findings: Vec<String>,
    /// Digest of the manifest: id, version and the digests of all tools, prompts and resources.
    pub manifest_digest: Digest,
    /// The record as approved, with definitions, tiers, levels and next hops.
    pub record: ServerRecord,
}

/// An approval and its signature, as the file holds them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedApproval {
    /// An [`Approval`].
    pub approval: Value,
    /// A compact JWS of `id`, `serial` and `sha256`, the digest of the approval's canonical form (RFC 8785).
    pub signature: String,
}

/// An approval that was verified and is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seal {
    /// Id of the server.
    pub id: String,
    /// Serial of the approval.
    pub serial: u64,
    /// Who approved.
    pub approved_by: String,
    /// Thumbprint (RFC 7638) of the approval key.
    pub key: String,
    /// Ids of findings that were accepted.
    pub accepted_findings: Vec<String>,
}

/// Why an approval does not count; says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// Not of the right form.
    #[error("the approval is malformed: {0}")]
    Malformed(String),
    /// The signature does not verify.
    #[error("the approval's signature does not hold: {0}")]
    Signature(JwsError),
    /// By a key that is none of the configured ones.
    #[error("the approval is signed by a key that is not among registry.approval_keys")]
    ForeignKey,
    /// It is the approval of another server.
    #[error("the approval is one of the server {0:?}")]
    OtherServer(String),
    /// The record is not what was approved.
    #[error(
        "{0} differs from what was approved: see `deputize registry diff`, then approve it or put it back"
    )]
    Differs(String),
    /// Approved in the future.
    #[error("the approval is dated in the future: check the clocks")]
    Future,
    /// There is none.
    #[error("nobody has approved this record: `deputize registry approve`, or say approved: false")]
    Missing,
}

impl SignedApproval {
    /// Signs an approval.
    ///
    /// # Errors
    /// If it cannot be canonicalized, or the key cannot sign.
    pub fn sign(approval: &Approval, key: &SigningKey) -> Result<Self, ApprovalError> {
        let value = serde_json::to_value(approval).map_err(malformed)?;
        let claims =
            Claims { id: approval.record.id.clone(), serial: approval.serial, sha256: digest_of(&value)? };
        let signature = key.sign(APPROVAL_TYP, &claims).map_err(ApprovalError::Signature)?;
        Ok(Self { approval: value, signature })
    }

    /// Reads the file of an approval, as strictly as anything that is signed.
    ///
    /// # Errors
    /// [`ApprovalError::Malformed`].
    pub fn read(text: &[u8]) -> Result<Self, ApprovalError> {
        serde_json::from_value(json::parse_value(text, MAX_DEPTH).map_err(malformed)?).map_err(malformed)
    }

    /// The approval, its signature not verified: for looking at.
    ///
    /// # Errors
    /// [`ApprovalError::Malformed`].
    pub fn unverified(&self) -> Result<Approval, ApprovalError> {
        serde_json::from_value(self.approval.clone()).map_err(malformed)
    }

    /// Verifies the signature, and returns the approval with the thumbprint of the key.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub fn verify(&self, keys: &KeySet) -> Result<(Approval, String), ApprovalError> {
        let jws = jws::parse(&self.signature, EmbeddedKey::Refused).map_err(ApprovalError::Signature)?;
        if jws.header.typ.as_deref() != Some(APPROVAL_TYP) {
            return Err(ApprovalError::Malformed("it is signed as something else".to_owned()));
        }
        let key = keys.find(&jws).map_err(|_| ApprovalError::ForeignKey)?;
        key.verify(&jws).map_err(ApprovalError::Signature)?;
        let claims: Claims = serde_json::from_value(Value::Object(jws.claims.clone())).map_err(malformed)?;
        let approval = self.unverified()?;
        let signed = (claims.id.as_str(), claims.serial, claims.sha256);
        if signed != (approval.record.id.as_str(), approval.serial, digest_of(&self.approval)?) {
            return Err(ApprovalError::Signature(JwsError::Signature));
        }
        Ok((approval, key.thumbprint().to_owned()))
    }
}

impl Approval {
    /// Whether a record is what was approved. It may be narrower in one way: servers, tools, prompts and resources may
    /// be disabled without a new approval, so that an emergency needs no approver.
    ///
    /// # Errors
    /// [`ApprovalError::Differs`], [`ApprovalError::OtherServer`].
    pub fn covers(&self, record: &ServerRecord) -> Result<(), ApprovalError> {
        if self.record.id != record.id {
            return Err(ApprovalError::OtherServer(self.record.id.clone()));
        }
        let mut approved = self.record.clone();
        approved.enabled &= record.enabled;
        for (approved, now) in approved.tools.iter_mut().zip(&record.tools) {
            approved.enabled &= now.enabled;
        }
        for (approved, now) in approved.prompts.iter_mut().zip(&record.prompts) {
            approved.enabled &= now.enabled;
        }
        for (approved, now) in approved.resources.iter_mut().zip(&record.resources) {
            approved.enabled &= now.enabled;
        }
        let (was, is) = (members(&approved)?, members(record)?);
        if canonicalize(&was).map_err(malformed)? == canonicalize(&is).map_err(malformed)? {
            return Ok(());
        }
        Err(ApprovalError::Differs(first_difference(&approved, record, &was, &is)))
    }
}

/// Verifies the approval of every record that says that it is approved; `approvals` holds files' texts by server id.
///
/// # Errors
/// One for each record whose approval does not count.
pub fn seal(
    records: &[ServerRecord],
    approvals: &BTreeMap<String, Vec<u8>>,
    keys: &KeySet,
    now_ms: u64,
) -> Result<Vec<Seal>, Vec<RegistryError>> {
    let (mut seals, mut problems) = (Vec::new(), Vec::new());
    for record in records.iter().filter(|record| record.approved) {
        match seal_one(record, approvals.get(&record.id), keys, now_ms) {
            Ok(seal) => seals.push(seal),
            Err(error) => problems.push(RegistryError {
                server: record.id.clone(),
                tool: None,
                problem: error.to_string(),
            }),
        }
    }
    if problems.is_empty() { Ok(seals) } else { Err(problems) }
}

fn seal_one(
    record: &ServerRecord,
    file: Option<&Vec<u8>>,
    keys: &KeySet,
    now_ms: u64,
) -> Result<Seal, ApprovalError> {
    let (approval, key) = SignedApproval::read(file.ok_or(ApprovalError::Missing)?)?.verify(keys)?;
    if approval.serial > now_ms.saturating_add(CLOCK_TOLERANCE_MS) {
        // It would outrank every approval until then.
        return Err(ApprovalError::Future);
    }
    approval.covers(record)?;
    Ok(Seal {
        id: record.id.clone(),
        serial: approval.serial,
        approved_by: approval.approved_by,
        key,
        accepted_findings: approval.accepted_findings,
    })
}

/// The tool or the member that differs first, for the message.
fn first_difference(approved: &ServerRecord, record: &ServerRecord, was: &Value, is: &Value) -> String {
    let names =
        |record: &ServerRecord| record.tools.iter().map(|tool| tool.name().to_owned()).collect::<Vec<_>>();
    let (old, new) = (names(approved), names(record));
    if let Some(added) = new.iter().find(|name| !old.contains(name)) {
        return format!("the tool {added:?}, which is new,");
    }
    if let Some(gone) = old.iter().find(|name| !new.contains(name)) {
        return format!("the list of tools, where {gone:?} is missing,");
    }
    let differs = |name: &&String| {
        let of = |record: &ServerRecord, names: &[String]| {
            let at = names.iter().position(|other| other == *name)?;
            canonicalize(&serde_json::to_value(record.tools.get(at)?).ok()?).ok()
        };
        of(approved, &old) != of(record, &new)
    };
    if let Some(tool) = new.iter().find(differs) {
        return format!("the tool {tool:?}");
    }
    let member = is.as_object().and_then(|is| is.iter().find(|(name, value)| was.get(*name) != Some(*value)));
    format!("`{}`", member.map_or("the record", |(name, _)| name))
}

fn members(record: &ServerRecord) -> Result<Value, ApprovalError> {
    serde_json::to_value(record).map_err(malformed)
}

fn digest_of(value: &Value) -> Result<Digest, ApprovalError> {
    Ok(Digest::from_bytes(sha256(&canonicalize(value).map_err(malformed)?)))
}

fn malformed(error: impl std::fmt::Display) -> ApprovalError {
    ApprovalError::Malformed(error.to_string())
}

/// What is signed.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    id: String,
    serial: u64,
    sha256: Digest,
}

/// A definition within a tool within a record within an approval.
const MAX_DEPTH: usize = 48;
const CLOCK_TOLERANCE_MS: u64 = 10 * 60 * 1000;
