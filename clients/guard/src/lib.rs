//! The verification core that stands before an MCP server: one HTTP request in, a verified call or a refusal out.
//! No HTTP framework, no sockets, no clock: what it must ask of the outside are the two traits [`Redeemer`] and
//! [`Upstream`].
//!
//! A call reaches the server only as a [`VerifiedCall`], which only a [`Guard`] makes: what is forwarded is
//! re-serialized from what was verified.

#[cfg(feature = "proxy")]
mod aws;
mod caller;
mod clocks;
mod config;
mod drift;
mod event;
mod examine;
mod guard;
mod headers;
mod known;
#[cfg(feature = "link")]
pub mod link;
mod listing;
mod message;
mod mirrored;
mod outside;
mod possession;
#[cfg(feature = "proxy")]
pub mod proxy;
mod refusal;
mod revocation;
mod snapshot;
#[cfg(test)]
mod tests;
mod uses;
mod verified;

#[cfg(feature = "proxy")]
pub use aws::CredentialSource;
pub use caller::{Caller, CallerSvids, NoPattern, SpiffeIdPattern};
pub use config::GuardConfig;
pub use drift::{Change, Drift};
pub use event::{Event, EventKind, EventRecord, MAX_DETAIL_BYTES, MAX_EVENTS};
pub use examine::Examined;
pub use guard::Guard;
pub use headers::IncomingCall;
pub use listing::Visible;
pub use message::{AWS_META, CALL_META, LISTING_METHODS};
pub use outside::{Admission, Redeemed, Redeemer, Upstream};
pub use refusal::{Reason, Refusal};
pub use revocation::Revocation;
pub use snapshot::{
    ObservedTools, PromptDocument, ResourceDocument, SNAPSHOT_TYP, SignedSnapshot, Snapshot,
    SnapshotDocument, SnapshotError, ToolDocument,
};
pub use verified::{Verified, VerifiedCall, VerifiedListing, VerifiedResponse, VerifiedStream};
