//! Door 2: the SPIFFE Workload API on a Unix socket.

pub mod attest;
pub mod peer;
pub mod peer_stream;
pub mod source;
