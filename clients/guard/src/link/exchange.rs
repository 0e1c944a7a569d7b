//! Exchanges of persons' own tokens, in the name of the guard's server.

use super::{Link, Shared};
use crate::proxy::{Exchanger, Minted};
use async_trait::async_trait;
use deputize_call::action::Action;
use deputize_client::{Detail, ExchangeError, ExchangeRequest, TokenType};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use zeroize::Zeroizing;

impl Link {
    /// Exchanges persons' own tokens at the broker, where the server's client may (`accepts_bearer` in the broker's
    /// configuration). The tokens are bound to a key that dies with this link.
    pub fn exchanger(&self) -> Arc<dyn Exchanger> {
        Arc::clone(&self.shared) as _
    }
}

#[async_trait]
impl Exchanger for Shared {
    async fn exchange(
        &self,
        token: &str,
        (action, asked): (Action, Detail),
    ) -> Result<Minted, ExchangeError> {
        let request = ExchangeRequest::new(&self.resource, token);
        let request = request.subject_token_type(TokenType::AccessToken).action(action).detail(asked);
        let granted = self.client.exchange(&request).await?;
        let max_uses = granted.authorization_details().pointer("/0/max_uses").and_then(Value::as_u64);
        Ok(Minted {
            token: Zeroizing::new(granted.access_token().to_owned()),
            lives: Duration::from_secs(granted.expires_in_seconds()),
            max_uses,
        })
    }

    fn prove(&self, method: &str, url: &str, token: &str, nonce: &str) -> Result<String, ExchangeError> {
        self.client.proof_for(method, url, token, Some(nonce))
    }
}
