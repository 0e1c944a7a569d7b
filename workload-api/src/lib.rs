//! Door 2: the SPIFFE Workload API on a Unix socket.

pub mod source;
