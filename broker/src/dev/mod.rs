//! What `deputize dev` and `deputize demo` are: the broker and, around it, the stand-ins, in one process, on loopback
//! only, each MCP server behind its guard. Nothing here is for production, and nothing of `serve` depends on it.

pub(crate) mod environment;
mod example;
mod guarded;
mod layout;
pub(crate) mod ready_file;
pub(crate) mod registered;
pub(crate) mod story;

pub(crate) use layout::DESK_TOOL;
