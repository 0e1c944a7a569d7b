//! Black-box suites: what must hold, what must be refused, seen from outside. This library is their harness: it
//! starts a broker as its operator would, speaks to it as anyone on the network could, and forges what an attacker would.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness that meets something unexpected should stop the test there"
)]

pub mod attested_agent;
pub mod aws_lab;
pub mod certified;
pub mod dev;
pub mod exchange;
pub mod forge;
pub mod guarded_aws;
pub mod guarding;
pub mod handing_over;
pub mod identity;
pub mod ill_server;
pub mod impostor;
pub mod live_connect;
pub mod live_guard;
pub mod measure;
pub mod node;
pub mod node_lab;
pub mod ordinary;
pub mod own_clients;
pub mod process;
pub mod raw_http2;
pub mod spiffe_lab;
pub mod stand_in;
pub mod sts;
pub mod trust;
pub mod weak_rsa;
pub mod whole_call;
pub mod wire;
pub mod workload_api;
pub mod workload_server;
pub mod world;
