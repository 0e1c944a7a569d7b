//! A node's session at the broker: it follows the states, renews its SVID, and comes back whenever it is cut off.

use deputize_issuer::clock::{self, Clock};
use deputize_workload_api::node::{AgentSource, wire::State};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::watch;

use super::{Health, IdentityFile, Link, LinkError, NodeProof, Reach, identity::NodeIdentity};

/// What a session goes by.
pub struct SessionSettings {
    /// Where the broker is.
    pub reach: Reach,
    /// By what the node proves itself; none where it was one already, and cannot become one again.
    pub proof: Option<NodeProof>,
    /// Where its SVID is kept.
    pub file: Option<IdentityFile>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is told of it.
    pub health: Arc<Health>,
}

/// A node's session.
pub struct Session {
    settings: SessionSettings,
    identity: NodeIdentity,
    link: Arc<Link>,
    source: Arc<AgentSource>,
    /// Whether a state was ever taken.
    has_state: watch::Sender<bool>,
}

/// Why a stream is left.
enum Left {
    /// It ended, or broke off.
    CutOff,
    /// A new SVID came: the next stream shows it.
    Renewed,
}

impl Session {
    /// Begins: by the SVID that is kept, else by what the node proves itself by. Tries until the broker answers.
    ///
    /// # Errors
    /// If the broker refuses, or there is nothing to prove it by.
    pub async fn begin(settings: SessionSettings) -> Result<Self, LinkError> {
        let identity = match settings.kept()? {
            Some(kept) => kept,
            None => settings.attest_patiently().await?,
        };
        tracing::info!(node = %identity.id, expires_at = identity.not_after_seconds, "this machine is a node");
        let link = Arc::new(Link::new(settings.reach.clone(), &identity)?);
        let broker = Arc::clone(&link) as _;
        let (id, bundle, clock) = (identity.id.clone(), identity.bundle.clone(), Arc::clone(&settings.clock));
        let source = Arc::new(AgentSource::start(id, bundle, broker, clock));
        Ok(Self { settings, identity, link, source, has_state: watch::Sender::new(false) })
    }

    /// Where the socket gets what it gives.
    pub fn source(&self) -> Arc<AgentSource> {
        Arc::clone(&self.source)
    }

    /// The node.
    pub fn node(&self) -> &spiffe::SpiffeId {
        &self.identity.id
    }

    /// Turns true with the first state.
    pub fn has_state(&self) -> watch::Receiver<bool> {
        self.has_state.subscribe()
    }

    /// Goes on until the broker lets this be no node any more, and nothing here can change that.
    pub async fn run(mut self) -> LinkError {
        let (mut backoff, mut attesting) = (Backoff::new(), Backoff::new());
        loop {
            let left = self.follow(&mut backoff).await;
            self.settings.health.connected.store(false, Ordering::Release);
            metrics::gauge!("deputize_agent_connected").set(0.0);
            let error = match left {
                Ok(Left::Renewed) => continue,
                Ok(Left::CutOff) => {
                    tracing::warn!("the broker's stream ended: what is here is served on");
                    None
                }
                Err(error) => Some(error),
            };
            self.link.set_followed(false);
            match error {
                None => {}
                Some(error @ LinkError::NotANode(_)) => match self.attest_anew(error).await {
                    // Where two machines have one proof, each replaces the other: ever more slowly.
                    Ok(()) => {
                        attesting.wait().await;
                        continue;
                    }
                    Err(LinkError::Away(why)) => tracing::warn!(why, "not attested anew yet"),
                    Err(error) => {
                        self.source.withdraw();
                        return error;
                    }
                },
                Some(LinkError::Denied(why)) => {
                    tracing::error!(why, "the broker refuses this node: nobody here gets an identity");
                    self.source.withdraw();
                }
                Some(error @ (LinkError::Away(_) | LinkError::Invalid(_))) => {
                    tracing::warn!(%error, "what is here is served on");
                }
            }
            backoff.wait().await;
        }
    }

