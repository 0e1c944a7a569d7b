//! How a guard asks the broker: as the client that its server is.

use async_trait::async_trait;
use deputize_call::sign::SigningKey;
use deputize_client::{BuildError, Client, ExchangeError, Redemption};
use deputize_guard::{Redeemed, Redeemer};

/// The broker, asked in the name of one server.
#[derive(Debug)]
pub(crate) struct Broker {
    issuer: String,
    client: Client,
}

impl Broker {
    /// The broker `issuer`, for the client `client_id` with this key.
    pub(crate) fn new(issuer: &str, client_id: &str, key: SigningKey) -> Result<Self, BuildError> {
        let client = Client::builder(issuer, client_id).private_key_jwt(key).build()?;
        Ok(Self { issuer: issuer.to_owned(), client })
    }

    /// `iss` of its tokens.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether a token is still good (RFC 7662).
    pub(crate) async fn is_active(&self, token: &str) -> Result<bool, ExchangeError> {
        Ok(self.client.introspect(token).await?.active)
    }
}

#[async_trait]
impl Redeemer for Broker {
    async fn redeem(&self, token: &str) -> Redeemed {
        match self.client.redeem(token).await {
            Ok(Redemption::Redeemed) => Redeemed::Yes,
            Ok(Redemption::AlreadyUsed) => Redeemed::AlreadyUsed,
            Ok(Redemption::Revoked) => Redeemed::Revoked,
            Err(error) => {
                tracing::warn!(%error, "token not redeemed");
                Redeemed::Unavailable
            }
        }
    }
}
