//! The command line, run as a program: what it prints and how it exits.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should panic"
)]

mod audit;
mod authorities;
mod aws;
mod broker;
mod configuration;
mod doctor;
mod environment;
mod exchange;
mod explain;
mod keys;
mod program;
mod roles;
mod templates;
mod token;
mod workload;
