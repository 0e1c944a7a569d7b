//! The broker in this process as the source: its desk decides, records and mints.

use async_trait::async_trait;
use deputize_issuer::{
    clock,
    desk::Desk,
    entry::Entry,
    error::IssueError,
    record::{RefusedSvid, record_svid_denial},
    svid::{Bundles, JwtAsk, JwtSvid, SpiffeDoor, SvidKey, X509Ask, X509Svid, jwt_svid, x509_svid},
    workload::Workload,
};
use std::sync::Arc;
use tokio::{sync::watch, task::AbortHandle};
use uuid::Uuid;

use super::{SourceError, SvidSource};
use crate::{
    exchange::{Asking, NotExchanged, exchange_at},
    proto::exchange::{ExchangeRequest, ExchangeResponse},
};

/// The desk of the broker in this process.
#[derive(Debug)]
pub struct DeskSource {
    desk: Arc<Desk>,
    door: Arc<SpiffeDoor>,
    changes: Arc<watch::Sender<u64>>,
    follower: AbortHandle,
}

impl DeskSource {
    /// Of a desk that has the door to SVIDs; of another there is none. Follows its changes from now on, on the runtime
    /// that this is called on.
    pub fn start(desk: Arc<Desk>) -> Option<Self> {
        let door = Arc::clone(desk.spiffe.as_ref()?);
        let changes = Arc::new(watch::Sender::new(0));
        // Followed before anything else runs: no change is missed.
        let followed = (door.entries.changes(), door.authorities.changes(), door.foreign.changes());
        let follower = tokio::spawn(follow(followed, Arc::clone(&changes))).abort_handle();
        Some(Self { desk, door, changes, follower })
    }
}

#[async_trait]
impl SvidSource for DeskSource {
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn entitled(&self, workload: &Workload) -> Vec<Arc<Entry>> {
        self.door.entries.now().entitled(workload, self.desk.clock.now_seconds())
    }

    fn denied(&self, workload: &Workload) -> Option<Uuid> {
        // Without randomness there is no id, and nothing is minted either.
        let decision_id = clock::new_id(self.desk.clock.as_ref()).ok()?;
        let refused = RefusedSvid { kind: None, workload, entry: None, audiences: &[] };
        let error = IssueError::NotEntitled("no_entry");
        // An id that nothing stands under on record would send whoever looks for it nowhere.
        record_svid_denial(&self.desk, decision_id, &refused, &error).then_some(decision_id)
    }

    async fn x509_svid(&self, workload: &Workload, entry: &Entry) -> Result<X509Svid, SourceError> {
        let ask = X509Ask { workload, entry: &entry.id, key: SvidKey::Mint };
        x509_svid(&self.desk, &ask).await.map_err(source_error)
    }

    async fn jwt_svid(
        &self,
        workload: &Workload,
        entry: &Entry,
        audiences: &[String],
    ) -> Result<JwtSvid, SourceError> {
        let ask = JwtAsk { workload, entry: &entry.id, audiences };
        let mut made = jwt_svid(&self.desk, &ask).await;
        // Another key signs by now: a new decision is by that.
        if made.as_ref().is_err_and(|error| *error == AUTHORITY_WITHDRAWN) {
            made = jwt_svid(&self.desk, &ask).await;
        }
        made.map_err(source_error)
    }

    async fn exchange(
        &self,
        workload: &Workload,
        entry: &Entry,
        request: &ExchangeRequest,
    ) -> Result<ExchangeResponse, NotExchanged> {
        exchange_at((&self.desk, &self.door), Asking { workload, entry: &entry.id, message: request }).await
    }

    fn bundles(&self) -> Arc<Bundles> {
        Arc::new(self.door.bundles())
    }

    fn stands_by(&self, authorities: &[[u8; 32]]) -> bool {
        self.door.authorities.ring().stands_by(authorities)
    }
}

impl Drop for DeskSource {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

type Counted = watch::Receiver<u64>;

/// Passes every change on, whatever it is of.
async fn follow(
    (mut entries, mut authorities, mut foreign): (Counted, Counted, Counted),
    changes: Arc<watch::Sender<u64>>,
) {
    loop {
        let changed = tokio::select! {
            changed = entries.changed() => changed,
            changed = authorities.changed() => changed,
            changed = foreign.changed() => changed,
        };
        if changed.is_err() {
            // Who would change them is gone.
            break;
        }
        changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The key was taken away between decision and signature.
const AUTHORITY_WITHDRAWN: IssueError = IssueError::UpstreamUnavailable("authority_withdrawn");

fn source_error(error: IssueError) -> SourceError {
    match error {
        IssueError::NotEntitled(_) | IssueError::Denied(_) => SourceError::NotEntitled,
        IssueError::Request(reason) => SourceError::Invalid(reason),
        IssueError::RecordUnavailable(reason)
        | IssueError::Uncertain(reason)
        | IssueError::UpstreamUnavailable(reason)
        | IssueError::Internal(reason) => SourceError::Unavailable(reason),
        IssueError::RateLimited { .. } => SourceError::Unavailable("rate_limited"),
        // Other doors' refusals; none of them is a leave to go on.
        IssueError::GrantType
        | IssueError::SubjectToken { .. }
        | IssueError::ClientAuthentication(_)
        | IssueError::Proof(_)
        | IssueError::NonceNeeded { .. }
        | IssueError::Target(_)
        | IssueError::Scope(_)
        | IssueError::AuthorizationDetails { .. }
        | IssueError::UserAuthentication { .. }
        | IssueError::LevelTooLow { .. }
        | IssueError::NoSession { .. }
        | IssueError::Sts(_) => SourceError::Unavailable("another_doors_refusal"),
    }
}

#[cfg(test)]
mod tests;
