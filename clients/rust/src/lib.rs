//! Exchange a user's JWT for tool-call tokens (RFC 8693): client authentication, DPoP with its nonces, and caching
//! where the binding level allows it.
//!
//! ```no_run
//! # async fn example(key: deputize_call::sign::SigningKey, user_jwt: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use deputize_client::{Client, ExchangeRequest};
//!
//! let client = Client::builder("https://deputize.example.com", "support-bot").private_key_jwt(key).build()?;
//! let call = serde_json::json!({ "payment_id": "pay_81", "amount_cents": 4200 });
//! let request = ExchangeRequest::new("https://crm.example.com/mcp", user_jwt).call("refund_payment", call);
//! let token = client.exchange(&request).await?;
//! let proof = client.proof_for("POST", "https://crm.example.com/mcp", token.access_token(), None)?;
//! # let _ = proof; Ok(()) }
//! ```

mod answer;
mod aws;
mod builder;
mod cache;
mod client;
mod clock;
#[cfg(feature = "connect")]
pub mod connect;
mod error;
mod guard;
mod metadata;
mod request;
mod sealed;
pub mod sse;
#[cfg(test)]
mod tests;
mod token;
mod transport;

pub use aws::{AwsAsk, AwsCredentials};
pub use builder::{BuildError, ClientBuilder};
pub use client::{Client, Introspection, Redemption};
pub use clock::{Clock, SystemClock};
pub use error::{DenialReason, ErrorDetails, ExchangeError};
pub use guard::GuardStream;
pub use request::{Detail, ExchangeRequest, TokenType};
pub use sealed::DecryptionKey;
pub use token::ToolToken;
