//! The broker: what `deputize serve` runs, without the commands around it.
//!
//! A request's way: [`http`] → the issuer's line → [`backends`]. [`config`] says what there is, [`assemble`] puts it
//! together.

pub mod assemble;
pub mod backends;
pub mod bundle_endpoint;
mod cannot_start;
pub mod config;
pub mod federation;
pub mod guards;
pub mod http;
pub mod registration;
mod restore;
pub mod telemetry;

use deputize_call::moment;
