//! The guard as programs see it that other people wrote: servers behind it, clients before it, and the protocol's own
//! conformance suite.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

mod clients;
mod database;
mod scenarios;
mod servers;
mod stage;
mod third_party;
