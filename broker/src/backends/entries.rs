//! Registration entries that administration made: in the embedded store, beside the other facts.

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::sync::Arc;

use super::embedded::StoreError;
use crate::{
    config::raw::EntryFile,
    registration::{KeptEntries, NotStored},
};

/// Name → JSON of an [`EntryFile`].
const ENTRIES: TableDefinition<'_, &str, &str> = TableDefinition::new("entries");

/// Entries in `data_dir/facts.redb`.
#[derive(Debug, Clone)]
pub struct EmbeddedEntries {
    database: Arc<Database>,
}

impl EmbeddedEntries {
    /// The entries of this store.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn of(database: &Arc<Database>) -> Result<Self, StoreError> {
        let transaction = database.begin_write().map_err(redb::Error::from)?;
        transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(Self { database: Arc::clone(database) })
    }

    /// Works away from the threads that answer requests.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, NotStored> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(not_stored(error)),
            Err(_) => Err(NotStored),
        }
    }
}

#[async_trait]
impl KeptEntries for EmbeddedEntries {
    fn all(&self) -> Result<Vec<EntryFile>, NotStored> {
        read_all(&self.database).map_err(not_stored)
    }

    async fn of_names(&self, names: Vec<String>) -> Result<Vec<EntryFile>, NotStored> {
        let read = move |database: &Database| {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            let mut found = Vec::new();
            for name in names {
                if let Some(text) = table.get(name.as_str())? {
                    found.push(parse(text.value())?);
                }
            }
            Ok(found)
        };
        self.apart(read).await
    }

    async fn put(&self, entry: EntryFile) -> Result<(), NotStored> {
        let write = move |database: &Database| {
            let text = serde_json::to_string(&entry).map_err(|_| redb::Error::Corrupted("entry".into()))?;
            let transaction = database.begin_write()?;
            transaction.open_table(ENTRIES)?.insert(entry.id.as_str(), text.as_str())?;
            transaction.commit()?;
            Ok(())
        };
        self.apart(write).await
    }

    async fn remove(&self, id: &str) -> Result<bool, NotStored> {
        let id = id.to_owned();
        let write = move |database: &Database| {
            let transaction = database.begin_write()?;
            let was_there = transaction.open_table(ENTRIES)?.remove(id.as_str())?.is_some();
            transaction.commit()?;
            Ok(was_there)
        };
        self.apart(write).await
    }
}

/// The cause is for the log alone.
fn not_stored(error: redb::Error) -> NotStored {
    tracing::error!(%error, "registration entry not stored or not read");
    NotStored
}

fn read_all(database: &Database) -> Result<Vec<EntryFile>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(ENTRIES)?;
    let mut all = Vec::new();
    for row in table.iter()? {
        let (_, text) = row?;
        all.push(parse(text.value())?);
    }
    Ok(all)
}

fn parse(text: &str) -> Result<EntryFile, redb::Error> {
    // INVARIANT: rows are written by `put` alone; one that does not parse would be a damaged store.
    serde_json::from_str(text).map_err(|_| redb::Error::Corrupted("entry".into()))
}
