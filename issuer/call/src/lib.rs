//! One MCP call and the token that is good for it: strict JSON, digests, claims, and the verification of
//! tokens and DPoP proofs. This is all that a verifier in front of an MCP server needs; the broker and every
//! client build on the same code. No I/O, no clock, no policy: time and keys are parameters.

pub mod action;
pub mod claims;
pub mod constraints;
pub mod digest;
pub mod dpop;
pub mod json;
pub mod jws;
pub mod keys;
pub mod level;
pub mod moment;
pub mod nonce;
pub mod offers;
pub mod once;
pub mod prompt;
pub mod resource;
pub mod schema;
pub mod secret;
pub mod sign;
pub mod token;
