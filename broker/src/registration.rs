//! Who is entitled to which SPIFFE ID while the broker runs: the entries of files, which a reload reads again, and those
//! that administration makes and deletes.

use async_trait::async_trait;
use deputize_issuer::{
    client::{Addressees, Clients},
    desk::Desk,
    entry::{BadEntry, Draft, Entries, LiveEntries, Origin, Registered},
    log::Class,
    record::{Entry, Kind},
};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::{
    cannot_start::CannotStart,
    config::{raw::EntryFile, spiffe::Spiffe},
};

/// The entries that administration made, kept for the next start.
#[async_trait]
pub trait KeptEntries: Send + Sync + std::fmt::Debug {
    /// All of them.
    ///
    /// # Errors
    /// [`NotStored`]: the store cannot be read.
    fn all(&self) -> Result<Vec<EntryFile>, NotStored>;
    /// Those of these names that there are.
    ///
    /// # Errors
    /// As [`Self::all`].
    async fn of_names(&self, names: Vec<String>) -> Result<Vec<EntryFile>, NotStored>;
    /// Keeps one, durably.
    ///
    /// # Errors
    /// [`NotStored`].
    async fn put(&self, entry: EntryFile) -> Result<(), NotStored>;
    /// Forgets one, durably; whether there was one.
    ///
    /// # Errors
    /// [`NotStored`].
    async fn remove(&self, id: &str) -> Result<bool, NotStored>;
}

/// An entry could not be read, kept or forgotten: its former state may come back with a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store of registration entries fails")]
pub struct NotStored;

/// Keeps the entries that hold, and changes them one after the other.
#[derive(Debug)]
pub struct Registration {
    live: Arc<LiveEntries>,
    store: Box<dyn KeptEntries>,
    /// Held by whoever changes: what is taken is a whole.
    turn: Mutex<()>,
}

/// Entries that were read again and checked, and hold as soon as they are taken.
#[must_use = "they do not hold before they are taken"]
pub struct Reread<'r> {
    registration: &'r Registration,
    entries: Entries,
    _turn: MutexGuard<'r, ()>,
}

/// What entries have to be beside.
#[derive(Debug, Clone, Copy)]
pub struct Others<'r> {
    /// The clients of the configuration: no name is one's and a process's.
    pub clients: &'r Clients,
    /// Whose tokens no process brings.
    pub addressees: Addressees<'r>,
}

/// Why an entry is not made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum NotRegistered {
    /// It cannot be one.
    #[error("{0}")]
    Bad(#[from] BadEntry),
    /// There is none of this name.
    #[error("there is no entry {0:?}")]
    Unknown(String),
    /// It stands in a file.
    #[error("entry {id:?} stands in {file}: take it out there, and send the broker SIGHUP")]
    OfFile {
        /// Its name.
        id: String,
        /// The file.
        file: Arc<str>,
    },
    /// It could not be made durable, or not be put on record.
    #[error("the change could not be stored or recorded: try again")]
    Unavailable,
}

