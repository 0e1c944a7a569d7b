//! AWS credentials of calls, in the name of the guard's server.

use super::{Link, Shared};
use crate::CredentialSource;
use async_trait::async_trait;
use deputize_client::{AwsAsk, AwsCredentials, ExchangeError};
use std::sync::Arc;

impl Link {
    /// Asks the broker for the AWS credentials of calls, as the audience of their tokens.
    pub fn credential_source(&self) -> Arc<dyn CredentialSource> {
        Arc::clone(&self.shared) as _
    }
}

#[async_trait]
impl CredentialSource for Shared {
    async fn ask(&self, call: &AwsAsk<'_>) -> Result<AwsCredentials, ExchangeError> {
        let answer = self.client.aws_credentials(call).await;
        match &answer {
            Ok(credentials) => {
                tracing::info!(decision_id = credentials.decision_id(), "aws credentials for a call")
            }
            Err(error) => tracing::warn!(%error, "no aws credentials for a call"),
        }
        answer
    }
}