    /// One stream, to its end.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<Left, LinkError> {
        if self.is_renewal_due() {
            self.renew().await?;
        }
        let mut lines = self.link.watch().await?;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                line = lines.next() => {
                    let Some(line) = line else { return Ok(Left::CutOff) };
                    backoff.reset();
                    self.settings.health.connected.store(true, Ordering::Release);
                    self.link.set_followed(true);
                    metrics::gauge!("deputize_agent_connected").set(1.0);
                    if let Some(state) = line.state {
                        // First, for what is asked for because of it.
                        let standing = state.standing();
                        let is_tainted = standing.is_ok_and(|it| !it.stands_by(&self.identity.authorities));
                        let renewed = is_tainted && self.renew().await.is_ok();
                        self.take(&state);
                        if renewed {
                            return Ok(Left::Renewed);
                        }
                    }
                }
                _ = tick.tick() => {
                    if self.is_renewal_due() && self.renew().await.is_ok() {
                        return Ok(Left::Renewed);
                    }
                }
            }
        }
    }

    fn take(&self, state: &State) {
        match self.source.take(state) {
            Ok(left_out) => {
                // Each is gone here, whatever it was before: nothing is served by what may hold no longer.
                for why in left_out.iter().take(MAX_TOLD) {
                    tracing::error!(%why, "a member of the broker's state is not understood, and left out");
                }
                let left_out = u64::try_from(left_out.len()).unwrap_or(u64::MAX);
                metrics::counter!("deputize_agent_members_left_out_total").increment(left_out);
                tracing::info!(version = state.version, entries = state.entries.len(), "state taken");
                metrics::counter!("deputize_agent_states_total").increment(1);
                self.has_state.send_replace(true);
            }
            Err(error) => {
                tracing::error!(%error, "the broker's state is not understood: the former one stays")
            }
        }
    }

    /// At half of its life, or at once where what signed it is tainted.
    fn is_renewal_due(&self) -> bool {
        use deputize_workload_api::source::SvidSource as _;
        let is_time = self.settings.clock.now_seconds() >= self.identity.renew_at_seconds;
        is_time || (*self.has_state.borrow() && !self.source.stands_by(&self.identity.authorities))
    }

    async fn renew(&mut self) -> Result<(), LinkError> {
        let renewed = self.link.renew(self.settings.clock.now_seconds()).await;
        match renewed {
            Ok(identity) => self.show(identity),
            Err(LinkError::Away(why)) => {
                // Tried again a little later, for half of its life is left.
                let left = self.identity.not_after_seconds.saturating_sub(self.settings.clock.now_seconds());
                self.identity.renew_at_seconds = self.settings.clock.now_seconds() + (left / 10).clamp(1, 60);
                tracing::warn!(why, "the node's svid is not renewed yet");
                Err(LinkError::Away(why))
            }
            Err(error) => Err(error),
        }
    }

    /// By what it proved itself before, where that is good more than once.
    async fn attest_anew(&mut self, refused: LinkError) -> Result<(), LinkError> {
        let proof = self.settings.proof.as_ref().filter(|proof| proof.is_reusable());
        let Some(proof) = proof else { return Err(refused) };
        tracing::warn!(%refused, "attesting anew");
        let now = self.settings.clock.now_seconds();
        match Link::attest(&self.settings.reach, proof, now).await {
            Ok(identity) if identity.id == self.identity.id => self.show(identity),
            // The socket serves the processes of one node.
            Ok(identity) => {
                Err(LinkError::Denied(format!("this machine is {} now: start again", identity.id)))
            }
            // Banned, most likely: that may be lifted.
            Err(LinkError::Denied(why)) => {
                self.source.withdraw();
                Err(LinkError::Away(why))
            }
            Err(error) => Err(error),
        }
    }

    fn show(&mut self, identity: NodeIdentity) -> Result<(), LinkError> {
        self.settings.keep(&identity);
        self.link.show(&identity)?;
        tracing::info!(expires_at = identity.not_after_seconds, "the node has a new svid");
        self.identity = identity;
        Ok(())
    }
}

impl SessionSettings {
    fn kept(&self) -> Result<Option<NodeIdentity>, LinkError> {
        let Some(file) = &self.file else { return Ok(None) };
        file.read(self.reach.broker.as_str(), self.clock.now_seconds()).map_err(LinkError::Invalid)
    }

    /// That it is not kept is no reason to be no node: it is one until it ends.
    fn keep(&self, identity: &NodeIdentity) {
        let kept = self.file.as_ref().map(|file| file.write(self.reach.broker.as_str(), identity));
        if let Some(Err(error)) = kept {
            tracing::error!(error, "the node's svid is not kept: it will be lost with the process");
        }
    }

    async fn attest_patiently(&self) -> Result<NodeIdentity, LinkError> {
        let nothing = || LinkError::NotANode("there is nothing to prove by what this machine is".to_owned());
        let proof = self.proof.as_ref().ok_or_else(nothing)?;
        if let NodeProof::JoinTokenGone(file) = proof {
            // It was good once at most: what is kept would have done, but there is none that is good.
            return Err(LinkError::Invalid(format!(
                "--join-token-file: {} is not there, and no SVID of this node is kept that is good still",
                file.display()
            )));
        }
        let mut backoff = Backoff::new();
        loop {
            match Link::attest(&self.reach, proof, self.clock.now_seconds()).await {
                Ok(identity) => {
                    self.keep(&identity);
                    return Ok(identity);
                }
                Err(LinkError::Away(why)) => tracing::warn!(why, "not attested yet"),
                Err(error) => return Err(error),
            }
            backoff.wait().await;
        }
    }
}

/// How long to wait before the next attempt.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: FIRST_WAIT }
    }

    fn reset(&mut self) {
        self.next = FIRST_WAIT;
    }

    /// Between half of it and all of it, so that nodes that lost the broker together do not come back together.
    async fn wait(&mut self) {
        let mut bytes = [0; 4];
        // Without randomness they do, which harms nothing.
        let _ = clock::fill_random(&mut bytes);
        let half = self.next / 2;
        let jitter = half.mul_f64(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX));
        tokio::time::sleep(half + jitter).await;
        self.next = (self.next * 2).min(LONGEST_WAIT);
    }
}

/// How many of those that are left out are told one by one.
const MAX_TOLD: usize = 100;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
