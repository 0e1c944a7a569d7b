//! What administrators order of nodes. Each order is on record, and durable, when it returns as carried out.

use spiffe::SpiffeId;
use uuid::Uuid;

use super::{NodeRegistry, bans, drop_unless_banned};
use crate::{
    desk::Desk,
    node::{JoinToken, KeptToken, NodeRecord, told},
    record::{NodeChange, record_node_change},
};

/// A join token that was just made.
#[derive(Debug)]
pub struct NewToken {
    /// It.
    pub token: JoinToken,
    /// The node that it makes.
    pub node: SpiffeId,
    /// When it ends, in Unix seconds.
    pub expires_at_seconds: u64,
}

/// Why an order of an administrator about nodes is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// It makes no sense.
    #[error("{0}")]
    Bad(&'static str),
    /// There is no such node.
    #[error("there is no node {0}")]
    Unknown(String),
    /// Something is in the way.
    #[error("{0}")]
    InTheWay(String),
    /// It could not be made durable, or not be put on record.
    #[error("the change could not be stored or recorded: try again")]
    Unavailable,
}

impl NodeRegistry {
    /// Makes a join token for a node of this name.
    ///
    /// # Errors
    /// [`NotDone`].
    pub async fn new_token(
        &self,
        desk: &Desk,
        decision_id: Uuid,
        (name, ttl_seconds): (&str, u64),
    ) -> Result<NewToken, NotDone> {
        if !self.settings.join_tokens {
            return Err(NotDone::Bad(
                "this broker takes no join tokens: set spiffe.nodes.join_tokens to true",
            ));
        }
        if !(TOKEN_TTL_SECONDS.0..=TOKEN_TTL_SECONDS.1).contains(&ttl_seconds) {
            return Err(NotDone::Bad("a join token lives one second to 7 days"));
        }
        let node = self.node_to_be(name)?;
        let token = JoinToken::generate().map_err(|_| NotDone::Unavailable)?;
        let now = desk.clock.now_seconds();
        let expires_at_seconds = now + ttl_seconds;
        let _turn = self.turn.lock().await;
        if self.find(&node).is_some_and(|known| known.banned_at.is_some()) {
            return Err(NotDone::InTheWay(format!("{node} is banned: `deputize node ban --lift` first")));
        }
        let change =
            NodeChange { what: "token_created", node: &node, until_seconds: Some(expires_at_seconds) };
        // On record before it is good for anything: it widens.
        record_node_change(desk, decision_id, &change).await.map_err(|_| NotDone::Unavailable)?;
        let kept = KeptToken { digest: token.digest(), node: node.to_string(), expires_at_seconds };
        if !self.store.keep_token(kept, now).await.map_err(|_| NotDone::Unavailable)? {
            return Err(NotDone::InTheWay("too many join tokens wait to be used".to_owned()));
        }
        Ok(NewToken { token, node, expires_at_seconds })
    }

    /// A node that a join token may be for: other ways of attesting have IDs of their own.
    fn node_to_be(&self, name: &str) -> Result<SpiffeId, NotDone> {
        let node = told::named_node(&self.settings.trust_domain, name).map_err(NotDone::Bad)?;
        let name = node.path().strip_prefix(told::NODE_ID_PREFIX).unwrap_or_default();
        if name.contains('/') || RESERVED_NAMES.contains(&name) || name.len() > MAX_NAME_BYTES {
            return Err(NotDone::Bad(
                "a node's name is one path segment of at most 128 bytes, and neither x509pop nor kubernetes",
            ));
        }
        if node == self.settings.own_node {
            return Err(NotDone::Bad("that is the node that the broker serves itself: choose another name"));
        }
        Ok(node)
    }

