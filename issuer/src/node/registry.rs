//! Which nodes there are, and which may not be any: answered from memory, kept by a store.

mod bans;
mod orders;

pub use orders::{NewToken, NotDone};

use spiffe::{SpiffeId, TrustDomain};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::{Mutex, watch};

use super::{
    Admitted, Attestation, Attested, AttestedNode, Cluster, JoinTokenDigest, MachineAuthority, NodeRecord,
    NodeStore, NodeSvid, NodesNotStored, TokenUse, leaf::NodeLeaf, told,
};
use crate::error::IssueError;
use bans::{banned_at, bans_of, bans_of_known};

/// What holds of nodes for as long as the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Ours.
    pub trust_domain: TrustDomain,
    /// The node that the broker serves itself: nobody else becomes it.
    pub own_node: SpiffeId,
    /// How long the SVIDs of nodes live, in seconds.
    pub svid_ttl_seconds: u64,
    /// Whether join tokens are made and taken.
    pub join_tokens: bool,
}

/// Who else vouches for nodes.
#[derive(Default)]
pub struct Vouchers {
    /// Certificates of machines.
    pub machines: Option<Arc<dyn MachineAuthority>>,
    /// Clusters of Kubernetes.
    pub clusters: Vec<Cluster>,
}

/// The nodes.
pub struct NodeRegistry {
    settings: NodeSettings,
    vouchers: Vouchers,
    store: Box<dyn NodeStore>,
    known: RwLock<BTreeMap<String, NodeRecord>>,
    changes: watch::Sender<u64>,
    /// Held by whoever changes what is known and stored. A ban is known before it has its turn.
    turn: Mutex<()>,
}

