//! Door 2: the SPIFFE Workload API on a Unix socket.

pub mod attest;
mod authority;
mod bind;
mod error;
pub mod exchange;
pub mod fakes;
mod held;
pub mod node;
pub mod peer;
pub mod peer_stream;
pub mod proto;
pub mod reception;
mod room;
mod rpc;
mod sds;
mod serve;
pub mod source;

pub use bind::{CannotBind, bind};
pub use room::Limits;
pub use serve::WorkloadApi;
