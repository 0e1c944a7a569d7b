//! Stage 6: signs what was decided and recorded, one file for each kind of credential.

mod jwt_svid;
mod role_session;
mod sts;
mod tool_call;
mod web_identity;
mod x509_svid;

pub use sts::{RoleCredentials, RoleOrder, SecurityTokenService, StsRefusal};
pub use tool_call::ToolCallToken;
pub use web_identity::WebIdentity;

use crate::{
    desk::Desk,
    error::IssueError,
    record::{AwsKey, OpenRecord, Outcome, Recorded},
};

/// What a yes lays down, as the mint sees it.
pub trait Mint: Recorded {
    /// What is made of it.
    type Credential: Send;
    /// Makes it: of an open record, and of nothing else.
    ///
    /// # Errors
    /// What could not be done; then nothing was made, as far as is known.
    fn mint(
        record: OpenRecord<Self>,
        desk: &Desk,
    ) -> impl Future<Output = Result<Self::Credential, IssueError>> + Send;
    /// What names the credential where AWS records its use, if that is not known before it is made.
    fn aws_key(_: &Self::Credential) -> Option<AwsKey> {
        None
    }
}

/// Mints. The open record is used up whether this succeeds or not; the outcome says which.
pub async fn mint<T: Mint>(
    desk: &Desk,
    record: OpenRecord<T>,
) -> (Result<T::Credential, IssueError>, Outcome) {
    let (decision_id, index) = (record.decision_id(), record.index());
    let minted = T::mint(record, desk).await;
    let aws_key = minted.as_ref().ok().and_then(T::aws_key);
    let result = minted.as_ref().map(drop).map_err(IssueError::reason);
    (minted, Outcome { decision_id, index, result, aws_key })
}