impl NodeRegistry {
    /// What the store knows.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(
        settings: NodeSettings,
        vouchers: Vouchers,
        store: Box<dyn NodeStore>,
    ) -> Result<Self, NodesNotStored> {
        let mut known: BTreeMap<_, _> =
            store.all()?.into_iter().map(|node| (node.id.clone(), node)).collect();
        let banned = known.values().filter_map(|node: &NodeRecord| Some((node.id.clone(), node.banned_at?)));
        for (id, since) in banned.collect::<Vec<_>>() {
            bans::mark(&mut known, &id, since);
        }
        let (changes, turn) = (watch::Sender::new(0), Mutex::new(()));
        Ok(Self { settings, vouchers, store, known: RwLock::new(known), changes, turn })
    }

    /// Turns when a node is banned, evicted or admitted anew. What it counts means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All nodes, in the order of their IDs. Banned is each that a ban holds for, whether of its ID or of what it is by.
    pub fn all(&self) -> Vec<NodeRecord> {
        self.read(|known| known.values().map(|node| as_it_holds(known, node)).collect())
    }

    /// One, as [`Self::all`] has it.
    pub fn find(&self, id: &SpiffeId) -> Option<NodeRecord> {
        self.read(|known| known.get(&id.to_string()).map(|node| as_it_holds(known, node)))
    }

    /// What holds of nodes.
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// Whether this node is one at this moment, by the SVID that it proved itself by.
    ///
    /// # Errors
    /// [`IssueError::NotEntitled`] where it is banned; [`IssueError::ClientAuthentication`] where it was evicted, or has
    /// attested itself anew.
    pub fn stands(&self, node: &AttestedNode) -> Result<(), IssueError> {
        if self.standing(node.id())?.goes_on_with(node.leaf()) { Ok(()) } else { Err(SUPERSEDED) }
    }

    /// Whether this node is one at this moment, by the attestation that the SVID rests on which it proved itself by: that it
    /// renewed meanwhile ends nothing that is under way.
    ///
    /// # Errors
    /// As [`Self::stands`].
    pub(super) fn still_is(&self, node: &AttestedNode) -> Result<(), IssueError> {
        if self.standing(node.id())?.first.as_deref() == node.first() { Ok(()) } else { Err(SUPERSEDED) }
    }

    /// By which attestation the node of this SVID is one: the serial number of its first. What an older broker kept without
    /// a key gets this one, where what signed the SVID `is_trusted`: else its key may be that of whoever stole the
    /// authority's.
    pub(super) fn recognize(
        &self,
        id: &SpiffeId,
        leaf: &NodeLeaf,
        is_trusted: bool,
    ) -> Result<Option<String>, IssueError> {
        let name = id.to_string();
        let lacks = |known: &NodeRecord| known.attested.as_ref().is_some_and(|it| it.lacks_key_of(leaf));
        if self.read(|known| known.get(&name).is_some_and(lacks)) {
            if !is_trusted {
                return Err(SUPERSEDED);
            }
            self.change_quietly(|known| {
                if let Some(attested) = known.get_mut(&name).and_then(|known| known.attested.as_mut()) {
                    attested.learn_key_of(leaf);
                }
            });
        }
        let attested = self.standing(id)?;
        if attested.goes_on_with(leaf) { Ok(attested.first) } else { Err(SUPERSEDED) }
    }

    fn standing(&self, id: &SpiffeId) -> Result<Attested, IssueError> {
        let unknown = IssueError::ClientAuthentication("node_unknown");
        let known = self.find(id);
        // What is not known may be banned all the same, by the name that it has in its cluster.
        let is_banned = known.as_ref().map_or_else(|| self.is_banned(id, None), |it| it.banned_at.is_some());
        if is_banned {
            return Err(IssueError::NotEntitled("node_banned"));
        }
        known.and_then(|known| known.attested).ok_or(unknown)
    }

    /// Whether a node of this ID, which attested itself so, may get an SVID.
    pub(crate) fn may_be(&self, id: &SpiffeId, attestation: &Attestation) -> Result<(), IssueError> {
        if *id == self.settings.own_node
            || id.trust_domain() != &self.settings.trust_domain
            || !told::is_node(id)
        {
            return Err(IssueError::NotEntitled("id_not_a_nodes"));
        }
        if self.is_banned(id, Some(attestation)) {
            return Err(IssueError::NotEntitled("node_banned"));
        }
        Ok(())
    }

    fn is_banned(&self, id: &SpiffeId, attestation: Option<&Attestation>) -> bool {
        let bans = bans_of(&id.to_string(), attestation);
        self.read(|known| banned_at(known, &bans)).is_some()
    }

    pub(super) fn vouchers(&self) -> &Vouchers {
        &self.vouchers
    }

    pub(super) fn id(&self, segments: &[&str]) -> Result<SpiffeId, IssueError> {
        told::node_id(&self.settings.trust_domain, segments)
            .map_err(|_| IssueError::ClientAuthentication("node_cannot_be_named"))
    }

    /// How a node attested itself that is one by this SVID.
    pub(super) fn attestation_of(&self, node: &AttestedNode) -> Result<Attestation, IssueError> {
        self.stands(node)?;
        let attested = self.find(node.id()).and_then(|known| known.attested);
        attested.map(|attested| attested.attestation).ok_or(IssueError::ClientAuthentication("node_unknown"))
    }

    /// Whether nodes that attested themselves so are still nodes here, and this one by what it showed.
    pub(super) fn takes(&self, attestation: &Attestation, now_seconds: u64) -> Result<(), IssueError> {
        let refuse = IssueError::ClientAuthentication;
        if attestation.ends().is_some_and(|end| end <= now_seconds) {
            return Err(refuse("machine_certificate_expired"));
        }
        let is_configured = match attestation {
            Attestation::JoinToken { .. } => self.settings.join_tokens,
            Attestation::X509pop { .. } => self.vouchers.machines.is_some(),
            Attestation::Kubernetes { cluster, service_account, .. } => {
                let cluster = self.vouchers.cluster(Some(cluster));
                cluster.is_ok_and(|cluster| cluster.service_accounts.contains(service_account))
            }
        };
        if is_configured { Ok(()) } else { Err(refuse("attestation_not_configured")) }
    }

    /// A node proved itself by this SVID. If it is the newest, the node has it: the one before is over, and whoever
    /// else has its key is nobody. After a restart that is so again with the next proof.
    pub(super) fn proved_by(&self, node: &AttestedNode) {
        let id = node.id().to_string();
        let is_newest = |known: &NodeRecord| {
            known.attested.as_ref().is_some_and(|it| it.serial == node.serial() && it.previous.is_some())
        };
        if self.read(|known| known.get(&id).is_some_and(is_newest)) {
            self.change_quietly(|known| {
                if let Some(found) = known.get_mut(&id).filter(|found| is_newest(found))
                    && let Some(attested) = &mut found.attested
                {
                    (attested.previous, attested.previous_key) = (None, None);
                }
            });
        }
    }

    /// Uses a join token up.
    pub(super) async fn use_token(
        &self,
        text: &str,
        now_seconds: u64,
    ) -> Result<(SpiffeId, Attestation), IssueError> {
        let refuse = IssueError::ClientAuthentication;
        if !self.settings.join_tokens {
            return Err(refuse("join_tokens_not_configured"));
        }
        let digest = JoinTokenDigest::of(text)?;
        let used = self.store.use_token(digest, now_seconds).await;
        // Not known to be used up: it may come back with a restart.
        match used.map_err(|_| IssueError::Uncertain("node_store"))? {
            TokenUse::Spent(node) => {
                let id = told::named_node(&self.settings.trust_domain, &node);
                let id = id.map_err(|_| refuse("join_token_of_no_node"))?;
                Ok((id, Attestation::JoinToken { token: digest.name() }))
            }
            TokenUse::Expired => Err(refuse("join_token_expired")),
            TokenUse::Unknown => Err(refuse("join_token_unknown")),
        }
    }

    /// A node attested itself: whatever SVIDs it had are over.
    pub(super) async fn admit(
        &self,
        admitted: &Admitted,
        svid: &NodeSvid,
        now_seconds: u64,
    ) -> Result<(), IssueError> {
        let _turn = self.turn.lock().await;
        // Banned while its SVID was made.
        self.may_be(&admitted.id, &admitted.attestation)?;
        let leaf = leaf_of(svid)?;
        let attested = Attested {
            attestation: admitted.attestation.clone(),
            at: now_seconds,
            first: Some(leaf.serial.clone()),
            serial: leaf.serial,
            key: Some(leaf.key),
            previous: None,
            previous_key: None,
            not_after: svid.not_after_seconds,
        };
        self.make_room(&admitted.id, now_seconds).await?;
        self.keep(NodeRecord { id: admitted.id.to_string(), attested: Some(attested), banned_at: None })
            .await?;
        self.tell();
        // Banned while that was stored.
        self.may_be(&admitted.id, &admitted.attestation)
    }

    /// A node got its next SVID. The one by which it asked holds until it asks by another, lest an answer that is lost
    /// loses the node.
    pub(super) async fn renewed(&self, node: &AttestedNode, svid: &NodeSvid) -> Result<(), IssueError> {
        let _turn = self.turn.lock().await;
        // Banned, evicted or replaced meanwhile.
        self.stands(node)?;
        let mut known = self.find(node.id()).ok_or(IssueError::ClientAuthentication("node_unknown"))?;
        if let Some(attested) = &mut known.attested {
            let (next, former) = (leaf_of(svid)?, node.leaf().clone());
            (attested.previous, attested.previous_key) = (Some(former.serial), Some(former.key));
            (attested.serial, attested.key) = (next.serial, Some(next.key));
            attested.not_after = svid.not_after_seconds;
        }
        self.keep(known).await?;
        // Banned while that was stored.
        self.attestation_of(node).and_then(|attestation| self.may_be(node.id(), &attestation))
    }

    async fn keep(&self, node: NodeRecord) -> Result<(), IssueError> {
        // Durable first: a node that is one now is one after a restart too.
        self.store.put(node.clone()).await.map_err(|_| IssueError::RecordUnavailable("node_not_stored"))?;
        self.change_quietly(|known| {
            // A ban waits for nobody's turn.
            let banned_at = known.get(&node.id).and_then(|known| known.banned_at);
            known.insert(node.id.clone(), NodeRecord { banned_at, ..node });
        });
        Ok(())
    }

    /// Forgets nodes whose SVIDs have long ended, where there are many, and this one is new.
    async fn make_room(&self, id: &SpiffeId, now_seconds: u64) -> Result<(), IssueError> {
        if self.find(id).is_some() || self.read(BTreeMap::len) < MANY_NODES {
            return Ok(());
        }
        let is_gone = |node: &&NodeRecord| {
            let ended =
                node.attested.as_ref().is_none_or(|it| it.not_after + LONG_GONE_SECONDS < now_seconds);
            ended && node.banned_at.is_none()
        };
        let gone: Vec<String> =
            self.read(|known| known.values().filter(is_gone).map(|node| node.id.clone()).collect());
        for id in gone {
            self.store.forget(&id).await.map_err(|_| IssueError::RecordUnavailable("node_not_stored"))?;
            self.change(|known| drop_unless_banned(known, &id));
        }
        if self.read(BTreeMap::len) < MANY_NODES {
            Ok(())
        } else {
            Err(IssueError::Uncertain("too_many_nodes"))
        }
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, NodeRecord>) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// For what ends streams, or may: everybody who follows looks again.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, NodeRecord>) -> T) -> T {
        let changed = self.change_quietly(change);
        self.tell();
        changed
    }

    fn change_quietly<T>(&self, change: impl FnOnce(&mut BTreeMap<String, NodeRecord>) -> T) -> T {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn leaf_of(svid: &NodeSvid) -> Result<NodeLeaf, IssueError> {
    let leaf = svid.chain.first().and_then(|leaf| NodeLeaf::read(leaf));
    leaf.ok_or(IssueError::Internal("node_svid_unreadable"))
}

fn as_it_holds(known: &BTreeMap<String, NodeRecord>, node: &NodeRecord) -> NodeRecord {
    NodeRecord { banned_at: banned_at(known, &bans_of_known(node)), ..node.clone() }
}

fn drop_unless_banned(known: &mut BTreeMap<String, NodeRecord>, id: &str) {
    if known.get(id).is_some_and(|node| node.banned_at.is_none()) {
        known.remove(id);
    }
}

impl std::fmt::Debug for NodeRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeRegistry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

const SUPERSEDED: IssueError = IssueError::ClientAuthentication("node_svid_superseded");
const MANY_NODES: usize = 50_000;
/// A node that was away for so long attests itself anew.
const LONG_GONE_SECONDS: u64 = 7 * 86_400;
