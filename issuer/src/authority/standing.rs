//! Whose work goes on to be used, as whoever keeps SVIDs elsewhere is told.

/// Authorities at one moment, named by their keys: SHA-256 of the subject public key (DER) for X.509, `kid` for JWT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// X.509 authorities whose work holds.
    pub untainted: Vec<[u8; 32]>,
    /// X.509 authorities whose work is to be replaced.
    pub tainted: Vec<[u8; 32]>,
    /// JWT authorities whose work holds.
    pub jwt_keys: Vec<String>,
}

impl Standing {
    /// As [`AuthorityRing::stands_by`](super::AuthorityRing::stands_by).
    pub fn stands_by(&self, authorities: &[[u8; 32]]) -> bool {
        stands_by(authorities, (&self.untainted, &self.tainted))
    }
}

pub(super) fn stands_by(authorities: &[[u8; 32]], (untainted, tainted): (&[[u8; 32]], &[[u8; 32]])) -> bool {
    authorities.first().is_some_and(|signer| untainted.contains(signer))
        && !authorities.iter().any(|authority| tainted.contains(authority))
}
