//! The messages and stubs of `proto/*.proto`. They are in the tree, so that no build waits for a compiler of
//! protocol buffers; a test makes them again and compares.

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated: it allows what it needs"
)]
#[rustfmt::skip]
mod workload;

/// Of `proto/exchange.proto`.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated: it allows what it needs"
)]
#[rustfmt::skip]
pub mod exchange;

#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated: it allows what it needs, and says what Envoy's own documentation says"
)]
#[rustfmt::skip]
pub mod secrets;

pub use workload::*;

use std::fmt;

/// The compiled `.proto` (a `FileDescriptorSet`), for server reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!("proto/workload.bin");

/// That of `proto/exchange.proto`.
pub const EXCHANGE_DESCRIPTOR: &[u8] = include_bytes!("proto/exchange.bin");

// Keys and tokens cannot be printed by accident: the generated `Debug` would show them.

impl fmt::Debug for X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwtsvid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateJwtsvidRequest").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl fmt::Debug for exchange::ExchangeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeRequest").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl fmt::Debug for exchange::ExchangeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeResponse").field("decision_id", &self.decision_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for secrets::DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSource").finish_non_exhaustive()
    }
}

impl fmt::Debug for secrets::Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("type_url", &self.type_url).finish_non_exhaustive()
    }
}
