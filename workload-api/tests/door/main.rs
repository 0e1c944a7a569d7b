//! The door as clients find it: a real socket, real HTTP/2, a real client of gRPC.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

mod client;
mod exchanges;
mod hostile;
mod kernel;
mod processes;
mod raw;
mod refusals;
mod streams;
mod tokens;
