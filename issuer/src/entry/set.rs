//! All entries of one moment, checked as a whole, and found by node and selector.

use deputize_call::digest::{Digest, sha256};
use spiffe::SpiffeId;
use std::{collections::HashMap, sync::Arc};

use super::{Bounds, Draft, Entry, NodePattern, NotAnEntry, Origin, Registered, exchange::Exchanging};
use crate::{
    client::{Addressed, Addressees, Client, Clients},
    workload::{Selector, Workload},
};

/// Entries that do not change any more.
///
/// INVARIANT: each was checked against `bounds`; no two have one name; they stand in the order of their names.
#[derive(Debug)]
pub struct Entries {
    bounds: Bounds,
    all: Vec<Arc<Registered>>,
    /// Of each node or pattern, positions in `all` by the one selector of the entry that the fewest entries have: a process that
    /// lacks it need not be compared with the others.
    by_node: HashMap<NodePattern, HashMap<Selector, Vec<usize>>>,
    /// When entries end, ascending.
    ends: Vec<u64>,
    exchanging: Exchanging,
}

/// An entry that cannot be among the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// By itself.
    #[error("{origin}: entry {id:?}: {error}")]
    Wrong {
        /// Where it comes from.
        origin: Origin,
        /// Its name, as far as it has one.
        id: String,
        /// What is wrong.
        error: NotAnEntry,
    },
    /// Its name is another's.
    #[error("{origin}: entry {id:?}: {other} has an entry of this id already")]
    Duplicate {
        /// Where it comes from.
        origin: Origin,
        /// Its name.
        id: String,
        /// Where the other one comes from.
        other: Origin,
    },
    /// Processes of its SPIFFE ID may exchange something else by another entry.
    #[error(
        "{origin}: entry {id:?}: exchange: entry {other:?} of the same SPIFFE ID says something else of it"
    )]
    ExchangesOtherwise {
        /// Where it comes from.
        origin: Origin,
        /// Its name.
        id: String,
        /// Name of the other one.
        other: String,
    },
    /// Its processes would exchange under a name that a client of the configuration acts under.
    #[error(
        "{origin}: entry {id:?}: exchange: {spiffe_id} is the client {client:?} of the configuration already"
    )]
    IsAClient {
        /// Where it comes from.
        origin: Origin,
        /// Its name.
        id: String,
        /// Its SPIFFE ID.
        spiffe_id: String,
        /// `client_id` of that client.
        client: String,
    },
    /// Its processes would bring what is addressed to a server, or to us.
    #[error("{origin}: entry {id:?}: exchange: {addressed}")]
    BringsAnothers {
        /// Where it comes from.
        origin: Origin,
        /// Its name.
        id: String,
        /// What they would bring.
        addressed: Addressed,
    },
    /// Administration cannot let exchange.
    #[error(
        "{origin}: entry {id:?}: exchange: who may exchange users' tokens, files alone say: write the entry into a file \
         of spiffe.entries, and send the broker SIGHUP"
    )]
    OfFilesAlone {
        /// Where it comes from.
        origin: Origin,
        /// Its name.
        id: String,
    },
    /// There are too many.
    #[error("{MAX_ENTRIES} entries at most")]
    TooMany,
}

impl Entries {
    /// No entries.
    pub fn none(bounds: Bounds) -> Self {
        Self::indexed(bounds, Vec::new(), Exchanging::default())
    }

