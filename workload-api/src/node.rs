//! Nodes other than the broker's own: what their agents and the broker say to each other ([`wire`]), and where an
//! agent's door gets what it gives ([`AgentSource`]).

mod source;
mod tokens;
pub mod wire;

pub use source::{AgentSource, NodeBroker};
