//! Nodes and join tokens: in the embedded store, beside the other facts.

use async_trait::async_trait;
use deputize_issuer::node::{JoinTokenDigest, KeptToken, NodeRecord, NodeStore, NodesNotStored, TokenUse};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Semaphore;

use super::embedded::StoreError;

/// SPIFFE ID → JSON of a [`NodeRecord`].
const NODES: TableDefinition<'_, &str, &str> = TableDefinition::new("nodes");

/// SHA-256 of a join token → JSON of a [`Row`]. The token itself is nowhere.
const TOKENS: TableDefinition<'_, &[u8; 32], &str> = TableDefinition::new("join_tokens");

/// Nodes in `data_dir/facts.redb`.
#[derive(Debug, Clone)]
pub struct EmbeddedNodes {
    database: Arc<Database>,
}

/// What is kept of a join token.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    node: String,
    /// Unix seconds.
    expires_at: u64,
}

impl EmbeddedNodes {
    /// The nodes of this store.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn of(database: &Arc<Database>) -> Result<Self, StoreError> {
        let transaction = database.begin_write().map_err(redb::Error::from)?;
        transaction.open_table(NODES).map_err(redb::Error::from)?;
        transaction.open_table(TOKENS).map_err(redb::Error::from)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(Self { database: Arc::clone(database) })
    }

    /// Works away from the threads that answer requests.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, NodesNotStored> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(not_stored(error)),
            Err(_) => Err(NodesNotStored),
        }
    }
}

#[async_trait]
impl NodeStore for EmbeddedNodes {
    fn all(&self) -> Result<Vec<NodeRecord>, NodesNotStored> {
        read_all(&self.database).map_err(not_stored)
    }