    /// Checks drafts and puts them together.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn build(
        bounds: Bounds,
        drafts: impl IntoIterator<Item = (Draft, Origin)>,
    ) -> Result<Self, Vec<BadEntry>> {
        let drafts: Vec<(Draft, Origin)> = drafts.into_iter().take(MAX_ENTRIES + 1).collect();
        if drafts.len() > MAX_ENTRIES {
            return Err(vec![BadEntry::TooMany]);
        }
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for (draft, origin) in drafts {
            match draft.check(&bounds, origin.clone()) {
                Ok(entry) => all.push(Arc::new(entry)),
                Err(error) => errors.push(BadEntry::Wrong { origin, id: draft.id, error }),
            }
        }
        match Self::of(bounds, all) {
            Ok(entries) if errors.is_empty() => Ok(entries),
            Ok(_) => Err(errors),
            Err(more) => {
                errors.extend(more);
                Err(errors)
            }
        }
    }

    /// These, and one more.
    ///
    /// # Errors
    /// Why it cannot be among them.
    pub fn with(&self, draft: &Draft, origin: Origin) -> Result<Self, BadEntry> {
        let entry = draft.check(&self.bounds, origin.clone());
        let entry = entry.map_err(|error| BadEntry::Wrong { origin, id: draft.id.clone(), error })?;
        let all = self.all.iter().cloned().chain([Arc::new(entry)]).collect();
        Self::of(self.bounds.clone(), all)
            .map_err(|errors| errors.into_iter().next().unwrap_or(BadEntry::TooMany))
    }

    /// These without the one of this name.
    pub fn without(&self, id: &str) -> Self {
        let all: Vec<_> = self.all.iter().filter(|entry| entry.id() != id).cloned().collect();
        let mut exchanging = Exchanging::default();
        for entry in &all {
            // Fewer entries disagree no more than all did.
            let _ = exchanging.admit(entry);
        }
        Self::indexed(self.bounds.clone(), all, exchanging)
    }

    /// Whether each of them can be beside these clients: no name is a client's and a process's, for whoever finds it in a
    /// chain must know what that agent may do.
    ///
    /// # Errors
    /// Those that cannot.
    pub fn beside(&self, clients: &Clients) -> Result<(), Vec<BadEntry>> {
        let clash = |entry: &Arc<Registered>| entry.is_a_client(clients);
        let errors: Vec<BadEntry> = self.all.iter().filter_map(clash).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Whether none of them lets bring what is addressed to somebody else.
    ///
    /// # Errors
    /// Those that do.
    pub fn bring_nothing_of(&self, addressees: &Addressees<'_>) -> Result<(), Vec<BadEntry>> {
        let bad = |entry: &Arc<Registered>| entry.brings_anothers(addressees);
        let errors: Vec<BadEntry> = self.all.iter().filter_map(bad).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The client that processes of this SPIFFE ID are now, if an entry lets them exchange.
    pub fn exchanging_as(&self, spiffe_id: &str, now_seconds: u64) -> Option<&Arc<Client>> {
        self.exchanging.client(spiffe_id, now_seconds)
    }

    /// What they were checked against.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Registered>> {
        self.all.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one of this name.
    pub fn get(&self, id: &str) -> Option<&Arc<Registered>> {
        let at = self.all.binary_search_by(|entry| entry.id().cmp(id)).ok()?;
        self.all.get(at)
    }

    /// Digest of those that come from files: what is configuration, and is on record when it is loaded.
    pub fn digest_of_files(&self) -> Digest {
        let of_files = self.all.iter().filter(|entry| matches!(entry.origin, Origin::File(_)));
        let mut text = Vec::new();
        for entry in of_files {
            // Texts, numbers and lists of texts can always be written.
            text.extend(serde_json::to_vec(&entry.to_draft()).unwrap_or_default());
            text.push(b'\n');
        }
        Digest::from_bytes(sha256(&text))
    }

    /// What a process is entitled to now, in the order of the entries' names: the first is what it takes where it
    /// does not choose. At most [`MAX_IDENTITIES`].
    pub fn entitled(&self, workload: &Workload, now_seconds: u64) -> Vec<Arc<Entry>> {
        let mut candidates: Vec<usize> = Vec::new();
        for by_selector in self.around(workload.node()) {
            let of_process = workload.selectors().iter().filter_map(|selector| by_selector.get(selector));
            candidates.extend(of_process.flatten());
        }
        let entries = in_order(candidates).into_iter().filter_map(|at| self.all.get(at));
        entries.filter_map(|entry| entry.entitled(workload, now_seconds)).take(MAX_IDENTITIES).collect()
    }

    /// All that are for processes of this node, in the order of their names.
    pub fn of_node(&self, node: &SpiffeId) -> Vec<&Arc<Registered>> {
        let positions = self.around(node).flat_map(HashMap::values).flatten().copied().collect();
        in_order(positions).into_iter().filter_map(|at| self.all.get(at)).collect()
    }

    /// Positions of the entries that name this node, and of those that name it by a pattern.
    fn around(&self, node: &SpiffeId) -> impl Iterator<Item = &HashMap<Selector, Vec<usize>>> {
        NodePattern::around(node).filter_map(|pattern| self.by_node.get(&pattern))
    }

    /// What a process is entitled to now by the entry of this name.
    pub fn entitled_to(&self, id: &str, workload: &Workload, now_seconds: u64) -> Option<Arc<Entry>> {
        self.get(id)?.entitled(workload, now_seconds)
    }

    /// Whether one of them ended between these two moments.
    pub(super) fn any_ended(&self, after_seconds: u64, until_seconds: u64) -> bool {
        let first = self.ends.partition_point(|end| *end <= after_seconds);
        self.ends.get(first).is_some_and(|end| *end <= until_seconds)
    }

    fn of(bounds: Bounds, mut all: Vec<Arc<Registered>>) -> Result<Self, Vec<BadEntry>> {
        if all.len() > MAX_ENTRIES {
            return Err(vec![BadEntry::TooMany]);
        }
        // Stable: of two with one name, the one that came later is the wrong one.
        all.sort_by(|one, other| one.id().cmp(other.id()));
        let pairs = all.iter().zip(all.iter().skip(1)).filter(|(one, other)| one.id() == other.id());
        let duplicates: Vec<BadEntry> = pairs
            .map(|(one, other)| BadEntry::Duplicate {
                origin: other.origin.clone(),
                id: other.id().to_owned(),
                other: one.origin.clone(),
            })
            .collect();
        let (mut errors, mut exchanging) = (duplicates, Exchanging::default());
        for entry in &all {
            if let Err(other) = exchanging.admit(entry) {
                let (origin, id) = (entry.origin.clone(), entry.id().to_owned());
                errors.push(BadEntry::ExchangesOtherwise { origin, id, other: other.into() });
            }
        }
        if errors.is_empty() { Ok(Self::indexed(bounds, all, exchanging)) } else { Err(errors) }
    }

    fn indexed(bounds: Bounds, all: Vec<Arc<Registered>>, exchanging: Exchanging) -> Self {
        let by_node = by_rarest_selector(&all);
        let mut ends: Vec<u64> = all.iter().filter_map(|entry| entry.entry.expires_at_seconds).collect();
        ends.sort_unstable();
        Self { bounds, all, by_node, ends, exchanging }
    }
}

/// Each once: an entry may name a node, and all of its cluster besides.
fn in_order(mut positions: Vec<usize>) -> Vec<usize> {
    positions.sort_unstable();
    positions.dedup();
    positions
}

fn by_rarest_selector(all: &[Arc<Registered>]) -> HashMap<NodePattern, HashMap<Selector, Vec<usize>>> {
    let mut counts: HashMap<&Selector, usize> = HashMap::new();
    for selector in all.iter().flat_map(|entry| &entry.entry.selectors) {
        *counts.entry(selector).or_default() += 1;
    }
    let mut by_node: HashMap<NodePattern, HashMap<Selector, Vec<usize>>> = HashMap::new();
    for (at, entry) in all.iter().enumerate() {
        let rarest = entry.entry.selectors.iter().min_by_key(|one| counts.get(one).copied());
        let Some(rarest) = rarest else { continue };
        for node in &entry.entry.nodes {
            by_node.entry(node.clone()).or_default().entry(rarest.clone()).or_default().push(at);
        }
    }
    by_node
}

/// The most entries that there can be.
pub const MAX_ENTRIES: usize = 100_000;
/// The most identities that one process gets.
pub const MAX_IDENTITIES: usize = 100;
