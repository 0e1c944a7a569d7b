//! A session of an AWS role: STS is asked with a web identity of our own making.

use std::time::Duration;

use super::{Mint, RoleCredentials, RoleOrder, StsRefusal, web_identity};
use crate::{
    decide::RoleTerms,
    desk::Desk,
    error::IssueError,
    record::{AwsKey, OpenRecord},
    role_session::RoleSession,
};

impl Mint for RoleTerms {
    type Credential = RoleSession;

    async fn mint(record: OpenRecord<Self>, desk: &Desk) -> Result<RoleSession, IssueError> {
        let terms = record.into_terms();
        let door = desk.aws.as_ref().ok_or(IssueError::Internal("no_door_to_aws"))?;
        let web_identity = web_identity::sign(&door.web_identity, &terms, desk.clock.as_ref())?;
        let asked = door.sts.assume_role(RoleOrder::new(&terms.session, &web_identity));
        // Whoever asks STS bounds the time by itself; nobody waits for ever if it does not.
        let answered = tokio::time::timeout(LONGEST_ANSWER, asked).await;
        let credentials = answered.unwrap_or(Err(StsRefusal::Timeout)).map_err(IssueError::Sts)?;
        let expires_at = credentials.expires_at_seconds;
        if credentials.access_key_id.is_empty()
            || credentials.secret_access_key.expose().is_empty()
            || credentials.session_token.expose().is_empty()
            || expires_at <= desk.clock.now_seconds()
        {
            return Err(IssueError::Sts(StsRefusal::Unintelligible));
        }
        let session = terms.session;
        Ok(RoleSession {
            credentials,
            decision_id: terms.decision_id,
            template: session.template,
            template_hash: session.template_hash,
            account: terms.account,
            role_arn: session.role_arn,
            session_name: session.session_name,
            source_identity: session.source_identity,
            window_end_seconds: session.window_end_seconds.min(expires_at),
        })
    }

    fn aws_key(session: &RoleSession) -> Option<AwsKey> {
        let RoleCredentials { access_key_id, attempts, .. } = &session.credentials;
        Some(AwsKey { access_key_id: access_key_id.clone(), attempts: *attempts })
    }
}

/// Longer than any answer of STS that is worth waiting for.
const LONGEST_ANSWER: Duration = Duration::from_secs(20);