    async fn put(&self, node: NodeRecord) -> Result<(), NodesNotStored> {
        self.apart(move |database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(NODES)?;
                let kept = find(&table, &node.id)?.and_then(|kept| kept.banned_at);
                let node = NodeRecord { banned_at: node.banned_at.or(kept), ..node };
                table.insert(node.id.as_str(), to_text(&node)?.as_str())?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    async fn lift(&self, id: &str) -> Result<(), NodesNotStored> {
        let id = id.to_owned();
        self.apart(move |database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(NODES)?;
                match find(&table, &id)? {
                    Some(node) if node.attested.is_some() => {
                        let text = to_text(&NodeRecord { banned_at: None, ..node })?;
                        table.insert(id.as_str(), text.as_str())?;
                    }
                    Some(_) | None => drop(table.remove(id.as_str())?),
                }
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    async fn forget(&self, id: &str) -> Result<(), NodesNotStored> {
        let id = id.to_owned();
        self.apart(move |database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(NODES)?;
                if find(&table, &id)?.is_some_and(|node| node.banned_at.is_none()) {
                    table.remove(id.as_str())?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    async fn keep_token(&self, token: KeptToken, now_seconds: u64) -> Result<bool, NodesNotStored> {
        self.apart(move |database| {
            let text = to_text(&Row { node: token.node, expires_at: token.expires_at_seconds })?;
            let transaction = database.begin_write()?;
            let has_room = {
                let mut table = transaction.open_table(TOKENS)?;
                drop_where(&mut table, |row| row.expires_at <= now_seconds)?;
                let has_room = table.len()? < MAX_TOKENS;
                if has_room {
                    table.insert(token.digest.as_bytes(), text.as_str())?;
                }
                has_room
            };
            transaction.commit()?;
            Ok(has_room)
        })
        .await
    }

    async fn use_token(&self, digest: JoinTokenDigest, now_seconds: u64) -> Result<TokenUse, NodesNotStored> {
        let knows = {
            // Anybody may ask: not many look at once, and nobody who brings nothing makes anybody wait for the disk.
            let _place = LOOKUPS.acquire().await.map_err(|_| NodesNotStored)?;
            self.apart(move |database| {
                Ok(database.begin_read()?.open_table(TOKENS)?.get(digest.as_bytes())?.is_some())
            })
            .await?
        };
        if !knows {
            return Ok(TokenUse::Unknown);
        }
        self.apart(move |database| {
            // INVARIANT: there is one write transaction at a time, and it is durable when it is committed: of all who
            // bring a token, one alone removes it.
            let transaction = database.begin_write()?;
            let row = transaction
                .open_table(TOKENS)?
                .remove(digest.as_bytes())?
                .map(|text| parse::<Row>(text.value()));
            transaction.commit()?;
            Ok(match row.transpose()? {
                None => TokenUse::Unknown,
                Some(row) if row.expires_at <= now_seconds => TokenUse::Expired,
                Some(row) => TokenUse::Spent(row.node),
            })
        })
        .await
    }

    async fn forget_tokens_of(&self, node: &str) -> Result<(), NodesNotStored> {
        let node = node.to_owned();
        self.apart(move |database| {
            let transaction = database.begin_write()?;
            drop_where(&mut transaction.open_table(TOKENS)?, |row| row.node == node)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }
}

fn drop_where(
    table: &mut redb::Table<'_, &'static [u8; 32], &'static str>,
    is_over: impl Fn(&Row) -> bool,
) -> Result<(), redb::Error> {
    let mut over = Vec::new();
    for row in table.iter()? {
        let (digest, text) = row?;
        if is_over(&parse(text.value())?) {
            over.push(*digest.value());
        }
    }
    for digest in over {
        table.remove(&digest)?;
    }
    Ok(())
}

fn find(
    table: &impl ReadableTable<&'static str, &'static str>,
    id: &str,
) -> Result<Option<NodeRecord>, redb::Error> {
    table.get(id)?.map(|text| parse(text.value())).transpose()
}

fn read_all(database: &Database) -> Result<Vec<NodeRecord>, redb::Error> {
    let table = database.begin_read()?.open_table(NODES)?;
    let mut all = Vec::new();
    for row in table.iter()? {
        all.push(parse(row?.1.value())?);
    }
    Ok(all)
}

fn to_text<T: Serialize>(value: &T) -> Result<String, redb::Error> {
    serde_json::to_string(value).map_err(|_| redb::Error::Corrupted("node".into()))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, redb::Error> {
    // INVARIANT: rows are written here alone; one that does not parse would be a damaged store.
    serde_json::from_str(text).map_err(|_| redb::Error::Corrupted("node".into()))
}

/// The cause is for the log alone.
fn not_stored(error: redb::Error) -> NodesNotStored {
    tracing::error!(%error, "node not stored or not read");
    NodesNotStored
}

/// As many wait to be used at once.
const MAX_TOKENS: u64 = 10_000;
static LOOKUPS: Semaphore = Semaphore::const_new(8);

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::node::{Attestation, Attested, JoinToken};
    use tokio::task::JoinSet;

    const NOW: u64 = 1_800_000_000;
    const NODE: &str = "spiffe://example.org/deputize/node/edge-1";

    fn open(folder: &std::path::Path) -> EmbeddedNodes {
        let database = Database::create(folder.join("facts.redb")).unwrap();
        EmbeddedNodes::of(&Arc::new(database)).unwrap()
    }

    fn kept(token: &JoinToken, node: &str, expires_at_seconds: u64) -> KeptToken {
        KeptToken { digest: token.digest(), node: node.to_owned(), expires_at_seconds }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_who_bring_one_token_at_once_one_has_it_and_no_restart_brings_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let token = JoinToken::generate().unwrap();
        {
            let nodes = open(folder.path());
            assert!(nodes.keep_token(kept(&token, NODE, NOW + 600), NOW).await.unwrap());
            let mut racers = JoinSet::new();
            for _ in 0..50 {
                let (nodes, digest) = (nodes.clone(), token.digest());
                racers.spawn(async move { nodes.use_token(digest, NOW).await.unwrap() });
            }
            let answers = racers.join_all().await;
            let spent = answers.iter().filter(|answer| **answer == TokenUse::Spent(NODE.to_owned())).count();
            let unknown = answers.iter().filter(|answer| **answer == TokenUse::Unknown).count();
            assert_eq!((spent, unknown), (1, 49));
        }
        assert_eq!(open(folder.path()).use_token(token.digest(), NOW).await.unwrap(), TokenUse::Unknown);
    }

    #[tokio::test]
    async fn tokens_that_nobody_made_wait_for_no_write() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = open(folder.path());
        // There is one writer at a time: as long as this one is there, nobody else can be.
        let writer = nodes.database.begin_write().unwrap();
        let mut asked = JoinSet::new();
        for _ in 0..1000 {
            let (nodes, made_up) = (nodes.clone(), JoinToken::generate().unwrap());
            asked.spawn(async move { nodes.use_token(made_up.digest(), NOW).await.unwrap() });
        }
        let answered = tokio::time::timeout(std::time::Duration::from_secs(60), asked.join_all()).await;
        writer.abort().unwrap();
        assert!(answered.unwrap().iter().all(|answer| *answer == TokenUse::Unknown));
    }

    #[tokio::test]
    async fn a_ban_stays_until_it_is_lifted_whatever_comes_late() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = open(folder.path());
        let banned = NodeRecord { banned_at: Some(NOW), ..attested() };
        nodes.put(banned.clone()).await.unwrap();
        // A renewal that was on its way when the ban came.
        nodes.put(attested()).await.unwrap();
        nodes.forget(NODE).await.unwrap();
        assert_eq!(nodes.all().unwrap(), [banned]);
        nodes.lift(NODE).await.unwrap();
        assert_eq!(nodes.all().unwrap(), [attested()]);
        nodes.put(NodeRecord { attested: None, banned_at: Some(NOW), ..attested() }).await.unwrap();
        nodes.lift(NODE).await.unwrap();
        nodes.lift("spiffe://example.org/deputize/node/unheard-of").await.unwrap();
        assert!(nodes.all().unwrap().is_empty(), "of the other nothing is known");
    }

    fn attested() -> NodeRecord {
        let attestation = Attestation::X509pop {
            fingerprint: "ab".to_owned(),
            certificate_ends: NOW + 9,
            public_key: Some("cd".to_owned()),
        };
        let (serial, not_after) = ("40".to_owned(), NOW + 3600);
        let (key, first) = (Some("cd".to_owned()), Some(serial.clone()));
        let (previous, previous_key) = (None, None);
        let attested =
            Attested { attestation, at: NOW, serial, key, previous, previous_key, first, not_after };
        NodeRecord { id: NODE.to_owned(), attested: Some(attested), banned_at: None }
    }

    #[tokio::test]
    async fn a_token_ends_by_time_and_with_its_node() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = open(folder.path());
        let [late, banned, other] = [(); 3].map(|()| JoinToken::generate().unwrap());
        nodes.keep_token(kept(&late, NODE, NOW + 10), NOW).await.unwrap();
        assert_eq!(nodes.use_token(late.digest(), NOW + 10).await.unwrap(), TokenUse::Expired);
        nodes.keep_token(kept(&banned, NODE, NOW + 600), NOW).await.unwrap();
        nodes
            .keep_token(kept(&other, "spiffe://example.org/deputize/node/edge-2", NOW + 600), NOW)
            .await
            .unwrap();
        nodes.forget_tokens_of(NODE).await.unwrap();
        assert_eq!(nodes.use_token(banned.digest(), NOW).await.unwrap(), TokenUse::Unknown);
        assert!(matches!(nodes.use_token(other.digest(), NOW + 599).await.unwrap(), TokenUse::Spent(_)));
    }

    #[tokio::test]
    async fn nodes_are_there_after_a_restart_and_no_token_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let token = JoinToken::generate().unwrap();
        let node = attested();
        {
            let nodes = open(folder.path());
            nodes.put(node.clone()).await.unwrap();
            nodes.keep_token(kept(&token, NODE, NOW + 600), NOW).await.unwrap();
        }
        let nodes = open(folder.path());
        assert_eq!(nodes.all().unwrap(), [node]);
        nodes.forget(NODE).await.unwrap();
        assert!(nodes.all().unwrap().is_empty());
        drop(nodes);
        let file = std::fs::read(folder.path().join("facts.redb")).unwrap();
        let secret = token.text().expose().as_bytes();
        assert!(!file.windows(20).any(|window| secret.windows(20).any(|part| part == window)));
    }
}
