//! What an X.509-SVID is to say, whosever it is.

use rcgen::SubjectPublicKeyInfo;
use spiffe::SpiffeId;
use std::sync::Arc;

use crate::{
    authority::{Authority, AuthorityError, BACKDATED_SECONDS, SERIAL_BYTES, new_serial},
    error::IssueError,
    svid::RequestedKey,
};

/// A leaf certificate that was decided on. For the record and the mint alone.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) dns_names: Vec<String>,
    pub(crate) serial: [u8; SERIAL_BYTES],
    pub(crate) not_before_seconds: u64,
    pub(crate) not_after_seconds: u64,
    pub(crate) authority: Arc<Authority>,
    /// The key that whoever asks has, where it has one.
    pub(crate) requested: Option<SubjectPublicKeyInfo>,
}

impl Leaf {
    /// From now until then, under this authority.
    pub(super) fn new(
        spiffe_id: SpiffeId,
        (now_seconds, not_after_seconds): (u64, u64),
        authority: Arc<Authority>,
        requested: Option<&RequestedKey>,
    ) -> Result<Self, IssueError> {
        let not_before_seconds =
            now_seconds.saturating_sub(BACKDATED_SECONDS).max(authority.certificate().not_before_seconds());
        Ok(Self {
            spiffe_id,
            dns_names: Vec::new(),
            serial: new_serial().map_err(|AuthorityError(reason)| IssueError::Internal(reason))?,
            not_before_seconds,
            not_after_seconds,
            authority,
            requested: requested.map(|requested| requested.public().clone()),
        })
    }
}
