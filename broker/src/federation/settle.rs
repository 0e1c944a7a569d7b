//! What was decided of foreign bundles, put on record; only then it holds as a whole, and is kept for the next start.

use deputize_issuer::{log::Class, record::bundle_entry};
use std::{sync::Arc, time::Duration};

use super::{
    Federation, Kept, lock,
    member::{Member, NotTaken},
};

impl Federation {
    /// Puts on record what is decided and not yet there. What cannot be recorded now is tried again while the bundles are
    /// [followed](Self::follow), and until then nothing more is trusted than before.
    pub async fn settle(&self) {
        let _turn = self.turn.lock().await;
        self.settle_in_turn().await;
    }

    /// As [`Self::settle`], by whoever has the turn.
    pub(super) async fn settle_in_turn(&self) {
        self.settle_forgotten().await;
        for member in self.members() {
            if let Err(error) = self.settle_one(&member).await {
                let trust_domain = member.trust_domain();
                tracing::error!(%trust_domain, %error, "change of a foreign bundle not recorded, it does not hold");
                member.note(Some(error), self.outside.clock.now_seconds());
            }
        }
    }

    /// Tries again and again.
    pub(super) async fn keep_settled(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RECORD_AGAIN).await;
            let is_unsettled = self.members().iter().any(|member| member.unsettled().is_some());
            if !is_unsettled && lock(&self.forgotten).is_empty() {
                continue;
            }
            // A task of its own: a reload does not break off what is being put on record.
            let federation = Arc::clone(&self);
            if tokio::spawn(async move { federation.settle().await }).await.is_err() {
                tracing::error!("recording foreign bundles panicked");
            }
        }
    }

    /// Puts on record, and on disk, what is decided of one trust domain.
    pub(super) async fn settle_one(&self, member: &Member) -> Result<(), NotTaken> {
        let Some(kept) = member.unsettled() else { return Ok(()) };
        self.record(&kept, true).await?;
        member.settled();
        member.measure();
        self.publish();
        let trust_domain = member.trust_domain();
        tracing::info!(%trust_domain, sequence = kept.bundle.sequence, "foreign bundle changed");
        if let Err(error) = self.outside.keep.keep(&kept) {
            tracing::error!(%trust_domain, %error, "foreign bundle not kept for the next start");
        }
        Ok(())
    }

    async fn settle_forgotten(&self) {
        let mut next = lock(&self.forgotten).first().cloned();
        while let Some(kept) = next {
            let trust_domain = &kept.bundle.trust_domain;
            if let Err(error) = self.record(&kept, false).await {
                tracing::error!(%trust_domain, %error, "end of a foreign bundle not recorded");
                return;
            }
            // Whoever was configured again meanwhile has a newer one to be kept.
            let is_back = self.members().iter().any(|member| member.trust_domain() == trust_domain);
            if !is_back && let Err(error) = self.outside.keep.forget(trust_domain) {
                tracing::error!(%trust_domain, %error, "bundle of a trust domain that is no longer federated not deleted");
            }
            let mut forgotten = lock(&self.forgotten);
            forgotten.remove(0);
            next = forgotten.first().cloned();
        }
    }

    async fn record(&self, kept: &Kept, is_taken: bool) -> Result<(), NotTaken> {
        let entry = bundle_entry(&kept.bundle, kept.origin.name(), is_taken, self.outside.clock.now_ms());
        let bytes = entry.to_bytes().map_err(|_| NotTaken::Unrecorded)?;
        self.outside.audit.append(Class::Vital, bytes).await.map(drop).map_err(|_| NotTaken::Unrecorded)
    }
}

/// Between two tries to put on record what could not be.
const RECORD_AGAIN: Duration = Duration::from_secs(5);
