//! What `deputize dev` and `deputize demo` run around the broker, in one process, on loopback only: an identity
//! provider with three users and two small MCP servers. Nothing here is for production, and nothing of `serve` depends on it.

pub(crate) mod environment;
pub(crate) mod example_server;
pub(crate) mod identity_provider;
mod layout;
pub(crate) mod ready_file;
mod registered;
pub(crate) mod story;
