//! What entries say of sessions of AWS roles.

use deputize_call::digest::Digest;
use serde::{Deserialize, Serialize};

/// A session of an AWS role, as its intent says it: each name as AWS's own log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsSession {
    /// Name of the template.
    pub template: String,
    /// Its version.
    pub template_hash: Digest,
    /// The role's account.
    pub account: String,
    /// The role's region.
    pub region: String,
    /// The role's ARN.
    pub role: String,
    /// `RoleSessionName`.
    pub session_name: String,
    /// `SourceIdentity`.
    pub source_identity: String,
    /// When what it can do ends, in Unix seconds.
    pub window_end: u64,
}

/// The key of a session of an AWS role, as its outcome says it. What is secret of it is in no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsKey {
    /// `AccessKeyId`, which stands in AWS's own log of whatever the session does.
    pub access_key_id: String,
    /// How often STS was asked until it answered.
    pub attempts: u32,
}
