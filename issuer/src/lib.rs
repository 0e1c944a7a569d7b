//! The core of Deputize: it decides, records and mints. No HTTP, no sockets, no Redis, no AWS SDK; what it has
//! to ask of the outside stands as a narrow trait beside the stage that asks.
//!
//! A request goes `parse → authenticate → verify_subject → decide → open_record → mint → close_record → render`;
//! the four in the middle are the waist, [`issue::issue`]. A door parses and renders.

pub mod ask;
pub mod authenticate;
pub mod authority;
pub mod bundle;
pub mod certificate;
pub mod client;
pub mod clock;
pub mod decide;
pub mod desk;
pub mod drift;
pub mod entry;
pub mod error;
pub mod exchange;
pub mod fakes;
mod hop;
pub mod issue;
pub mod keys;
pub mod limits;
pub mod lineage;
pub mod log;
pub mod mint;
pub mod node;
pub mod person;
pub mod policy;
pub mod provider;
pub mod record;
pub mod redeem;
pub mod registry;
pub mod replay;
pub mod revocation;
pub mod risk;
pub mod role_session;
pub mod svid;
pub mod templates;
pub mod transaction;
pub mod verify_subject;
pub mod words;
pub mod workload;

pub use deputize_call::secret;