    /// Keeps a node from being one, until that is lifted: its streams end, and its requests are refused. It holds for
    /// every UID of that node's name in its cluster, and for every certificate of its machine's public key, as far as
    /// that was seen.
    ///
    /// # Errors
    /// [`NotDone`]; an ID that nothing makes a node's is refused, unless it was one.
    pub async fn ban(&self, desk: &Desk, decision_id: Uuid, name: &str) -> Result<NodeRecord, NotDone> {
        let id = self.meant(name)?;
        self.check_that_somebody_can_be(&id, name)?;
        let mark = || self.change(|known| bans::mark(known, &id.to_string(), desk.clock.now_seconds()));
        // It narrows: first of all it must hold, whatever others are waiting for the disk with.
        mark();
        let _turn = self.turn.lock().await;
        let marked = mark();
        // Each of them, whatever becomes of the others.
        let mut stored = self.store.forget_tokens_of(&id.to_string()).await;
        for node in &marked {
            stored = self.store.put(node.clone()).await.and(stored);
        }
        self.record(desk, decision_id, ("banned", &id)).await?;
        stored.map_err(|_| NotDone::Unavailable)?;
        marked.into_iter().next().ok_or(NotDone::Unavailable)
    }

    /// Lets a banned node be one again: it goes on by the SVID that it has, or attests itself anew. All that is banned
    /// with it is lifted: the other UIDs of its name, the other certificates of its key.
    ///
    /// # Errors
    /// [`NotDone`].
    pub async fn lift(&self, desk: &Desk, decision_id: Uuid, name: &str) -> Result<NodeRecord, NotDone> {
        let id = self.meant(name)?;
        let _turn = self.turn.lock().await;
        let banned = self.read(|known| bans::lifted_with(known, &id.to_string()));
        if banned.is_empty() {
            return Err(NotDone::InTheWay(format!("{id} is not banned")));
        }
        self.record(desk, decision_id, ("lifted", &id)).await?;
        for node in &banned {
            self.store.lift(&node.id).await.map_err(|_| NotDone::Unavailable)?;
        }
        self.change(|known| {
            for node in banned {
                match node.attested {
                    Some(_) => known.insert(node.id.clone(), NodeRecord { banned_at: None, ..node }),
                    None => known.remove(&node.id),
                };
            }
        });
        let unheard_of = || NodeRecord { id: id.to_string(), attested: None, banned_at: None };
        Ok(self.find(&id).unwrap_or_else(unheard_of))
    }

    /// Forgets that a node attested itself: it must do so anew. One that is banned stays so.
    ///
    /// # Errors
    /// [`NotDone`].
    pub async fn evict(&self, desk: &Desk, decision_id: Uuid, name: &str) -> Result<NodeRecord, NotDone> {
        let id = self.meant(name)?;
        let _turn = self.turn.lock().await;
        // It narrows: first of all it must hold.
        let node = self.change(|known| {
            let node = known.get_mut(&id.to_string())?;
            node.attested = None;
            Some(node.clone())
        });
        let node = node.ok_or_else(|| NotDone::Unknown(id.to_string()))?;
        // Each of them, whatever becomes of the others.
        let stored = match node.banned_at {
            None => self.store.forget(&node.id).await,
            Some(_) => self.store.put(node.clone()).await,
        };
        let forgotten = self.store.forget_tokens_of(&node.id).await;
        self.record(desk, decision_id, ("evicted", &id)).await?;
        stored.and(forgotten).map_err(|_| NotDone::Unavailable)?;
        // Not before: where one of these fails there is something to try again.
        self.change(|known| drop_unless_banned(known, &node.id));
        Ok(node)
    }

    fn meant(&self, name: &str) -> Result<SpiffeId, NotDone> {
        let id = told::named_node(&self.settings.trust_domain, name).map_err(NotDone::Bad)?;
        if id == self.settings.own_node {
            return Err(NotDone::Bad(
                "that is the node that the broker serves itself: delete its entries instead",
            ));
        }
        Ok(id)
    }

    async fn record(
        &self,
        desk: &Desk,
        decision_id: Uuid,
        (what, node): (&'static str, &SpiffeId),
    ) -> Result<(), NotDone> {
        let change = NodeChange { what, node, until_seconds: None };
        record_node_change(desk, decision_id, &change).await.map_err(|_| NotDone::Unavailable)
    }
}

/// Least and greatest life of a join token, in seconds.
const TOKEN_TTL_SECONDS: (u64, u64) = (1, 7 * 86_400);
/// What stands first in the names of nodes that attested themselves otherwise.
pub(super) const RESERVED_NAMES: [&str; 2] = ["x509pop", "kubernetes"];
pub(super) const MAX_NAME_BYTES: usize = 128;
