//! Stage 6: signs what was decided and recorded, one file for each kind of credential.

mod sts;
mod tool_call;
mod web_identity;

pub use sts::{RoleCredentials, RoleOrder, SecurityTokenService, StsRefusal};
pub use tool_call::{ToolCallToken, mint};
pub use web_identity::WebIdentity;
