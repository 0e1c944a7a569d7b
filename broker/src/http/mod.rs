//! Doors 1 and 3 over HTTP.

pub mod admin;
pub mod aws;
pub mod entries;
pub mod error;
pub mod form;
pub mod guard;
pub mod lifecycle;
pub mod listen;
pub mod log_tile;
pub mod metadata;
pub mod node_orders;
pub mod nodes;
pub mod openapi;
pub mod patient;
pub mod request;
pub mod router;
pub mod source;
pub mod spiffe;
pub mod tls;
pub mod token;
pub mod web_identity;
