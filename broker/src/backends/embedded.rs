//! Facts of one machine, what is revoked and what has drifted: durable in an embedded store, answered from memory.

use async_trait::async_trait;
use deputize_issuer::{
    clock::Clock,
    drift::{DriftNotStored, Drifted, DriftedSet, Drifts},
    registry::{Server, Tool},
    revocation::{RevocationFailed, Revocations, Revoked, RevokedSet},
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{path::Path, sync::Arc};

use super::{entries::EmbeddedEntries, nodes::EmbeddedNodes};

/// JSON of a [`Revoked`] → Unix seconds until which it holds.
const REVOKED: TableDefinition<'_, &str, u64> = TableDefinition::new("revoked");

/// JSON of a [`Drifted`].
const DRIFTED: TableDefinition<'_, &str, ()> = TableDefinition::new("drifted");

/// Tools that drifted, in the same store.
pub struct EmbeddedDrifts {
    database: Arc<Database>,
    view: DriftedSet,
}

/// Revocations in `data_dir/facts.redb`.
pub struct EmbeddedRevocations {
    database: Arc<Database>,
    view: Arc<RevokedSet>,
    clock: Arc<dyn Clock>,
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the store of revocations: {0}")]
pub struct StoreError(#[from] redb::Error);

impl EmbeddedRevocations {
    /// Opens the store, dropping what has lapsed.
    ///
    /// # Errors
    /// If it cannot be opened: another process holds it, or it is damaged.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(redb::Error::from)?;
        drop_lapsed(&database, clock.now_seconds())?;
        let view = RevokedSet::default();
        for (revoked, until) in read_all(&database)? {
            view.insert([revoked], until);
        }
        Ok(Self { database: Arc::new(database), view: Arc::new(view), clock })
    }

    /// The drifted tools in the same store.
    ///
    /// # Errors
    /// If the store is damaged.
    pub fn drifts(&self) -> Result<EmbeddedDrifts, StoreError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        transaction.open_table(DRIFTED).map_err(redb::Error::from)?;
        transaction.commit().map_err(redb::Error::from)?;
        let view = DriftedSet::default();
        for drifted in read_drifted(&self.database)? {
            view.hold(&drifted);
        }
        Ok(EmbeddedDrifts { database: Arc::clone(&self.database), view })
    }
}

impl EmbeddedRevocations {
    /// The registration entries in the same store.
    ///
    /// # Errors
    /// If the store is damaged.
    pub fn entries(&self) -> Result<EmbeddedEntries, StoreError> {
        EmbeddedEntries::of(&self.database)
    }

    /// The nodes in the same store.
    ///
    /// # Errors
    /// If the store is damaged.
    pub fn nodes(&self) -> Result<EmbeddedNodes, StoreError> {
        EmbeddedNodes::of(&self.database)
    }
}

#[async_trait]
impl Drifts for EmbeddedDrifts {
    fn has_drifted(&self, server: &Server, tool: &Tool) -> bool {
        self.view.has_drifted(server, tool)
    }

    fn all(&self) -> Vec<Drifted> {
        self.view.all()
    }

    fn hold(&self, drifted: &Drifted) -> bool {
        self.view.hold(drifted)
    }

    fn release(&self, drifted: &Drifted) {
        self.view.remove(drifted);
    }

    async fn store(&self, drifted: Drifted) -> Result<(), DriftNotStored> {
        self.hold(&drifted);
        self.write(drifted, Stopped::Yes).await
    }

    async fn lift(&self, drifted: Drifted) -> Result<bool, DriftNotStored> {
        // Durable first: what a crash could bring back must not be issued for meanwhile.
        self.write(drifted.clone(), Stopped::No).await?;
        Ok(self.view.remove(&drifted))
    }
}

#[derive(Debug, Clone, Copy)]
enum Stopped {
    Yes,
    No,
}

impl EmbeddedDrifts {
    async fn write(&self, drifted: Drifted, stopped: Stopped) -> Result<(), DriftNotStored> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || write_drifted(&database, &drifted, stopped)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "drift not stored");
                Err(DriftNotStored)
            }
            Err(_) => Err(DriftNotStored),
        }
    }
}

fn write_drifted(database: &Database, drifted: &Drifted, stopped: Stopped) -> Result<(), redb::Error> {
    let key = serde_json::to_string(drifted).map_err(|_| redb::Error::Corrupted("drift key".into()))?;
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(DRIFTED)?;
        match stopped {
            Stopped::Yes => table.insert(key.as_str(), ())?,
            Stopped::No => table.remove(key.as_str())?,
        };
    }
    transaction.commit()?;
    Ok(())
}

fn read_drifted(database: &Database) -> Result<Vec<Drifted>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(DRIFTED)?;
    let mut all = Vec::new();
    for row in table.iter()? {
        let (key, _) = row?;
        // INVARIANT: keys are written by `write_drifted` alone; one that does not parse would be a damaged store.
        all.push(serde_json::from_str(key.value()).map_err(|_| redb::Error::Corrupted("drift key".into()))?);
    }
    Ok(all)
}

#[async_trait]
impl Revocations for EmbeddedRevocations {
    fn any_revoked(&self, what: &[Revoked]) -> bool {
        self.view.any(what)
    }

    fn in_force(&self, now_seconds: u64) -> Vec<Revoked> {
        self.view.in_force(now_seconds)
    }

    fn hold(&self, what: &[Revoked], until_seconds: u64) {
        self.view.insert(what.iter().cloned(), until_seconds);
    }

