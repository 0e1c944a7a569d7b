//! Where the door gets what it gives: from the broker in this process, or from the one that a node's agent speaks to.

mod desk;

pub use desk::DeskSource;

use async_trait::async_trait;
use deputize_issuer::{
    entry::Entry,
    svid::{Bundles, JwtSvid, X509Svid},
    workload::Workload,
};
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    exchange::NotExchanged,
    proto::exchange::{ExchangeRequest, ExchangeResponse},
};

/// Knows the entries of this node and has SVIDs made for them. Each question is decided and recorded by the broker:
/// nothing is signed here.
#[async_trait]
pub trait SvidSource: Send + Sync + 'static {
    /// Turns with every change of entries, authorities or bundles. What it counts means nothing.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The entries that a process is entitled to now, in an order that does not change by itself.
    fn entitled(&self, workload: &Workload) -> Vec<Arc<Entry>>;

    /// Puts on record that a process asked and is entitled to nothing; under which id `explain` tells more, where that is
    /// known here.
    fn denied(&self, workload: &Workload) -> Option<Uuid>;

    /// An X.509-SVID with a key of its own.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn x509_svid(&self, workload: &Workload, entry: &Entry) -> Result<X509Svid, SourceError>;

    /// A JWT-SVID for these audiences.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn jwt_svid(
        &self,
        workload: &Workload,
        entry: &Entry,
        audiences: &[String],
    ) -> Result<JwtSvid, SourceError>;

    /// A tool-call token for a user's token that the process brings, by this entry of its.
    ///
    /// # Errors
    /// [`NotExchanged`].
    async fn exchange(
        &self,
        workload: &Workload,
        entry: &Entry,
        request: &ExchangeRequest,
    ) -> Result<ExchangeResponse, NotExchanged>;

    /// Our bundle and the federated ones.
    fn bundles(&self) -> Arc<Bundles>;

    /// Whether what these authorities signed goes on to be used: else an SVID of theirs is replaced at once, because one
    /// is tainted, or gone from the bundle. Named as in [`X509Svid::authorities`].
    fn stands_by(&self, authorities: &[[u8; 32]]) -> bool;
}

/// Why there is no SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No entry entitles to it, or no longer.
    #[error("not entitled")]
    NotEntitled,
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(&'static str),
    /// Not now: the record is not durable, the broker is away.
    #[error("{0}")]
    Unavailable(&'static str),
}
