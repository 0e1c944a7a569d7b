//! What is true of a process: stage *authenticate* of this door.
//!
//! Everything is read from the kernel, never from the process, and is believed only if the process was still there
//! after the last reading. What cannot be told is left out: a selector that is absent entitles to nothing.

mod allowance;
mod cgroup;
mod examine;
mod executable;
mod gate;
mod names;
mod namespaces;
mod overflow;
mod pod;
mod selectors;
pub(crate) mod status;

pub use pod::{MAX_POD_LABELS, Pod, PodAnswer, PodContainer, PodData};

use crate::peer::{NotAttested, Peer};
use deputize_issuer::{
    clock::{Clock, SystemClock},
    workload::Workload,
};
use examine::{Folder, Seen};
use executable::{Content, Digests};
use gate::{Gate, Pass};
use names::{Names, SystemDirectory};
use overflow::Overflow;
use selectors::Selectors;
use spiffe::SpiffeId;
use std::{sync::Arc, time::Duration};

/// Looks at processes of one node.
pub struct Attestor {
    node: SpiffeId,
    overflow: Overflow,
    digests: Arc<Digests>,
    names: Names,
    pods: Option<Arc<dyn PodData>>,
    gate: Gate,
    readers: Gate,
}

/// How processes are looked at.
#[derive(Clone)]
pub struct AttestSettings {
    /// Programs up to this size, in bytes, get `unix:sha256:`.
    pub max_executable_bytes: u64,
    /// What knows the pods of this node, if there are any.
    pub pods: Option<Arc<dyn PodData>>,
    /// Tells how old a program is.
    pub clock: Arc<dyn Clock>,
}

impl Default for AttestSettings {
    fn default() -> Self {
        Self {
            max_executable_bytes: DEFAULT_MAX_EXECUTABLE_BYTES,
            pods: None,
            clock: Arc::new(SystemClock::start()),
        }
    }
}

impl Attestor {
    /// Looks at processes of this node.
    pub fn new(node: SpiffeId, settings: AttestSettings) -> Self {
        Self {
            node,
            overflow: Overflow::ours(),
            digests: Arc::new(Digests::new(settings.max_executable_bytes, settings.clock)),
            names: Names::of(Box::new(SystemDirectory)),
            pods: settings.pods,
            gate: Gate::new(MOST_LOOKED_AT, MOST_LOOKED_AT_OF_ONE_USER),
            readers: Gate::new(MOST_READERS, 1),
        }
    }

    /// Says what is true of a process now. To be asked anew before whatever it is given: it may have become another
    /// program since.
    ///
    /// # Errors
    /// [`NotAttested`]; it never takes more than some seconds. [`NotAttested::Unavailable`] for a process in a container
    /// while nobody can say of which pod that is.
    pub async fn attest(&self, peer: &Peer) -> Result<Workload, NotAttested> {
        let (workload, unasked) = self.look_at(peer).await?;
        unasked.map_or(Ok(workload), Err)
    }

    /// Says what is true of a process as far as that can be told: to explain it, never to give it anything.
    ///
    /// # Errors
    /// [`NotAttested`].
    pub async fn explain(&self, peer: &Peer) -> Result<Workload, NotAttested> {
        self.look_at(peer).await.map(|(workload, _)| workload)
    }

    /// What is true of a process, and why its pod is not, where that cannot be asked.
    async fn look_at(&self, peer: &Peer) -> Result<(Workload, Option<NotAttested>), NotAttested> {
        let seen = tokio::time::timeout(PATIENCE, self.examine(peer))
            .await
            .map_err(|_| NotAttested::Unavailable("looking at the process takes too long"))??;
        let credentials = &seen.credentials;
        // A program that changes its user by being executed (set-user-ID) is not what connected; nor is what writes to
        // its output read by that user alone.
        if (credentials.effective_uid, credentials.effective_gid) != (peer.uid(), peer.gid()) {
            return Err(OTHER_USER);
        }
        let mut selectors = Selectors::default();
        // What a container's users are called, its image says, and not this machine's directory.
        let names = Some(&self.names).filter(|_| !seen.is_contained);
        selectors.users_and_groups(credentials, self.overflow, names).await;
        selectors.program(&seen);
        selectors.placement(&seen.placement);
        let mut unasked = None;
        if let (Some(pods), Some(container)) = (&self.pods, &seen.placement.container) {
            match pod::look_up(pods.as_ref(), container).await {
                Ok(found) => selectors.pod(found),
                Err(why) => unasked = Some(why),
            }
        }
        if peer.is_gone() {
            return Err(NotAttested::Gone);
        }
        let workload = Workload::attested(self.node.clone(), selectors.into_set());
        Ok((if seen.is_contained { workload.contained() } else { workload }, unasked))
    }

    /// Why nothing is known of pods at present, if so.
    pub fn lacks_pods(&self) -> Option<String> {
        match &self.pods {
            Some(pods) => pods.trouble(),
            None => Some("no kubelet is asked here".to_owned()),
        }
    }

    async fn examine(&self, peer: &Peer) -> Result<Seen, NotAttested> {
        let seen = self.look(peer, None).await?;
        if seen.content != Some(Content::Unread) {
            return Ok(seen);
        }
        // To read a program takes long: nobody who waits for that is in the way of others.
        let turn = self.readers.enter(peer.uid()).await.ok_or(STOPPING)?;
        self.look(peer, Some(turn)).await
    }

    async fn look(&self, peer: &Peer, turn: Option<Pass>) -> Result<Seen, NotAttested> {
        let reader = turn.as_ref().map(|_| peer.uid());
        let pass = self.gate.enter(peer.uid()).await.ok_or(STOPPING)?;
        let folder = Folder::of(peer)?;
        let digests = Arc::clone(&self.digests);
        let looking = tokio::task::spawn_blocking(move || {
            let seen = folder.examine(&digests, reader);
            drop((pass, turn));
            seen
        });
        looking.await.map_err(|_| STOPPING)?
    }
}

const DEFAULT_MAX_EXECUTABLE_BYTES: u64 = 512 * 1024 * 1024;
/// Longer than it takes to read the largest program from a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_LOOKED_AT: usize = 32;
const MOST_LOOKED_AT_OF_ONE_USER: usize = 4;
/// At one time, each for another user.
const MOST_READERS: usize = 4;
const STOPPING: NotAttested = NotAttested::Unavailable("the program is stopping");
const OTHER_USER: NotAttested =
    NotAttested::Changed("the process has another user or group than when it connected: connect again");

#[cfg(test)]
mod tests;
