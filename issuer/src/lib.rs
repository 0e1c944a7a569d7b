//! The core of Deputize: it decides, records and mints. No HTTP, no sockets, no Redis, no AWS SDK; what it has
//! to ask of the outside stands as a narrow trait beside the stage that asks.
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that fails should panic"
    )
)]

pub mod clock;
pub mod log;
pub mod person;
pub mod policy;
pub mod provider;
pub mod registry;
pub mod secret;
