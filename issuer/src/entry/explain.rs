//! Why a process is entitled to an entry, or not.

use spiffe::SpiffeId;
use std::sync::Arc;

use super::{
    Entries, Registered,
    template::{NotFilled, Placeholder},
};
use crate::workload::{Selector, Workload};

/// One entry, and what it says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The entry.
    pub entry: Arc<Registered>,
    /// Whether it entitles.
    pub verdict: Verdict,
}

/// Whether an entry entitles a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does, to this ID.
    Entitled(SpiffeId),
    /// It does not, for each of these reasons.
    NotEntitled(Vec<Reason>),
}

/// Why an entry does not entitle a process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is for other nodes.
    #[error("it is for other nodes than {0}")]
    OtherNode(SpiffeId),
    /// Its time is over.
    #[error("it has ended")]
    Ended,
    /// This is not true of the process.
    #[error("the process is not {0}")]
    Missing(Selector),
    /// Its ID is made of what is true of a process outside containers.
    #[error("its ID is a template, and the process runs in a container")]
    InContainer,
    /// Its ID cannot be made.
    #[error("{{{}:{}}} has not one value", .0.0, .0.1)]
    NoSingleValue(Placeholder),
    /// Its ID cannot be made.
    #[error("the value of {{{}:{}}} cannot stand in a SPIFFE ID", .0.0, .0.1)]
    Unusable(Placeholder),
    /// Its ID cannot be made.
    #[error("its ID would be longer than 2048 bytes")]
    TooLong,
}

impl Entries {
    /// What each entry says of a process: those that entitle it first, then those that lack least; at most so many.
    pub fn explain(&self, workload: &Workload, now_seconds: u64, at_most: usize) -> Vec<Explained> {
        let mut all: Vec<Explained> = self
            .iter()
            .map(|entry| Explained {
                entry: Arc::clone(entry),
                verdict: entry.verdict(workload, now_seconds),
            })
            .collect();
        all.sort_by_key(|explained| match &explained.verdict {
            Verdict::Entitled(_) => 0,
            Verdict::NotEntitled(reasons) => reasons.len(),
        });
        all.truncate(at_most);
        all
    }
}

impl Registered {
    /// What it says of a process.
    pub fn verdict(&self, workload: &Workload, now_seconds: u64) -> Verdict {
        if let Some(entry) = self.entitled(workload, now_seconds) {
            return Verdict::Entitled(entry.spiffe_id.clone());
        }
        let mut reasons = Vec::new();
        if !self.entry.is_for(workload.node()) {
            reasons.push(Reason::OtherNode(workload.node().clone()));
        }
        if self.entry.has_ended(now_seconds) {
            reasons.push(Reason::Ended);
        }
        reasons.extend(self.entry.selectors.difference(workload.selectors()).cloned().map(Reason::Missing));
        match self.template.as_ref().map(|template| template.fill(workload)) {
            Some(Err(NotFilled::InContainer)) => reasons.push(Reason::InContainer),
            Some(Err(NotFilled::NoSingleValue(which))) => reasons.push(Reason::NoSingleValue(which)),
            Some(Err(NotFilled::Unusable(which))) => reasons.push(Reason::Unusable(which)),
            Some(Err(NotFilled::TooLong)) => reasons.push(Reason::TooLong),
            Some(Ok(_)) | None => {}
        }
        Verdict::NotEntitled(reasons)
    }
}