    async fn revoke(&self, what: Vec<Revoked>, until_seconds: u64) -> Result<(), RevocationFailed> {
        // In memory first: it takes effect now even if the disk is slow; the answer waits for the disk.
        self.hold(&what, until_seconds);
        self.view.forget_before(self.clock.now_seconds());
        let database = Arc::clone(&self.database);
        let stored = tokio::task::spawn_blocking(move || store(&database, &what, until_seconds)).await;
        match stored {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "revocation not stored");
                Err(RevocationFailed)
            }
            Err(_) => Err(RevocationFailed),
        }
    }

    async fn lift(&self, what: &Revoked) -> Result<(), RevocationFailed> {
        let (database, key) = (Arc::clone(&self.database), what.clone());
        match tokio::task::spawn_blocking(move || remove(&database, &key)).await {
            Ok(Ok(())) => {
                self.view.remove(what);
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "revocation not lifted");
                Err(RevocationFailed)
            }
            Err(_) => Err(RevocationFailed),
        }
    }
}

fn remove(database: &Database, what: &Revoked) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let key = serde_json::to_string(what).unwrap_or_default();
    transaction.open_table(REVOKED)?.remove(key.as_str())?;
    transaction.commit()?;
    Ok(())
}

fn store(database: &Database, what: &[Revoked], until_seconds: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(REVOKED)?;
        for revoked in what {
            let key = serde_json::to_string(revoked).unwrap_or_default();
            let earlier = table.get(key.as_str())?.map_or(0, |until| until.value());
            table.insert(key.as_str(), earlier.max(until_seconds))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn drop_lapsed(database: &Database, now_seconds: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(REVOKED)?.retain(|_, until| until >= now_seconds)?;
    transaction.commit()?;
    Ok(())
}

fn read_all(database: &Database) -> Result<Vec<(Revoked, u64)>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(REVOKED)?;
    let mut all = Vec::new();
    for row in table.iter()? {
        let (key, until) = row?;
        // INVARIANT: keys are written by `store` alone; one that does not parse would be a damaged store.
        let revoked =
            serde_json::from_str(key.value()).map_err(|_| redb::Error::Corrupted("revocation key".into()))?;
        all.push((revoked, until.value()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::{action::Action, digest::Digest};
    use deputize_issuer::clock::TestClock;

    #[tokio::test]
    async fn what_was_revoked_stays_so_after_a_restart_until_it_lapses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.redb");
        let clock = Arc::new(TestClock::at_seconds(1000));
        let token = Revoked::Token("a".into());
        let store = EmbeddedRevocations::open(&path, clock.clone()).unwrap();
        assert!(!store.any_revoked(std::slice::from_ref(&token)));
        store.revoke(vec![token.clone()], 1100).await.unwrap();
        assert!(store.any_revoked(std::slice::from_ref(&token)));
        drop(store);
        let store = EmbeddedRevocations::open(&path, clock.clone()).unwrap();
        assert!(store.any_revoked(std::slice::from_ref(&token)));
        assert!(!store.any_revoked(&[Revoked::Transaction("a".into())]), "kinds are apart");
        drop(store);
        clock.advance(std::time::Duration::from_secs(101));
        let store = EmbeddedRevocations::open(&path, clock).unwrap();
        assert!(!store.any_revoked(std::slice::from_ref(&token)), "lapsed");
    }

    #[tokio::test]
    async fn what_was_lifted_stays_so_after_a_restart_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.redb");
        let clock = Arc::new(TestClock::at_seconds(1000));
        let [alice, bob] = ["alice", "bob"].map(|sub| Revoked::Person(sub.into()));
        let store = EmbeddedRevocations::open(&path, clock.clone()).unwrap();
        store.revoke(vec![alice.clone(), bob.clone()], 1100).await.unwrap();
        store.lift(&alice).await.unwrap();
        store.lift(&Revoked::Person("nobody".into())).await.unwrap();
        for _ in 0..2 {
            assert!(!store.any_revoked(std::slice::from_ref(&alice)));
            assert!(store.any_revoked(std::slice::from_ref(&bob)));
        }
        drop(store);
        let store = EmbeddedRevocations::open(&path, clock).unwrap();
        assert!(!store.any_revoked(std::slice::from_ref(&alice)));
        assert!(store.any_revoked(std::slice::from_ref(&bob)));
    }

    #[tokio::test]
    async fn a_drift_stays_through_a_restart_until_it_is_lifted() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::at_seconds(1000));
        let open = || EmbeddedRevocations::open(&folder.path().join("facts.redb"), clock.clone()).unwrap();
        let drifted = |tool: &str| Drifted {
            server: "https://a.example/mcp".to_owned(),
            action: Action::CallTool,
            tool: tool.to_owned(),
            approved: Digest::from_bytes([7; 32]),
        };
        let drifts = open().drifts().unwrap();
        assert!(drifts.hold(&drifted("a")), "new");
        assert!(!drifts.hold(&drifted("a")), "no longer new");
        drifts.store(drifted("a")).await.unwrap();
        drifts.store(drifted("b")).await.unwrap();
        let prompt = Drifted { action: Action::GetPrompt, ..drifted("a") };
        drifts.store(prompt.clone()).await.unwrap();
        drop(drifts);
        let drifts = open().drifts().unwrap();
        assert_eq!(drifts.all(), [drifted("a"), drifted("b"), prompt.clone()]);
        assert!(drifts.lift(drifted("a")).await.unwrap());
        assert!(!drifts.lift(drifted("c")).await.unwrap(), "never was one");
        drop(drifts);
        let drifts = open().drifts().unwrap();
        assert_eq!(drifts.all(), [drifted("b"), prompt.clone()]);
        assert!(drifts.lift(prompt).await.unwrap());
        drop(drifts);
        assert_eq!(open().drifts().unwrap().all(), [drifted("b")]);
    }
}