impl Registration {
    /// The entries of the configured folder and of the store, beside these others.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn open(
        spiffe: &Spiffe,
        others: Others<'_>,
        store: Box<dyn KeptEntries>,
        now_seconds: u64,
    ) -> Result<Self, CannotStart> {
        let entries = read(spiffe, others, store.as_ref())?;
        tracing::info!(entries = entries.len(), trust_domain = %spiffe.bounds.trust_domain, "registration entries read");
        let live = Arc::new(LiveEntries::new(entries, now_seconds));
        Ok(Self { live, store, turn: Mutex::new(()) })
    }

    /// The entries that hold.
    pub fn live(&self) -> &Arc<LiveEntries> {
        &self.live
    }

    /// Reads the files again. Nothing changes before the result is taken.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub async fn reread(&self, spiffe: &Spiffe, others: Others<'_>) -> Result<Reread<'_>, CannotStart> {
        let turn = self.turn.lock().await;
        let held = self.live.now();
        if *held.bounds() != spiffe.bounds {
            return Err(CannotStart("spiffe: trust_domain and node change with a restart alone".to_owned()));
        }
        Ok(Reread { registration: self, entries: read(spiffe, others, self.store.as_ref())?, _turn: turn })
    }

    /// Makes an entry. Durable and on record when this returns; processes get their SVIDs at once.
    ///
    /// # Errors
    /// [`NotRegistered`].
    pub async fn create(
        &self,
        desk: &Desk,
        decision_id: Uuid,
        draft: Draft,
    ) -> Result<Arc<Registered>, NotRegistered> {
        let _turn = self.turn.lock().await;
        let entries = self.live.now().with(&draft, Origin::Admin)?;
        let entry = entries.get(&draft.id).cloned();
        let entry = entry.ok_or_else(|| NotRegistered::Unknown(draft.id.clone()))?;
        if let Some(error) = entry.is_of_files_alone() {
            return Err(error.into());
        }
        // On record before it holds: it widens.
        record(desk, decision_id, CREATED, entry.to_draft()).await?;
        self.store.put(EntryFile::from(draft)).await?;
        self.live.replace(entries);
        Ok(entry)
    }

    /// Deletes an entry that administration made, also one that does not hold because a file has its id. Its processes
    /// lose their streams at once; it stays deleted, and is on record as such, when this returns. The file whose entry of
    /// this id still holds, if there is one.
    ///
    /// # Errors
    /// [`NotRegistered`].
    pub async fn delete(
        &self,
        desk: &Desk,
        decision_id: Uuid,
        id: &str,
    ) -> Result<Option<Arc<str>>, NotRegistered> {
        let _turn = self.turn.lock().await;
        let entries = self.live.now();
        let held = entries.get(id);
        let file = held.and_then(|entry| match entry.origin() {
            Origin::File(file) => Some(Arc::clone(file)),
            Origin::Admin => None,
        });
        let stored = self.store.of_names(vec![id.to_owned()]).await?.pop();
        let draft = match (held, &file, stored) {
            (Some(entry), None, _) => entry.to_draft(),
            // One that does not hold may be in the store all the same: a file has its id, or an earlier try failed.
            (_, _, Some(stored)) => {
                stored.into_draft().unwrap_or_else(|_| Draft { id: id.to_owned(), ..Draft::default() })
            }
            (_, Some(file), None) => {
                return Err(NotRegistered::OfFile { id: id.to_owned(), file: Arc::clone(file) });
            }
            (None, None, None) => return Err(NotRegistered::Unknown(id.to_owned())),
        };
        if held.is_some() && file.is_none() {
            // It narrows: first of all it must not hold any longer.
            self.live.replace(entries.without(id));
        }
        // INVARIANT: it is on record before it is gone: where that fails, there is something to try again.
        record(desk, decision_id, DELETED, draft).await?;
        self.store.remove(id).await?;
        Ok(file)
    }

    /// Of these entries of files, those of administration with the same ids: they do not hold while the files do.
    ///
    /// # Errors
    /// [`NotRegistered::Unavailable`].
    pub async fn shadowed(&self, ids: Vec<String>) -> Result<Vec<EntryFile>, NotRegistered> {
        if ids.is_empty() { Ok(Vec::new()) } else { Ok(self.store.of_names(ids).await?) }
    }
}

impl Reread<'_> {
    /// They hold from now on.
    pub fn take(self) {
        self.registration.live.replace(self.entries);
    }
}

impl From<NotStored> for NotRegistered {
    fn from(_: NotStored) -> Self {
        Self::Unavailable
    }
}

/// The entries of files, all of which must be good; and those of the store that can be beside them.
fn read(spiffe: &Spiffe, others: Others<'_>, store: &dyn KeptEntries) -> Result<Entries, CannotStart> {
    let wrong = |errors: Vec<String>| CannotStart(errors.join("\n"));
    let of_files =
        spiffe.drafts().map_err(|errors| wrong(errors.iter().map(ToString::to_string).collect()))?;
    let bad = |errors: Vec<BadEntry>| wrong(errors.iter().map(ToString::to_string).collect());
    let files = Entries::build(spiffe.bounds.clone(), of_files.clone()).map_err(bad)?;
    files.beside(others.clients).map_err(bad)?;
    files.bring_nothing_of(&others.addressees).map_err(bad)?;
    let stored = store.all().map_err(|error| CannotStart(error.to_string()))?;
    let good: Vec<_> = stored.into_iter().filter_map(|entry| admit(&files, entry)).collect();
    Entries::build(spiffe.bounds.clone(), of_files.into_iter().chain(good)).map_err(bad)
}

