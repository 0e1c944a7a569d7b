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
        let trust_domain = member.trust_domain();
        self.note(member);
        // The record tells first of the relationship that ended, then of the one that began anew.
        let is_forgotten =
            || lock(&self.forgotten).iter().any(|kept| kept.bundle.trust_domain == *trust_domain);
        if is_forgotten() {
            self.settle_forgotten().await;
        }
        if is_forgotten() {
            return Err(NotTaken::Unrecorded);
        }
        self.record(&kept, true).await?;
        member.settled();
        member.measure();
        self.publish();
        tracing::info!(%trust_domain, sequence = kept.bundle.sequence, "foreign bundle changed");
        if let Err(error) = self.outside.keep.keep(&kept) {
            tracing::error!(%trust_domain, %error, "foreign bundle not kept for the next start");
        }
        Ok(())
    }

    /// Puts on disk what is decided, before there is a record of it: the only way to mend a log that has failed is a start,
    /// and what was withdrawn is not to come back with that.
    fn note(&self, member: &Member) {
        let Some(decided) = member.unnoted() else { return };
        match self.outside.keep.note(&decided) {
            Ok(()) => member.noted(),
            Err(error) => {
                let trust_domain = member.trust_domain();
                tracing::error!(%trust_domain, %error, "change of a foreign bundle not kept before its record");
            }
        }
    }

    async fn settle_forgotten(&self) {
        let mut next = lock(&self.forgotten).first().cloned();
        while let Some(kept) = next {
            let trust_domain = &kept.bundle.trust_domain;
            if let Err(error) = self.record(&kept, false).await {
                tracing::error!(%trust_domain, %error, "end of a foreign bundle not recorded");
                return;
            }
            // Whoever was configured again meanwhile has nothing on disk yet: this is on record before that is.
            if let Err(error) = self.outside.keep.forget(trust_domain) {
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
