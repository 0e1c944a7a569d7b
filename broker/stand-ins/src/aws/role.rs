//! The roles of the one account: who may take them, and what they may.

use super::policy::Policy;

/// A role.
#[derive(Debug)]
pub(super) struct Role {
    /// Its ARN.
    pub(super) arn: String,
    /// `AROA…`.
    pub(super) id: String,
    /// `sub` of the web identity that its trust policy names.
    pub(super) trusted_subject: String,
    /// What it may.
    pub(super) policy: Policy,
}

impl Role {
    /// The role of a template of `dev`: only a web identity for this template may take it, and it may do whatever its
    /// policy says. Session policies take most of that away again.
    ///
    /// # Errors
    /// If the policy is none.
    pub(super) fn new(arn: &str, trusted_subject: String, policy: &str) -> Result<Self, String> {
        // Unique for each role, and the same in each environment.
        let letters = arn
            .bytes()
            .fold(0_u64, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(byte)));
        Ok(Self {
            arn: arn.to_owned(),
            id: format!("AROA{letters:016X}"),
            trusted_subject,
            policy: Policy::read(policy)?,
        })
    }

    /// Its name, without a path.
    pub(super) fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// Who has taken it, under this session name.
    pub(super) fn assumed_arn(&self, session: &str) -> String {
        format!("arn:aws:sts::{ACCOUNT}:assumed-role/{}/{session}", self.name())
    }
}

/// The account: one of those that AWS keeps for examples.
pub const ACCOUNT: &str = "111122223333";
/// The region.
pub const REGION: &str = "eu-central-1";