/// An entry of the store, if it can be beside those of files. One that cannot entitles nobody, but does not keep the
/// broker from starting: one that lets exchange, too, which administration could make once.
fn admit(files: &Entries, entry: EntryFile) -> Option<(Draft, Origin)> {
    let id = entry.id.clone();
    let ignore = |error: String| tracing::warn!(entry = id, error, "entry of administration does not hold");
    let draft = entry.into_draft().map_err(ignore).ok()?;
    if let Some(other) = files.get(&draft.id) {
        ignore(format!("{} has an entry of this id", other.origin()));
        return None;
    }
    let checked = draft.check(files.bounds(), Origin::Admin).map_err(|error| error.to_string());
    if let Some(error) = checked.map_err(ignore).ok()?.is_of_files_alone() {
        ignore(error.to_string());
        return None;
    }
    Some((draft, Origin::Admin))
}

async fn record(desk: &Desk, decision_id: Uuid, result: &str, draft: Draft) -> Result<(), NotRegistered> {
    let mut entry = Entry::new(Kind::Registration, desk.clock.now_ms());
    entry.decision = Some(decision_id);
    entry.by = Some("admin".to_owned());
    entry.result = Some(result.to_owned());
    entry.registration = Some(draft);
    let bytes = entry.to_bytes().map_err(|_| NotRegistered::Unavailable)?;
    desk.audit.append(Class::Vital, bytes).await.map(drop).map_err(|_| NotRegistered::Unavailable)
}

const CREATED: &str = "created";
const DELETED: &str = "deleted";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::{self, Mode};
    use deputize_issuer::registry::Registry;

    /// What an older broker may have kept.
    #[derive(Debug)]
    struct Kept(Vec<EntryFile>);

    #[async_trait]
    impl KeptEntries for Kept {
        fn all(&self) -> Result<Vec<EntryFile>, NotStored> {
            Ok(self.0.clone())
        }
        async fn of_names(&self, names: Vec<String>) -> Result<Vec<EntryFile>, NotStored> {
            Ok(self.0.iter().filter(|entry| names.contains(&entry.id)).cloned().collect())
        }
        async fn put(&self, _: EntryFile) -> Result<(), NotStored> {
            Ok(())
        }
        async fn remove(&self, _: &str) -> Result<bool, NotStored> {
            Ok(false)
        }
    }

    const EXCHANGE: &str =
        "exchange: { tenant: acme, subject_audiences: [desk-app], may_call: [{ resource: '*' }] }";

    fn entry(id: &str, more: &str) -> String {
        format!("id: {id}\nspiffe_id: spiffe://example.org/{id}\nselectors: [unix:uid:1]\n{more}\n")
    }

    /// The entries that hold where a file says this and the store has those.
    fn opened(of_file: &str, kept: &[String]) -> Result<Arc<Entries>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("entries")).unwrap();
        std::fs::write(folder.path().join("entries/a.yaml"), of_file).unwrap();
        let config = folder.path().join("deputize.yaml");
        let text = "issuer: http://127.0.0.1:1\ndata_dir: data\nlisten: { address: '127.0.0.1:1' }\n\
                    registry: { folder: registry }\npolicies: policies\n\
                    spiffe: { trust_domain: example.org, entries: entries }\n";
        std::fs::write(&config, text).unwrap();
        let spiffe = resolved::load(&config, Mode::Development).unwrap().spiffe.unwrap();
        let (registry, clients) = (Registry::build(Vec::new()).unwrap(), Clients::default());
        let addressees = Addressees::new(&registry, "http://127.0.0.1:1");
        let kept = kept.iter().map(|text| serde_saphyr::from_str(text).unwrap()).collect();
        let others = Others { clients: &clients, addressees };
        let opened = Registration::open(&spiffe, others, Box::new(Kept(kept)), 0);
        opened.map(|registration| registration.live().now()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_kept_from_before_lets_nobody_exchange_and_stops_no_start() {
        let kept = [entry("plain", ""), entry("old", EXCHANGE)];
        let entries = opened(&entry("desk", EXCHANGE), &kept).unwrap();
        assert!(entries.get("plain").is_some() && entries.get("old").is_none());
        assert!(entries.exchanging_as("spiffe://example.org/old", 1).is_none());
        assert!(entries.exchanging_as("spiffe://example.org/desk", 1).is_some());
    }

    #[test]
    fn an_entry_that_would_bring_what_is_ours_stops_the_start() {
        let ours = EXCHANGE.replace("desk-app", "http://127.0.0.1:1/token");
        let said = opened(&entry("desk", &ours), &[]).unwrap_err();
        assert!(said.contains("entry \"desk\": exchange: subject_audiences names"), "{said}");
    }
}
