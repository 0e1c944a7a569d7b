//! What `deputize dev` and `deputize demo` run around the broker, in one process, on loopback only: an identity
//! provider with three users, a small stand-in for AWS, and three small MCP servers, each behind its guard. Nothing here is
//! for production, and nothing of `serve` depends on it.

pub(crate) mod aws;
pub(crate) mod environment;
pub(crate) mod example_server;
mod guarded;
pub(crate) mod identity_provider;
mod layout;
pub(crate) mod ready_file;
pub(crate) mod registered;
pub(crate) mod story;
