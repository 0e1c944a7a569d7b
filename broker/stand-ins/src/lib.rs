//! What `deputize dev` and `deputize demo` run around the broker, on loopback only: an OpenID provider with three users,
//! three small MCP servers, and a small AWS. Nothing here is for production, and nothing of `serve` depends on it.
//!
//! They stand outside: they know the wire and the client library, never the broker or its core.

pub mod aws;
pub mod example_server;
pub mod identity_provider;
pub mod random;
#[cfg(test)]
mod test_clock;
