//! Registration entries that administration made: in the embedded store, beside the other facts.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::sync::Arc;

use super::embedded::StoreError;
use crate::config::raw::EntryFile;

/// Name → JSON of an [`EntryFile`].
const ENTRIES: TableDefinition<'_, &str, &str> = TableDefinition::new("entries");

/// Entries in `data_dir/facts.redb`.
#[derive(Debug, Clone)]
pub struct EmbeddedEntries {
    database: Arc<Database>,
}

/// An entry could not be written or deleted: its former state may come back with a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not stored")]
pub struct NotStored;

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

    /// All of them.
    ///
    /// # Errors
    /// If the store is damaged.
    pub fn all(&self) -> Result<Vec<EntryFile>, StoreError> {
        Ok(read_all(&self.database)?)
    }

    /// Those of these names that there are.
    ///
    /// # Errors
    /// [`NotStored`] where the store cannot be read.
    pub async fn of_names(&self, names: Vec<String>) -> Result<Vec<EntryFile>, NotStored> {
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

    /// Keeps one, durably.
    ///
    /// # Errors
    /// [`NotStored`].
    pub async fn put(&self, entry: EntryFile) -> Result<(), NotStored> {
        let write = move |database: &Database| {
            let text = serde_json::to_string(&entry).map_err(|_| redb::Error::Corrupted("entry".into()))?;
            let transaction = database.begin_write()?;
            transaction.open_table(ENTRIES)?.insert(entry.id.as_str(), text.as_str())?;
            transaction.commit()?;
            Ok(())
        };
        self.apart(write).await
    }

    /// Forgets one, durably; whether there was one.
    ///
    /// # Errors
    /// [`NotStored`].
    pub async fn remove(&self, id: &str) -> Result<bool, NotStored> {
        let id = id.to_owned();
        let write = move |database: &Database| {
            let transaction = database.begin_write()?;
            let was_there = transaction.open_table(ENTRIES)?.remove(id.as_str())?.is_some();
            transaction.commit()?;
            Ok(was_there)
        };
        self.apart(write).await
    }

    /// Works away from the threads that answer requests.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, NotStored> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                tracing::error!(%error, "registration entry not stored or not read");
                Err(NotStored)
            }
            Err(_) => Err(NotStored),
        }
    }
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
