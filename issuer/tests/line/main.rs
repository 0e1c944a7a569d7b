//! The line as a door calls it, `authenticate → verify_subject → issue`, and what becomes of tokens afterwards:
//! beside each thing that is accepted, the neighbours that are refused. Time stands still until a test moves it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should panic"
)]

mod authentication;
mod bearer;
mod certificates;
mod decisions;
mod guards;
mod handshakes;
mod next_hops;
mod node_exchanges;
mod nodes;
mod reads;
mod records;
mod role_sessions;
mod spiffe;
mod subjects;
mod svids;
mod workloads;
mod world;
