//! Stage 6: signs what was decided and recorded, one file for each kind of credential.

mod tool_call;

pub use tool_call::{ToolCallToken, mint};
